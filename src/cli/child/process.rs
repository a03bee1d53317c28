//! One life of the child: the process and its group.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::info;

use super::Recipe;
use super::output::{Output, Stream};
use crate::edge;

/// How often a group is looked at that shall end.
const LOOK: Duration = Duration::from_millis(20);

/// How long the dead may take to be buried, where another process does that.
const KILLED: Duration = Duration::from_secs(1);

pub(super) struct Process {
    child: Child,
    /// Of the process and of its group.
    pid: Pid,
}

impl Process {
    pub(super) fn start(recipe: &Recipe, output: &Output) -> anyhow::Result<Process> {
        let (program, args) = recipe.command.split_first().context("there is no command behind --")?;
        let mut command = Command::new(program);
        for variable in edge::UPGRADE_VARIABLES {
            command.env_remove(variable);
        }
        let mut child = command
            .args(args)
            .env("PORT", recipe.port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).context("a child without an id")?;
        if let Some(stdout) = child.stdout.take() {
            output.forward(Stream::Stdout, stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            output.forward(Stream::Stderr, stderr);
        }
        // Arguments may hold what is nobody's business.
        info!(pid, port = recipe.port, program = %program.display(), "CHILD_STARTED");
        Ok(Process { child, pid: Pid::from_raw(pid) })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// How it ended, in words. Cancel-safe.
    pub(super) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// To the process alone: a server like gunicorn tells its workers itself.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = nix::sys::signal::kill(self.pid, signal);
    }

    /// Ends the group: asks, waits, and after the grace kills.
    pub(super) async fn stop(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        let _ = killpg(self.pid, Signal::SIGTERM);
        let _ = timeout_at(deadline, self.child.wait()).await;
        while self.has_members() {
            if Instant::now() >= deadline {
                break;
            }
            sleep(LOOK).await;
        }
        if killpg(self.pid, Signal::SIGKILL).is_ok() {
            let _ = self.child.wait().await;
            let deadline = Instant::now() + KILLED;
            while self.has_members() && Instant::now() < deadline {
                sleep(LOOK).await;
            }
        }
    }

    fn has_members(&self) -> bool {
        // Where voxgate is the first process of a container, orphans are its own to bury. The leader is
        // waited for by then, or still running.
        let gone = self.child.id().is_none();
        while gone && waitpid(group(self.pid), Some(WaitPidFlag::WNOHANG)).is_ok_and(|s| s.pid().is_some()) {}
        killpg(self.pid, None).is_ok()
    }
}

fn group(leader: Pid) -> Pid {
    Pid::from_raw(-leader.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;

    /// A shell that has run this far, and waits for what it has started.
    async fn shell(name: &str, script: &str) -> Process {
        let ready = std::env::temp_dir().join(format!("voxgate-child-{}-{name}", std::process::id()));
        let script = format!("{script}\ntouch {}\nwait", ready.display());
        let command = ["sh", "-c", &script].map(Into::into).to_vec();
        let recipe = Recipe { command, port: 1, log: LogFormat::Json };
        let (output, _) = Output::start(recipe.log);
        let process = Process::start(&recipe, &output).expect("a shell");
        until(|| std::fs::remove_file(&ready).is_ok()).await;
        process
    }

    async fn until(seen: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !seen() {
            assert!(Instant::now() < deadline, "waited in vain");
            sleep(LOOK).await;
        }
    }

    #[tokio::test]
    async fn the_whole_group_goes_with_its_leader() {
        let mut process = shell("all", "sleep 1000 & sleep 1000 &").await;
        let began = Instant::now();
        process.stop(Duration::from_secs(60)).await;
        assert!(began.elapsed() < Duration::from_secs(30), "nobody had to be killed");
        assert!(!process.has_members());
    }

    #[tokio::test]
    async fn who_does_not_go_when_asked_is_killed() {
        let mut process = shell("deaf", "trap '' TERM; sleep 1000 &").await;
        let began = Instant::now();
        process.stop(Duration::from_millis(200)).await;
        assert!(began.elapsed() >= Duration::from_millis(200));
        until(|| !process.has_members()).await;
        assert_eq!(process.ended().await, "signal: 9 (SIGKILL)");
    }

    #[tokio::test]
    async fn what_a_dead_leader_leaves_behind_is_ended() {
        let mut process = shell("left", "trap '' TERM; sleep 1000 &").await;
        process.signal(Signal::SIGKILL);
        assert_eq!(process.ended().await, "signal: 9 (SIGKILL)");
        assert!(process.has_members(), "the sleeper");
        process.stop(Duration::from_millis(50)).await;
        until(|| !process.has_members()).await;
    }
}
