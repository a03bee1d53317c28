//! The configuration changes under live calls: by signal, by the file, by the admin listener. A call
//! keeps what it began with, and a file with a problem changes nothing.

use std::fs;

use serde_json::Value;
use tokio_tungstenite::tungstenite::Error;

use crate::drain::{call, is_alive};
use crate::world::{Gateway, MediaStream, TcpApp, Wire, free_port, until};

fn app(port: u16) -> String {
    format!("[upstreams.app]\nservers = [\"127.0.0.1:{port}\"]\n")
}

/// An app that answers with its name.
fn named(name: &'static str) -> TcpApp {
    TcpApp::start(move |_, wire| {
        wire.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{name}",
            name.len()
        ));
    })
}

fn answer(gateway: &Gateway) -> String {
    Wire::ask(gateway.port, "GET /page HTTP/1.1\r\nHost: x\r\n\r\n").text().to_owned()
}

/// Changes the configuration; the file changes in one step.
fn rewrite(gateway: &Gateway, change: impl Fn(&str) -> String) {
    let file = gateway.config_file();
    let text = change(&fs::read_to_string(&file).unwrap());
    fs::write(file.with_extension("new"), text).unwrap();
    fs::rename(file.with_extension("new"), file).unwrap();
}

fn is_generation(gateway: &Gateway, generation: f64, sound: bool) {
    assert_eq!(gateway.metric("voxgate_config_generation"), generation);
    assert_eq!(gateway.metric("voxgate_config_last_reload_successful"), f64::from(u8::from(sound)));
}

#[test]
fn requests_are_the_new_ones_and_calls_keep_what_they_began_with() {
    let (first, second, third) = (named("first"), named("second"), named("third"));
    let gateway = Gateway::start(&format!("{}[turn]\neou_ms = 400\n", app(first.port)));
    is_generation(&gateway, 1.0, true);
    assert!(gateway.metric("voxgate_config_last_reload_success_timestamp_seconds") > 1.7e9);
    let mut early = call(&gateway, 0);
    is_alive(&mut early, 1);
    assert_eq!(answer(&gateway), "first");

    // By the file itself. What follows is longer than `is_alive` is silent for.
    let port = |text: &str, port: u16| text.replace(&first.port.to_string(), &port.to_string());
    rewrite(&gateway, |text| port(text, second.port).replace("eou_ms = 400", "eou_ms = 5000"));
    let told = gateway.event("CONFIG_RELOADED", 0);
    assert_eq!((&told["generation"], &told["level"]), (&2.into(), &"INFO".into()), "{told}");
    assert_eq!(answer(&gateway), "second");
    is_generation(&gateway, 2.0, true);
    is_alive(&mut early, 2);
    let turns = |sid: &str| {
        let of = |line: &&Value| line["call_sid"] == sid && line["to"] == "THINKING";
        gateway.events("STATE").iter().filter(of).count()
    };
    let mut late = call(&gateway, 1);
    speaks(&mut late);
    is_alive(&mut early, 3);
    assert_eq!((turns("CA0"), turns("CA1")), (3, 0), "600 ms of silence end a turn of the early call only");

    // By the admin listener, and by signal.
    rewrite(&gateway, |text| text.replace(&second.port.to_string(), &third.port.to_string()));
    let (status, said) = gateway.admin_post("/reload");
    assert_eq!((status, said.as_str()), (200, "generation 3 counts\n"));
    assert_eq!(answer(&gateway), "third");
    gateway.signal("HUP");
    until("a reload", || (gateway.metric("voxgate_config_generation") >= 4.0).then_some(()));
    is_alive(&mut early, 4);
    assert_eq!(gateway.metric("voxgate_calls_active"), 2.0);
    assert_eq!(gateway.noise(), Vec::<String>::new());
}

/// 200 ms of sound and 600 ms of silence; waits for nothing.
fn speaks(call: &mut crate::drain::Call) {
    for (byte, frames) in [(1, 10), (0xff, 30)] {
        for _ in 0..frames {
            call.send(crate::drain::media(byte)).unwrap();
        }
    }
}

