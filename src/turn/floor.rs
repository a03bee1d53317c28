//! The noise floor of a line: the quietest that it was of late. Speech has pauses, so that its
//! minima over a few seconds are the noise behind it.

/// Frames that make a block: 400 ms.
const BLOCK: u32 = 20;
/// Blocks looked back on: with the one that is being filled, 2 to 2.4 s.
const BLOCKS: usize = 5;
/// How fast the level is smoothed: about 100 ms, so that one quiet frame is no floor.
const SMOOTHING: f32 = 0.2;
/// The minimum of something that varies lies below its mean.
const BIAS_DB: f32 = 1.5;
/// In the first moment, 300 ms, the line is taken to be no louder than this; after it, it is what it was
/// at its quietest.
const FIRST: u32 = 15;
const LOUDEST_START_DB: f32 = 46.0;

/// Follows the noise of one line. Levels are 20·log10 of the RMS on the 16-bit scale.
#[derive(Clone, Debug, Default)]
pub(super) struct Floor {
    smooth: Option<f32>,
    minima: [f32; BLOCKS],
    block: f32,
    frames: u32,
    /// Frames of the first moment so far, and the quietest of it.
    first: u32,
    least: f32,
}

impl Floor {
    /// Takes the level of one frame. What is no noise may lower the floor, but not raise it.
    pub(super) fn hear(&mut self, level_db: f32, noise: bool) {
        let Some(smooth) = &mut self.smooth else {
            let start = level_db.min(LOUDEST_START_DB);
            self.minima = [start; BLOCKS];
            self.block = start;
            self.smooth = Some(level_db);
            self.least = level_db;
            return;
        };
        if self.first < FIRST && noise {
            self.first += 1;
            *smooth += SMOOTHING * (level_db - *smooth);
            self.least = self.least.min(*smooth);
            self.block = self.block.min(*smooth);
            if self.first == FIRST {
                self.minima = [self.least; BLOCKS];
                self.block = self.least;
            }
            return;
        }
        if !noise && level_db > self.block {
            return;
        }
        *smooth += SMOOTHING * (level_db - *smooth);
        self.block = self.block.min(*smooth);
        self.frames += 1;
        if self.frames == BLOCK {
            self.minima.rotate_left(1);
            self.minima[BLOCKS - 1] = self.block;
            self.block = *smooth;
            self.frames = 0;
        }
    }

    pub(super) fn db(&self) -> f32 {
        self.minima.iter().fold(self.block, |least, &db| least.min(db)) + BIAS_DB
    }
}
