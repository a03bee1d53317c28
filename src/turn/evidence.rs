//! How much speech there was of late, while the bot speaks. A little stops the bot for the moment, more
//! of it stops it for good: the first has to be quick and may be wrong, since it is taken back.

use std::time::Duration;

use crate::time::FRAME;

/// Frames with speech, among how many.
type Share = (u32, u32);
/// 120 ms of 200: the bot holds its tongue.
const HOLD: Share = (6, 10);
/// Or 60 ms of 100, where there is little doubt.
const HOLD_CLEARLY: Share = (3, 5);
/// 400 ms of 600: the caller means it, whatever is said.
const CONFIRM: Share = (20, 30);

/// The last frames, one bit each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    recent: u32,
    clear: u32,
}

impl Evidence {
    /// Takes a frame: it speaks against the bot, and beyond doubt.
    pub fn hear(&mut self, speech: bool, clearly: bool) {
        self.recent = ((self.recent << 1) | u32::from(speech)) & ((1 << CONFIRM.1) - 1);
        self.clear = ((self.clear << 1) | u32::from(clearly)) & ((1 << HOLD_CLEARLY.1) - 1);
    }

    /// Enough to fall silent for now: how long ago the speech began.
    pub fn holds(&self) -> Option<Duration> {
        let window = self.recent & ((1 << HOLD.1) - 1);
        let holds = window.count_ones() >= HOLD.0 || self.clear.count_ones() >= HOLD_CLEARLY.0;
        holds.then(|| FRAME * (u32::BITS - window.leading_zeros()))
    }

    /// Enough to stop for good.
    pub fn confirms(&self) -> bool {
        self.recent.count_ones() >= CONFIRM.0
    }

    pub fn forget(&mut self) {
        *self = Evidence::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frame (from 1) with which there is enough to hold, and to confirm.
    fn enough(frames: &str) -> (Option<usize>, Option<usize>) {
        let mut evidence = Evidence::default();
        let told: Vec<(bool, bool)> = frames
            .chars()
            .map(|frame| {
                evidence.hear(frame != '.', frame == '!');
                (evidence.holds().is_some(), evidence.confirms())
            })
            .collect();
        (told.iter().position(|t| t.0).map(|i| i + 1), told.iter().position(|t| t.1).map(|i| i + 1))
    }

    #[test]
    fn a_little_holds_and_more_confirms() {
        for (frames, expected) in [
            ("#".repeat(40), (Some(6), Some(20))),
            // Without a doubt.
            ("!!!.".into(), (Some(3), None)),
            (".!#!..!!".into(), (Some(8), None)),
            // A cough, and a rattle.
            ("#####..........".repeat(4), (None, None)),
            ("#.".repeat(40), (None, None)),
            ("##.".repeat(20), (Some(8), Some(29))),
            // "Yes", and quiet.
            (format!("{}{}", "#".repeat(12), ".".repeat(30)), (Some(6), None)),
            (format!("{}......{}", "#".repeat(12), "#".repeat(12)), (Some(6), Some(26))),
        ] {
            assert_eq!(enough(&frames), expected, "{frames}");
        }
    }

    #[test]
    fn it_tells_how_long_ago_the_speech_began() {
        let mut evidence = Evidence::default();
        "..##.####".chars().for_each(|frame| evidence.hear(frame == '#', false));
        assert_eq!(evidence.holds(), Some(Duration::from_millis(140)));
        evidence.forget();
        assert_eq!(evidence.holds(), None);
    }
}
