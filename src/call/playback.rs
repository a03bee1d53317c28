//! What the caller hears of the bot, as levels over time: frames are sent ahead, and play when the
//! ones before have been played.

use std::collections::VecDeque;

use crate::audio::Frame;
use crate::time::{CallTime, FRAME};
use crate::turn::level_db;

#[derive(Debug, Default)]
pub(super) struct Playback {
    /// When each frame has been played, and its level.
    ahead: VecDeque<(CallTime, f32)>,
}

impl Playback {
    /// A frame that the carrier will have played by `end`.
    pub(super) fn sent(&mut self, frame: &Frame, end: CallTime) {
        self.ahead.push_back((end, level_db(&frame.0)));
    }

    /// The level of what is being played; 0 in silence. The past is forgotten.
    pub(super) fn level_db(&mut self, now: CallTime) -> f32 {
        while self.ahead.front().is_some_and(|(end, _)| *end <= now) {
            self.ahead.pop_front();
        }
        self.ahead.front().filter(|(end, _)| *end <= now + FRAME).map_or(0.0, |(_, db)| *db)
    }

    /// The carrier has forgotten what it has not played.
    pub(super) fn clear(&mut self, now: CallTime) {
        self.ahead.retain(|(end, _)| *end <= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_heard_while_it_plays() {
        let ms = CallTime::from_millis;
        let mut playback = Playback::default();
        for (byte, end) in [(0x80, 1_020), (0x9F, 1_040), (0xFF, 1_060), (0x80, 1_080)] {
            playback.sent(&Frame([byte; 160]), ms(end));
        }
        let heard = |playback: &mut Playback, at| playback.level_db(ms(at)).round();
        assert_eq!(heard(&mut playback, 990), 0.0);
        assert_eq!(heard(&mut playback, 1_000), 90.0);
        assert_eq!(heard(&mut playback, 1_019), 90.0);
        assert_eq!(heard(&mut playback, 1_020), 78.0);
        assert_eq!(heard(&mut playback, 1_041), 0.0);
        playback.clear(ms(1_041));
        assert_eq!(heard(&mut playback, 1_070), 0.0, "cleared before it was played");
    }
}
