//! What one frame of the caller's line tells, as four numbers. They are all that turn-taking decides
//! on, so that they can be drawn, recorded, and given to it again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::echo::Echo;
use super::floor::Floor;
use super::neural::Neural;
use super::voice::{Voice, Weighed};
use crate::audio::{Frame, level};

/// The caller has to be this much louder than the bot's echo could be.
const ABOVE_ECHO_DB: f32 = 5.0;
/// Where an echo could be within this of the noise, it does not tell what the noise is.
const NEAR_FLOOR_DB: f32 = 3.0;
/// From here on a frame is speech.
const SPEECH: f32 = 0.5;
/// Odds from which there is little doubt that the caller speaks against the bot.
const CLEARLY: f32 = 0.3;

/// How speech is told from noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Vad {
    /// By a small neural network.
    Neural,
    /// By loudness alone.
    Rms,
}

impl Vad {
    /// How long it goes on hearing speech that is over: its network looks back.
    pub fn tail(self) -> Duration {
        match self {
            Vad::Neural => Duration::from_millis(20),
            Vad::Rms => Duration::ZERO,
        }
    }
}

/// One frame, measured. Levels are 20·log10 of the RMS on the 16-bit scale: 0 is silence, 90.3 a
/// full-scale square wave.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    pub level_db: f32,
    /// The noise of the line.
    pub floor_db: f32,
    /// How likely it is speech, from 0 to 1.
    pub p: f32,
    /// How loud the echo of what the bot says could be in it; 0 while the bot is silent.
    pub echo_db: f32,
    /// As loud as speech has to be to hold the caller's turn, where it is speech.
    pub holds_turn: bool,
    /// The log-odds that the caller speaks against the bot: from 0 on a frame interrupts.
    pub against_bot: f32,
}

impl Measured {
    /// The same, where loudness alone decides: from this level on it is speech.
    pub fn by_loudness(self, loud_db: f32) -> Measured {
        let loud = self.level_db >= loud_db;
        let (p, against_bot) = if loud { (1.0, 0.0) } else { (0.0, f32::MIN) };
        Measured { p, holds_turn: loud, against_bot, ..self }
    }

    /// Somebody speaks, and not the bot's own echo.
    pub fn is_speech(&self) -> bool {
        self.p >= SPEECH && !self.is_echo()
    }

    /// The caller has not finished: speech, loud enough to be the caller's.
    pub fn is_turn(&self) -> bool {
        self.holds_turn && !self.is_echo()
    }

    /// Somebody speaks, and not so softly that it is never let through. `least_db` is that level.
    pub fn speaks(&self, least_db: f32) -> bool {
        self.is_speech() && self.level_db >= least_db
    }

    /// Somebody speaks against the bot. `least_db` is the level below which nothing interrupts.
    pub fn interrupts(&self, least_db: f32) -> bool {
        self.against_bot >= 0.0 && self.level_db >= least_db && !self.is_echo()
    }

    /// The same, beyond doubt.
    pub fn interrupts_clearly(&self, least_db: f32) -> bool {
        self.against_bot >= CLEARLY && self.interrupts(least_db)
    }

    /// It would be speech, if there were no echo.
    pub fn would_speak(&self, least_db: f32) -> bool {
        self.p >= SPEECH && self.level_db >= least_db && self.is_echo()
    }

    /// No louder than the bot's echo may be.
    pub fn is_echo(&self) -> bool {
        self.echo_db > 0.0 && self.level_db < self.echo_db + ABOVE_ECHO_DB
    }
}

/// Measures one line.
#[derive(Debug)]
pub struct FrontEnd {
    neural: Option<Neural>,
    loud_db: f32,
    floor: Floor,
    /// There once the bot has said something.
    echo: Option<Box<Echo>>,
    voice: Voice,
}

