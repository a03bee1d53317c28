//! Conversations in virtual time: callers who pause for thought as people on real calls do, with a
//! recogniser and an agent by script. What is assumed, and what came of it, is in `SIMULATED.md`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use voxgate::audio::{BYTES_PER_MS, FRAME_BYTES, SILENCE};
use voxgate::call::{Action, Call, Event, Hearing, Input, Job, Mode, Output, Settings};
use voxgate::config::Config;
use voxgate::time::{CallTime, FRAME};
use voxgate::turn::{Endpointing, State, Vad};

const CALLS: usize = 250;
const TURNS: usize = 20;
/// From the end of an utterance, as decided, to the first audio of the answer: 600 ms in all.
const FINAL_MS: u64 = 50;
const AGENT_MS: u64 = 350;
const VOICE_MS: u64 = 200;
/// From a question to the answer's first text, and to its first audio.
const LOUD: u8 = 0x9F;
const LONGEST_PAUSE_MS: f64 = 4_000.0;

/// What is known about the caller's words, and when.
#[derive(Clone, Copy)]
struct Hears {
    /// From a word's end to its text.
    words_ms: u64,
    /// With capitals, and a full stop behind seven of ten whole sentences and two of ten that stop in a
    /// pause.
    writes: bool,
}

const HEARS: Hears = Hears { words_ms: 100, writes: true };

/// Somebody else who says when the caller has finished, if asked after so much silence: of ten pauses so
/// many are taken for the end, and of ten ends.
#[derive(Clone, Copy)]
struct Judge {
    after_ms: u64,
    taken_of_ten: [usize; 2],
}

/// What became of all turns.
#[derive(Default)]
struct Tally {
    turns: u64,
    cut: u64,
    collisions: u64,
    questions: u64,
    first_audio: Vec<u64>,
}

/// As shipped, but for the detector: callers are tones here, and what is judged comes after it.
pub(crate) fn shipped(hearing: Hearing) -> Settings {
    let shipped = voxgate::edge::settings(&Config::default());
    let endpointing = Endpointing { tail: Duration::ZERO, ..shipped.endpointing };
    Settings { mode: Mode::Dialogue, hearing, vad: Vad::Rms, endpointing, ..shipped }
}

pub(crate) fn run() -> String {
    let fixed = |ms| {
        let shipped = shipped(Hearing::Utterances);
        let endpointing = Endpointing { eou: Duration::from_millis(ms), ..shipped.endpointing };
        Settings { endpointing, adaptive_eou: false, ..shipped }
    };
    let streams = || shipped(Hearing::Stream);
    let early = || Settings { early_agent: true, ..streams() };
    let judge = |after_ms, taken_of_ten| Some(Judge { after_ms, taken_of_ten });
    let late = Hears { words_ms: 300, ..HEARS };
    let unpunctuated = Hears { writes: false, ..HEARS };
    let rows = [
        ("voxgate, a recogniser that streams", streams(), HEARS, None),
        ("the same with early_agent", early(), HEARS, None),
        ("… with words 300 ms late", streams(), late, None),
        ("… and early_agent", early(), late, None),
        ("… without full stops", streams(), unpunctuated, None),
        ("… and early_agent", early(), unpunctuated, None),
        ("… that says `speech_final` after 300 ms", streams(), HEARS, judge(300, [10, 10])),
        ("voxgate, words only at the end", shipped(Hearing::Utterances), HEARS, None),
        ("fixed 450 ms", fixed(450), HEARS, None),
        ("fixed 200 ms", fixed(200), HEARS, None),
        ("Pipecat: 200 ms and smart-turn, else 3 s", fixed(3_000), HEARS, judge(200, [1, 9])),
        ("LiveKit: .5 s and a turn detector, else 3 s", fixed(3_000), HEARS, judge(500, [1, 9])),
    ];
    let mut text = String::from(
        "| | cut-offs | audible collisions | first audio p50 / p90, ms | agent calls a turn |\n\
         |---|---|---|---|---|\n| goal | ≤ 12 % | ≤ 6 % | ≤ 800 | |\n",
    );
    for (name, settings, hears, judge) in rows {
        let mut tally = Tally::default();
        for turns in drawn(hears, judge).chunks(TURNS) {
            Conversation::new(settings.clone(), hears, judge).run(turns, &mut tally);
        }
        tally.first_audio.sort_unstable();
        let share = |count: u64| 100.0 * count as f64 / tally.turns as f64;
        let at =
            |p: usize| tally.first_audio.get(tally.first_audio.len() * p / 100).copied().unwrap_or_default();
        text.push_str(&format!(
            "| {name} | {:.1} % | {:.1} % | {} / {} | {:.2} |\n",
            share(tally.cut),
            share(tally.collisions),
            at(50),
            at(90),
            tally.questions as f64 / tally.turns as f64,
        ));
    }
    text
}