#[test]
fn a_file_with_a_problem_changes_nothing_and_is_told_of_with_all_of_them() {
    let first = named("first");
    let gateway = Gateway::echo(first.port);
    let sound = fs::read_to_string(gateway.config_file()).unwrap();
    rewrite(&gateway, |text| text.replace("[turn]\n", "[turn]\neou_ms = 1\nvad_rmss = 5\n"));
    let told = gateway.event("CONFIG_NOT_RELOADED", 0);
    let why = told["why"].as_str().unwrap();
    assert!(why.contains("`1` is too small") && why.contains("did you mean `vad_rms`?"), "{why}");
    assert_eq!(told["level"], "ERROR");
    is_generation(&gateway, 1.0, false);
    assert_eq!(answer(&gateway), "first");
    let (status, said) = gateway.admin_post("/reload");
    assert_eq!(status, 422);
    assert!(said.contains("`eou_ms` in [turn]: `1` is too small"), "{said}");
    rewrite(&gateway, |_| sound.clone());
    gateway.event("CONFIG_RELOADED", 0);
    is_generation(&gateway, 2.0, true);
}

#[test]
fn what_only_a_restart_changes_is_told_by_name() {
    let (first, second) = (named("first"), named("second"));
    let gateway = Gateway::echo(first.port);
    let other = free_port();
    rewrite(&gateway, |text| {
        text.replace(
            &format!("listen = \"127.0.0.1:{}\"", gateway.port),
            &format!("listen = \"127.0.0.1:{other}\""),
        )
        .replace(&first.port.to_string(), &second.port.to_string())
        .replace("format = \"json\"", "format = \"text\"")
    });
    let told = gateway.event("CONFIG_RELOADED", 0);
    assert_eq!(
        (&told["needs_restart"], &told["level"]),
        (&"[server] listen, [log] format".into(), &"WARN".into())
    );
    assert_eq!(answer(&gateway), "second", "the rest counts");
    let (_, said) = gateway.admin_post("/reload");
    assert_eq!(
        said,
        "generation 3 counts; changed, but only after a restart: [server] listen, [log] format\n"
    );
}

/// The file is sound, since it listens on loopback; the process still listens where it did.
#[test]
fn a_public_admin_listener_keeps_its_token_until_it_has_gone() {
    let mut gateway = Gateway::start("token = \"s3cret\"");
    let (local, public) = (format!("127.0.0.1:{}", gateway.admin), format!("0.0.0.0:{}", gateway.admin));
    rewrite(&gateway, |text| text.replace(&local, &public));
    gateway.killed();
    let status = |request: &str, token: &str| {
        let request = format!("{request} HTTP/1.1\r\nHost: 127.0.0.1\r\n{token}Content-Length: 0\r\n\r\n");
        Wire::ask(gateway.admin, &request).status()
    };
    assert_eq!(status("GET /metrics", ""), 401);
    rewrite(&gateway, |text| text.replace(&public, &local).replace("token = \"s3cret\"", ""));
    let told = gateway.event("CONFIG_RELOADED", 0);
    let needs_restart = "[admin] listen, [admin] token";
    assert_eq!((&told["needs_restart"], &told["level"]), (&needs_restart.into(), &"WARN".into()), "{told}");
    assert_eq!((status("GET /metrics", ""), status("POST /reload", "")), (401, 401));
    assert_eq!(status("POST /reload", "Authorization: Bearer s3cret\r\n"), 200);
    assert_eq!(status("GET /metrics", ""), 401, "and after another one");
}

/// Whatever it is of `[twilio]` that has changed.
#[test]
fn who_is_between_webhook_and_stream_is_let_in_after_a_reload_and_nobody_twice() {
    let config = "[twilio]\ntwiml = \"serve\"\ntoken = \"enforce\"\n";
    let gateway = Gateway::start_with(config, "public_url = \"https://bot.example.com\"", &[]);
    let stream = |call_sid: &str| {
        let form = format!("CallSid={call_sid}");
        let length = form.len();
        let answer = Wire::ask(
            gateway.port,
            &format!(
                "POST /webhook/incoming_call HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}"
            ),
        );
        let (_, url) = answer.text().split_once("\"wss://bot.example.com").expect("a stream");
        url.split_once('"').expect("its end").0.to_owned()
    };
    let (used, waiting) = (stream("CA1"), stream("CA2"));
    drop(MediaStream::try_open_at(&gateway, &used).expect("let in"));
    rewrite(&gateway, |text| text.replace("[twilio]\n", "[twilio]\nbusy_twiml = \"\"\n"));
    gateway.event("CONFIG_RELOADED", 0);
    let refused = |path: &str| match MediaStream::try_open_at(&gateway, path) {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("{other}"),
        Ok(_) => 101,
    };
    assert_eq!((refused(&used), refused(&waiting), refused(&waiting)), (403, 101, 403));
}
