//! Stopping without cutting a call. Pingora's own SIGTERM closes the listener at once and sleeps a
//! fixed time; ours goes on listening (so that `/readyz` can say 503), waits for what is under way,
//! and stops as soon as that is done, or when the time for it is over.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::gateway::Gateway;

/// How often what is under way is counted.
const LOOK: Duration = Duration::from_millis(50);
/// How long calls may take to say goodbye once they must.
const GOODBYE: Duration = Duration::from_secs(3);

pub(super) struct Drain(pub(super) Arc<Gateway>);

#[async_trait]
impl ShutdownSignalWatch for Drain {
    async fn recv(&self) -> ShutdownSignal {
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            warn!("signals cannot be received: only SIGKILL stops this process");
            return std::future::pending().await;
        };
        either(&mut terminate, &mut interrupt).await;
        self.drain(&mut terminate, &mut interrupt).await;
        ShutdownSignal::FastShutdown
    }
}

impl Drain {
    async fn drain(&self, terminate: &mut Signal, interrupt: &mut Signal) {
        let gateway = &self.0;
        let allowed = gateway.config.server.drain;
        gateway.drain();
        info!(under_way = gateway.under_way(), seconds = allowed.as_secs(), "DRAIN_START");
        let done = async {
            while gateway.under_way() > 0 {
                sleep(LOOK).await;
            }
        };
        let started = Instant::now();
        let idle = tokio::select! {
            idle = timeout(allowed, done) => idle.is_ok(),
            // Who asks twice does not want to wait.
            () = either(terminate, interrupt) => false,
        };
        if !idle {
            warn!(calls = gateway.calls.active(), "DRAIN_OVER");
            gateway.hang_up_all();
            let gone = async {
                while gateway.calls.active() > 0 {
                    sleep(LOOK).await;
                }
            };
            let _ = timeout(GOODBYE, gone).await;
        }
        info!(seconds = started.elapsed().as_secs(), "DRAIN_END");
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
