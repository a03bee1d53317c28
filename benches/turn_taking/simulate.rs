//! Conversations in virtual time: callers who pause for thought as people on real calls do, a
//! recogniser and an agent by script. Of all turns, a share of .556·(300/t)^1.4 has a pause longer
//! than t ms. What is assumed of words: half of the pauses come after a word that leaves the sentence
//! open, and the recogniser sets a full stop behind 70 % of the sentences, and behind 20 % of what
//! stops in a pause.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use voxgate::audio::{BYTES_PER_MS, FRAME_BYTES, SILENCE};
use voxgate::call::{Action, Call, Event, Hearing, Input, Job, Mode, Output, Settings};
use voxgate::config::Config;
use voxgate::time::{CallTime, FRAME};
use voxgate::turn::{Endpointing, State, Vad};

const CALLS: u64 = 50;
const TURNS: u64 = 20;
/// From a question to the first audio of its answer: the agent, and the voice.
const AGENT_MS: u64 = 400;
const VOICE_MS: u64 = 200;
/// Words come so late, and a transcript after it was asked for.
const WORDS_MS: u64 = 300;
const FINAL_MS: u64 = 50;
const LOUD: u8 = 0x9F;

/// What became of all turns.
#[derive(Default)]
struct Tally {
    turns: u64,
    cut: u64,
    collisions: u64,
    questions: u64,
    first_audio: Vec<u64>,
}

pub(crate) fn run() -> String {
    let shipped = || {
        let shipped = voxgate::edge::settings(&Config::default());
        // Callers are tones here: what is judged comes after the detector.
        let endpointing = Endpointing { tail: Duration::ZERO, ..shipped.endpointing };
        let (mode, hearing, vad) = (Mode::Dialogue, Hearing::Stream, Vad::Rms);
        Settings { mode, hearing, vad, endpointing, ..shipped }
    };
    let fixed = |ms| {
        let shipped = shipped();
        let endpointing = Endpointing { eou: Duration::from_millis(ms), ..shipped.endpointing };
        Settings { endpointing, adaptive_eou: false, hearing: Hearing::Utterances, ..shipped }
    };
    let mut text = String::from(
        "| | cut-offs | audible collisions | first audio p50, ms | agent calls a turn |\n|---|---|---|---|---|\n\
         | goal | ≤ 12 % | ≤ 6 % | ≤ 800 | |\n",
    );
    for (name, settings) in [
        ("as shipped, with a streaming recogniser", shipped()),
        ("the same, early_agent = true", Settings { early_agent: true, ..shipped() }),
        ("as shipped, no words until the end", Settings { hearing: Hearing::Utterances, ..shipped() }),
        ("fixed 450 ms", fixed(450)),
        ("fixed 200 ms (Pipecat's default stop time, without its smart-turn)", fixed(200)),
    ] {
        let mut tally = Tally::default();
        for call in 0..CALLS {
            Conversation::new(settings.clone(), call).run(&mut tally);
        }
        tally.first_audio.sort_unstable();
        let share = |count: u64| 100.0 * count as f64 / tally.turns as f64;
        text.push_str(&format!(
            "| {name} | {:.1} % | {:.1} % | {} | {:.2} |\n",
            share(tally.cut),
            share(tally.collisions),
            tally.first_audio.get(tally.first_audio.len() / 2).copied().unwrap_or_default(),
            tally.questions as f64 / tally.turns as f64,
        ));
    }
    text
}

/// One turn as the caller means it: when it is spoken, and when which words are understood.
struct Turn {
    speech: Vec<(u64, u64)>,
    end: u64,
}

struct Conversation {
    call: Call,
    /// Words are understood as they are said.
    streams: bool,
    now: CallTime,
    seed: u64,
    coming: BTreeMap<(CallTime, u64), Input<'static>>,
    serial: u64,
    /// All words since the last transcript.
    words: String,
    turn: Option<Turn>,
    /// The caller speaks next.
    next_turn: Option<u64>,
    cut: bool,
    collided: bool,
    answered: bool,
}

impl Conversation {
    fn new(settings: Settings, seed: u64) -> Conversation {
        Conversation {
            streams: settings.hearing == Hearing::Stream,
            call: Call::new(Arc::new(settings), CallTime::ZERO),
            now: CallTime::ZERO,
            seed: (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            coming: BTreeMap::new(),
            serial: 0,
            words: String::new(),
            turn: None,
            next_turn: Some(500),
            cut: false,
            collided: false,
            answered: false,
        }
    }

    fn random(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) as f64 / (1u64 << 53) as f64
    }

    fn understood(&mut self, at_ms: u64, text: &str) {
        if self.streams {
            self.schedule(at_ms, Input::Partial { text: text.to_owned() });
        }
    }

