//! What there is to say about a request once it is over, however it ended: a request that was
//! dropped in mid-flight is told of too.

use std::sync::Arc;
use std::time::Instant;

use crate::call::{FailureKind, Service};

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

pub(super) type OnDone = Arc<dyn Fn(&Observation) + Send + Sync>;

/// Watches one request and tells of it when dropped: cancelled unless settled before.
pub struct Watch {
    on_done: OnDone,
    since: Instant,
    observation: Observation,
}

impl Watch {
    pub(super) fn new(on_done: &OnDone, upstream: &str, service: Service) -> Self {
        Self {
            on_done: Arc::clone(on_done),
            since: Instant::now(),
            observation: Observation {
                upstream: upstream.to_owned(),
                service,
                result: "cancelled",
                seconds_to_first_byte: None,
            },
        }
    }

    /// Of the first answer, where it takes several.
    pub fn first_byte(&mut self) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.observation.seconds_to_first_byte.get_or_insert(seconds);
    }

    pub fn ok(&mut self) {
        self.observation.result = "ok";
    }

    pub fn failed(&mut self, kind: FailureKind) {
        self.observation.result = kind.as_str();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        (self.on_done)(&self.observation);
    }
}
