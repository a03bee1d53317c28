//! A new process takes the listeners over, while the old one finishes its calls. No request and no call
//! is lost.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::drain::{call, is_alive};
use crate::world::{Gateway, TcpApp, Wire, free_port, run, until};

/// Requests without a pause, each on a connection of its own, until it is told to stop.
struct Visitors {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<usize>>,
}

impl Visitors {
    fn start(port: u16) -> Visitors {
        let stop = Arc::new(AtomicBool::new(false));
        let visitor = |path: &'static str, status: u16| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut asked = 0;
                while !stop.load(Ordering::SeqCst) {
                    let answer = Wire::ask(port, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
                    assert_eq!(answer.status(), status, "{path}: {}", answer.head);
                    asked += 1;
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                asked
            })
        };
        let threads = vec![visitor("/page", 200), visitor("/healthz", 200), visitor("/ws/twilio-media", 426)];
        Visitors { stop, threads }
    }

    /// How many requests were answered; all of them were.
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().map(|thread| thread.join().expect("a request was lost")).sum()
    }
}

fn upgrade(gateway: &Gateway) -> String {
    let file = gateway.config_file();
    let done = run(env!("CARGO_BIN_EXE_voxgate"), &["upgrade", "--config", file.to_str().unwrap()]);
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}");
    said
}

fn started(gateway: &Gateway, nth: usize) -> String {
    gateway.event("STARTED", nth)["pid"].to_string()
}

#[test]
fn no_request_and_no_call_is_lost() {
    let app = TcpApp::polite();
    let mut gateway = Gateway::echo(app.port);
    let visitors = Visitors::start(gateway.port);
    let mut first = call(&gateway, 0);
    is_alive(&mut first, 1);

    let said = upgrade(&gateway);
    let second = started(&gateway, 1);
    assert_eq!(said, format!("process {second} takes over; this one ends with its last call\n"));
    // Once the old one has closed its listeners, whatever comes in is the new one's.
    gateway.event("DRAIN_START", 0);
    let mut later = call(&gateway, 1);
    is_alive(&mut later, 1);
    is_alive(&mut first, 2);
    assert_eq!(gateway.metric("voxgate_calls_active"), 1.0, "of the new process");
    assert_eq!(gateway.admin_get("/readyz").0, 200);
    assert!(gateway.is_running(), "its call goes on");
    first.close(None).unwrap();
    while first.read().is_ok() {}
    assert!(gateway.ended().success());

    // The new one can be followed too.
    upgrade(&gateway);
    assert_ne!(started(&gateway, 2), second);
    gateway.event("DRAIN_START", 1);
    is_alive(&mut later, 2);
    later.close(None).unwrap();
    while later.read().is_ok() {}
    gateway.event("DRAIN_END", 1);
    let mut last = call(&gateway, 2);
    is_alive(&mut last, 1);
    let asked = visitors.stop();
    assert!(asked > 300, "{asked} requests say little");
    assert_eq!(gateway.events("WS_START").len(), 3);
    assert_eq!(gateway.noise(), Vec::<String>::new());
}

#[test]
fn a_successor_that_does_not_come_up_costs_nothing() {
    let mut gateway = Gateway::echo(free_port());
    let mut call = call(&gateway, 0);
    fs::write(gateway.config_file(), "[server]\nlisten = 5\n").unwrap();
    let (status, said) = gateway.admin_post("/upgrade");
    assert_eq!(status, 409);
    assert!(said.starts_with("not upgraded: the new process has ended (exit status: 1)"), "{said}");
    let complaint = |line: &String| line.contains("`listen` in [server]");
    assert!(gateway.noise().iter().any(complaint), "the log says why: {:?}", gateway.noise());
    // The same by signal.
    gateway.signal("QUIT");
    gateway.event("UPGRADE_FAILED", 1);
    is_alive(&mut call, 1);
    assert!(gateway.is_running());
    assert_eq!(gateway.admin_get("/readyz").0, 200);
    assert_eq!(Wire::ask(gateway.port, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status(), 200);
}

#[test]
fn the_app_that_voxgate_started_changes_hands_with_the_last_call() {
    let app = free_port();
    let serve = format!(
        "exec {} -m http.server --bind 127.0.0.1 $PORT",
        crate::world::project().join(".venv/bin/python").display()
    );
    let config = format!("[upstreams.app]\nservers = [\"127.0.0.1:{app}\"]\n");
    let mut gateway = Gateway::with_app(&config, &["sh", "-c", &serve]);
    let answers = |gateway: &Gateway| {
        until("the app", || {
            (Wire::ask(gateway.port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").status() == 200).then_some(())
        });
    };
    answers(&gateway);
    let mut first = call(&gateway, 0);
    upgrade(&gateway);
    gateway.event("DRAIN_START", 0);
    answers(&gateway);
    assert_eq!(gateway.events("CHILD_STARTED").len(), 1, "the old one's still serves");
    first.close(None).unwrap();
    while first.read().is_ok() {}
    assert!(gateway.ended().success());
    gateway.event("CHILD_STARTED", 1);
    answers(&gateway);
    let second = started(&gateway, 1);
    run("kill", &[&second]);
    gateway.event("CHILD_STOPPED", 1);
}
