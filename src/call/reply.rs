//! A reply on its way to the caller: text that is still being written, sentences that wait for a
//! voice, one that is being spoken, and what the caller has heard of it all.

use std::collections::VecDeque;

use super::input::Action;
use super::sentences::Sentences;
use crate::audio::{BYTES_PER_MS, level};
use crate::time::CallTime;

/// How long text takes to be spoken where its audio is not complete: about 15 characters a second.
const BYTES_PER_CHAR: u64 = 66 * BYTES_PER_MS as u64;

/// Who speaks from so little before the end of a question, up to so long behind it, answers it.
const ASKED_SOON: u64 = 400 * BYTES_PER_MS as u64;
const ASKED_BEFORE: u64 = 1_000 * BYTES_PER_MS as u64;

/// Below this RMS a segment is silence: a voice is above it everywhere but in its pauses.
pub const SILENT_RMS: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct Reply {
    /// 0 for the greeting.
    pub(super) turn: u64,
    sentences: Sentences,
    waiting: VecDeque<String>,
    pub(super) saying: Option<Segment>,
    parts: Vec<Part>,
    /// No more text will come.
    pub(super) text_ended: bool,
    pub(super) action: Action,
    /// The caller hears an apology.
    pub(super) failed: bool,
    pub(super) first_text_at: Option<CallTime>,
    /// The end mark is set behind the last audio.
    pub(super) end_marked: bool,
    /// The end mark has been sent.
    pub(super) end_sent: bool,
}

/// A sentence that a text-to-speech service is speaking.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) asked_at: CallTime,
    pub(super) bytes: u64,
    /// Something in it was louder than silence.
    pub(super) loud: bool,
}

/// A stretch of the reply in the pacer's positions.
#[derive(Debug)]
struct Part {
    segment: u64,
    text: String,
    from: u64,
    /// `None` while its audio is incomplete.
    to: Option<u64>,
    /// The carrier said so.
    heard: bool,
}

impl Reply {
    pub(super) fn new(turn: u64) -> Reply {
        Reply { turn, ..Reply::default() }
    }

    pub(super) fn push_text(&mut self, text: &str) {
        self.sentences.push(text);
        while let Some(sentence) = self.sentences.next() {
            self.waiting.push_back(sentence);
        }
    }

    pub(super) fn end_text(&mut self, action: Action) {
        self.waiting.extend(self.sentences.rest());
        self.text_ended = true;
        self.action = action;
    }

    /// Text has come that was not spoken yet, or is being spoken.
    pub(super) fn has_text(&self) -> bool {
        self.first_text_at.is_some()
    }

    /// The next sentence, if nothing is being spoken.
    pub(super) fn next_sentence(&mut self) -> Option<String> {
        if self.saying.is_some() { None } else { self.waiting.pop_front() }
    }

    pub(super) fn say(&mut self, id: u64, text: String, position: u64, now: CallTime) {
        self.saying = Some(Segment { id, asked_at: now, bytes: 0, loud: false });
        self.parts.push(Part { segment: id, text, from: position, to: None, heard: false });
    }

    /// Audio of the segment that is being spoken; `None` if it is of another, else whether it is the
    /// segment's first.
    pub(super) fn speech(&mut self, id: u64, audio: &[u8], position: u64) -> Option<&Segment> {
        let segment = self.saying.as_mut().filter(|s| s.id == id)?;
        if segment.bytes == 0
            && let Some(part) = self.parts.last_mut()
        {
            part.from = position;
        }
        segment.bytes += audio.len() as u64;
        segment.loud = segment.loud || level::is_above(audio, SILENT_RMS);
        Some(segment)
    }

    /// The segment that is being spoken is complete, or given up.
    pub(super) fn end_segment(&mut self, position: u64) -> Option<Segment> {
        let segment = self.saying.take()?;
        if let Some(part) = self.parts.last_mut() {
            part.to = Some(position);
        }
        Some(segment)
    }

