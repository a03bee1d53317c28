//! A small neural network that tells speech from noise, with what the telephone needs around it: the
//! line is brought to the rate that the network knows, and a quiet line does not cost anything.

use std::fmt;

use earshot::Detector;

use crate::audio::{FRAME_BYTES, Frame, mulaw};

/// Samples that the network takes at a time: 16 ms at 16 kHz.
const HOP: usize = 256;
/// Samples of one frame at 16 kHz.
const FRAME_SAMPLES: usize = 2 * FRAME_BYTES;
/// Sound from before a line gets loud, for the network to find its feet in.
const WARM_UP: usize = 2 * HOP;
/// Below this level nothing is a voice.
const QUIET_DB: f32 = 34.0;
/// And nothing that is hardly louder than the noise.
const ABOVE_FLOOR_DB: f32 = 2.0;
/// Quiet frames after which the network is not asked any more: 320 ms.
const HOLD_FRAMES: u32 = 16;
/// Quiet frames after which it has nothing left to remember: 3 s.
const FORGET_FRAMES: u32 = 150;

/// Frames that hold the warm-up.
const KEPT: usize = WARM_UP.div_ceil(FRAME_SAMPLES);

pub(super) struct Neural {
    /// Most of what a call takes of memory, so a line that is quiet for long has none.
    network: Option<Box<Network>>,
    /// The frames that a quiet line had last, and by how much each is to be amplified; so many are there.
    kept: [(Frame, f32); KEPT],
    len: usize,
    /// Quiet frames in a row.
    quiet: u32,
}

impl Neural {
    pub(super) fn new() -> Neural {
        Neural { network: None, kept: [(Frame::SILENT, 1.0); KEPT], len: 0, quiet: HOLD_FRAMES }
    }

    /// Takes one frame, and by how much to amplify it; how likely it is speech,
    /// from 0 to 1, unless the line is quiet.
    pub(super) fn hear(&mut self, frame: &Frame, gain: f32, level_db: f32, floor_db: f32) -> Option<f32> {
        let quiet = level_db < QUIET_DB || level_db < floor_db + ABOVE_FLOOR_DB;
        self.quiet = if quiet { self.quiet.saturating_add(1) } else { 0 };
        if self.quiet < HOLD_FRAMES {
            let kept = &self.kept[KEPT - self.len..];
            let network = self.network.get_or_insert_with(|| Network::after(kept));
            return Some(network.hear(frame, gain));
        }
        self.kept.rotate_left(1);
        self.kept[KEPT - 1] = (*frame, gain);
        self.len = (self.len + 1).min(KEPT);
        if self.quiet >= FORGET_FRAMES {
            self.network = None;
        } else if let Some(network) = &mut self.network {
            network.wait(frame, gain);
        }
        None
    }
}

/// The network, and sound that it has not had yet.
struct Network {
    detector: Box<Detector>,
    /// The warm-up, less than a hop, and a frame.
    samples: [i16; WARM_UP + HOP + FRAME_SAMPLES],
    len: usize,
    /// The last sample, at the rate of the line.
    last: f32,
    p: f32,
}

impl Network {
    /// One that wakes up behind these frames.
    fn after(frames: &[(Frame, f32)]) -> Box<Network> {
        let samples = [0; WARM_UP + HOP + FRAME_SAMPLES];
        let mut network =
            Box::new(Network { detector: Detector::default_boxed(), samples, len: 0, last: 0.0, p: 0.0 });
        for (frame, gain) in frames {
            network.wait(frame, *gain);
        }
        network
    }

    /// Takes a frame of a quiet line: for now it only warms up.
    fn wait(&mut self, frame: &Frame, gain: f32) {
        self.p = 0.0;
        self.push(frame, gain);
        let over = self.len.saturating_sub(WARM_UP);
        self.drop_first(over);
    }

    fn hear(&mut self, frame: &Frame, gain: f32) -> f32 {
        self.push(frame, gain);
        // What lies before this frame only warms up.
        let before = self.len - FRAME_SAMPLES;
        let mut at = 0;
        while at + HOP <= self.len {
            let p = self.detector.predict_i16(&self.samples[at..at + HOP]);
            at += HOP;
            if at > before {
                self.p = p;
            }
        }
        self.drop_first(at);
        self.p
    }

    /// Twice the rate by straight lines. What that leaves above 4 kHz stands in for the part of a
    /// voice that telephones cut off: the network does better with it than without.
    fn push(&mut self, frame: &Frame, gain: f32) {
        let room = &mut self.samples[self.len..self.len + FRAME_SAMPLES];
        for (pair, &code) in room.chunks_exact_mut(2).zip(&frame.0) {
            let sample = gain * f32::from(mulaw::decode(code));
            pair[0] = (0.5 * (self.last + sample)) as i16;
            pair[1] = sample as i16;
            self.last = sample;
        }
        self.len += FRAME_SAMPLES;
    }

    fn drop_first(&mut self, samples: usize) {
        self.samples.copy_within(samples..self.len, 0);
        self.len -= samples;
    }
}

impl fmt::Debug for Neural {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = self.network.as_ref().map(|network| network.p);
        f.debug_struct("Neural").field("p", &p).field("quiet", &self.quiet).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::APOLOGY;

    /// What each frame is told to be behind so much silence, and whether a network was there in it.
    fn told(silence: usize) -> (Vec<Option<f32>>, bool) {
        let mut neural = Neural::new();
        for _ in 0..silence {
            neural.hear(&Frame::SILENT, 1.0, 0.0, 20.0);
        }
        let there = neural.network.is_some();
        let speech = APOLOGY.as_chunks::<FRAME_BYTES>().0.iter();
        (speech.map(|frame| neural.hear(&Frame(*frame), 1.0, 60.0, 20.0)).collect(), there)
    }

    #[test]
    fn a_quiet_line_has_no_network_and_its_caller_is_heard_as_at_first() {
        let mut neural = Neural::new();
        neural.hear(&Frame(std::array::from_fn(|i| APOLOGY[800 + i])), 1.0, 60.0, 20.0);
        for _ in 0..FORGET_FRAMES - 1 {
            neural.hear(&Frame::SILENT, 1.0, 0.0, 20.0);
        }
        assert!(neural.network.is_some(), "3 s are not over");
        neural.hear(&Frame::SILENT, 1.0, 0.0, 20.0);
        assert!(neural.network.is_none());

        let (soon, late) = (told(2), told(1_000));
        assert!(!soon.1 && !late.1);
        assert_eq!(soon.0, late.0);
        assert!(soon.0.iter().flatten().any(|p| *p > 0.9), "{:?}", soon.0);
    }
}