    fn schedule(&mut self, at_ms: u64, input: Input<'static>) {
        self.serial += 1;
        self.coming.insert((CallTime::from_millis(at_ms), self.serial), input);
    }

    fn run(mut self, tally: &mut Tally) {
        let mut turns = 0;
        while turns < TURNS || self.turn.is_some() {
            self.now = self.now + FRAME;
            let ms = self.now.as_millis();
            while let Some(entry) = self.coming.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let input = entry.remove();
                self.call.handle(input, self.now);
                self.take(tally);
            }
            self.call.handle_timeout(self.now);
            self.take(tally);
            if self.turn.is_none() && self.next_turn.is_some_and(|at| at <= ms) {
                turns += 1;
                self.begin(ms);
            }
            let speaks = self
                .turn
                .as_ref()
                .is_some_and(|turn| turn.speech.iter().any(|(from, to)| (*from..*to).contains(&ms)));
            let payload = [if speaks { LOUD } else { SILENCE }; FRAME_BYTES];
            self.call.handle(Input::Media { payload: &payload, timestamp_ms: None }, self.now);
            self.take(tally);
            self.finish(ms, tally);
        }
    }

    /// The caller begins a turn.
    fn begin(&mut self, ms: u64) {
        let u = self.random().max(1e-6);
        // The longest pause in it, by the law above.
        let pause = if u < 0.556 { 300.0 * (0.556 / u).powf(1.0 / 1.4) } else { 0.0 };
        let pause = (pause as u64).min(4_000);
        let first = ms + 1_200;
        let (open, stop) = (self.random() < 0.5, self.random() < 0.2);
        if pause > 0 {
            let half = match (open, stop) {
                (true, _) => "i would like a table for",
                (false, true) => "i would like a table.",
                (false, false) => "i would like a table",
            };
            self.understood(first + WORDS_MS - 200, "i would like a");
            self.understood(first + WORDS_MS - 100, half);
        }
        let second = (first + pause, first + pause + 1_000);
        let whole = if self.random() < 0.7 {
            "i would like a table this evening."
        } else {
            "i would like a table this evening"
        };
        self.understood(second.1 + WORDS_MS - 200, whole);
        self.words = whole.into();
        self.turn = Some(Turn { speech: vec![(ms, first), second], end: second.1 });
        (self.cut, self.collided, self.answered) = (false, false, false);
    }

    /// The turn is over when it was answered, and the answer heard.
    fn finish(&mut self, ms: u64, tally: &mut Tally) {
        let Some(turn) = &self.turn else { return };
        let quiet = self.call.state() == State::Listening && ms > turn.end + 1_500;
        if quiet && self.answered {
            tally.turns += 1;
            tally.cut += u64::from(self.cut);
            tally.collisions += u64::from(self.collided);
            self.turn = None;
            self.next_turn = Some(ms + 1_500);
        } else if ms > turn.end + 30_000 {
            panic!("a turn without an answer");
        }
    }

    fn take(&mut self, tally: &mut Tally) {
        let ms = self.now.as_millis();
        while let Some(output) = self.call.poll_output() {
            let speaks = self.turn.as_ref().is_some_and(|turn| ms < turn.end);
            match output {
                Output::Transcribe { utterance, .. } | Output::Finalize { utterance } => {
                    let text = self.words.clone();
                    self.schedule(ms + FINAL_MS, Input::Transcript { utterance, text });
                }
                Output::Ask(question) => {
                    tally.questions += 1;
                    let turn = question.turn;
                    let text = "Of course, at seven.".to_owned();
                    self.schedule(ms + AGENT_MS, Input::ReplyText { turn, text });
                    self.schedule(ms + AGENT_MS, Input::ReplyEnd { turn, action: Action::None });
                }
                Output::Say { segment, .. } => {
                    let audio = Bytes::from(vec![0xA0; 1_500 * BYTES_PER_MS]);
                    self.schedule(ms + VOICE_MS, Input::Speech { segment, audio });
                    self.schedule(ms + VOICE_MS, Input::SpeechEnd { segment });
                }
                Output::Cancel(Job::Ask { turn: gone }) => {
                    self.coming.retain(|_, input| {
                        !matches!(input, Input::ReplyText { turn, .. } | Input::ReplyEnd { turn, .. } if *turn == gone)
                    });
                }
                Output::Event(Event::UtteranceEnded { .. }) => self.cut |= speaks,
                Output::Event(Event::FirstFrame { .. }) => {
                    self.collided |= speaks;
                    if let Some(turn) = self.turn.as_ref().filter(|turn| ms >= turn.end && !self.answered) {
                        tally.first_audio.push(ms - turn.end);
                        self.answered = true;
                    }
                }
                _ => {}
            }
        }
    }
}