    /// Audio that needs no service: an echo, the apology, a greeting rendered before.
    pub(super) fn add_spoken(&mut self, id: u64, text: String, from: u64, to: u64) {
        self.parts.push(Part { segment: id, text, from, to: Some(to), heard: false });
    }

    /// The last segment came to nothing that can be heard.
    pub(super) fn take_back(&mut self) {
        self.parts.pop();
    }

    /// Gives up what has not been given a voice. Of a sentence that broke off, only the words count
    /// that its audio had time for.
    pub(super) fn give_up(&mut self, position: u64) {
        self.waiting.clear();
        self.sentences = Sentences::default();
        match self.end_segment(position) {
            Some(segment) if segment.bytes == 0 => self.take_back(),
            Some(segment) => {
                if let Some(part) = self.parts.last_mut() {
                    part.text = begun(&part.text, segment.bytes, length(&part.text));
                }
            }
            None => {}
        }
        self.text_ended = true;
        self.failed = true;
        // What was to be the last word of nobody's turn, a goodbye, is followed by the end all the same.
        if self.turn > 0 || self.action != Action::Hangup {
            self.action = Action::None;
        }
    }

    /// All of it that was given a voice.
    pub(super) fn text(&self) -> String {
        self.parts.iter().map(|part| part.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// Nothing more will be queued.
    pub(super) fn is_complete(&self) -> bool {
        self.text_ended && self.waiting.is_empty() && self.saying.is_none()
    }

    /// No audio was ever asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// A question ends at this position, or ended not long before it.
    pub(super) fn has_just_asked(&self, position: u64) -> bool {
        let asked = |part: &&Part| part.text.trim_end().ends_with(['?', '？', '؟']);
        let ends = self.parts.iter().filter(asked).filter_map(|part| part.to);
        ends.into_iter().any(|to| to <= position + ASKED_SOON && position <= to + ASKED_BEFORE)
    }

    /// A sentence begins at this position: a gap before it is a pause, not a hole.
    pub(super) fn begins_at(&self, position: u64) -> bool {
        self.parts.iter().any(|part| part.from == position)
    }

    pub(super) fn segment_heard(&mut self, id: u64) {
        if let Some(part) = self.parts.iter_mut().find(|p| p.segment == id) {
            part.heard = true;
        }
    }

    /// The words that the bot was at between two positions.
    pub(super) fn said_between(&self, from: u64, to: u64) -> String {
        let said = self.parts.iter().filter(|part| part.from < to && part.to.is_none_or(|to| to > from));
        let words = said.flat_map(|part| {
            let whole = part.to.map_or(length(&part.text), |to| to - part.from);
            let before = words_in(&part.text, from.saturating_sub(part.from), whole);
            let until = words_in(&part.text, to - part.from, whole) + 1;
            part.text.split_whitespace().take(until).skip(before)
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// What the caller has heard, if the carrier has played up to `position`: whole sentences as they
    /// were, the one that was cut by its words.
    pub(super) fn heard(&self, position: u64) -> String {
        let mut heard: Vec<String> = Vec::new();
        for part in &self.parts {
            if part.heard || part.to.is_some_and(|to| to <= position) {
                heard.push(part.text.clone());
                continue;
            }
            let whole = part.to.map_or(length(&part.text), |to| to - part.from);
            heard.push(begun(&part.text, position.saturating_sub(part.from), whole));
            break;
        }
        heard.retain(|text| !text.is_empty());
        heard.join(" ")
    }
}

/// About how many bytes of audio a text takes.
fn length(text: &str) -> u64 {
    text.chars().count() as u64 * BYTES_PER_CHAR
}

/// The words of a text that fit into this much of its whole length.
pub(super) fn begun(text: &str, bytes: u64, whole: u64) -> String {
    let words: Vec<&str> = text.split_whitespace().take(words_in(text, bytes, whole)).collect();
    words.join(" ")
}

/// How many of its words are said whole in so much of its length.
fn words_in(text: &str, bytes: u64, whole: u64) -> usize {
    let words = text.split_whitespace().count();
    (words as u64 * bytes / whole.max(1)).min(words as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_of_two_sentences() {
        let mut reply = Reply::new(1);
        reply.add_spoken(1, "We are open.".into(), 1000, 9000);
        reply.add_spoken(2, "Come in at ten now.".into(), 9000, 14000);
        for (position, heard) in [
            (0, ""),
            (1000, ""),
            (4000, "We"),
            (8999, "We are"),
            (9000, "We are open."),
            (11000, "We are open. Come in"),
            (14000, "We are open. Come in at ten now."),
            (99999, "We are open. Come in at ten now."),
        ] {
            assert_eq!(reply.heard(position), heard, "at {position}");
        }
        reply.segment_heard(1);
        assert_eq!(reply.heard(0), "We are open.", "the carrier knows better than the clock");
    }

    #[test]
    fn what_the_bot_was_at_for_a_while() {
        let mut reply = Reply::new(1);
        reply.add_spoken(1, "We are open.".into(), 1000, 9000);
        reply.add_spoken(2, "Come in at ten now.".into(), 9000, 14000);
        for (from, to, words) in [
            (0, 900, ""),
            (0, 1100, "We"),
            (0, 99_999, "We are open. Come in at ten now."),
            (4000, 9100, "are open. Come"),
            (8999, 10_100, "open. Come in"),
            (13_500, 20_000, "now."),
            (14_000, 20_000, ""),
        ] {
            assert_eq!(reply.said_between(from, to), words, "{from}..{to}");
        }
    }

    #[test]
    fn audio_that_is_incomplete_is_judged_by_the_length_of_its_text() {
        let mut reply = Reply::new(1);
        reply.say(7, "ten chars!".into(), 0, CallTime::ZERO);
        assert!(reply.speech(7, &[0x10; 160], 500).is_some());
        assert!(reply.speech(6, &[0x10; 160], 660).is_none());
        assert_eq!(reply.heard(500 + 5 * BYTES_PER_CHAR), "ten");
        assert!(reply.end_segment(660).is_some_and(|s| s.loud && s.bytes == 160));
    }

    #[test]
    fn of_a_sentence_that_broke_off_only_what_it_had_time_for_was_heard() {
        let broken_after = |bytes: usize| {
            let mut reply = Reply::new(1);
            reply.add_spoken(1, "One.".into(), 0, 160);
            reply.say(2, "two three four five".into(), 160, CallTime::ZERO);
            reply.speech(2, &vec![0x10; bytes], 160);
            reply.give_up(160 + bytes as u64);
            reply.add_spoken(3, "Sorry.".into(), 160 + bytes as u64, 1_000_000);
            reply.heard(u64::MAX)
        };
        assert_eq!(broken_after(0), "One. Sorry.");
        assert_eq!(broken_after(19 * BYTES_PER_CHAR as usize / 2), "One. two three Sorry.");
        assert_eq!(broken_after(100_000), "One. two three four five Sorry.");
    }

    #[test]
    fn one_sentence_at_a_time_gets_a_voice() {
        let mut reply = Reply::new(1);
        reply.push_text("One. Two. Thr");
        assert_eq!(reply.next_sentence().as_deref(), Some("One."));
        reply.say(1, "One.".into(), 0, CallTime::ZERO);
        assert_eq!(reply.next_sentence(), None);
        reply.end_segment(160);
        assert_eq!(reply.next_sentence().as_deref(), Some("Two."));
        assert_eq!(reply.next_sentence(), None);
        reply.end_text(Action::Hangup);
        assert!(!reply.is_complete());
        assert_eq!(reply.next_sentence().as_deref(), Some("Thr"));
        assert!(reply.is_complete());
    }
}
