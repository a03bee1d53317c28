//! From voiced and unvoiced frames to utterances: when one starts, when it has ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::FRAME;

/// When speech counts as begun, as gone on, and as over.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpointing {
    /// This much silence ends an utterance.
    pub eou: Duration,
    /// For this long the detector still hears speech that is over: [`Vad::tail`](super::Vad::tail).
    pub tail: Duration,
    /// This long an utterance may be at most, whatever the line sounds like.
    pub max_utterance: Duration,
}

/// Frames in a row that begin an utterance: 60 ms, so that a click does not.
const START_FRAMES: u32 = 3;
/// Frames in a row that take a pause back: 40 ms, so that a click does not hold a turn open.
const RESUME_FRAMES: u32 = 2;

/// What a frame told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing new.
    Same,
    /// An utterance has begun, this many frames ago (this one included).
    Started {
        frames_ago: u32,
    },
    Ended(Ended),
}

/// An utterance that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// From the first voiced frame to the last, less the detector's tail.
    pub speech: Duration,
    /// The silence that ended it, the tail included; zero if it was cut at `max_utterance`.
    pub silence: Duration,
    /// Frames above the threshold in it: what a cough has few of.
    pub voiced_frames: u32,
}

/// Follows one caller's voice.
#[derive(Clone, Debug)]
pub struct Ear {
    endpointing: Endpointing,
    /// Voiced frames in a row, up to now.
    run: u32,
    utterance: Option<Utterance>,
}

#[derive(Clone, Copy, Debug)]
struct Utterance {
    /// Frames since it began.
    frames: u32,
    /// Frames since the last of its speech.
    silence: u32,
    voiced: u32,
}

impl Ear {
    pub fn new(endpointing: Endpointing) -> Ear {
        Ear { endpointing, run: 0, utterance: None }
    }

    /// The caller is in the middle of an utterance, a short pause included.
    pub fn hears_speech(&self) -> bool {
        self.utterance.is_some()
    }

    /// The silence within an utterance so far, the detector's tail included; `None` outside of one.
    pub fn silence(&self) -> Option<Duration> {
        let silence = |u: Utterance| match u.silence {
            0 => Duration::ZERO,
            frames => FRAME * frames + self.endpointing.tail,
        };
        self.utterance.map(silence)
    }

    /// From now on so much silence ends an utterance.
    pub fn wait(&mut self, eou: Duration) {
        self.endpointing.eou = eou;
    }

    /// Takes one frame.
    pub fn hear(&mut self, voiced: bool) -> Heard {
        self.run = if voiced { self.run + 1 } else { 0 };
        let Some(utterance) = &mut self.utterance else {
            if self.run < START_FRAMES {
                return Heard::Same;
            }
            self.utterance = Some(Utterance { frames: self.run, silence: 0, voiced: self.run });
            return Heard::Started { frames_ago: self.run };
        };
        utterance.frames += 1;
        utterance.voiced += u32::from(voiced);
        utterance.silence = if self.run >= RESUME_FRAMES { 0 } else { utterance.silence + 1 };
        // A frame of voice at the last moment may be the caller who goes on: the next one tells.
        let over = !voiced && FRAME * utterance.silence + self.endpointing.tail >= self.endpointing.eou;
        let too_long = FRAME * utterance.frames >= self.endpointing.max_utterance;
        if over || too_long { self.end() } else { Heard::Same }
    }

    /// Ends the utterance now, if there is one: the line has gone quiet altogether.
    pub fn end(&mut self) -> Heard {
        self.run = 0;
        match self.utterance.take() {
            Some(u) => {
                // Cut in the middle of speech there is no tail.
                let tail = if u.silence > 0 { self.endpointing.tail } else { Duration::ZERO };
                Heard::Ended(Ended {
                    speech: (FRAME * (u.frames - u.silence)).saturating_sub(tail),
                    silence: FRAME * u.silence + tail,
                    voiced_frames: u.voiced,
                })
            }
            None => Heard::Same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `#` is a voiced frame, `.` an unvoiced one; the answer has a letter where something was heard.
    fn story(eou_ms: u64, frames: &str) -> String {
        story_with_a_tail(eou_ms, 0, frames)
    }

    fn story_with_a_tail(eou_ms: u64, tail_ms: u64, frames: &str) -> String {
        let endpointing = Endpointing {
            eou: Duration::from_millis(eou_ms),
            tail: Duration::from_millis(tail_ms),
            max_utterance: Duration::from_millis(600),
        };
        let mut ear = Ear::new(endpointing);
        let mut told = Vec::new();
        for (i, frame) in frames.chars().enumerate() {
            match ear.hear(frame == '#') {
                Heard::Same => {}
                Heard::Started { frames_ago } => {
                    told.push(format!("{i}: started at {}", i as u32 + 1 - frames_ago))
                }
                Heard::Ended(e) => told.push(format!(
                    "{i}: ended, {} ms of speech, {} ms of silence, {} voiced",
                    e.speech.as_millis(),
                    e.silence.as_millis(),
                    e.voiced_frames
                )),
            }
        }
        told.join("; ")
    }

    #[test]
    fn utterances() {
        for (frames, told) in [
            ("..........", ""),
            ("##.##.##.#", ""),
            ("..###.....", "4: started at 2; 9: ended, 60 ms of speech, 100 ms of silence, 3 voiced"),
            // A click in the pause does not hold the turn open; 40 ms of speech do.
            ("###..#....", "2: started at 0; 7: ended, 60 ms of speech, 100 ms of silence, 4 voiced"),
            ("###..##.....", "2: started at 0; 11: ended, 140 ms of speech, 100 ms of silence, 5 voiced"),
            // Who goes on at the last moment has not finished; a click then is no voice.
            ("###....##.....", "2: started at 0; 13: ended, 180 ms of speech, 100 ms of silence, 5 voiced"),
            ("###....#......", "2: started at 0; 8: ended, 60 ms of speech, 120 ms of silence, 4 voiced"),
            // Noise that never stops ends at the longest utterance allowed, and begins anew.
            (
                &"#".repeat(34),
                "2: started at 0; 29: ended, 600 ms of speech, 0 ms of silence, 30 voiced; 32: started at 30",
            ),
        ] {
            assert_eq!(story(100, frames), told, "{frames}");
        }
    }

    #[test]
    fn what_the_detector_is_late_with_is_silence() {
        assert_eq!(
            story_with_a_tail(450, 80, &format!("{}{}", "#".repeat(10), ".".repeat(30))),
            "2: started at 0; 28: ended, 120 ms of speech, 460 ms of silence, 10 voiced"
        );
        assert_eq!(
            story_with_a_tail(450, 80, &"#".repeat(30)),
            "2: started at 0; 29: ended, 600 ms of speech, 0 ms of silence, 30 voiced"
        );
    }

    #[test]
    fn the_end_comes_with_the_first_frame_past_eou() {
        assert_eq!(
            story(450, &format!("###{}", ".".repeat(30))),
            "2: started at 0; 25: ended, 60 ms of speech, 460 ms of silence, 3 voiced"
        );
    }
}
