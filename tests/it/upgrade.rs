//! A new process takes the listeners over, while the old one finishes its calls. No request and no call
//! is lost.

use std::collections::VecDeque;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::drain::{Call, call, is_alive};
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
                    std::thread::sleep(Duration::from_millis(2));
                }
                asked
            })
        };
        let threads = vec![
            visitor("/page", 200),
            visitor("/healthz", 200),
            visitor("/ws/twilio-media", 426),
            slow_lines(port, stop.clone()),
            kept_line(port, stop.clone()),
        ];
        Visitors { stop, threads }
    }

    /// How many requests were answered; all of them were.
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().map(|thread| thread.join().expect("a request was lost")).sum()
    }
}

/// Connections whose request comes half a second after them: as over a slow line, or behind a TLS
/// handshake. One that this machine itself has made far slower says nothing.
fn slow_lines(port: u16, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    const SLOW: Duration = Duration::from_millis(500);
    std::thread::spawn(move || {
        let mut under_way = VecDeque::new();
        let mut answered = 0;
        while !stop.load(Ordering::SeqCst) {
            under_way.push_back((Instant::now(), Wire::to(port)));
            std::thread::sleep(Duration::from_millis(10));
            while let Some((since, mut wire)) = under_way.pop_front_if(|(since, _)| since.elapsed() >= SLOW) {
                let sent = wire.try_send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
                let (status, late) = (wire.head(), since.elapsed());
                let well = sent && status.starts_with("HTTP/1.1 200 ");
                assert!(well || late > SLOW * 3, "a request {late:?} after its connection: {status:?}");
                answered += usize::from(well);
            }
        }
        answered
    })
}