impl FrontEnd {
    /// `vad_rms` is the RMS from which a frame is speech where loudness decides.
    pub fn new(vad: Vad, vad_rms: f32) -> FrontEnd {
        let neural = match vad {
            Vad::Neural => Some(Neural::new()),
            Vad::Rms => None,
        };
        FrontEnd {
            neural,
            loud_db: decibels(vad_rms),
            floor: Floor::default(),
            echo: None,
            voice: Voice::default(),
        }
    }

    /// Takes a frame of the caller's, and the level of what the caller heard of the bot meanwhile.
    pub fn hear(&mut self, frame: &Frame, far_db: f32) -> Measured {
        let level_db = level_db(&frame.0);
        let echo_db = if far_db > 0.0 || self.echo.is_some() {
            self.echo.get_or_insert_default().hear(level_db, self.floor.db(), far_db)
        } else {
            0.0
        };
        let noise = echo_db < self.floor.db() + NEAR_FLOOR_DB;
        self.floor.hear(level_db, noise);
        let floor_db = self.floor.db();
        let measured = Measured { level_db, floor_db, echo_db, ..Measured::default() };
        let Some(neural) = &mut self.neural else { return measured.by_loudness(self.loud_db) };
        self.voice.hear(level_db, measured.is_echo());
        let above_echo_db = (echo_db > 0.0).then_some(level_db - echo_db);
        let Weighed { p, holds_turn, against_bot } =
            match neural.hear(frame, self.voice.gain(), level_db, floor_db) {
                Some(p) => self.voice.weigh(p, floor_db, above_echo_db),
                None => self.voice.quiet(),
            };
        Measured { p, holds_turn, against_bot, ..measured }
    }
}

/// The level of a stretch of μ-law, on the scale of [`Measured`].
pub fn level_db(mulaw: &[u8]) -> f32 {
    decibels(level::rms(mulaw))
}

