//! What is known of the servers of one upstream: a breaker for each, kept by what becomes of the
//! requests and, in the background, by probes. Who asks takes turns among those that may be asked; with
//! none, the answer is no, at once, and why.

mod breaker;
mod probe;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::breaker::{Breaker, Change, Outcome, State};
use super::observed::{Notice, Tell};
use crate::call::{Failure, FailureKind};
use crate::config::Upstream;

pub(super) struct Health {
    upstream: Upstream,
    breakers: Vec<Mutex<Breaker>>,
    next: AtomicUsize,
    since: Instant,
    tell: Tell,
}

impl Health {
    pub(super) fn new(upstream: &Upstream, tell: &Tell) -> Arc<Health> {
        let breakers = upstream.servers.iter().map(|_| Mutex::new(Breaker::new(upstream.breaker))).collect();
        let (next, since) = (AtomicUsize::new(0), Instant::now());
        Arc::new(Health { upstream: upstream.clone(), breakers, next, since, tell: Arc::clone(tell) })
    }

    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// A turn with the next server that may be asked.
    pub(super) fn turn(self: &Arc<Self>) -> Result<Ticket, Failure> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.breakers.len();
        let server = (0..count).map(|n| first.wrapping_add(n) % count).find(|server| self.ask(*server));
        server.map(|server| self.ticket(server)).ok_or_else(|| self.closed_to_all(first))
    }

    /// A turn with another server than this, of which there may be none.
    pub(super) fn turn_elsewhere(self: &Arc<Self>, than: usize) -> Option<Ticket> {
        let count = self.breakers.len();
        let server = (1..count).map(|n| (than + n) % count).find(|server| self.ask(*server))?;
        Some(self.ticket(server))
    }

    /// A turn with this server, which one is connected to already.
    pub(super) fn turn_with(self: &Arc<Self>, server: usize) -> Result<Ticket, Failure> {
        if self.ask(server) { Ok(self.ticket(server)) } else { Err(self.closed_to_all(server)) }
    }

    /// Of a request to a server that is asked already.
    fn ticket(self: &Arc<Self>, server: usize) -> Ticket {
        Ticket { health: Arc::clone(self), server, settled: false }
    }

    fn ask(&self, server: usize) -> bool {
        let Some(mut breaker) = self.breaker(server) else { return false };
        let before = breaker.state(self.now());
        let may = breaker.ask(self.now());
        let changed = before != breaker.state(self.now());
        drop(breaker);
        if changed || may && before != State::Closed {
            self.tell_state();
        }
        may
    }

    fn closed_to_all(&self, turn: usize) -> Failure {
        let server = turn % self.breakers.len().max(1);
        let why = self.breaker(server).and_then(|breaker| breaker.why(self.now()));
        let address = self.upstream.servers.get(server).map_or("it", String::as_str);
        let why = format!("{address} was not asked: {}", why.unwrap_or_else(|| "no servers".to_owned()));
        Failure { upstream: self.upstream.name.clone(), kind: FailureKind::BreakerOpen, why }
    }

    fn breaker(&self, server: usize) -> Option<MutexGuard<'_, Breaker>> {
        // Nothing in there panics half-way.
        Some(self.breakers.get(server)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }

    fn settle(&self, server: usize, outcome: &Outcome<'_>) {
        self.change(server, |breaker, now| breaker.settle(now, outcome));
    }

    fn change(&self, server: usize, change: impl FnOnce(&mut Breaker, Duration) -> Option<Change>) {
        let now = self.now();
        let Some(mut breaker) = self.breaker(server) else { return };
        let before = breaker.state(now);
        let changed = change(&mut breaker, now);
        let (after, why) = (breaker.state(now), breaker.why(now));
        drop(breaker);
        let (upstream, server) = (&self.upstream.name, self.upstream.servers.get(server));
        let cooldown_ms = self.upstream.breaker.cooldown.as_millis();
        match changed {
            Some(Change::Opened) => {
                tracing::warn!(upstream, server, why, %cooldown_ms, "BREAKER_OPEN");
            }
            Some(Change::Closed) => tracing::info!(upstream, server, "BREAKER_CLOSED"),
            None => {}
        }
        if before != after {
            self.tell_state();
        }
    }

    /// The state of an upstream is that of its best server.
    fn tell_state(&self) {
        let now = self.now();
        let states = (0..self.breakers.len()).filter_map(|n| Some(self.breaker(n)?.state(now)));
        let states: Vec<State> = states.collect();
        let sound = states.iter().filter(|state| **state == State::Closed).count();
        let state = states.iter().min().copied().unwrap_or(State::Closed);
        #[expect(clippy::cast_precision_loss, reason = "a handful of servers")]
        let healthy = sound as f64 / states.len().max(1) as f64;
        let upstream = self.upstream.name.clone();
        (self.tell)(&Notice::Health { upstream, breaker_state: state as i64, healthy });
    }
}

/// A request to one server. Dropped without a word, it says nothing about the server.
pub(super) struct Ticket {
    health: Arc<Health>,
    server: usize,
    settled: bool,
}

impl Ticket {
    /// Which of the upstream's servers it is for.
    pub(super) fn server(&self) -> usize {
        self.server
    }

    /// It does what it should. A failure may still follow.
    pub(super) fn ok(&mut self) {
        self.settled = true;
        self.health.settle(self.server, &Outcome::Ok);
    }

    /// Counts, unless it is not the server's fault: a 4xx is an answer, and our own bound is ours.
    /// One who tries again and again counts once.
    pub(super) fn failed(&mut self, kind: FailureKind, why: &str, again: bool) {
        self.settled = true;
        let outcome = match kind {
            FailureKind::Timeout | FailureKind::Connect | FailureKind::Http5xx | FailureKind::Protocol => {
                if again {
                    Outcome::FailedAgain(kind, why)
                } else {
                    Outcome::Failed(kind, why)
                }
            }
            FailureKind::Http4xx => Outcome::Ok,
            FailureKind::Busy | FailureKind::BreakerOpen => Outcome::Unknown,
        };
        self.health.settle(self.server, &outcome);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.health.settle(self.server, &Outcome::Unknown);
        }
    }
}

#[cfg(test)]
mod tests;
