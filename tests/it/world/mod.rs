//! What a test needs around it: the gateway, the services behind it, free ports, and an end to all of
//! them when the test ends.

mod bot;
mod fake;
mod gateway;
pub mod hearing;
mod ports;
mod services;
mod speech;

pub use bot::{Bot, app, call, call_with, of_call, stt, tts, voice};
pub use fake::Fake;
pub use gateway::Gateway;
pub use ports::free_port;
pub use services::{LegacyApp, Server, project, run};
pub use speech::{say, tone};

use std::future::Future;
use std::time::{Duration, Instant};

/// How long anything may take that should happen at once; generous, since CI shares its two cores.
pub const SOON: Duration = Duration::from_secs(20);

/// Runs a test's async part.
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(test)
}

/// Looks again and again until it sees something; panics, saying what was missed, if it never does.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(started.elapsed() < SOON, "waited {SOON:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
