//! Clips through the engine. A caller's turn goes through a whole call, whose recogniser understands
//! nothing, so that it is back in LISTENING at once. Where the bot speaks in a clip, its voice is
//! mixed in and goes on whatever the engine decides; so these go through the parts that decide.

use std::sync::Arc;
use std::time::{Duration, Instant};

use voxgate::call::{Call, Event, Hearing, Input, Mode, Output, Settings};
use voxgate::config::Config;
use voxgate::time::{CallTime, FRAME};
use voxgate::turn::{Endpointing, Evidence, FrontEnd, Measured, Vad, decibels, level_db};

use crate::corpus::{Clip, Corpus, Kind};

/// Armed again after this much quiet, or when the bot would have begun its next turn.
const QUIET_FRAMES: u64 = 25;
const NEXT_TURN_MS: u64 = 3_000;

pub(crate) struct Ran {
    pub(crate) clips: Vec<Heard>,
    /// Of the front end, per frame.
    pub(crate) cost: Duration,
}

/// What the engine made of a clip. Times are in ms; a frame is decided on when it is complete.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) frames: Vec<Measured>,
    pub(crate) turns: Vec<Turn>,
    pub(crate) holds: Vec<u64>,
    pub(crate) confirms: Vec<u64>,
}

pub(crate) struct Turn {
    pub(crate) start: u64,
    pub(crate) end: Option<u64>,
}

pub(crate) fn run(corpus: &Corpus, vad: Vad) -> Ran {
    let vad_rms = Config::default().turn.vad_rms;
    let mut spent = Duration::ZERO;
    let clips: Vec<Heard> = corpus
        .clips
        .iter()
        .map(|clip| {
            let mut heard = Heard { frames: measured(clip, vad, vad_rms, &mut spent), ..Heard::default() };
            interruptions(&mut heard, decibels(vad_rms));
            if clip.label.kind == Kind::Turn {
                turns(clip, vad, &mut heard);
            }
            heard
        })
        .collect();
    let frames: usize = clips.iter().map(|clip| clip.frames.len()).sum();
    Ran { clips, cost: spent / u32::try_from(frames.max(1)).unwrap_or(u32::MAX) }
}

fn measured(clip: &Clip, vad: Vad, vad_rms: f32, spent: &mut Duration) -> Vec<Measured> {
    let mut front = FrontEnd::new(vad, vad_rms);
    let frames = clip.frames.iter().enumerate().map(|(n, frame)| {
        let far_db = clip.far.get(n).map_or(0.0, |far| level_db(&far.0));
        let started = Instant::now();
        let measured = front.hear(frame, far_db);
        *spent += started.elapsed();
        measured
    });
    frames.collect()
}

/// What stops the bot, as if it spoke all the time. Nothing below `least_db` does.
pub(crate) fn interruptions(heard: &mut Heard, least_db: f32) {
    let mut evidence = Evidence::default();
    let (mut hold, mut confirm, mut quiet) = (Armed::default(), Armed::default(), 0);
    for (n, measured) in heard.frames.iter().enumerate() {
        let ms = (n as u64 + 1) * 20;
        let speech = measured.interrupts(least_db);
        evidence.hear(speech, measured.interrupts_clearly(least_db));
        quiet = if speech { 0 } else { quiet + 1 };
        hold.take(evidence.holds().is_some(), quiet, ms, &mut heard.holds);
        confirm.take(evidence.confirms(), quiet, ms, &mut heard.confirms);
    }
}

struct Armed(bool);

impl Default for Armed {
    fn default() -> Armed {
        Armed(true)
    }
}

impl Armed {
    fn take(&mut self, enough: bool, quiet: u64, ms: u64, told: &mut Vec<u64>) {
        if self.0 && enough {
            told.push(ms);
            self.0 = false;
        }
        if quiet >= QUIET_FRAMES || told.last().is_some_and(|last| ms >= last + NEXT_TURN_MS) {
            self.0 = true;
        }
    }
}

fn turns(clip: &Clip, vad: Vad, heard: &mut Heard) {
    let mut call = Call::new(Arc::new(settings(vad)), CallTime::ZERO);
    let mut now = CallTime::ZERO;
    for frame in &clip.frames {
        now = now + FRAME;
        call.handle(Input::Media { payload: &frame.0, timestamp_ms: None }, now);
        while let Some(output) = call.poll_output() {
            match output {
                Output::Transcribe { utterance, .. } => {
                    call.handle(Input::Transcript { utterance, text: String::new() }, now);
                }
                Output::Event(Event::UtteranceStarted) => {
                    heard.turns.push(Turn { start: now.as_millis(), end: None });
                }
                Output::Event(Event::UtteranceEnded { .. }) => {
                    if let Some(turn) = heard.turns.last_mut() {
                        turn.end = Some(now.as_millis());
                    }
                }
                _ => {}
            }
        }
    }
}

/// As shipped, for a dialogue; a clip is too short for a habit, and the goal is for 450 ms.
fn settings(vad: Vad) -> Settings {
    let shipped = voxgate::edge::settings(&Config::default());
    let (mode, hearing) = (Mode::Dialogue, Hearing::Utterances);
    Settings { mode, hearing, vad, endpointing: endpointing(vad.tail()), adaptive_eou: false, ..shipped }
}

/// As shipped, for a detector with this tail.
pub(crate) fn endpointing(tail: Duration) -> Endpointing {
    Endpointing { tail, ..voxgate::edge::settings(&Config::default()).endpointing }
}