/// A generator that gives the same each time.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new() -> Dice {
        Dice(0x9E37_79B9_7F4A_7C15)
    }

    /// 0 to 1.
    pub(crate) fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + (self.roll() * (most - least) as f64) as u64
    }
}

/// A turn, before it is known when it is spoken.
#[derive(Clone, Default)]
struct Turn {
    /// 0 for none.
    pause_ms: u64,
    halves: [String; 2],
    /// What the judge says in the pause, and at the end.
    judged: [bool; 2],
}

/// The turns of all calls, the same for every row: the law and all shares to the letter, in an order by
/// chance.
fn drawn(hears: Hears, judge: Option<Judge>) -> Vec<Turn> {
    let count = CALLS * TURNS;
    let taken = judge.map_or([0; 2], |judge| judge.taken_of_ten);
    let turn = |n: usize| {
        let share = (n as f64 + 0.5) / count as f64;
        let pause = if share < 0.556 { 300.0 * (0.556 / share).powf(1.0 / 1.4) } else { 0.0 };
        // Each of these has its own digit of the number, so that none goes with another.
        let digit = |place: u32| n / 10usize.pow(place) % 10;
        let first = match digit(0) {
            0..5 => "I would like a table for",
            5 if hears.writes => "I would like a table.",
            _ => "I would like a table",
        };
        let second = if hears.writes && digit(1) < 7 { "this evening." } else { "this evening" };
        let case = |text: &str| if hears.writes { text.to_owned() } else { text.to_lowercase() };
        Turn {
            pause_ms: pause.min(LONGEST_PAUSE_MS) as u64,
            halves: [case(first), case(second)],
            judged: [digit(1) < taken[0], digit(2) < taken[1]],
        }
    };
    let mut turns: Vec<Turn> = (0..count).map(turn).collect();
    let mut dice = Dice::new();
    (1..count).rev().for_each(|n| turns.swap(n, (dice.roll() * (n + 1) as f64) as usize));
    turns
}

/// A turn that is being spoken.
struct Spoken {
    speech: [(u64, u64); 2],
    end: u64,
    halves: [String; 2],
    /// Halves that the recogniser has said for good.
    told: usize,
    cut: bool,
    collided: bool,
    answered: bool,
}

struct Conversation {
    call: Call,
    hears: Hears,
    judge: Option<Judge>,
    /// Words are understood as they are said.
    streams: bool,
    now: CallTime,
    coming: BTreeMap<(CallTime, u64), Input<'static>>,
    serial: u64,
    turn: Option<Spoken>,
    /// The caller speaks next.
    next_turn: u64,
}

impl Conversation {
    fn new(settings: Settings, hears: Hears, judge: Option<Judge>) -> Conversation {
        Conversation {
            hears,
            judge,
            streams: settings.hearing == Hearing::Stream,
            call: Call::new(Arc::new(settings), CallTime::ZERO),
            now: CallTime::ZERO,
            coming: BTreeMap::new(),
            serial: 0,
            turn: None,
            next_turn: 500,
        }
    }

    fn understood(&mut self, said_ms: u64, text: &str) {
        if self.streams {
            self.schedule(said_ms + self.hears.words_ms, Input::Partial { text: text.to_owned() });
        }
    }

    fn schedule(&mut self, at_ms: u64, input: Input<'static>) {
        self.serial += 1;
        self.coming.insert((CallTime::from_millis(at_ms), self.serial), input);
    }

