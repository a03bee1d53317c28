//! What the agent says without having been asked: a welcome of its own, a notice while nobody speaks.
//! It is kept until the line is free, then spoken as the greeting is: a reply of turn 0, nobody's. The last words
//! of a call that has to end wait for nobody.

use super::dialogue::nobodys_turn;
use super::digits::Digits;
use super::reply::Reply;
use super::{Action, Asked, Call, Event, Hearing, Ignored, Output, TurnResult};
use crate::time::CallTime;
use crate::turn::{State, Why};

/// Text kept until the line is free, in bytes: minutes of speech. What comes on top is dropped.
const MOST_KEPT: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Unasked {
    text: String,
    /// No more of it will come.
    ended: bool,
    action: Action,
    /// What was being spoken was cut: the rest of it, up to its end, is dropped.
    cut: bool,
}

impl Unasked {
    pub(super) fn cut(&mut self) {
        self.text.clear();
        self.cut = true;
    }

    pub(super) fn forget_cut(&mut self) {
        self.cut = false;
    }

    /// Text that waits when the caller interrupts is out of date by the time it could be heard. An
    /// action is not, nor is a goodbye: who has ended the call does not answer any more.
    pub(super) fn drop_text(&mut self) {
        if !(self.ended && self.action == Action::Hangup) {
            self.text.clear();
        }
    }
}

impl Call {
    pub(super) fn unasked_text(&mut self, text: &str, now: CallTime) {
        if self.unasked.cut {
            return;
        }
        if self.unasked.text.len() + text.len() > MOST_KEPT {
            return self.tell(Event::ActionIgnored { action: "text", why: Ignored::Backlog });
        }
        if std::mem::take(&mut self.unasked.ended) && !self.unasked.text.is_empty() {
            self.unasked.text.push('\n');
        }
        self.unasked.text.push_str(text);
        self.say_unasked(now);
    }

    pub(super) fn unasked_end(&mut self, action: Action, now: CallTime) {
        self.unasked.ended = !std::mem::take(&mut self.unasked.cut);
        if action != Action::None {
            self.unasked.ended = true;
            self.unasked.action = action;
        }
        self.say_unasked(now);
    }

    /// The call ends with these words: what is being said is cut, and nobody interrupts them.
    pub(super) fn last_words(&mut self, text: String, now: CallTime) {
        let ends = |reply: &Reply| reply.text_ended && reply.action == Action::Hangup;
        if self.control.is_some() || self.reply.as_ref().is_some_and(ends) {
            return;
        }
        self.leaving = true;
        self.digits = Digits::new(self.settings.digits);
        self.cancel_jobs();
        self.unasked = Unasked::default();
        if self.state() != State::Listening {
            self.tell_heard(true, now);
            self.clear(now);
            self.turn_ended(TurnResult::Interrupted);
            self.back_to_listening(Why::BargeIn, now);
        }
        // Whatever the caller is saying.
        self.ear.end();
        self.recording.answered(false);
        if self.settings.hearing == Hearing::Stream {
            self.outputs.push_back(Output::Forget);
            self.unanswered.clear();
        }
        self.unasked = Unasked { text, ended: true, action: Action::Hangup, cut: false };
        self.say_unasked(now);
    }

    /// What the caller says now is not answered: the call is about to be somewhere else, or nowhere.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving || self.control.is_some()
    }

    /// Says what is kept, if nobody else is speaking or about to be answered.
    pub(super) fn say_unasked(&mut self, now: CallTime) {
        let silent = self.unasked.text.trim().is_empty();
        let nothing = silent && self.unasked.action == Action::None;
        // What makes no sound talks over nobody.
        let free = self.state() == State::Listening && (silent || !self.ear.hears_speech());
        if !free || nothing {
            return;
        }
        let unasked = std::mem::take(&mut self.unasked);
        // Marks of an earlier reply of nobody's turn would pass for this one's.
        self.epoch += 1;
        self.think(Why::Unasked, nobodys_turn(now));
        self.reply = Some(Reply::new(0));
        if !unasked.ended {
            self.asking = Some(Asked { number: 0, at: now });
        }
        self.reply_text_came(&unasked.text, now);
        if unasked.ended {
            self.reply_complete(unasked.action, now);
        }
    }
}
