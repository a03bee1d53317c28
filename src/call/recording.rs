//! The caller's audio that a recogniser will want: a pre-roll while the line is quiet, so that the
//! first sound of an utterance is not lost, and everything from there on while a turn is open.

use std::collections::VecDeque;
use std::time::Duration;

use crate::audio::{BYTES_PER_MS, FRAME_BYTES};

/// Audio kept from before speech is noticed.
pub(super) const BEFORE_SPEECH: Duration = Duration::from_millis(300);
const PREROLL: usize = BEFORE_SPEECH.as_millis() as usize * BYTES_PER_MS;

#[derive(Debug)]
pub(super) struct Recording {
    /// The pre-roll, then the turn.
    audio: VecDeque<u8>,
    /// A turn is open: nothing is dropped from the front.
    open: bool,
    /// Where the latest utterance of the turn begins, its pre-roll included.
    utterance: usize,
    /// Utterances that wait until the bot has finished (where it may not be interrupted).
    queued: Vec<u8>,
    /// No turn may be longer than this, in bytes; older audio goes first.
    longest: usize,
}

impl Recording {
    pub(super) fn new(longest: usize) -> Recording {
        let audio = VecDeque::with_capacity(PREROLL);
        Recording { audio, open: false, utterance: 0, queued: Vec::new(), longest }
    }

    pub(super) fn push(&mut self, frame: &[u8; FRAME_BYTES]) {
        let limit = if self.open { self.longest } else { PREROLL };
        let over = (self.audio.len() + FRAME_BYTES).saturating_sub(limit).min(self.audio.len());
        self.audio.drain(..over);
        self.utterance = self.utterance.saturating_sub(over);
        self.audio.extend(frame);
    }

    /// An utterance has begun; its first frames are in the pre-roll.
    pub(super) fn begin(&mut self) {
        self.open = true;
        self.utterance = self.audio.len().saturating_sub(PREROLL);
    }

    /// The audio of the turn so far.
    pub(super) fn turn(&mut self) -> &[u8] {
        self.audio.make_contiguous()
    }

    /// The turn has been answered. An utterance that is going on is kept.
    pub(super) fn answered(&mut self, speaking: bool) {
        let over = if speaking { self.utterance } else { self.audio.len().saturating_sub(PREROLL) };
        self.audio.drain(..over);
        self.utterance = 0;
        self.open = speaking;
        if !speaking {
            self.audio.shrink_to(PREROLL);
        }
    }

    /// The latest utterance waits for the bot to finish.
    pub(super) fn queue(&mut self) {
        let room = self.longest.saturating_sub(self.queued.len());
        self.queued.extend(self.audio.range(self.utterance..).take(room));
        self.answered(false);
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queued.is_empty()
    }

    /// What waited becomes the turn.
    pub(super) fn take_queued(&mut self) -> bool {
        if !self.has_queued() {
            return false;
        }
        let mut turn = std::mem::replace(&mut self.audio, std::mem::take(&mut self.queued).into());
        // An utterance that is going on while the bot ends belongs to the same turn.
        self.utterance = self.audio.len();
        self.audio.append(&mut turn);
        self.open = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(recording: &mut Recording, values: std::ops::Range<u8>) {
        for value in values {
            recording.push(&[value; FRAME_BYTES]);
        }
    }

    /// The first and last frame of what is kept, and how many there are.
    fn kept(audio: &[u8]) -> (u8, u8, usize) {
        (audio[0], audio[audio.len() - 1], audio.len() / 160)
    }

    #[test]
    fn an_utterance_comes_with_300_ms_of_what_was_before() {
        let mut recording = Recording::new(100 * 160);
        frames(&mut recording, 0..40);
        assert_eq!(kept(recording.turn()), (25, 39, 15));
        recording.begin();
        frames(&mut recording, 40..50);
        assert_eq!(kept(recording.turn()), (25, 49, 25));
        recording.answered(false);
        assert_eq!(kept(recording.turn()), (35, 49, 15));
    }

    #[test]
    fn an_utterance_that_is_going_on_survives_the_answer_to_the_one_before() {
        let mut recording = Recording::new(100 * 160);
        frames(&mut recording, 0..15);
        recording.begin();
        frames(&mut recording, 15..60);
        recording.begin();
        frames(&mut recording, 60..62);
        recording.answered(true);
        assert_eq!(kept(recording.turn()), (45, 61, 17));
    }

    #[test]
    fn a_turn_is_bounded_and_keeps_what_was_said_last() {
        let mut recording = Recording::new(30 * 160);
        recording.begin();
        frames(&mut recording, 0..200);
        assert_eq!(kept(recording.turn()), (170, 199, 30));
    }

    #[test]
    fn what_waited_for_the_bot_becomes_the_next_turn() {
        let mut recording = Recording::new(100 * 160);
        assert!(!recording.take_queued());
        frames(&mut recording, 0..15);
        recording.begin();
        frames(&mut recording, 15..20);
        recording.queue();
        frames(&mut recording, 20..50);
        recording.begin();
        frames(&mut recording, 50..52);
        recording.queue();
        frames(&mut recording, 52..60);
        assert!(recording.take_queued());
        let audio = recording.turn();
        assert_eq!(kept(&audio[..20 * 160]), (0, 19, 20));
        assert_eq!(kept(&audio[20 * 160..37 * 160]), (35, 51, 17));
    }
}
