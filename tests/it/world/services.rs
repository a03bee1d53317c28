//! The real components of `tests/services`, as child processes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::{block_on, by_itself, free_port, until};

/// The project's folder.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn python() -> PathBuf {
    let python = project().join(".venv/bin/python");
    assert!(python.exists(), "run tests/setup.sh first: it makes .venv");
    python
}

/// Runs a program to its end.
pub fn run(program: impl AsRef<Path>, args: &[&str]) -> Output {
    let program = program.as_ref();
    let path = if program.components().count() > 1 { project().join(program) } else { program.into() };
    let path = if program == Path::new("python") { python() } else { path };
    let mut command = by_itself(Command::new(path));
    command.args(args).current_dir(project()).stdin(Stdio::null()).output().unwrap()
}

/// One of the servers of `tests/services`.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// `stt_server`, `tts_server` or `misbehaving`; waits until it is ready.
    pub fn start(name: &str) -> Server {
        Server::start_with(name, &[])
    }

    /// The same, with more arguments behind the port.
    pub fn start_with(name: &str, args: &[&str]) -> Server {
        Server::launch(&python(), &format!("tests/services/{name}.py"), args)
    }

    /// One that runs in Node: a file of `tests/node`.
    pub fn node(name: &str, args: &[&str]) -> Server {
        Server::launch(Path::new("node"), &format!("tests/node/{name}.mjs"), args)
    }

    fn launch(program: &Path, name: &str, args: &[&str]) -> Server {
        let port = free_port();
        let mut child = by_itself(Command::new(program))
            .arg(project().join(name))
            .arg(port.to_string())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready"));
        assert!(ready, "{name} did not start");
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, port }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// What the server has been asked.
    pub fn log(&self) -> Vec<Value> {
        get_json(&self.url("/log"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The legacy Flask app under gunicorn.
pub struct LegacyApp {
    child: Child,
    pub port: u16,
}

impl LegacyApp {
    pub fn start() -> LegacyApp {
        LegacyApp::start_at(free_port())
    }

    pub fn start_at(port: u16) -> LegacyApp {
        let child = by_itself(Command::new(project().join(".venv/bin/gunicorn")))
            .arg("-c")
            .arg(project().join("tests/services/gunicorn.conf.py"))
            .args(["-k", "gthread", "--threads", "16", "-w", "1", "-b", &format!("127.0.0.1:{port}")])
            .arg("legacy_app:app")
            .current_dir(project())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let app = LegacyApp { child, port };
        until("gunicorn to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        app
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What the agent was asked: `body`, `idempotency_key`, `repeat`, `headers`, in order.
    pub fn agent_log(&self) -> Vec<Value> {
        get_json(&self.url("/agent/log"))
    }
}

impl Drop for LegacyApp {
    fn drop(&mut self) {
        // gunicorn's master takes its worker with it on SIGTERM, not on SIGKILL.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn get_json(url: &str) -> Vec<Value> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    block_on(async {
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    })
}
