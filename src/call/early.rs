//! The agent, asked before it is certain that the caller has finished: when the silence proves right,
//! the answer is under way already. When the caller goes on, or the words turn out to be others, the
//! answer is dropped; until then nobody gives it a voice, so that nothing is said twice.

use std::time::Duration;

use super::reply::Reply;
use super::{Action, Asked, Call, Event, Hearing, Job, Mode, Output};
use crate::time::CallTime;
use crate::turn::{State, normalised};

/// After so much silence.
const AFTER: Duration = Duration::from_millis(200);
/// Text of an answer that waits, in bytes: more is no answer for a telephone.
const MOST_KEPT: usize = 64 * 1024;

/// A question that was asked early, and what came as its answer so far.
#[derive(Debug)]
pub(super) struct Early {
    turn: u64,
    /// What was asked, as it compares.
    asked: String,
    at: CallTime,
    text: String,
    ended: Option<Action>,
}

impl Call {
    /// A frame of the caller's while it is the caller's turn.
    pub(super) fn ask_early(&mut self, now: CallTime) {
        let silence = self.ear.silence();
        if silence.is_some_and(|silence| silence.is_zero()) {
            return self.drop_early();
        }
        let wanted = self.settings.early_agent
            && (self.settings.mode, self.settings.hearing) == (Mode::Dialogue, Hearing::Stream)
            && self.early.is_none()
            && silence.is_some_and(|silence| silence >= AFTER)
            && self.endpoint.may_be_all(now);
        if !wanted {
            return;
        }
        let text = self.words_so_far();
        self.turns += 1;
        self.early = Some(Early {
            turn: self.turns,
            asked: normalised(&text),
            at: now,
            text: String::new(),
            ended: None,
        });
        self.put(text, None, self.settings.reply_deadline);
    }

    /// The silence that ends the utterance now. While what was asked early is not answered, nothing is
    /// gained by a decision that hurries.
    pub(super) fn silence_to_wait(&self, now: CallTime) -> Duration {
        match &self.early {
            Some(early) if early.text.is_empty() && early.ended.is_none() => {
                self.endpoint.unhurried_wait(now)
            }
            Some(_) | None => self.endpoint.wait(now),
        }
    }

    fn words_so_far(&self) -> String {
        let parts = self.unanswered.iter().chain([&self.partial_text]);
        parts.flat_map(|part| part.split_whitespace()).collect::<Vec<_>>().join(" ")
    }

    /// The recogniser has understood more: what was asked is no longer what was said.
    pub(super) fn check_early(&mut self) {
        let said = normalised(&self.words_so_far());
        if self.state() == State::Listening && self.early.as_ref().is_some_and(|early| early.asked != said) {
            self.drop_early();
        }
    }

    /// Takes a piece of an answer that nobody is to hear yet; whether it is one.
    pub(super) fn early_text(&mut self, turn: u64, text: &str) -> bool {
        let Some(early) = self.early.as_mut().filter(|early| early.turn == turn) else { return false };
        early.text.push_str(text);
        if early.text.len() > MOST_KEPT {
            self.drop_early();
        }
        true
    }

    pub(super) fn early_end(&mut self, turn: u64, action: &Action) -> bool {
        let early = self.early.as_mut().filter(|early| early.turn == turn);
        early.map(|early| early.ended = Some(action.clone())).is_some()
    }

    /// An agent that fails is asked again when the caller has finished.
    pub(super) fn early_failed(&mut self, job: Job) -> bool {
        let failed = self.early.take_if(|early| job == Job::Ask { turn: early.turn }).is_some();
        if failed && self.state() != State::Listening {
            self.turns += 1;
        }
        failed
    }

    pub(super) fn drop_early(&mut self) {
        let Some(early) = self.early.take() else { return };
        let turn = early.turn;
        self.outputs.push_back(Output::Cancel(Job::Ask { turn }));
        self.is_asked_again(turn, Duration::ZERO);
    }

    /// The caller has finished, and said this: whether it was asked already. Then the answer goes on
    /// as if it had been asked now.
    pub(super) fn was_asked_early(&mut self, text: &str, now: CallTime) -> bool {
        let Some(early) = self.early.take_if(|early| early.asked == normalised(text)) else {
            if self.early.is_some() {
                self.drop_early();
                self.turns += 1;
            }
            return false;
        };
        self.digits.give_up();
        self.reply = Some(Reply::new(early.turn));
        self.asked_text = Some(text.to_owned());
        (self.asked_keys, self.unanswered_keys) = (None, None);
        if early.ended.is_none() {
            self.asking = Some(Asked { number: early.turn, at: early.at });
        }
        if !early.text.trim().is_empty() {
            self.tell(Event::AgentFirstText { took: now.since(early.at) });
        }
        self.reply_text_came(&early.text, now);
        if let Some(action) = early.ended {
            self.reply_complete(action, now);
        }
        true
    }
}