    fn run(mut self, turns: &[Turn], tally: &mut Tally) {
        let mut turns = turns.iter();
        loop {
            self.now = self.now + FRAME;
            let ms = self.now.as_millis();
            while let Some(entry) = self.coming.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let input = entry.remove();
                self.call.handle(input, self.now);
                self.take(tally);
            }
            self.call.handle_timeout(self.now);
            self.take(tally);
            if self.turn.is_none() && self.next_turn <= ms {
                let Some(turn) = turns.next() else { return };
                self.begin(turn, ms);
            }
            let spoken = |turn: &Spoken| turn.speech.iter().any(|(from, to)| (*from..*to).contains(&ms));
            let payload = [if self.turn.as_ref().is_some_and(spoken) { LOUD } else { SILENCE }; FRAME_BYTES];
            self.call.handle(Input::Media { payload: &payload, timestamp_ms: None }, self.now);
            self.take(tally);
            self.finish(ms, tally);
        }
    }

    /// The caller begins a turn. A frame that comes at `ms` is what was said in the 20 ms before.
    fn begin(&mut self, turn: &Turn, ms: u64) {
        let [first, second] = &turn.halves;
        let whole = format!("{first} {second}");
        let (paused, goes_on) = (ms + 1_200, ms + 1_200 + turn.pause_ms);
        let end = goes_on + 1_000;
        if turn.pause_ms > 0 {
            self.understood(paused - 100, first.rsplit_once(" table").map_or("", |(begun, _)| begun));
            self.understood(paused, first);
        }
        self.understood(goes_on + 600, &format!("{first} this"));
        self.understood(end, &whole);
        if let Some(judge) = self.judge {
            for (judged, at) in turn.judged.iter().zip([paused, end]) {
                if *judged && (at == end || turn.pause_ms > judge.after_ms) {
                    self.schedule(at + judge.after_ms, Input::SpeechFinal);
                }
            }
        }
        self.turn = Some(Spoken {
            speech: [(ms, paused), (goes_on, end)],
            end,
            halves: turn.halves.clone(),
            told: 0,
            cut: false,
            collided: false,
            answered: false,
        });
    }

    /// The turn is over when it was answered, and the answer heard.
    fn finish(&mut self, ms: u64, tally: &mut Tally) {
        let Some(turn) = &self.turn else { return };
        if turn.answered && self.call.state() == State::Listening && ms > turn.end + 1_500 {
            tally.turns += 1;
            tally.cut += u64::from(turn.cut);
            tally.collisions += u64::from(turn.collided);
            self.turn = None;
            self.next_turn = ms + 1_500;
        }
        assert!(self.turn.as_ref().is_none_or(|turn| ms < turn.end + 30_000), "a turn without an answer");
    }

    /// The recogniser says for good what it has not said yet; what is understood later is the rest.
    fn final_text(&mut self) -> String {
        let ms = self.now.as_millis();
        let Some(turn) = &mut self.turn else { return String::new() };
        let said = if ms > turn.speech[1].0 { 2 } else { 1 };
        let text = turn.halves[turn.told.min(said)..said].join(" ");
        turn.told = turn.told.max(said);
        let gone = turn.halves[..turn.told].join(" ");
        for input in self.coming.values_mut() {
            if let Input::Partial { text } = input {
                *text = text.strip_prefix(&gone).unwrap_or_default().trim().to_owned();
            }
        }
        text
    }

    fn take(&mut self, tally: &mut Tally) {
        let ms = self.now.as_millis();
        while let Some(output) = self.call.poll_output() {
            match output {
                Output::Transcribe { utterance, .. } => {
                    let text = "I would like a table this evening".into();
                    self.schedule(ms + FINAL_MS, Input::Transcript { utterance, text });
                }
                Output::Finalize { utterance } => {
                    let text = self.final_text();
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
                Output::Event(Event::UtteranceEnded { .. }) => {
                    if let Some(turn) = &mut self.turn {
                        turn.cut |= ms < turn.end;
                    }
                }
                Output::Event(Event::FirstFrame { .. }) => {
                    if let Some(turn) = &mut self.turn {
                        turn.collided |= ms < turn.end;
                        if ms >= turn.end && !turn.answered {
                            tally.first_audio.push(ms - turn.end);
                            turn.answered = true;
                        }
                    }
                }
                _ => {}
            }
        }
    }
}
