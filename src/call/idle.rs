//! A caller who says nothing: asked once whether anybody is there, then told goodbye.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::dialogue::nobodys_turn;
use super::{Action, Call, Mode, Phrase};
use crate::time::CallTime;
use crate::turn::{State, Why};

/// When to speak into silence, counted from when it was last the caller's turn; `None` for never.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Silence {
    pub prompt_after: Option<Duration>,
    pub prompt: Phrase,
    pub hangup_after: Option<Duration>,
    pub goodbye: Phrase,
}

#[derive(Debug)]
pub(super) struct Idle {
    since: CallTime,
    asked: bool,
    /// What the bot says is said into silence, and no answer.
    prompting: bool,
}

impl Idle {
    pub(super) fn new(now: CallTime) -> Idle {
        Idle { since: now, asked: false, prompting: false }
    }

    /// It is the caller's turn: because the bot has spoken, or, where it only spoke into silence, still.
    pub(super) fn listening(&mut self, why: Why, now: CallTime) {
        let still = std::mem::take(&mut self.prompting) && why != Why::BargeIn;
        if !still && why != Why::NothingSaid {
            *self = Idle::new(now);
        }
    }
}

impl Call {
    /// When something is to be said into the silence, if nothing else happens.
    pub(super) fn idle_deadline(&self) -> Option<CallTime> {
        let waits = self.settings.mode == Mode::Dialogue
            && self.state() == State::Listening
            && !self.ear.hears_speech()
            && self.digits.due().is_none();
        let silence = &self.settings.silence;
        let prompt = silence.prompt_after.filter(|_| !self.idle.asked);
        let next = [prompt, silence.hangup_after].into_iter().flatten().min();
        next.filter(|_| waits).map(|after| self.idle.since + after)
    }

    pub(super) fn idle_overdue(&mut self, now: CallTime) {
        if self.idle_deadline().is_none_or(|at| at > now) {
            return;
        }
        let settings = self.settings.clone();
        let silent = now.since(self.idle.since);
        let goodbye = settings.silence.hangup_after.is_some_and(|after| silent >= after);
        let (phrase, action) = match goodbye {
            true => (&settings.silence.goodbye, Action::Hangup),
            false => (&settings.silence.prompt, Action::None),
        };
        self.idle.asked = true;
        self.idle.prompting = true;
        self.think(Why::Idle, nobodys_turn(now));
        self.say_phrase(phrase, action, now);
    }
}
