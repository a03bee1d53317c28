//! The caller's line: audio of any length in, frames out; what the carrier lost on the way becomes
//! silence; and a line that falls silent altogether is noticed.

use std::time::Duration;

use crate::audio::{BYTES_PER_MS, Cutter, FRAME_BYTES, Frame, SILENCE};
use crate::time::{CallTime, FRAME};

/// Audio comes every 20 ms, silence included: this long without any is a fault on the way.
const STALL: Duration = Duration::from_secs(2);
/// Lost audio is replaced by silence up to this much: a loss alone must not end an utterance.
const LONGEST_FILL_MS: u64 = 200;
static FILL: [u8; LONGEST_FILL_MS as usize * BYTES_PER_MS] =
    [SILENCE; LONGEST_FILL_MS as usize * BYTES_PER_MS];

#[derive(Debug)]
pub(super) struct Line {
    cutter: Cutter,
    last_media: CallTime,
    stalled: bool,
    /// The timestamp that the next payload should bear, in ms.
    next_timestamp: Option<u64>,
}

/// What a deadline of the line means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LineFault {
    Stalled,
    Dead,
}

impl Line {
    pub(super) fn new(now: CallTime) -> Line {
        Line { cutter: Cutter::default(), last_media: now, stalled: false, next_timestamp: None }
    }

    /// A payload comes: how many ms the carrier had lost before it, and the silence in their place, which
    /// is to be cut first.
    pub(super) fn takes(
        &mut self,
        payload: &[u8],
        timestamp_ms: Option<u64>,
    ) -> (Option<u64>, &'static [u8]) {
        let lost = self.lost_before(timestamp_ms);
        self.next_timestamp = timestamp_ms.map(|t| t.saturating_add((payload.len() / BYTES_PER_MS) as u64));
        let frames = lost.unwrap_or(0).min(LONGEST_FILL_MS) / FRAME.as_millis() as u64;
        (lost, &FILL[..frames as usize * FRAME_BYTES])
    }

    /// What comes next begins with a frame of its own.
    pub(super) fn is_even(&self) -> bool {
        self.cutter.held() == 0
    }

    /// The next frame of what came, which goes from the front of it.
    pub(super) fn next(&mut self, audio: &mut &[u8]) -> Option<Frame> {
        self.cutter.next(audio)
    }

    fn lost_before(&self, timestamp_ms: Option<u64>) -> Option<u64> {
        let (at, expected) = (timestamp_ms?, self.next_timestamp?);
        // Less than a frame is rounding.
        at.checked_sub(expected).filter(|lost| *lost >= FRAME.as_millis() as u64)
    }

    /// Notes that audio came; how long it had stayed away, if that had been noticed.
    pub(super) fn alive(&mut self, now: CallTime) -> Option<Duration> {
        let away = now.since(self.last_media);
        self.last_media = now;
        std::mem::take(&mut self.stalled).then_some(away)
    }

    pub(super) fn deadline(&self, media_timeout: Duration) -> CallTime {
        self.last_media + if self.stalled { media_timeout.max(STALL) } else { STALL }
    }

    pub(super) fn check(&mut self, now: CallTime, media_timeout: Duration) -> Option<LineFault> {
        if now < self.deadline(media_timeout) {
            return None;
        }
        if self.stalled {
            return Some(LineFault::Dead);
        }
        self.stalled = true;
        Some(LineFault::Stalled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(line: &mut Line, bytes: usize, timestamp: Option<u64>) -> (usize, Option<u64>) {
        let (mut frames, payload) = (0, vec![0x10; bytes]);
        let (lost, fill) = line.takes(&payload, timestamp);
        for mut audio in [fill, &payload] {
            while line.next(&mut audio).is_some() {
                frames += 1;
            }
        }
        (frames, lost)
    }

    #[test]
    fn payloads_of_any_length_become_frames() {
        let mut line = Line::new(CallTime::ZERO);
        for (bytes, frames) in [(80, 0), (160, 1), (320, 2), (161, 1), (79, 1), (0, 0)] {
            assert_eq!(feed(&mut line, bytes, None), (frames, None), "{bytes} bytes");
        }
    }

    #[test]
    fn lost_audio_is_silence_but_never_more_than_200_ms() {
        let mut line = Line::new(CallTime::ZERO);
        for (timestamp, expected) in [
            (Some(0), (1, None)),
            (Some(20), (1, None)),
            (Some(45), (1, None)),
            (Some(125), (4, Some(60))),
            (Some(10_000), (11, Some(9_855))),
            (Some(10_001), (1, None)),
            (None, (1, None)),
            (Some(u64::MAX), (1, None)),
        ] {
            assert_eq!(feed(&mut line, 160, timestamp), expected, "{timestamp:?}");
        }
    }

    #[test]
    fn a_line_that_falls_silent_is_noticed_once_and_then_given_up() {
        let limit = Duration::from_secs(30);
        let mut line = Line::new(CallTime::ZERO);
        assert_eq!(line.check(CallTime::from_millis(1_999), limit), None);
        assert_eq!(line.check(CallTime::from_millis(2_000), limit), Some(LineFault::Stalled));
        assert_eq!(line.check(CallTime::from_millis(2_001), limit), None);
        assert_eq!(line.alive(CallTime::from_millis(3_000)), Some(Duration::from_secs(3)));
        assert_eq!(line.alive(CallTime::from_millis(3_020)), None);
        assert_eq!(line.check(CallTime::from_millis(6_000), limit), Some(LineFault::Stalled));
        assert_eq!(line.check(CallTime::from_millis(33_020), limit), Some(LineFault::Dead));
    }
}
