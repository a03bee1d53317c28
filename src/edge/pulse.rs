//! Pings to a carrier, one each interval, and what comes back. A pong that stays away is told and ends
//! nothing: the caller's audio is the better sign of life.

use std::time::Duration;

use tokio::time::Instant;

use crate::observe::CallObserver;
use crate::time::CallTime;

pub(super) struct Pulse {
    every: Duration,
    next: Instant,
    awaited: bool,
}

impl Pulse {
    pub(super) fn new(started: Instant, every: Duration) -> Pulse {
        Pulse { every, next: started + every, awaited: false }
    }

    /// When the next ping is due.
    pub(super) fn due(&self) -> Instant {
        self.next
    }

    /// What the ping bears that is due by then: the time, so that its pong tells how long it took.
    pub(super) fn ping(&mut self, at: Instant, now: CallTime, observer: &CallObserver) -> Option<[u8; 8]> {
        if at < self.next {
            return None;
        }
        observer.ping_sent(self.awaited);
        self.awaited = true;
        self.next += self.every;
        Some(now.as_micros().to_be_bytes())
    }

    pub(super) fn pong(&mut self, payload: &[u8], now: CallTime, observer: &CallObserver) {
        // A pong that nobody asked for says nothing.
        if let Ok(sent) = payload.try_into().map(u64::from_be_bytes) {
            self.awaited = false;
            observer.pong_received(now.since(CallTime::from_micros(sent)));
        }
    }
}
