//! What the network's answer means on this line. It was trained on voices of one loudness, and knows
//! nothing of the noise behind them; so the line is amplified by how loud the caller's own voice is,
//! and its answer is weighed with how far the frame stands out of the noise.
//!
//! Three questions are asked of the same frame. Is this speech? Does it hold the caller's turn? There,
//! what is softer than the caller's voice has been counts for less: behind a caller who has finished,
//! babble and music go on. And does it interrupt the bot? That takes most, and the louder a voice, the
//! further out of the noise and above the bot's echo, the sooner it does.
//!
//! The weights are from a fit to synthetic telephone speech, rounded; `benches/turn_taking` says how
//! good they are on other speech.

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
const PER_10_DB: f32 = 0.4;
const MOST_ABOVE_DB: f32 = 21.0;
/// For each 10 dB that the caller's voice is below this, softer sounds are let through.
const FOR_A_SOFT_VOICE: f32 = 0.33;
const MIDDLING_DB: f32 = 60.0;
/// What it takes, all the same.
const BIAS: f32 = 0.63;
/// What was speech goes on being speech, and what was none does not begin by chance.
const STAYS: f32 = 0.5;
/// For each 10 dB that a sound is softer than the voice, it holds a turn less.
const PER_10_DB_SOFTER: f32 = 1.0;
const MUCH_SOFTER_DB: f32 = 20.0;
/// A turn is let go later than it is taken up.
const HOLDS_A_TURN: f32 = 1.0;
/// To interrupt: for each 10 dB that the line had to be amplified, that the frame is above the bot's
/// echo, as far as that tells something, and above the noise; and what it takes.
const PER_10_DB_SOFT: f32 = 2.75;
const PER_10_DB_ABOVE_ECHO: f32 = 0.57;
const ABOVE_ECHO_DB: (f32, f32) = (-10.0, 20.0);
const PER_10_DB_ABOVE_NOISE: f32 = 0.65;
const MOST_ABOVE_NOISE_DB: f32 = 45.0;
const TO_INTERRUPT: f32 = 3.6;

/// What the network's answer comes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weighed {
    /// How likely the frame is speech.
    pub(super) p: f32,
    /// It holds the caller's turn.
    pub(super) holds_turn: bool,
    /// The log-odds that it interrupts the bot.
    pub(super) against_bot: f32,
}

impl Weighed {
    /// What the network was not asked about.
    pub(super) const QUIET: Weighed = Weighed { p: 0.0, holds_turn: false, against_bot: f32::MIN };
}

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
        10f32.powf(self.gain_db() / 20.0)
    }

    fn gain_db(&self) -> f32 {
        (BEST_DB - self.db).clamp(GAIN_DB.0, GAIN_DB.1)
    }

    /// A frame that is too soft to ask the network about.
    pub(super) fn quiet(&mut self) -> Weighed {
        (self.speech, self.holds) = (false, false);
        Weighed::QUIET
    }

    /// Weighs the network's answer. `above_echo_db` is how much louder the frame is than the bot's echo
    /// could be, if there is one.
    pub(super) fn weigh(&mut self, p: f32, floor_db: f32, above_echo_db: Option<f32>) -> Weighed {
        let p = p.clamp(SURE, 1.0 - SURE);
        let heard = (p / (1.0 - p)).ln();
        let smooth_db = self.smooth_db.unwrap_or_default();
        let above = (smooth_db - floor_db).clamp(0.0, MOST_ABOVE_NOISE_DB) / 10.0;
        let soft = (MIDDLING_DB - self.db) / 10.0;
        let odds = heard + PER_10_DB * above.min(MOST_ABOVE_DB / 10.0) + FOR_A_SOFT_VOICE * soft - BIAS;
        let speech = odds + if self.speech { STAYS } else { -STAYS };
        let softer = (smooth_db - self.db).clamp(-MUCH_SOFTER_DB, 0.0) / 10.0;
        let holds = odds + PER_10_DB_SOFTER * softer + if self.holds { HOLDS_A_TURN } else { 0.0 };
        (self.speech, self.holds) = (speech >= 0.0, holds >= 0.0);
        let (least, most) = ABOVE_ECHO_DB;
        let above_echo = above_echo_db.unwrap_or(most).clamp(least, most) / 10.0;
        let against_bot = heard - PER_10_DB_SOFT * self.gain_db() / 10.0
            + PER_10_DB_ABOVE_ECHO * above_echo
            + PER_10_DB_ABOVE_NOISE * above
            - TO_INTERRUPT;
        Weighed { p: 1.0 / (1.0 + (-speech).exp()), holds_turn: self.holds, against_bot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a sound comes to that the network is so sure of, this loud for 400 ms, of a caller who has
    /// spoken so loud before, in noise of 40 dB.
    fn weighed(p: f32, level_db: f32, voice_db: f32) -> Weighed {
        let mut voice = Voice::default();
        (0..50).for_each(|_| voice.hear(voice_db, false));
        let told = (0..20).map(|_| {
            voice.hear(level_db, false);
            voice.weigh(p, 40.0, None)
        });
        told.last().unwrap_or(Weighed::QUIET)
    }

    #[test]
    fn what_is_softer_than_the_caller_may_be_speech_and_does_not_hold_the_turn() {
        for (level_db, voice_db, holds) in [(70.0, 70.0, true), (58.0, 76.0, false), (58.0, 58.0, true)] {
            let told = weighed(0.7, level_db, voice_db);
            assert!(told.p > 0.5, "{level_db} of {voice_db}: {told:?}");
            assert_eq!(told.holds_turn, holds, "{level_db} of {voice_db}: {told:?}");
        }
    }

    #[test]
    fn a_soft_voice_has_to_be_surer_to_interrupt_than_a_loud_one() {
        for (p, level_db, interrupts) in [(0.6, 74.0, true), (0.6, 56.0, false), (0.99, 56.0, true)] {
            let told = weighed(p, level_db, level_db);
            assert_eq!(told.against_bot >= 0.0, interrupts, "{p} at {level_db} dB: {told:?}");
        }
    }

    #[test]
    fn the_line_is_amplified_by_the_callers_voice_and_not_by_the_bots_echo() {
        let gain = |level_db: f32, echo: bool| {
            let mut voice = Voice::default();
            (0..200).for_each(|_| voice.hear(level_db, echo));
            voice.gain_db()
        };
        assert_eq!((gain(80.0, false), gain(80.0, true), gain(55.0, false)), (-3.0, 6.0, 6.0));
        assert!((0.0..2.0).contains(&gain(66.0, false)), "{}", gain(66.0, false));
    }
}
