//! The bot's own words, come back: an echo that was taken for a caller. Who says what the bot has offered ("talk to
//! an agent") is none, so it counts what the bot was at while it was heard.

use std::time::Duration;

use super::recording::BEFORE_SPEECH;
use super::reply::Reply;
use super::{Call, Hearing};
use crate::audio::BYTES_PER_MS;
use crate::time::CallTime;
use crate::turn::{Why, are_own};

/// What the bot has said comes back this late, if it does: an utterance may be the echo of what was said so soon
/// before it.
const ECHO_AFTER: Duration = Duration::from_millis(500);

/// What of the bot's may come back as its echo.
#[derive(Debug, Default)]
pub(super) struct OwnWords {
    /// While the caller was heard.
    at_the_time: String,
    whole: String,
    until: CallTime,
}

impl Call {
    /// What of a reply that is over may have come back.
    pub(super) fn keep_own_words(&mut self, why: Why, now: CallTime) {
        let Some(reply) = &self.reply else { return };
        let waits = self.recording.has_queued();
        let whole = reply.text();
        let at_the_time = if waits && !self.settings.barge_in {
            // Any number of utterances may wait.
            whole.clone()
        } else if waits || why == Why::BargeIn || self.ear.hears_speech() {
            self.words_since(self.is_heard_from(), now)
        } else {
            self.words_since(now - BEFORE_SPEECH, now)
        };
        self.own_words = OwnWords { at_the_time, whole, until: now };
    }

    /// The caller's words are the bot's own, come back: they end as soon as the bot's do.
    pub(super) fn is_echo(&self, text: &str) -> bool {
        let OwnWords { at_the_time, whole, until } = &self.own_words;
        let ended = self.thinking.speech_end.unwrap_or(*until);
        let in_time =
            self.utterance_began < *until + ECHO_AFTER && ended <= *until + ECHO_AFTER + BEFORE_SPEECH;
        in_time && self.are_ours(text, at_the_time, whole)
    }

    /// The same, of a guess at what is being said into a reply.
    pub(super) fn may_be_echo(&self, text: &str, now: CallTime) -> bool {
        let ours =
            |reply: &Reply| self.are_ours(text, &self.words_since(self.is_heard_from(), now), &reply.text());
        self.reply.as_ref().is_some_and(ours)
    }

    /// Whether words are the bot's own. What a streaming recogniser tells may go back further than what is being said:
    /// it hears the whole echo of a reply.
    fn are_ours(&self, text: &str, at_the_time: &str, whole: &str) -> bool {
        let count = |text: &str| text.split_whitespace().count();
        let goes_back = self.settings.hearing == Hearing::Stream && count(text) > count(at_the_time);
        are_own(text, if goes_back { whole } else { at_the_time })
    }

    /// The bot's own words that may have come back in what was heard from then on.
    fn words_since(&self, began: CallTime, now: CallTime) -> String {
        let until = self.hold.since().map_or(now, |(_, held)| held);
        let (heard, echo) = (self.pacer.heard(now), ECHO_AFTER);
        let bytes = |time: Duration| time.as_millis() as u64 * BYTES_PER_MS as u64;
        let from = heard.saturating_sub(bytes(until.since(began) + echo));
        self.reply.as_ref().map(|reply| reply.said_between(from, heard + bytes(echo))).unwrap_or_default()
    }

    /// From when on a recogniser hears what is being said; what interrupts need not be an utterance yet.
    fn is_heard_from(&self) -> CallTime {
        let held = self.hold.since().filter(|_| !self.ear.hears_speech());
        held.map_or(self.utterance_began, |(began, _)| began) - BEFORE_SPEECH
    }
}
