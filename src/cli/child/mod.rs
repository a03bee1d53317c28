//! The app as a child process: `voxgate run -- gunicorn …`. It is started with `PORT`, watched, started
//! again with a growing pause when it dies, and stopped last, when nobody is on the phone any more. It
//! has a process group of its own: what it started goes with it, and a Ctrl-C at the terminal reaches
//! it only through voxgate.

mod output;
mod process;

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use tokio::net::TcpStream;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::LogFormat;
use crate::edge;
use output::Output;
use process::Process;

/// What is passed on; SIGTERM and SIGINT begin a drain, and the child is told at its end.
const PASSED_ON: [Signal; 3] = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];

/// How often a successor looks whether the app's port is free.
const LOOK: Duration = Duration::from_millis(100);
/// Between a SIGTERM and a SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// The same for what a dead child has left behind, while callers wait for the next one.
const LEFTOVERS: Duration = Duration::from_secs(2);

/// What to start, and how.
pub(super) struct Recipe {
    pub(super) command: Vec<OsString>,
    /// Where the gateway expects it.
    pub(super) port: u16,
    pub(super) log: LogFormat,
}

/// The child, as long as it is wanted.
pub(super) struct Child {
    stop: oneshot::Sender<()>,
    watcher: JoinHandle<()>,
}

impl Child {
    /// Starts it. That it cannot be started at all is told at once; that it dies later, in the log.
    pub(super) fn start(recipe: Recipe) -> anyhow::Result<Child> {
        let (stop, stopped) = oneshot::channel();
        let (started, first) = mpsc::channel();
        let watcher = std::thread::Builder::new().name("child".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(watch(recipe, stopped, started)),
                Err(error) => drop(started.send(Err(error.into()))),
            }
        })?;
        match first.recv().context("the child's watcher is gone")? {
            Ok(()) => Ok(Child { stop, watcher }),
            Err(error) => Err(error),
        }
    }

    /// SIGTERM, and SIGKILL for whoever is still there after a grace.
    pub(super) fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.watcher.join();
    }
}

/// Until it is told to stop.
async fn watch(recipe: Recipe, mut stop: oneshot::Receiver<()>, started: mpsc::Sender<anyhow::Result<()>>) {
    // From the first moment: a signal that nobody waits for would end the gateway.
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(why) => return drop(started.send(Err(why))),
    };
    let (output, written) = Output::start(recipe.log);
    if edge::is_successor() {
        // The predecessor's app serves until its last call has ended.
        let _ = started.send(Ok(()));
        info!(port = recipe.port, "CHILD_WAITS");
        if !signals.pass_over(free(recipe.port), &mut stop).await {
            return;
        }
    }
    let mut process = Process::start(&recipe, &output);
    // A successor's command line does not wait for that any more.
    if !edge::is_successor() {
        match process {
            Ok(_) => drop(started.send(Ok(()))),
            Err(why) => return drop(started.send(Err(why))),
        }
    }
    let mut back_off = BackOff::default();
    loop {
        let pause = match process {
            Err(why) => {
                let pause = back_off.after(Duration::ZERO);
                let restart_in_ms = pause.as_millis() as u64;
                warn!(why = format!("{why:#}"), restart_in_ms, "CHILD_NOT_STARTED");
                pause
            }
            Ok(mut running) => {
                let began = Instant::now();
                let status = loop {
                    tokio::select! {
                        status = running.ended() => break Some(status),
                        _ = &mut stop => break None,
                        signal = signals.next() => running.signal(signal),
                    }
                };
                let Some(status) = status else {
                    running.stop(GRACE).await;
                    info!(pid = running.pid(), "CHILD_STOPPED");
                    break;
                };
                running.stop(LEFTOVERS).await;
                let pause = back_off.after(began.elapsed());
                let (seconds, restart_in_ms) = (began.elapsed().as_secs(), pause.as_millis() as u64);
                warn!(pid = running.pid(), status, seconds, restart_in_ms, "CHILD_EXITED");
                pause
            }
        };
        if !signals.pass_over(sleep(pause), &mut stop).await {
            break;
        }
        process = Process::start(&recipe, &output);
    }
    drop(output);
    written.wait().await;
}

/// Until nobody listens at this port.
async fn free(port: u16) {
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
        sleep(LOOK).await;
    }
}

/// The signals of [`PASSED_ON`].
struct Signals([unix::Signal; 3]);

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        let listen = |signal: Signal| unix::signal(SignalKind::from_raw(signal as i32));
        let [hup, usr1, usr2] = PASSED_ON;
        Ok(Signals([listen(hup)?, listen(usr1)?, listen(usr2)?]))
    }

    /// Waits for this, while there is no child that could take a signal; false if it is to stop instead.
    async fn pass_over(&mut self, until: impl Future<Output = ()>, stop: &mut oneshot::Receiver<()>) -> bool {
        let mut until = pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return true,
                _ = &mut *stop => return false,
                _ = self.next() => {}
            }
        }
    }

    async fn next(&mut self) -> Signal {
        let [hup, usr1, usr2] = &mut self.0;
        tokio::select! {
            _ = hup.recv() => Signal::SIGHUP,
            _ = usr1.recv() => Signal::SIGUSR1,
            _ = usr2.recv() => Signal::SIGUSR2,
        }
    }
}

/// Pauses between a death and the next start: they double, up to a bound, and begin anew with a child
/// that has lived for a while.
struct BackOff(Duration);

impl BackOff {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);
    const ALIVE: Duration = Duration::from_secs(30);

    fn after(&mut self, lived: Duration) -> Duration {
        if lived >= Self::ALIVE {
            self.0 = Self::FIRST;
        }
        let pause = self.0;
        self.0 = (pause * 2).min(Self::LONGEST);
        pause
    }
}

impl Default for BackOff {
    fn default() -> BackOff {
        BackOff(Self::FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew_with_a_child_that_lived() {
        let mut back_off = BackOff::default();
        let pauses: Vec<u64> =
            (0..8).map(|_| back_off.after(Duration::from_secs(1)).as_millis() as u64).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(back_off.after(BackOff::ALIVE), BackOff::FIRST);
    }
}
