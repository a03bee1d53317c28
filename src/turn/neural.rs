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

pub(super) struct Neural {
    /// Most of what a call takes of memory, so a line that is quiet has none.
    detector: Option<Box<Detector>>,
    /// Sound that the network has not had yet: the warm-up, less than a hop, and a frame.
    samples: [i16; WARM_UP + HOP + FRAME_SAMPLES],
    len: usize,
    /// The last sample, at the rate of the line.
    last: f32,
    /// Quiet frames in a row.
    quiet: u32,
    p: f32,
}

impl Neural {
    pub(super) fn new() -> Neural {
        Neural {
            detector: None,
            samples: [0; WARM_UP + HOP + FRAME_SAMPLES],
            len: 0,
            last: 0.0,
            quiet: HOLD_FRAMES,
            p: 0.0,
        }
    }

    /// Takes one frame, and by how much to amplify it; how likely it is speech,
    /// from 0 to 1, unless the line is quiet.
    pub(super) fn hear(&mut self, frame: &Frame, gain: f32, level_db: f32, floor_db: f32) -> Option<f32> {
        let quiet = level_db < QUIET_DB || level_db < floor_db + ABOVE_FLOOR_DB;
        self.quiet = if quiet { self.quiet.saturating_add(1) } else { 0 };
        self.push(frame, gain);
        if self.quiet >= HOLD_FRAMES {
            self.p = 0.0;
            let over = self.len.saturating_sub(WARM_UP);
            self.drop_first(over);
            if self.quiet >= FORGET_FRAMES {
                self.detector = None;
            }
            return None;
        }
        // What lies before this frame only warms up.
        let before = self.len - FRAME_SAMPLES;
        let detector = self.detector.get_or_insert_with(Detector::default_boxed);
        let mut at = 0;
        while at + HOP <= self.len {
            let p = detector.predict_i16(&self.samples[at..at + HOP]);
            at += HOP;
            if at > before {
                self.p = p;
            }
        }
        self.drop_first(at);
        Some(self.p)
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
        f.debug_struct("Neural").field("p", &self.p).field("quiet", &self.quiet).finish_non_exhaustive()
    }
}
