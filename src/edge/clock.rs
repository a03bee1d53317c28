//! The clock of a call: where a call's own time meets the machine's.

use std::time::Duration;

use tokio::time::Instant;

use crate::time::CallTime;

/// Starts with the carrier's `start`.
#[derive(Clone, Copy)]
pub(super) struct Clock(pub(super) Instant);

impl Clock {
    pub(super) fn now(self) -> CallTime {
        CallTime::from_micros(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// When that moment of the call is.
    pub(super) fn at(self, moment: CallTime) -> Instant {
        self.0 + Duration::from_micros(moment.as_micros())
    }
}
