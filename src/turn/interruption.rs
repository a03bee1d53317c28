//! Has the caller spoken long enough, while the bot speaks, to mean it? 200 ms of the last 240: a
//! cough is shorter, and one dropped frame does not matter.

use std::time::Duration;

use crate::time::FRAME;

const WINDOW: u32 = 12;
const NEEDED: u32 = 10;

/// The last frames, one bit each.
#[derive(Clone, Debug, Default)]
pub struct Interruption {
    recent: u16,
}

impl Interruption {
    /// Takes one frame; `Some` when the caller interrupts: how long ago the speech began.
    pub fn hear(&mut self, voiced: bool) -> Option<Duration> {
        self.recent = ((self.recent << 1) | u16::from(voiced)) & ((1 << WINDOW) - 1);
        if self.recent.count_ones() < NEEDED {
            return None;
        }
        let oldest = u16::BITS - self.recent.leading_zeros();
        self.forget();
        Some(FRAME * oldest)
    }

    /// The caller may be about to: the latest two frames had voice.
    pub fn may_begin(&self) -> bool {
        self.recent & 0b11 == 0b11
    }

    pub fn forget(&mut self) {
        self.recent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_voiced_frames_of_twelve() {
        for (frames, at) in [
            ("##########", Some((9, 200))),
            ("#####.#####", Some((10, 220))),
            ("####..######", Some((11, 240))),
            ("####...######", None),
            ("#########.......", None),
            ("##.##.##.##.##.##.##", None),
        ] {
            let mut interruption = Interruption::default();
            let heard = frames
                .chars()
                .enumerate()
                .find_map(|(i, f)| interruption.hear(f == '#').map(|ago| (i, ago.as_millis())));
            assert_eq!(heard, at, "{frames}");
        }
    }

    #[test]
    fn it_is_told_once() {
        let mut interruption = Interruption::default();
        let told = (0..19).filter(|_| interruption.hear(true).is_some()).count();
        assert_eq!(told, 1);
    }
}
