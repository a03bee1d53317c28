//! What a package and a service manager want of the program.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};

use crate::drain::{call, is_alive};
use crate::world::{Gateway, SOON, free_port, project, run, until};

#[test]
fn systemd_is_told_who_is_ready_and_who_stops() {
    let path = std::env::temp_dir().join(format!("voxgate-notify-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(SOON)).unwrap();
    let told = || {
        let mut text = [0; 512];
        let length = systemd.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let mut gateway = Gateway::start_with("", "", &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    assert_eq!(told(), format!("READY=1\nMAINPID={}\n", gateway.pid()));
    // The successor is the main process; the old one stops nothing but itself.
    assert_eq!(gateway.admin_post("/upgrade").0, 200);
    let successor = gateway.event("STARTED", 1)["pid"].to_string();
    assert_eq!(told(), format!("READY=1\nMAINPID={successor}\n"));
    assert!(gateway.ended().success());
    run("kill", &[&successor]);
    assert_eq!(told(), "STOPPING=1\n");
    let _ = std::fs::remove_file(&path);
}

#[test]
fn the_program_prints_its_completions_and_its_manual() {
    let print = |args: &[&str]| {
        let done = run(env!("CARGO_BIN_EXE_voxgate"), args);
        assert!(done.status.success(), "{args:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish"] {
        assert!(print(&["completions", shell]).contains("upgrade"), "{shell}");
    }
    let page = print(&["man"]);
    assert!(page.contains(".TH voxgate 1") && page.contains("reload"), "{page}");
}

/// systemd's own wait is only for a main process that is its child, which a successor is not.
#[test]
fn the_units_stop_lasts_as_long_as_the_calls_do() {
    let unit = std::fs::read_to_string(project().join("deploy/voxgate.service")).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStop=/bin/sh -c '")).unwrap();
    let script = line.strip_suffix('\'').unwrap();
    assert!(
        !script.contains(['\'', '%']) && !script.contains("${"),
        "systemd would read it otherwise: {script}"
    );
    let stop = |pid: Option<u32>| -> Child {
        let mut sh = Command::new("/bin/sh");
        sh.args(["-c", script]).env_remove("MAINPID").envs(pid.map(|pid| ("MAINPID", pid.to_string())));
        sh.spawn().unwrap()
    };
    let mut gateway = Gateway::echo(free_port());
    let mut caller = call(&gateway, 0);
    let mut stopping = stop(Some(gateway.pid()));
    gateway.event("DRAIN_START", 0);
    is_alive(&mut caller, 1);
    assert!(stopping.try_wait().unwrap().is_none(), "it has not waited for the call");
    caller.close(None).unwrap();
    while caller.read().is_ok() {}
    assert!(gateway.ended().success());
    assert!(until("the stop to end", || stopping.try_wait().unwrap()).success());
    // Of a process that has ended by itself, systemd names none.
    assert!(
        until("the stop to end", {
            let mut none = stop(None);
            move || none.try_wait().unwrap()
        })
        .success()
    );
}

/// Where systemd is installed, it reads the unit too.
#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return;
    }
    let unit = std::fs::read_to_string(project().join("deploy/voxgate.service")).unwrap();
    let folder = std::env::temp_dir().join(format!("voxgate-unit-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("voxgate.service");
    std::fs::write(&file, unit.replace("/usr/bin/voxgate", env!("CARGO_BIN_EXE_voxgate"))).unwrap();
    let done = run("systemd-analyze", &["verify", "--man=no", file.to_str().unwrap()]);
    std::fs::remove_dir_all(&folder).unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && !said.contains("voxgate.service"), "{said}");
}

/// The commands that the unit names are commands of this program.
#[test]
fn the_unit_says_what_the_program_understands() {
    let unit = std::fs::read_to_string(project().join("deploy/voxgate.service")).unwrap();
    let command = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(&format!("{key}=/usr/bin/voxgate ")));
        line.unwrap().replace("/etc/voxgate/gateway.toml", "gateway.toml")
    };
    let check = command("ExecStartPre");
    let done = run(env!("CARGO_BIN_EXE_voxgate"), &check.split(' ').collect::<Vec<_>>());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(command("ExecStart").starts_with("run --config"));
}
