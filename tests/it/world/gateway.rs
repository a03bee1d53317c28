//! The gateway as a child process, with its log and its metrics.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::program::{by_itself, far_from_twilio};
use super::{free_port, until};

pub struct Gateway {
    child: Child,
    pub port: u16,
    pub admin: u16,
    log: Lines,
    folder: PathBuf,
    /// What it was started with.
    command: Command,
}

impl Gateway {
    /// Starts the gateway with a configuration, in which `{listen}` and `{admin}` need not stand: the
    /// sections `[server]`, `[log]` and `[admin]` are written here, the rest is `config`, which may
    /// begin with more keys for `[admin]`. Its callers are tones, which only loudness takes for speech.
    pub fn start(config: &str) -> Gateway {
        Gateway::start_with(config, "", &[])
    }

    /// The same, with more keys for `[server]` and with environment variables.
    pub fn start_with(config: &str, server_keys: &str, env: &[(&str, &str)]) -> Gateway {
        Gateway::launch(&told_by_loudness(config), server_keys, "transcripts = true", env, &[])
    }

    /// One that hears its callers as it is shipped: they have to speak.
    pub fn hearing_voices(config: &str, env: &[(&str, &str)]) -> Gateway {
        Gateway::launch(config, "", "transcripts = true", env, &[])
    }

    /// A gateway that keeps to itself what was said, as shipped, and tells everything else.
    pub fn discreet(config: &str) -> Gateway {
        Gateway::launch(config, "", "", &[("RUST_LOG", "info,voxgate=trace")], &[])
    }

    /// A gateway that starts its app itself.
    pub fn with_app(config: &str, command: &[&str]) -> Gateway {
        Gateway::launch(&told_by_loudness(config), "", "", &[], command)
    }

    /// Echo mode, by a program at this path.
    pub fn called(program: &Path) -> Gateway {
        Gateway::launch_as(program, &told_by_loudness(""), "", "transcripts = true", &[], &[])
    }

    fn launch(
        config: &str,
        server_keys: &str,
        log_keys: &str,
        env: &[(&str, &str)],
        app: &[&str],
    ) -> Gateway {
        // Another program than was built beside the tests: one to be measured, for instance.
        let program = std::env::var_os("VOXGATE").unwrap_or_else(|| env!("CARGO_BIN_EXE_voxgate").into());
        Gateway::launch_as(Path::new(&program), config, server_keys, log_keys, env, app)
    }

