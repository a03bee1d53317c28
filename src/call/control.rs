//! What a call asks of its carrier once a reply has been heard: to end it, to put it through to
//! somebody, to send keys. While the carrier is asked the caller is not answered; what is said
//! meanwhile waits. Every wait has a deadline, and whatever fails, the call goes on or is over.

use std::time::Duration;

use super::address::{Destination, Keys};
use super::dialogue::nobodys_turn;
use super::reply::Reply;
use super::{Action, Call, Event, Failure, FailureKind, Ignored, Job, Output, Service, StopReason};
use crate::time::CallTime;
use crate::turn::Why;

/// A carrier that has taken a call elsewhere ends the stream within this time; if not, we do.
const LEAVES_WITHIN: Duration = Duration::from_secs(5);

/// Something that only the carrier can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    Hangup,
    /// The stream ends with it.
    Transfer {
        to: Destination,
    },
    /// The stream ends with it; the call comes back with another.
    SendDigits {
        digits: Keys,
    },
}

impl Control {
    pub fn as_str(&self) -> &'static str {
        match self {
            Control::Hangup => "hangup",
            Control::Transfer { .. } => "transfer",
            Control::SendDigits { .. } => "send_digits",
        }
    }

    /// Why the stream ends where the carrier has done it.
    fn reason(&self) -> StopReason {
        match self {
            Control::Hangup => StopReason::BotEnd,
            Control::Transfer { .. } => StopReason::Transfer,
            Control::SendDigits { .. } => StopReason::SendDigits,
        }
    }
}

/// What the carrier was asked for.
#[derive(Debug)]
pub(super) struct Pending {
    number: u64,
    control: Control,
    /// It has agreed, and will end the stream.
    agreed: bool,
    pub(super) due: CallTime,
}

impl Pending {
    /// Why the call is over, if the carrier ends the stream now.
    pub(super) fn reason(&self) -> StopReason {
        self.control.reason()
    }
}

impl Call {
    /// Does what the agent wanted done after its reply; whether the caller has to wait for it, or the
    /// call is over.
    pub(super) fn act(&mut self, action: Action, now: CallTime) -> bool {
        let control = match action {
            // A call that has to end does, whatever became of its last words.
            Action::None | Action::Gather(_) if self.leaving => Control::Hangup,
            Action::None => return false,
            Action::Gather(gather) => {
                self.digits.gather(gather, now);
                return false;
            }
            Action::Hangup => Control::Hangup,
            Action::Transfer { to } => Control::Transfer { to },
            Action::SendDigits { digits } => Control::SendDigits { digits },
        };
        let asks = control != Control::Hangup || self.settings.ask_to_hang_up;
        match self.settings.control.filter(|_| asks) {
            Some(answers_within) => {
                self.controls += 1;
                let number = self.controls;
                self.reply = None;
                self.interruption.forget();
                self.outputs.push_back(Output::Control { number, control: control.clone() });
                // The shell has a time-out of its own, which says more; this one is behind it.
                let due = now + answers_within + Duration::from_millis(500);
                self.control = Some(Pending { number, control, agreed: false, due });
                true
            }
            None if control == Control::Hangup => {
                self.hang_up(StopReason::BotEnd);
                true
            }
            None => {
                self.tell(Event::ActionIgnored { action: control.as_str(), why: Ignored::NoControl });
                false
            }
        }
    }

    /// Whether there is something to be done that the call can have done.
    pub(super) fn leads_away(&self, action: &Action) -> bool {
        match action {
            Action::None | Action::Gather(_) => false,
            Action::Hangup => true,
            Action::Transfer { .. } | Action::SendDigits { .. } => self.settings.control.is_some(),
        }
    }

    /// The carrier does what it was asked for.
    pub(super) fn controlled(&mut self, number: u64, now: CallTime) {
        let Some(pending) = self.control.as_mut().filter(|asked| asked.number == number && !asked.agreed)
        else {
            return;
        };
        if pending.control == Control::Hangup {
            return self.hang_up(StopReason::BotEnd);
        }
        pending.agreed = true;
        pending.due = now + LEAVES_WITHIN;
    }

    pub(super) fn control_failed(&mut self, number: u64, failure: Failure, now: CallTime) {
        if let Some(pending) = self.control.take_if(|asked| asked.number == number && !asked.agreed) {
            self.tell(Event::UpstreamFailed { service: Service::Carrier, failure });
            self.go_on_without(&pending.control, now);
        }
    }

    pub(super) fn control_overdue(&mut self, now: CallTime) {
        let Some(pending) = self.control.take_if(|asked| asked.due <= now) else { return };
        if pending.agreed {
            return self.hang_up(pending.reason());
        }
        self.outputs.push_back(Output::Cancel(Job::Control { number: pending.number }));
        let why = format!("no answer to {}", pending.control.as_str());
        let failure = Failure { upstream: String::new(), kind: FailureKind::Timeout, why };
        self.tell(Event::UpstreamFailed { service: Service::Carrier, failure });
        self.go_on_without(&pending.control, now);
    }

    /// The caller is still here. A call that was to end does, by closing the stream.
    fn go_on_without(&mut self, control: &Control, now: CallTime) {
        let settings = self.settings.clone();
        let apology = match control {
            Control::Hangup => return self.hang_up(StopReason::BotEnd),
            Control::Transfer { .. } if !settings.transfer_apology.audio.is_empty() => {
                &settings.transfer_apology
            }
            Control::Transfer { .. } | Control::SendDigits { .. } => &settings.apology,
        };
        self.failed_action = Some(control.as_str());
        if apology.audio.is_empty() {
            return self.back_to_listening(Why::ActionFailed, now);
        }
        let transition = self.machine.listen(Why::ActionFailed);
        self.moved(transition);
        // Marks of an earlier reply of nobody's turn would pass for this one's.
        self.epoch += 1;
        self.think(Why::ActionFailed, nobodys_turn(now));
        self.reply = Some(Reply::new(0));
        self.speak_phrase(apology, now);
        self.reply_complete(Action::None, now);
    }
}
