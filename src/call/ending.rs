//! How a call ends, and what it leaves to one that comes after it.

use super::{Call, Event, Output, Previous, StopReason};
use crate::time::CallTime;
use crate::turn::State;

impl Call {
    /// The stream has ended, be it in mid-reply: one that comes after it knows what was heard.
    pub(super) fn broken_off(&mut self, reason: StopReason, now: CallTime) {
        if self.state() == State::Speaking && self.reply.is_some() {
            let heard = self.tell_heard(true, now);
            self.previous = Previous { heard, interrupted: true };
        }
        self.end(reason);
    }

    pub(super) fn hang_up(&mut self, reason: StopReason) {
        self.end(reason);
        self.outputs.push_back(Output::Hangup(reason));
    }

    fn end(&mut self, reason: StopReason) {
        let reason = match (self.control.take(), reason) {
            // The carrier need not have answered before it does what it was asked for.
            (Some(pending), StopReason::CallerHangup | StopReason::WsLost) => pending.reason(),
            (_, reason) => reason,
        };
        self.cancel_jobs();
        self.pacer.clear(CallTime::ZERO);
        self.tell_spurt();
        self.reply = None;
        let transition = self.machine.end();
        self.moved(transition);
        self.tell(Event::Ended { reason });
    }
}