    fn launch_as(
        program: &Path,
        config: &str,
        server_keys: &str,
        log_keys: &str,
        env: &[(&str, &str)],
        app: &[&str],
    ) -> Gateway {
        let (written, admin) = (free_port(), free_port());
        let told = env.iter().find(|(name, _)| *name == "PORT").map(|(_, port)| port.parse().unwrap());
        let port = told.unwrap_or(written);
        let folder = std::env::temp_dir().join(format!("voxgate-test-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("gateway.toml");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:{written}\"\n{server_keys}\n\
             [log]\nformat = \"json\"\n{log_keys}\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n{}",
            far_from_twilio(config)
        );
        std::fs::write(&file, text).unwrap();
        let mut command = by_itself(Command::new(program));
        command
            .args(["run", "--config"])
            .arg(&file)
            .args(if app.is_empty() { None } else { Some("--") })
            .args(app)
            // With huge pages resident memory grows by megabytes for the first byte of each.
            .env("MIMALLOC_ALLOW_THP", "0")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let (child, log) = run(&mut command);
        let gateway = Gateway { child, port, admin, log, folder, command };
        gateway.listens();
        gateway
    }

    fn listens(&self) {
        until("the gateway to listen", || {
            let listening = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            (listening(self.port) && listening(self.admin)).then_some(())
        });
    }

    /// Kills the process, and starts another one as the first was started; its log begins anew.
    pub fn killed(&mut self) {
        self.signal("KILL");
        self.ended();
        (self.child, self.log) = run(&mut self.command);
        self.listens();
    }

    /// Echo mode, in front of an app at that port.
    pub fn echo(app: u16) -> Gateway {
        Gateway::start(&format!("[upstreams.app]\nservers = [\"127.0.0.1:{app}\"]\n"))
    }

    pub fn http(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn media(&self) -> String {
        format!("ws://127.0.0.1:{}/ws/twilio-media", self.port)
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.join("gateway.toml")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log so far: one JSON object a line; `message` is the name of the event.
    pub fn log(&self) -> Vec<Value> {
        self.log.lock().unwrap().clone()
    }

    /// The log's lines with this name.
    pub fn events(&self, name: &str) -> Vec<Value> {
        self.log().into_iter().filter(|line| line["message"] == name).collect()
    }

    /// Waits for a line with this name (the `nth`, from 0).
    pub fn event(&self, name: &str, nth: usize) -> Value {
        until(&format!("{name} in the log"), || self.events(name).get(nth).cloned())
    }

    /// Lines that are no events: a panic's, for instance.
    pub fn noise(&self) -> Vec<String> {
        self.log().iter().filter_map(|line| line.as_str().map(str::to_owned)).collect()
    }

    /// GET at the admin listener: status and body.
    pub fn admin_get(&self, path: &str) -> (u16, String) {
        super::block_on(async {
            let url = format!("http://127.0.0.1:{}{path}", self.admin);
            let response = reqwest_get(&url).await;
            (response.status().as_u16(), response.text().await.unwrap())
        })
    }

    /// POST at the admin listener, with nothing in it.
    pub fn admin_post(&self, path: &str) -> (u16, String) {
        let answer = super::Wire::ask(
            self.admin,
            &format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"),
        );
        (answer.status(), answer.text().to_owned())
    }

    /// The value of one series, as `/metrics` prints it: `voxgate_calls_active` or with labels.
    pub fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.admin_get("/metrics");
        let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == series));
        line.and_then(|line| line.rsplit_once(' ')).map_or(f64::NAN, |(_, value)| value.parse().unwrap())
    }

    /// Resident memory of its own in KiB: the pages of the program come as they are first used.
    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().count()
    }

    /// Open files, sockets included.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for the process to end.
    pub fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the gateway to end", || child.try_wait().unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

type Lines = Arc<Mutex<Vec<Value>>>;

fn run(command: &mut Command) -> (Child, Lines) {
    let mut child = command.spawn().unwrap();
    let log = Lines::default();
    let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), log.clone());
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            // What is no JSON is a panic or a mistake: kept, so that a test sees it.
            let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
            kept.lock().unwrap().push(value);
        }
    });
    (child, log)
}

async fn reqwest_get(url: &str) -> reqwest::Response {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::get(url).await.unwrap()
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for successor in self.events("STARTED").iter().skip(1) {
            let _ = Command::new("kill").args(["-KILL", &successor["pid"].to_string()]).output();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
        if std::thread::panicking() {
            eprintln!("---- the gateway's log ----");
            for line in self.log.lock().unwrap().iter() {
                eprintln!("{line}");
            }
        } else {
            self.log().iter().for_each(assert_named);
        }
    }
}

/// Every line of a call bears both of its names; a webhook comes before there is a stream.
fn assert_named(line: &Value) {
    let name = line["message"].as_str().unwrap_or_default();
    let has = |sid: &str| line[sid].as_str().is_some_and(|sid| !sid.is_empty());
    let is_webhook = ["INCOMING_CALL", "STREAM_ENDED", "CALL_TURNED_AWAY", "STREAM_STATUS"].contains(&name);
    let of_a_call = name.starts_with("AGENT_") || name == "FALLBACK" || has("call_sid");
    assert!(is_webhook || !of_a_call || has("call_sid") && has("stream_sid"), "{line}");
}

fn told_by_loudness(config: &str) -> String {
    match config.split_once("[turn]\n") {
        Some((before, keys)) => format!("{before}[turn]\nvad = \"rms\"\n{keys}"),
        None => format!("{config}\n[turn]\nvad = \"rms\"\n"),
    }
}
