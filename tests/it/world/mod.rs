//! What a test needs around it: the gateway, the services behind it, free ports, and an end to all of
//! them when the test ends.

mod bot;
pub mod expired;
mod fake;
mod gateway;
pub mod hearing;
mod ports;
mod program;
mod services;
mod speech;
mod stream;
mod wire;

pub use bot::{Bot, app, call, call_with, of_call, stt, tts, voice};
pub use fake::Fake;
pub use gateway::Gateway;
pub use ports::free_port;
pub use program::{by_itself, voxgate};
pub use services::{LegacyApp, Server, project, run};
pub use speech::{say, tone};
pub use stream::{Heard, MediaStream, has, is_well, ws_frame};
pub use wire::{Answer, TcpApp, Wire, header};

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

/// Judges a call's timing on a machine that others use too: a call in which the caller itself was late
/// says nothing about the gateway, and is made again.
pub fn steady(call: impl Fn() -> (voxgate::cli::call::CallReport, Vec<String>)) {
    let mut seen = Vec::new();
    for _ in 0..24 {
        let (report, wrong) = call();
        if wrong.is_empty() {
            return;
        }
        let own = report.own_lateness.max();
        seen.push(format!("{} (the caller itself was {own} µs late)", wrong.join(", ")));
        if seen.len() >= 3 && own < 2_000 {
            break;
        }
    }
    panic!("{}", seen.join("\n"));
}
