//! `voxgate run -- COMMAND`: the app as a child. The real Flask app under gunicorn, killed and stopped.

use std::fs;

use serde_json::Value;

use crate::world::{Gateway, MediaStream, Wire, free_port, project, run, until};

fn config(port: u16) -> String {
    format!("[upstreams.app]\nservers = [\"127.0.0.1:{port}\"]\n")
}

/// The legacy app as an operator starts it: where it listens, only PORT tells it.
fn flask() -> Gateway {
    let gunicorn = project().join(".venv/bin/gunicorn");
    let settings = project().join("tests/services/gunicorn.conf.py");
    let command = [gunicorn.to_str().unwrap(), "-c", settings.to_str().unwrap(), "-k", "gthread", "-w", "2"];
    Gateway::with_app(&config(free_port()), &[&command[..], &["legacy_app:app"]].concat())
}

fn ask(gateway: &Gateway) -> u16 {
    Wire::ask(gateway.port, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n").status()
}

fn answers(gateway: &Gateway) {
    until("the app to answer", || (ask(gateway) == 200).then_some(()));
}

fn pid(started: &Value) -> u64 {
    started["pid"].as_u64().unwrap()
}

/// The processes of a group that are not dead yet.
fn members(group: u64) -> Vec<String> {
    let stat = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("stat")).ok();
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| stat(entry.unwrap()));
    let of_group = |stat: &String| {
        // pid (name) state parent group …
        let mut fields = stat.rsplit(") ").next().unwrap().split(' ');
        fields.next() != Some("Z") && fields.nth(1) == Some(&group.to_string())
    };
    all.filter(of_group).collect()
}

#[test]
fn an_app_that_dies_is_started_again_and_its_callers_are_told_meanwhile() {
    let gateway = flask();
    answers(&gateway);
    let first = gateway.event("CHILD_STARTED", 0);
    let said = |line: &Value| line["stream"] == "stdout" && line["line"] == "ready";
    until("its output", || gateway.events("CHILD_OUTPUT").iter().any(said).then_some(()));
    until("two workers", || (members(pid(&first)).len() == 3).then_some(()));

    run("kill", &["-KILL", &pid(&first).to_string()]);
    let exited = gateway.event("CHILD_EXITED", 0);
    assert_eq!(exited["status"], "signal: 9 (SIGKILL)", "{exited}");
    assert_eq!((&exited["level"], &exited["restart_in_ms"]), (&"WARN".into(), &500.into()), "{exited}");
    assert_eq!(members(pid(&first)), Vec::<String>::new(), "workers without a master");
    assert_eq!(ask(&gateway), 502, "nobody listens before half a second has passed");

    let second = gateway.event("CHILD_STARTED", 1);
    assert_ne!(pid(&first), pid(&second));
    answers(&gateway);
}

#[test]
fn the_app_goes_last() {
    let mut gateway = flask();
    answers(&gateway);
    let call = MediaStream::start(&gateway);
    gateway.event("WS_START", 0);
    let app = pid(&gateway.event("CHILD_STARTED", 0));
    gateway.signal("TERM");
    gateway.event("DRAIN_START", 0);
    answers(&gateway);
    drop(call);
    assert!(gateway.ended().success());
    assert_eq!(members(app), Vec::<String>::new());
    let order: Vec<_> =
        gateway.log().into_iter().filter_map(|line| Some(line["message"].as_str()?.to_owned())).collect();
    let at = |name: &str| order.iter().position(|event| event == name);
    assert!(at("DRAIN_END").is_some() && at("DRAIN_END") < at("CHILD_STOPPED"), "{order:?}");
    assert_eq!(gateway.noise(), Vec::<String>::new());
}

#[test]
fn signals_are_passed_on_and_long_lines_cut() {
    let port = free_port();
    let script = "trap 'echo reloaded' HUP; trap 'echo reopened >&2' USR1; trap 'echo second' USR2; \
                  printf 'x%.0s' $(seq 9000); echo; echo PORT=$PORT; while :; do sleep 0.05; done";
    let gateway = Gateway::with_app(&config(port), &["sh", "-c", script]);
    let says = |stream: &str, text: &str| {
        until(&format!("{text} on {stream}"), || {
            let lines = gateway.events("CHILD_OUTPUT");
            lines.iter().any(|line| line["stream"] == stream && line["line"] == text).then_some(())
        });
    };
    says("stdout", &"x".repeat(8192));
    says("stdout", &"x".repeat(9000 - 8192));
    says("stdout", &format!("PORT={port}"));
    for (signal, stream, text) in
        [("HUP", "stdout", "reloaded"), ("USR1", "stderr", "reopened"), ("USR2", "stdout", "second")]
    {
        gateway.signal(signal);
        says(stream, text);
    }
}

#[test]
fn an_app_that_cannot_be_started_is_told_at_once() {
    let file = std::env::temp_dir().join(format!("voxgate-child-{}.toml", std::process::id()));
    let listen = free_port();
    let text = |app| format!("[server]\nlisten = \"127.0.0.1:{listen}\"\n{}", config(app));
    for (app, why) in [
        (free_port(), "voxgate: the app: no-such-program cannot be started: No such file or directory"),
        (
            listen,
            &*format!(
                "voxgate: [upstreams.app] servers: the app would listen on port {listen}, where the gateway does"
            ),
        ),
    ] {
        fs::write(&file, text(app)).unwrap();
        let args = ["run", "--config", file.to_str().unwrap(), "--", "no-such-program"];
        let done = run(env!("CARGO_BIN_EXE_voxgate"), &args);
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(said.lines().any(|line| line.starts_with(why)), "{said}");
        assert_eq!(done.status.code(), Some(1));
    }
    fs::remove_file(&file).unwrap();
}
