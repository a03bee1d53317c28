//! Handing the listening sockets to a successor: the program as it was called, started with the same
//! arguments, which is a new version by then. The sockets go only once it waits for them, so that one
//! that does not come up costs nothing. Both accept for a few seconds; then this process finishes what
//! it has, and ends.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::predecessor;

/// How long a successor may take until it waits for the sockets.
const READY: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);
/// Why a process that drains has no successor.
pub(super) const GOING_DOWN: &str = "this process is going down";
/// What the system takes as the path of a socket.
const LONGEST_PATH: usize = 100;

pub(super) struct Upgrade {
    program: std::io::Result<PathBuf>,
    args: Vec<OsString>,
    /// In a folder of its own: Pingora lets everybody write to the socket.
    socket: PathBuf,
    /// The addresses of the sockets that are handed over.
    listeners: Vec<SocketAddr>,
    one_at_a_time: Mutex<()>,
    handed_over: watch::Sender<bool>,
    sockets_sent: watch::Sender<bool>,
}

impl Upgrade {
    pub(super) fn new(listeners: Vec<SocketAddr>) -> Upgrade {
        let folder = || std::env::temp_dir().join(format!("voxgate-{}", std::process::id()));
        Upgrade {
            // Now: the path of a file that was replaced is told otherwise later.
            program: program(),
            args: std::env::args_os().skip(1).collect(),
            socket: predecessor::socket().unwrap_or_else(|| folder().join("upgrade")),
            listeners,
            one_at_a_time: Mutex::new(()),
            handed_over: watch::Sender::new(false),
            sockets_sent: watch::Sender::new(false),
        }
    }

    pub(super) fn socket(&self) -> String {
        self.socket.display().to_string()
    }

    /// Starts the successor, and waits until it can take over: its process id. Where this process has begun to
    /// go down by then, it does not let go of its sockets any more.
    pub(super) async fn begin(&self, goes_down: impl Fn() -> bool + Sync) -> Result<u32, String> {
        let Ok(_one) = self.one_at_a_time.try_lock() else {
            return Err("an upgrade is under way already".into());
        };
        let begun = if self.has_handed_over() {
            Err("this process has handed over already".to_owned())
        } else {
            self.successor(&goes_down).await
        };
        match &begun {
            Ok(pid) => {
                info!(successor = pid, "UPGRADE");
                self.handed_over.send_replace(true);
            }
            Err(why) => warn!(why, "UPGRADE_FAILED"),
        }
        begun
    }

    async fn successor(&self, goes_down: &(impl Fn() -> bool + Sync)) -> Result<u32, String> {
        // With the first process of a container all others end.
        if std::process::id() == 1 {
            return Err("this process is its container's first: start another container".to_owned());
        }
        let program = self.program.as_ref().map_err(|error| format!("the program is not known: {error}"))?;
        let folder = self.socket.parent().unwrap_or(Path::new("."));
        if self.socket.as_os_str().len() > LONGEST_PATH {
            return Err(format!("{} is too long for a socket: set TMPDIR", self.socket.display()));
        }
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(folder)
            .map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
        let ready = self.start(program, goes_down).await;
        if ready.is_err() {
            self.tidy();
        }
        ready
    }

    async fn start(&self, program: &Path, goes_down: &(impl Fn() -> bool + Sync)) -> Result<u32, String> {
        let mut child = Command::new(program)
            .args(&self.args)
            .envs(predecessor::told(&self.socket, &self.listeners))
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
        let pid = child.id().unwrap_or(0);
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline {
            if goes_down() {
                let _ = child.start_kill();
                return Err(GOING_DOWN.to_owned());
            }
            if self.socket.exists() {
                return Ok(pid);
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("the new process has ended ({status}); the log says why"));
            }
            sleep(LOOK).await;
        }
        let _ = child.start_kill();
        Err(format!("the new process was not ready within {} s", READY.as_secs()))
    }

    pub(super) fn has_handed_over(&self) -> bool {
        *self.handed_over.borrow()
    }

    /// Until the successor waits for the sockets.
    pub(super) async fn handed_over(&self) {
        // The sender lives as long as the gateway.
        let _ = self.handed_over.subscribe().wait_for(|handed| *handed).await;
    }

    /// The successor has the sockets: to close ours costs nobody anything from here on.
    pub(super) fn sockets_are_sent(&self) {
        self.sockets_sent.send_replace(true);
    }

    pub(super) async fn sockets_sent(&self) {
        let _ = self.sockets_sent.subscribe().wait_for(|sent| *sent).await;
    }

    /// Removes what an upgrade leaves behind, so that the successor may be succeeded.
    pub(super) fn tidy(&self) {
        if let Some(folder) = self.socket.parent() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// The program for a successor: by the name that it was called by, since a symbolic link leads elsewhere once
/// there is a new version; by its file, where it has been called otherwise.
fn program() -> std::io::Result<PathBuf> {
    let file = std::env::current_exe()?;
    let name = std::env::args_os().next().unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(called(&name, &path, &file).unwrap_or(file))
}

/// What the shell found under this name, if it was this file.
fn called(name: &OsStr, path: &OsStr, file: &Path) -> Option<PathBuf> {
    let file = file.canonicalize().ok()?;
    let found = match name.as_bytes().contains(&b'/') {
        true => vec![PathBuf::from(name)],
        false => std::env::split_paths(path).map(|folder| folder.join(name)).collect(),
    };
    let mut found = found.iter().filter_map(|found| std::path::absolute(found).ok());
    found.find(|found| found.canonicalize().is_ok_and(|same| same == file))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_program_is_known_by_the_name_that_it_was_called_by() {
        let folder = std::env::temp_dir().join(format!("voxgate-called-{}", std::process::id()));
        let (links, others) = (folder.join("links"), folder.join("others"));
        for made in [&links, &others] {
            std::fs::create_dir_all(made).expect("a folder");
        }
        let (file, other) = (folder.join("voxgate-1"), others.join("voxgate"));
        std::fs::write(&file, "").and_then(|()| std::fs::write(&other, "")).expect("files");
        let link = links.join("voxgate");
        symlink("../voxgate-1", &link).expect("a link");
        let path = std::env::join_paths([&others, &folder, &links]).expect("a path");
        let called = |name: &OsStr| called(name, &path, &file);
        assert_eq!(called(link.as_os_str()), Some(link.clone()), "whole");
        assert_eq!(called("voxgate".as_ref()), Some(link.clone()), "not the first, which is another file");
        assert_eq!(called("voxgate-1".as_ref()), Some(file.clone()));
        assert_eq!(called(other.as_os_str()), None);
        for unknown in ["", "sh", "./voxgate", "/"] {
            assert_eq!(called(unknown.as_ref()), None, "{unknown}");
        }
        std::fs::remove_dir_all(folder).expect("to be removed");
    }
}
