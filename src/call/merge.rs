//! One turn, not two: the caller goes on before anything of the reply was heard, or when it had hardly
//! begun. What was said before and after belongs together.

use std::time::Duration;

use super::idle::Idle;
use super::{Call, Event, Hearing, Output, Previous, ReplyHeard};
use crate::time::CallTime;
use crate::turn::{Measured, State, Why};

/// A reply that is about to begin waits so long at most for it to be known whether the caller goes on.
const LONGEST: Duration = Duration::from_millis(240);

/// An interruption of a reply that had hardly begun.
pub(super) struct Collision {
    pub(super) reaction: Duration,
    /// What the agent was to be told with the turn's first question, and is with its next.
    pub(super) before: Previous,
}

impl Call {
    /// A frame of the caller's while nothing of the reply has been sent.
    pub(super) fn heard_while_thinking(&mut self, measured: Measured, now: CallTime) {
        let speech = measured.speaks(self.least_db);
        // Of a voice that begins no utterance, like a television's behind the caller, nothing would come that
        // could be answered.
        if self.interruption.hear(speech).is_some() && self.ear.hears_speech() {
            self.caller_went_on(now);
        }
    }

    /// Whether the reply, which could begin now, lets the caller speak first: two frames of voice are
    /// enough, since what has been heard cannot be taken back. Noise costs it a moment.
    pub(super) fn gives_way(&mut self, now: CallTime) -> bool {
        let begins = self.state() == State::Thinking
            && self.pacer.sent() >= self.filler_end
            && self.pacer.due().is_some_and(|due| due <= now);
        if !begins || !self.interruption.may_begin() {
            self.giving_way = None;
            return false;
        }
        now.since(*self.giving_way.get_or_insert(now)) < LONGEST
    }

    /// When audio is to be sent next.
    pub(super) fn audio_due(&self) -> Option<CallTime> {
        self.giving_way.map_or(self.pacer.due(), |since| Some(since + LONGEST))
    }

    /// A streaming recogniser says its words once: those of an utterance that the caller has gone on
    /// with in the meantime belong to the turn.
    pub(super) fn late_transcript(&mut self, text: String) {
        let open = matches!(self.state(), State::Listening | State::Thinking);
        if self.settings.hearing == Hearing::Stream && open && !text.trim().is_empty() {
            self.unanswered.push(text);
        }
    }

    pub(super) fn with_unanswered(&mut self, text: &str) -> String {
        let mut parts = std::mem::take(&mut self.unanswered);
        parts.push(text.to_owned());
        parts.iter().flat_map(|part| part.split_whitespace()).collect::<Vec<_>>().join(" ")
    }

    /// The caller goes on before anything of the reply was heard: one turn, not two.
    pub(super) fn caller_went_on(&mut self, now: CallTime) {
        self.drop_reply(Duration::ZERO);
        self.be_quiet(now);
        // A few bytes of speech may wait that were too short for a frame.
        self.pacer.truncate(0);
        self.idle = Idle::new(now);
        let transition = self.machine.listen(Why::CallerWentOn);
        self.moved(transition);
    }

    /// Gives the reply up, of which the caller has heard so much, as if it had never been.
    fn drop_reply(&mut self, after: Duration) {
        self.unanswered.extend(self.asked_text.take());
        // The same text again is the same question, not the repeat of one that was answered.
        self.last_final = None;
        self.cancel_jobs();
        let Some(reply) = self.reply.take() else { return };
        if let Some(keys) = self.asked_keys.take() {
            // They are not a part of what is said now. If that is nothing, they are asked again.
            self.unanswered_keys = Some((reply.turn, keys));
            let told = ReplyHeard { turn: reply.turn, interrupted: true, after, ..ReplyHeard::default() };
            self.outputs.push_back(Output::Heard(told));
            self.previous = Previous { heard: String::new(), interrupted: true };
        } else {
            self.is_asked_again(reply.turn, after);
        }
    }

    /// What this turn was made of becomes a part of the next.
    pub(super) fn is_asked_again(&mut self, turn: u64, after: Duration) {
        let nothing = ReplyHeard { turn, text: String::new(), interrupted: true, asked_again: true, after };
        self.outputs.push_back(Output::Heard(nothing));
    }

    /// The bot began to speak while the caller was about to go on: one turn, not two, as if the bot
    /// had said nothing.
    pub(super) fn collided(&mut self, Collision { reaction, before }: Collision, now: CallTime) {
        self.previous = before;
        self.drop_reply(now.since(self.speaking_since));
        let cleared = self.clear(now);
        self.tell(Event::BargeIn { reaction, cleared, heard: String::new() });
        self.tell_spurt();
        self.interruption.forget();
        self.hold.forget();
        let transition = self.machine.listen(Why::CallerWentOn);
        self.moved(transition);
    }
}
