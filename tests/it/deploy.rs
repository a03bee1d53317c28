//! What a package and a service manager want of the program.

use std::os::unix::net::UnixDatagram;

use crate::world::{Gateway, SOON, project, run};

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
