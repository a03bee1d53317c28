//! Stopping without cutting a call. Pingora's own SIGTERM closes the listener at once and sleeps a
//! fixed time; ours goes on listening (so that `/readyz` can say 503), waits for what is under way,
//! and stops as soon as that is done, or when the time for it is over. After an upgrade the same is
//! done behind closed listeners: the successor has them. A successor stops after its predecessor: with
//! the main process of a service systemd kills all others, and their calls.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ExecutionPhase, RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::predecessor::predecessor;
use super::reload::Live;

/// How often what is under way is counted.
const LOOK: Duration = Duration::from_millis(50);
/// How long the spoken goodbye may take, with what is being said before it.
const GOODBYE: Duration = Duration::from_secs(20);
/// How long sockets may take to close once they must.
const CLOSING: Duration = Duration::from_secs(3);
/// A connection that was accepted last has its request still under way to us, perhaps behind a TLS
/// handshake over a slow line.
pub(super) const LAST_REQUESTS: Duration = Duration::from_secs(3);
/// For the same where nothing is under way and whoever stops us wants to see us gone: who has sent no
/// request by then is taken for a client that keeps a connection in reserve.
const NEWCOMERS: Duration = Duration::from_secs(1);

/// Runs the server to its end.
pub(super) fn run(server: Server, live: Arc<Live>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut phases = server.watch_execution_phase();
    // Before anybody can come in: a signal that nobody has asked for ends the process where it stands.
    let (signals, quit, _reload) = runtime.block_on(async {
        let (quit, reload) = (signal(SignalKind::quit())?, signal(SignalKind::hangup())?);
        Ok::<_, std::io::Error>((Signals::new()?, quit, reload))
    })?;
    let watch = Watch { drain: Drain(live.clone()), signals: Mutex::new(Some((signals, quit))) };
    let server = std::thread::Builder::new()
        .name("server".into())
        .spawn(move || server.run(RunArgs { shutdown_signal: Box::new(watch) }))?;
    // Pingora sleeps after an upgrade, for as long as a call may last; this thread leaves with the last.
    let handed_over = runtime.block_on(async {
        loop {
            match phases.recv().await {
                Ok(ExecutionPhase::ShutdownGracePeriod) => break true,
                Ok(ExecutionPhase::GracefulUpgradeCloseTimeout) => live.gateway().upgrade.sockets_are_sent(),
                Ok(ExecutionPhase::Terminated) | Err(RecvError::Closed) => break false,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
            }
        }
    });
    if handed_over {
        live.gateway().upgrade.tidy();
        runtime.block_on(Drain(live).finish());
    } else {
        let _ = server.join();
    }
    Ok(())
}

struct Drain(Arc<Live>);

/// Whom Pingora asks, once, when to stop.
struct Watch {
    drain: Drain,
    signals: Mutex<Option<(Signals, Signal)>>,
}

#[async_trait]
impl ShutdownSignalWatch for Watch {
    async fn recv(&self) -> ShutdownSignal {
        let signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((mut signals, mut quit)) = signals else { return std::future::pending().await };
        // A successor is the service's main process from now on.
        tell_systemd(&[NotifyState::Ready, NotifyState::MainPid(std::process::id())]);
        let upgrade = self.drain.0.gateway().upgrade.clone();
        loop {
            tokio::select! {
                () = signals.stop() => {
                    tell_systemd(&[NotifyState::Stopping]);
                    self.drain.drain(&mut signals).await;
                    return ShutdownSignal::FastShutdown;
                }
                () = upgrade.handed_over() => return ShutdownSignal::GracefulUpgrade,
                _ = quit.recv() => {
                    let gateway = self.drain.0.gateway();
                    tokio::spawn(async move { gateway.begin_upgrade().await });
                }
            }
        }
    }
}

impl Drain {
    /// What is left to do behind closed listeners.
    async fn finish(&self) {
        match Signals::new() {
            Ok(mut signals) => {
                sleep(LAST_REQUESTS).await;
                self.drain(&mut signals).await;
            }
            Err(error) => warn!(%error, "signals cannot be received: the calls are cut"),
        }
    }

    async fn drain(&self, signals: &mut Signals) {
        let gateway = self.0.gateway();
        let allowed = gateway.config.server.drain;
        gateway.drain();
        info!(under_way = gateway.under_way(), seconds = allowed.as_secs(), "DRAIN_START");
        // Who had just come in when the signal did is let in and heard.
        sleep(LOOK).await;
        let done = async {
            let mut busy = Instant::now();
            let mut told = false;
            loop {
                // In this order: a newcomer that is none any more is under way.
                let awaited = gateway.newcomers.count() > 0 && busy.elapsed() < NEWCOMERS;
                if gateway.under_way() > 0 {
                    busy = Instant::now();
                } else if !awaited {
                    let Some(predecessor) = predecessor() else { break };
                    if !std::mem::replace(&mut told, true) {
                        info!(predecessor, "DRAIN_WAITS");
                    }
                }
                sleep(LOOK).await;
            }
        };
        let started = Instant::now();
        let (idle, mut hurried) = tokio::select! {
            idle = timeout(allowed, done) => (idle.is_ok(), false),
            // Who asks twice does not want to wait.
            () = signals.stop() => (false, true),
        };
        if !idle {
            warn!(calls = gateway.calls.active(), "DRAIN_OVER");
            // With those whom the predecessor tells goodbye.
            let gone = async |hurried: bool| {
                while gateway.calls.active() > 0 || !hurried && predecessor().is_some() {
                    sleep(LOOK).await;
                }
            };
            if !hurried && !gateway.config.server.drain_goodbye.is_empty() {
                gateway.say_goodbye();
                tokio::select! {
                    _ = timeout(GOODBYE, gone(false)) => {}
                    () = signals.stop() => hurried = true,
                }
            }
            gateway.hang_up_all();
            let _ = timeout(CLOSING, gone(hurried)).await;
        }
        if let Some(traces) = &gateway.traces {
            traces.flush().await;
        }
        info!(seconds = started.elapsed().as_secs(), "DRAIN_END");
    }
}

/// Tells systemd, where that has started us.
fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd cannot be told");
    }
}

/// The signals that ask for an end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Signals { terminate, interrupt })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
