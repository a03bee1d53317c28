//! What there is to say about a request once it is over, however it ended: a request that was
//! dropped in mid-flight is told of too. The server's breaker learns it in the same breath.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::answer::seconds;
use super::health::Ticket;
use crate::call::{Failure, FailureKind, Service, Trace};

/// Something that an operator may want to count.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A request is over.
    Done(Observation),
    /// A service has failed, and the next of its list is asked.
    FellBack { service: Service },
    /// A sentence was in the cache, or not.
    Cache { hit: bool },
    /// What is known of an upstream's servers: 0 closed, 1 half-open, 2 open, of the best of them; and
    /// the part of them that is sound.
    Health { upstream: String, breaker_state: i64, healthy: f64 },
}

/// How one request to a service ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The upstream as the operator named it, or the host of its URL.
    pub upstream: String,
    pub service: Service,
    /// `ok`, a [`FailureKind`] as text, or `cancelled`: nobody waited for the answer any more.
    pub result: &'static str,
    /// From asking (and so with the wait for a slot and a connection) to the head of the answer.
    pub seconds_to_first_byte: Option<f64>,
}

pub(super) type Tell = Arc<dyn Fn(&Notice) + Send + Sync>;

/// Watches one request and tells of it when dropped: cancelled unless settled before.
pub struct Watch {
    tell: Tell,
    since: Instant,
    observation: Observation,
    ticket: Option<Ticket>,
    /// A request that is dropped after this long without any use counts against its server: whoever
    /// dropped it is likely to have waited in vain.
    patience: Duration,
    /// There is another to ask after this long.
    limit: Option<Duration>,
    used: Arc<AtomicBool>,
    settled: bool,
    again: bool,
    trace: Option<Trace>,
}

impl Watch {
    pub(super) fn new(tell: &Tell, upstream: &str, service: Service, patience: Duration) -> Self {
        Self {
            tell: Arc::clone(tell),
            since: Instant::now(),
            observation: Observation {
                upstream: upstream.to_owned(),
                service,
                result: "cancelled",
                seconds_to_first_byte: None,
            },
            ticket: None,
            patience,
            limit: None,
            used: Arc::default(),
            settled: false,
            again: false,
            trace: None,
        }
    }

    /// Of a call that is traced.
    pub(super) fn in_trace(mut self, trace: Option<&Trace>) -> Self {
        self.trace = trace.cloned();
        self
    }

    /// Where another is asked if nothing has come within this.
    pub(super) fn within(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }

    /// How long one waits before its server is to blame. The wait for it has begun before it knows of it.
    pub(super) fn patience(&self) -> Duration {
        self.limit.map_or(self.patience, |limit| self.patience.min(limit * 9 / 10))
    }

    pub(super) fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    /// The request before this failed as well, and it is made for the same end.
    pub(super) fn again(&mut self, again: bool) {
        self.again = again;
    }

    /// Which server is asked. Where it takes several requests, the one before went well.
    pub(super) fn asks(&mut self, ticket: Ticket) {
        self.works();
        self.ticket = Some(ticket);
    }

    /// The server does what it should, so far.
    pub(super) fn works(&mut self) {
        if let Some(ticket) = &mut self.ticket {
            ticket.ok();
        }
    }

    /// The server could not be reached; another will be asked.
    pub(super) fn lost(&mut self, failure: &Failure) {
        if let Some(mut ticket) = self.ticket.take() {
            ticket.failed(failure.kind, &failure.why, self.again);
        }
    }

    /// Where it is noted that some of the answer was of use.
    pub(super) fn used(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.used)
    }

    /// Of the first answer, where it takes several.
    pub fn first_byte(&mut self) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.observation.seconds_to_first_byte.get_or_insert(seconds);
    }

    pub fn ok(&mut self) {
        self.settled = true;
        self.observation.result = "ok";
        self.works();
    }

    pub fn failed(&mut self, failure: &Failure) {
        self.settled = true;
        self.observation.result = failure.kind.as_str();
        if let Some(ticket) = &mut self.ticket {
            ticket.failed(failure.kind, &failure.why, self.again);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let waited = self.since.elapsed();
        if !self.settled
            && waited >= self.patience
            && !self.used.load(Ordering::Relaxed)
            && let Some(ticket) = &mut self.ticket
        {
            let why = format!("nothing of use within {}", seconds(Duration::from_secs(waited.as_secs())));
            ticket.failed(FailureKind::Timeout, &why, false);
        }
        (self.tell)(&Notice::Done(self.observation.clone()));
    }
}
