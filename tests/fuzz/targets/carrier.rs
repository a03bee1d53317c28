//! The clock of a call, and what its carrier has still to play by it: the same for whoever conducts the call.

use std::time::Duration;

use voxgate::time::{CallTime, FRAME};

pub struct Carrier {
    pub now: CallTime,
    lead: Duration,
    /// When all that was sent will have been played.
    end: CallTime,
}

impl Carrier {
    pub fn new(lead: Duration) -> Carrier {
        Carrier { now: CallTime::ZERO, lead, end: CallTime::ZERO }
    }

    /// A frame comes that was due then.
    pub fn plays(&mut self, due: CallTime) {
        assert!(due <= self.now, "a frame leaves early");
        self.end = self.end.max(self.now) + FRAME;
        let ahead = self.end.since(self.now);
        // With hardly any lead, a frame that leaves late does not move those behind it.
        let grace = if self.lead < FRAME * 2 { FRAME } else { Duration::ZERO };
        assert!(ahead <= self.lead.max(FRAME) + grace, "{ahead:?} ahead, of {:?}", self.lead);
    }

    pub fn clears(&mut self) {
        self.end = self.now;
    }

    pub fn is_silent(&self) -> bool {
        self.end <= self.now
    }

    /// Time goes on to the deadline, if it is one before `until`; else to `until`, and that is all.
    pub fn waits(&mut self, deadline: Option<CallTime>, until: CallTime) -> bool {
        let deadline = deadline.filter(|at| *at <= until);
        self.now = deadline.map_or(until, |at| self.now.max(at));
        deadline.is_some()
    }

    /// The deadline has been dealt with, and this is the next one.
    pub fn waited(&self, next: Option<CallTime>) {
        assert!(next.is_none_or(|next| next > self.now), "a deadline that does not pass: {next:?}");
    }
}