/// An RMS on the 16-bit scale as a level.
pub fn decibels(rms: f32) -> f32 {
    20.0 * rms.max(1.0).log10()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{APOLOGY, FRAME_BYTES, SILENCE, mulaw};

    fn frames(audio: &[u8]) -> impl Iterator<Item = Frame> {
        audio.as_chunks::<FRAME_BYTES>().0.iter().map(|bytes| Frame(*bytes))
    }

    /// Noise of this RMS, the same each time.
    fn noise(ms: usize, rms: f32) -> Vec<u8> {
        let mut seed = 1u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..ms * 8).map(|_| mulaw::encode((rms * 12f32.sqrt() * next()) as i16)).collect()
    }

    /// Softer or louder by so much.
    fn scaled(audio: &[u8], db: f32) -> Vec<u8> {
        let by = 10f32.powf(db / 20.0);
        audio.iter().map(|b| mulaw::encode((f32::from(mulaw::decode(*b)) * by) as i16)).collect()
    }

    /// The share of frames that are speech.
    fn speech(vad: Vad, audio: &[u8]) -> f32 {
        let mut front = FrontEnd::new(vad, 210.0);
        let heard: Vec<bool> = frames(audio).map(|frame| front.hear(&frame, 0.0).is_speech()).collect();
        heard.iter().filter(|speech| **speech).count() as f32 / heard.len() as f32
    }

    #[test]
    fn the_network_knows_speech_from_noise_and_loudness_does_not() {
        let soft = scaled(APOLOGY, -15.0);
        for (name, audio, neural, rms) in [
            ("speech", APOLOGY.to_vec(), 0.6..1.0, 0.6..1.0),
            ("soft speech", soft, 0.6..1.0, 0.4..1.0),
            ("silence", vec![SILENCE; 80_000], 0.0..0.001, 0.0..0.001),
            ("loud noise", noise(10_000, 1_000.0), 0.0..0.05, 0.99..1.1),
        ] {
            let heard = (speech(Vad::Neural, &audio), speech(Vad::Rms, &audio));
            assert!(neural.contains(&heard.0) && rms.contains(&heard.1), "{name}: {heard:?}");
        }
    }

    #[test]
    fn the_floor_is_the_noise_and_neither_speech_nor_an_echo() {
        let mut front = FrontEnd::new(Vad::Neural, 210.0);
        let mut line = noise(2_000, 100.0);
        line.extend_from_slice(APOLOGY);
        let floor = frames(&line).map(|frame| front.hear(&frame, 0.0).floor_db).last();
        assert!(floor.is_some_and(|db| (36.0..42.0).contains(&db)), "{floor:?}, 40 dB of noise");
        // The bot speaks without a pause, and comes back at 57 dB.
        let echo = noise(8_000, 700.0);
        let floor = frames(&echo).map(|frame| front.hear(&frame, 77.0).floor_db).last();
        assert!(floor.is_some_and(|db| db < 42.0), "{floor:?}");
    }

    #[test]
    fn the_bots_echo_is_no_speech_and_a_caller_on_top_of_it_is() {
        for (gain, lag) in [(-20.0, 4), (-26.0, 15), (-34.0, 9), (-40.0, 12)] {
            let mut front = FrontEnd::new(Vad::Neural, 210.0);
            let bot = APOLOGY.repeat(3);
            let mut heard = vec![SILENCE; lag * FRAME_BYTES + 70];
            heard.extend(scaled(&bot, gain));
            let far = frames(&bot).map(|frame| level_db(&frame.0));
            let told: Vec<_> = frames(&heard).zip(far).map(|(frame, far)| front.hear(&frame, far)).collect();
            let wrong: Vec<bool> = told.iter().map(|m| m.interrupts(decibels(210.0))).collect();
            let most = wrong.windows(10).map(|w| w.iter().filter(|wrong| **wrong).count()).max();
            assert!(most < Some(6), "{most:?} of 10 frames at {gain} dB");

            // The caller says the same, softer than the bot, while the bot goes on.
            let caller = scaled(APOLOGY, -6.0);
            let far = frames(APOLOGY).map(|frame| level_db(&frame.0));
            let heard = frames(&caller).zip(far).map(|(frame, far)| front.hear(&frame, far));
            let through = heard.filter(|m| m.interrupts(decibels(210.0))).count();
            assert!(through * 4 > caller.len() / FRAME_BYTES, "{through} frames at {gain} dB");
        }
    }

    /// The detector's tail, which `Vad::tail` promises.
    #[test]
    fn a_turn_is_held_for_about_20_ms_longer_than_the_speech_lasts() {
        for db in [0.0, -10.0, -20.0] {
            let mut line = scaled(APOLOGY, db);
            let last = frames(&line).collect::<Vec<_>>().iter().rposition(|f| level_db(&f.0) > 50.0 + db);
            line.extend(vec![SILENCE; 8_000]);
            let mut front = FrontEnd::new(Vad::Neural, 210.0);
            let told: Vec<bool> = frames(&line).map(|frame| front.hear(&frame, 0.0).is_turn()).collect();
            let late = told.iter().rposition(|turn| *turn).zip(last);
            let late = late.map(|(heard, last)| heard as i64 - last as i64);
            assert!(late.is_some_and(|frames| (0..=2).contains(&frames)), "{late:?} frames at {db} dB");
        }
    }

    #[test]
    fn a_quiet_talker_is_heard_as_well_as_a_loud_one() {
        // -44 dBFS, in noise 10 dB below.
        let mut line = noise(2_000, 30.0);
        let voice = scaled(APOLOGY, -24.0);
        let hiss = noise(voice.len() / 8, 30.0);
        line.extend(
            voice.iter().zip(&hiss).map(|(a, b)| mulaw::encode(mulaw::decode(*a) + mulaw::decode(*b))),
        );
        let mut front = FrontEnd::new(Vad::Neural, 210.0);
        let told: Vec<bool> = frames(&line).map(|frame| front.hear(&frame, 0.0).is_speech()).collect();
        let (before, during) = told.split_at(100);
        let share = |told: &[bool]| told.iter().filter(|speech| **speech).count() as f32 / told.len() as f32;
        assert!(share(before) < 0.05, "{} of the noise", share(before));
        assert!(share(during) > 0.6, "{} of the speech", share(during));
    }
}