/// A connection that is kept from request to request, until it is told that it will be closed.
fn kept_line(port: u16, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    std::thread::spawn(move || {
        let (mut wire, mut answered) = (Wire::to(port), 0);
        while !stop.load(Ordering::SeqCst) {
            wire.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
            let answer = wire.answer();
            assert_eq!(answer.status(), 200, "on a connection that was kept");
            answered += 1;
            if answer.header("connection").is_some_and(|connection| connection.eq_ignore_ascii_case("close"))
            {
                wire = Wire::to(port);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        answered
    })
}

fn upgrade(gateway: &Gateway) -> String {
    let (file, before) = (gateway.config_file(), gateway.events("STARTED").len());
    let done = run(env!("CARGO_BIN_EXE_voxgate"), &["upgrade", "--config", file.to_str().unwrap()]);
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}");
    // Who is known by its line ends with the test.
    gateway.event("STARTED", before);
    said
}

/// Asks whichever process answers to read its configuration again: so many it has read then.
fn reload(gateway: &Gateway, generation: u64) {
    let (status, said) = gateway.admin_post("/reload");
    assert_eq!((status, said), (200, format!("generation {generation} counts\n")));
}

fn started(gateway: &Gateway, nth: usize) -> String {
    gateway.event("STARTED", nth)["pid"].to_string()
}

/// Small, what `tests/bench/operate.sh` does with hundreds of calls.
#[test]
fn no_request_and_no_call_is_lost_by_reloads_upgrades_and_a_stop() {
    let app = TcpApp::polite();
    let mut gateway = Gateway::echo(app.port);
    let visitors = Visitors::start(gateway.port);
    let mut begun = 0;
    let mut calls = |gateway: &Gateway, number: usize| -> Vec<Call> {
        let new = (begun..begun + number).map(|nth| call(gateway, nth)).collect();
        begun += number;
        new
    };
    let alive = |calls: &mut [Call], word: u8| calls.iter_mut().for_each(|call| is_alive(call, word));
    let hang_up = |calls: Vec<Call>| {
        for mut call in calls {
            call.close(None).unwrap();
            while call.read().is_ok() {}
        }
    };
    let mut first = calls(&gateway, 6);
    alive(&mut first, 1);
    reload(&gateway, 2);

    let said = upgrade(&gateway);
    let second = started(&gateway, 1);
    assert_eq!(said, format!("process {second} takes over; this one ends with its last call\n"));
    // A monitor never gets to see the old one again, whose calls these are.
    for _ in 0..50 {
        assert_eq!(gateway.metric("voxgate_calls_active"), 0.0, "of the new process");
    }
    reload(&gateway, 2);
    // Once the old one has closed its listeners, whatever comes in is the new one's.
    gateway.event("DRAIN_START", 0);
    let mut later = calls(&gateway, 3);
    alive(&mut later, 1);
    alive(&mut first, 2);
    assert_eq!(gateway.metric("voxgate_calls_active"), 3.0);
    assert_eq!(gateway.admin_get("/readyz").0, 200);
    assert!(gateway.is_running(), "its calls go on");
    hang_up(first);
    assert!(gateway.ended().success());

    // The new one can be followed too.
    upgrade(&gateway);
    let third = started(&gateway, 2);
    assert_ne!(third, second);
    gateway.event("DRAIN_START", 1);
    alive(&mut later, 2);
    hang_up(later);
    gateway.event("DRAIN_END", 1);
    reload(&gateway, 2);
    let mut last = calls(&gateway, 3);
    alive(&mut last, 1);
    run("kill", &[&third]);
    gateway.event("DRAIN_START", 2);
    alive(&mut last, 2);
    // Whoever is in front stops asking while the gateway drains.
    let asked = visitors.stop();
    hang_up(last);
    gateway.event("DRAIN_END", 2);
    assert!(asked > 200, "{asked} requests say little");
    let stops = gateway.events("WS_STOP");
    assert_eq!((gateway.events("WS_START").len(), stops.len()), (12, 12));
    assert!(stops.iter().all(|stop| stop["reason"] == "ws_lost" && stop["turns"] == 2), "{stops:?}");
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
    until("the reason in the log", || gateway.noise().iter().any(complaint).then_some(()));
    // The same by signal.
    gateway.signal("QUIT");
    gateway.event("UPGRADE_FAILED", 1);
    is_alive(&mut call, 1);
    assert!(gateway.is_running());
    assert_eq!(gateway.admin_get("/readyz").0, 200);
    assert_eq!(Wire::ask(gateway.port, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status(), 200);
}

/// Where names cannot be looked up for the moment, the process before knows what they meant.
#[test]
fn a_successor_that_knows_no_address_of_the_app_takes_nothing_over() {
    let app = TcpApp::polite();
    let name = format!("localhost:{}", app.port);
    let mut gateway = Gateway::start(&format!("[upstreams.app]\nservers = [\"{name}\"]\n"));
    let before = fs::read_to_string(gateway.config_file()).unwrap();
    fs::write(gateway.config_file(), before.replace(&name, "nobody.invalid:5000")).unwrap();
    let (status, said) = gateway.admin_post("/upgrade");
    assert_eq!(status, 409);
    assert!(said.starts_with("not upgraded: the new process has ended (exit status: 1)"), "{said}");
    let why = "no address is known of nobody.invalid:5000 in [upstreams.app]";
    until(why, || gateway.noise().iter().any(|line| line.contains(why)).then_some(()));
    assert!(gateway.is_running());
    // One that is found beside it is enough.
    let both = format!("{name}\", \"nobody.invalid:5000");
    fs::write(gateway.config_file(), before.replace(&name, &both)).unwrap();
    upgrade(&gateway);
    assert_eq!(Wire::ask(gateway.port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").status(), 200);
}

/// It would wait for an address that it is not given, and nobody would be heard meanwhile.
#[test]
fn a_successor_takes_no_address_that_somebody_else_listens_on() {
    let mut gateway = Gateway::echo(free_port());
    let mut call = call(&gateway, 0);
    let before = fs::read_to_string(gateway.config_file()).unwrap();
    let somebody_else = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = somebody_else.local_addr().unwrap();
    let at = |port: u16| before.replace(&format!("127.0.0.1:{port}"), &taken.to_string());
    let state = gateway.config_file().with_file_name("acme");
    let acme = format!(
        "\n[server.acme]\nnames = [\"bot.example.com\"]\nemail = \"x@example.com\"\naccept_terms = true\nlisten = \"{taken}\"\n\
         directory = \"https://127.0.0.1:{}/dir\"\nfolder = {state:?}\n",
        free_port()
    );
    let changes = [
        ("[server] listen", at(gateway.port)),
        ("[admin] listen", at(gateway.admin)),
        ("[server.acme] listen", format!("{before}{acme}")),
    ];
    for (nth, (key, config)) in changes.into_iter().enumerate() {
        fs::write(gateway.config_file(), config).unwrap();
        let (status, said) = gateway.admin_post("/upgrade");
        assert_eq!(
            (status, said.as_str()),
            (409, "not upgraded: the new process has ended (exit status: 1); the log says why\n"),
            "{key}"
        );
        gateway.event("UPGRADE_FAILED", nth);
        let why = format!("{key} = \"{taken}\" cannot be listened on: Address already in use");
        until(&why, || gateway.noise().iter().any(|line| line.contains(&why)).then_some(()));
        assert!(gateway.is_running());
        assert_eq!(gateway.admin_get("/readyz").0, 200);
    }
    is_alive(&mut call, 1);
    assert_eq!(Wire::ask(gateway.port, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status(), 200);

    // An address of its own is nobody's business, and what it is given it may take.
    drop(somebody_else);
    fs::write(gateway.config_file(), at(gateway.port)).unwrap();
    assert_eq!(gateway.admin_post("/upgrade").0, 200);
    until("the new address", || TcpStream::connect(taken).is_ok().then_some(()));
    assert_eq!(Wire::ask(taken.port(), "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status(), 200);
    is_alive(&mut call, 2);
}

/// Versions of the program, and a symbolic link that leads to one of them.
struct Versions(PathBuf);

impl Versions {
    fn new(name: &str) -> Versions {
        // Beside the program: a hard link leads to no other file system.
        let folder = format!("voxgate-{name}-{}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
        fs::create_dir_all(&folder).unwrap();
        Versions(folder.canonicalize().unwrap())
    }

    /// The same program under another name.
    fn add(&self, name: &str) -> PathBuf {
        let version = self.0.join(name);
        fs::hard_link(env!("CARGO_BIN_EXE_voxgate"), &version).unwrap();
        version
    }

    fn link(&self) -> PathBuf {
        self.0.join("voxgate")
    }

    fn lead_to(&self, version: &Path) {
        let new = self.0.join("new");
        symlink(version, &new).unwrap();
        fs::rename(new, self.link()).unwrap();
    }
}

impl Drop for Versions {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_link_that_leads_to_a_new_version_starts_that() {
    let versions = Versions::new("link");
    let [first, second, third] = ["1.2", "1.3", "1.4"].map(|name| versions.add(name));
    versions.lead_to(&first);
    let mut gateway = Gateway::called(&versions.link());
    let runs = |pid: &str| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(runs(&started(&gateway, 0)), first);
    versions.lead_to(&second);
    upgrade(&gateway);
    assert_eq!(runs(&started(&gateway, 1)), second);
    assert!(gateway.ended().success());
    // The successor knows its name too.
    versions.lead_to(&third);
    upgrade(&gateway);
    assert_eq!(runs(&started(&gateway, 2)), third);
}

/// With the main process of a service, which is the newest, systemd kills all others.
#[test]
fn who_is_stopped_stays_until_its_predecessors_last_call_has_ended() {
    let mut gateway = Gateway::echo(free_port());
    let mut call = call(&gateway, 0);
    upgrade(&gateway);
    gateway.event("DRAIN_START", 0);
    // Nor does one in between leave its predecessor, once it has a successor itself.
    upgrade(&gateway);
    let [second, third] = [1, 2].map(|nth| started(&gateway, nth));
    let waits = |nth: usize| gateway.event("DRAIN_WAITS", nth)["predecessor"].to_string();
    assert_eq!(waits(0), gateway.pid().to_string());
    run("kill", &[&third]);
    assert_eq!(waits(1), second);
    assert_eq!(gateway.admin_get("/readyz").0, 503);
    is_alive(&mut call, 1);
    assert!(gateway.events("DRAIN_END").is_empty());
    call.close(None).unwrap();
    while call.read().is_ok() {}
    assert!(gateway.ended().success());
    gateway.event("DRAIN_END", 2);
    until("all to be gone", || TcpStream::connect(("127.0.0.1", gateway.admin)).is_err().then_some(()));
    assert_eq!(gateway.events("DRAIN_OVER").len(), 0);
    assert_eq!(gateway.noise(), Vec::<String>::new());
}

#[test]
fn who_is_stopped_twice_does_not_wait_for_its_predecessor() {
    let mut gateway = Gateway::echo(free_port());
    let mut call = call(&gateway, 0);
    upgrade(&gateway);
    gateway.event("DRAIN_START", 0);
    let successor = started(&gateway, 1);
    run("kill", &[&successor]);
    gateway.event("DRAIN_WAITS", 0);
    run("kill", &[&successor]);
    let end = gateway.event("DRAIN_END", 0);
    assert!(end["seconds"].as_u64().unwrap() < 3, "{end}");
    is_alive(&mut call, 1);
    assert!(gateway.is_running());
}

#[test]
fn who_is_stopped_waits_for_its_predecessor_as_long_as_for_calls() {
    let mut gateway = Gateway::start_with("", "drain = \"1s\"\ndrain_goodbye = \"\"", &[]);
    upgrade(&gateway);
    let successor = started(&gateway, 1);
    // One that hangs.
    gateway.signal("STOP");
    run("kill", &[&successor]);
    assert_eq!(gateway.event("DRAIN_WAITS", 0)["predecessor"], gateway.pid());
    assert_eq!(gateway.event("DRAIN_OVER", 0)["calls"], 0);
    let end = gateway.event("DRAIN_END", 0);
    assert!(end["seconds"].as_u64().unwrap() >= 1, "{end}");
    assert!(gateway.is_running());
}

/// It would never let go of its sockets, and its successor would wait for them in vain.
#[test]
fn who_is_stopped_while_its_successor_comes_up_has_none() {
    let versions = Versions::new("slow");
    versions.lead_to(&versions.add("1.2"));
    let mut gateway = Gateway::called(&versions.link());
    let mut call = call(&gateway, 0);
    // One that takes its time.
    let slow = versions.0.join("slow");
    fs::write(&slow, "#!/bin/sh\necho $$ >&2\nexec sleep 25\n").unwrap();
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
    versions.lead_to(&slow);
    std::thread::scope(|scope| {
        let upgraded = scope.spawn(|| gateway.admin_post("/upgrade"));
        let pid = until("the successor", || gateway.log().iter().find_map(serde_json::Value::as_u64));
        gateway.signal("TERM");
        assert_eq!(upgraded.join().unwrap(), (409, "not upgraded: this process is going down\n".into()));
        until("it to be gone", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    });
    gateway.event("UPGRADE_FAILED", 0);
    is_alive(&mut call, 1);
    call.close(None).unwrap();
    while call.read().is_ok() {}
    assert!(gateway.ended().success());
    gateway.event("DRAIN_END", 0);
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
    // For an app that is not there yet: it must not end who waits for it.
    let successor = started(&gateway, 1);
    run("kill", &["-USR1", &successor]);
    first.close(None).unwrap();
    while first.read().is_ok() {}
    assert!(gateway.ended().success());
    let app = gateway.event("CHILD_STARTED", 1)["pid"].to_string();
    answers(&gateway);
    let environment = fs::read(format!("/proc/{app}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(environment.contains("PORT=") && !environment.contains("UPGRADE"), "{environment}");
    let second = started(&gateway, 1);
    run("kill", &[&second]);
    gateway.event("CHILD_STOPPED", 1);
}
