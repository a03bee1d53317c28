//! What the network's answer means on this line. It was trained on voices of one loudness, and knows
//! nothing of the noise behind them; so the line is amplified by how loud the caller's own voice is,
//! and its answer is weighed with how far the frame stands out of the noise.
//!
//! Two questions are asked of the same frame. Is this speech? And does it hold the caller's turn? For
//! the second, what is softer than the caller's voice has been counts for less: behind a caller who
//! has finished, babble and music go on.

/// The caller's voice follows louder frames fast, and is forgotten slowly: 1.5 dB a second.
const ATTACK: f32 = 0.3;
const DECAY_DB: f32 = 0.03;
/// Before it is known, and at least.
const AT_FIRST_DB: f32 = 56.0;
const LEAST_DB: f32 = 50.0;
/// A voice of this level needs no amplification; the network likes it best when amplified to it.
const BEST_DB: f32 = 67.3;
/// By how much a line is amplified, at least and at most.
const GAIN_DB: (f32, f32) = (-3.0, 6.0);
/// How the level is smoothed where a syllable's loudness is meant, and not a frame's.
const SMOOTHING: f32 = 0.35;

/// The network is never surer than this.
const SURE: f32 = 0.002;
/// The log-odds of speech for each 10 dB above the noise, up to where more says no more.
const PER_10_DB: f32 = 0.54;
const MOST_ABOVE_DB: f32 = 25.0;
/// For each 10 dB that the caller's voice is below this, softer sounds are let through.
const FOR_A_SOFT_VOICE: f32 = 0.34;
const MIDDLING_DB: f32 = 60.0;
/// What it takes, all the same.
const BIAS: f32 = 0.70;
/// What was speech goes on being speech, what was none does not begin by chance.
const STAYS: f32 = 0.43;
/// To hold a turn takes more, and for each 10 dB that a sound is softer than the voice, from a
/// little below it.
const TO_HOLD: f32 = 0.2;
const PER_10_DB_SOFTER: f32 = 0.3;
const ABOUT_AS_LOUD_DB: f32 = 6.0;
const MUCH_SOFTER_DB: f32 = 20.0;

/// The caller's voice on one line. Levels are 20·log10 of the RMS on the 16-bit scale.
#[derive(Clone, Debug)]
pub(super) struct Voice {
    db: f32,
    smooth_db: Option<f32>,
    speech: bool,
    holds: bool,
}

impl Default for Voice {
    fn default() -> Voice {
        Voice { db: AT_FIRST_DB, smooth_db: None, speech: false, holds: false }
    }
}

impl Voice {
    /// Takes a frame's level. What is the bot's echo does not tell how loud the caller is.
    pub(super) fn hear(&mut self, level_db: f32, echo: bool) {
        let smooth = self.smooth_db.get_or_insert(level_db);
        *smooth += SMOOTHING * (level_db - *smooth);
        if level_db <= self.db {
            self.db = (self.db - DECAY_DB).max(LEAST_DB);
        } else if !echo {
            self.db += ATTACK * (level_db - self.db);
        }
    }

    /// By how much to amplify the line for the network.
    pub(super) fn gain(&self) -> f32 {
        10f32.powf((BEST_DB - self.db).clamp(GAIN_DB.0, GAIN_DB.1) / 20.0)
    }

    /// How likely the frame is speech, given the network's answer; and whether it holds a turn.
    pub(super) fn weigh(&mut self, p: f32, floor_db: f32) -> (f32, bool) {
        if p == 0.0 {
            (self.speech, self.holds) = (false, false);
            return (0.0, false);
        }
        let smooth_db = self.smooth_db.unwrap_or_default();
        let above = (smooth_db - floor_db).clamp(0.0, MOST_ABOVE_DB) / 10.0;
        let soft = (MIDDLING_DB - self.db) / 10.0;
        let p = p.clamp(SURE, 1.0 - SURE);
        let odds = (p / (1.0 - p)).ln() + PER_10_DB * above + FOR_A_SOFT_VOICE * soft - BIAS;
        let stays = |was: bool| if was { STAYS } else { -STAYS };
        let speech = odds + stays(self.speech);
        let softer = (smooth_db - self.db + ABOUT_AS_LOUD_DB).clamp(-MUCH_SOFTER_DB, 0.0) / 10.0;
        let holds = odds + PER_10_DB_SOFTER * softer - TO_HOLD + stays(self.holds);
        (self.speech, self.holds) = (speech >= 0.0, holds >= 0.0);
        (1.0 / (1.0 + (-speech).exp()), self.holds)
    }
}
