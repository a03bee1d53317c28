//! Callers who speak while the bot does, in virtual time, with a scripted recogniser: who ends its turn,
//! who does not, how soon it goes on, and whether each of its words is heard once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use voxgate::audio::{FRAME_BYTES, Frame, SILENCE};
use voxgate::call::{Action, Call, Event, Hearing, Input, Output, Settings};
use voxgate::time::{CallTime, FRAME};
use voxgate::turn::State;

use crate::simulate::{Dice, shipped};

const TIMES: u64 = 500;
const LOUD: u8 = 0x9F;
/// Frames of a reply: eight seconds. Each frame is its own number.
const REPLY: usize = 400;

/// What is said over the bot, and for how long: from, to.
struct Kind {
    name: &'static str,
    texts: &'static [&'static str],
    ms: (u64, u64),
    /// Begun so long before the bot's end at most; `None` for anywhere else.
    before_end_ms: Option<u64>,
    reply: &'static str,
}

const STATEMENT: &str = "We are open from nine to five on every day but Sunday.";
const QUESTION: &str = "Shall I book the table for you?";

const KINDS: [Kind; 6] = [
    Kind {
        name: "\"uh huh\", \"yeah okay\" …",
        texts: &["uh huh", "yeah", "okay", "mm hmm", "right", "yeah okay", "i see"],
        ms: (200, 700),
        before_end_ms: None,
        reply: STATEMENT,
    },
    Kind { name: "coughs, doors", texts: &[""], ms: (60, 380), before_end_ms: None, reply: STATEMENT },
    Kind {
        name: "one word: \"stop\", \"wait\"",
        texts: &["stop", "wait", "no", "hold on"],
        ms: (250, 500),
        before_end_ms: None,
        reply: STATEMENT,
    },
    Kind {
        name: "sentences",
        texts: &["on tuesday please", "what about monday", "can you say that again"],
        ms: (600, 1_800),
        before_end_ms: None,
        reply: STATEMENT,
    },
    Kind {
        name: "\"yes\" to a statement's last 400 ms",
        texts: &["yes", "okay"],
        ms: (200, 500),
        before_end_ms: Some(400),
        reply: STATEMENT,
    },
    Kind {
        name: "\"yes\" to a question's last 400 ms",
        texts: &["yes", "okay"],
        ms: (200, 500),
        before_end_ms: Some(400),
        reply: QUESTION,
    },
];

#[derive(Default)]
struct Tally {
    ended: u64,
    answered: u64,
    /// From the first held moment to the bot's next frame, and to the end of its turn.
    silent_ms: Vec<u64>,
    stopped_ms: Vec<u64>,
    frames_lost: usize,
    frames_twice: usize,
}

pub(crate) fn run() -> String {
    let mut text = String::from(
        "| said over the bot | ends its turn | becomes a turn | false hold → audio back p50 / p95 / most, ms | \
         speech → bot silent for good p50 / p95 | frames lost / twice |\n|---|---|---|---|---|---|\n",
    );
    for (words, words_ms) in
        [("words after 100 ms", Some(100)), ("after 300 ms", Some(300)), ("unknown", None)]
    {
        for kind in &KINDS {
            let mut dice = Dice::new();
            let mut tally = Tally::default();
            (0..TIMES).for_each(|_| Scene::new(kind, words_ms, &mut dice).run(&mut tally));
            let share = |count: u64| 100.0 * count as f64 / TIMES as f64;
            text.push_str(&format!(
                "| {}; {words} | {:.1} % | {:.1} % | {} | {} | {} / {} |\n",
                kind.name,
                share(tally.ended),
                share(tally.answered),
                spread(&mut tally.silent_ms, &[50, 95, 100]),
                spread(&mut tally.stopped_ms, &[50, 95]),
                tally.frames_lost,
                tally.frames_twice,
            ));
        }
    }
    text
}

fn spread(times: &mut [u64], shares: &[usize]) -> String {
    times.sort_unstable();
    let at = |share: &usize| times.get((times.len() * share / 100).min(times.len().wrapping_sub(1)));
    let told: Vec<String> = shares.iter().filter_map(at).map(u64::to_string).collect();
    if told.is_empty() { "–".into() } else { told.join(" / ") }
}

/// One reply of the bot's, and what is said over it.
struct Scene<'a> {
    call: Call,
    now: CallTime,
    kind: &'a Kind,
    text: &'static str,
    speech: (u64, u64),
    words_ms: Option<u64>,
    coming: BTreeMap<(CallTime, usize), Input<'static>>,
    /// What the caller's telephone has to play, with the end of each frame; and what it has played.
    outstanding: VecDeque<(CallTime, usize)>,
    carrier_end: CallTime,
    played: Vec<usize>,
    marks: VecDeque<(CallTime, String)>,
    held: Option<u64>,
    questions: u64,
    ended: bool,
}

impl<'a> Scene<'a> {
    fn new(kind: &'a Kind, words_ms: Option<u64>, dice: &mut Dice) -> Scene<'a> {
        let hearing = if words_ms.is_some() { Hearing::Stream } else { Hearing::Utterances };
        let settings = Settings { adaptive_eou: false, ..shipped(hearing) };
        // The reply is asked for at 2,000 ms and spoken from 2,200 to 10,200.
        let end = 2_200 + REPLY as u64 * 20;
        let from = match kind.before_end_ms {
            Some(most) => dice.between(end - most, end),
            None => dice.between(3_200, end - 2_500),
        };
        let text = kind.texts[(dice.roll() * kind.texts.len() as f64) as usize];
        Scene {
            call: Call::new(Arc::new(settings), CallTime::ZERO),
            now: CallTime::ZERO,
            kind,
            text,
            speech: (from, from + dice.between(kind.ms.0, kind.ms.1)),
            words_ms,
            coming: BTreeMap::new(),
            outstanding: VecDeque::new(),
            carrier_end: CallTime::ZERO,
            played: Vec::new(),
            marks: VecDeque::new(),
            held: None,
            questions: 0,
            ended: false,
        }
    }

    fn schedule(&mut self, at_ms: u64, input: Input<'static>) {
        self.coming.insert((CallTime::from_millis(at_ms), self.coming.len()), input);
    }

    fn run(mut self, tally: &mut Tally) {
        if let (Some(ms), false) = (self.words_ms, self.text.is_empty()) {
            // Its first word is understood when it is over, and all of it when that is.
            let (from, to) = self.speech;
            let words: Vec<&str> = self.text.split(' ').collect();
            for n in 1..=words.len() {
                let said = from + (to - from) * n as u64 / words.len() as u64;
                self.schedule(said + ms, Input::Partial { text: words[..n].join(" ") });
            }
        }
        while self.now.as_millis() < 16_000 {
            self.now = self.now + FRAME;
            let ms = self.now.as_millis();
            while let Some(entry) = self.coming.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let input = entry.remove();
                self.call.handle(input, self.now);
                self.take(tally);
            }
            while let Some((_, number)) = self.outstanding.pop_front_if(|(end, _)| *end <= self.now) {
                self.played.push(number);
            }
            while let Some((_, name)) = self.marks.pop_front_if(|(at, _)| *at <= self.now) {
                self.call.handle(Input::Mark(&name), self.now);
                self.take(tally);
            }
            self.call.handle_timeout(self.now);
            self.take(tally);
            // The caller's question, and what is said over the answer.
            let speaks = (500..1_520).contains(&ms) || (self.speech.0..self.speech.1).contains(&ms);
            let payload = [if speaks { LOUD } else { SILENCE }; FRAME_BYTES];
            self.call.handle(Input::Media { payload: &payload, timestamp_ms: None }, self.now);
            self.take(tally);
        }
        tally.ended += u64::from(self.ended);
        tally.answered += u64::from(self.questions > 1);
        self.count_frames(tally);
    }

    /// Of a reply that was not ended each frame is heard once; of one that was, none twice.
    fn count_frames(&self, tally: &mut Tally) {
        let mut times = [0; REPLY];
        self.played.iter().for_each(|number| times[*number] += 1);
        tally.frames_twice += times.iter().filter(|times| **times > 1).count();
        if !self.ended {
            tally.frames_lost += times.iter().filter(|times| **times == 0).count();
        }
    }

    fn take(&mut self, tally: &mut Tally) {
        let ms = self.now.as_millis();
        while let Some(output) = self.call.poll_output() {
            match output {
                Output::Transcribe { utterance, .. } | Output::Finalize { utterance } => {
                    let text = if self.questions == 0 { "when are you open" } else { self.text };
                    self.schedule(ms + 20, Input::Transcript { utterance, text: text.into() });
                }
                Output::Ask(question) => {
                    self.questions += 1;
                    // What the bot would answer to what was said over it is of no interest here.
                    let text = if self.questions == 1 { self.kind.reply } else { "" };
                    let (turn, action) = (question.turn, Action::None);
                    self.schedule(ms, Input::ReplyText { turn, text: text.into() });
                    self.schedule(ms, Input::ReplyEnd { turn, action });
                }
                Output::Say { segment, .. } => {
                    let audio: Bytes = (0..REPLY).flat_map(numbered).collect();
                    self.schedule(ms + 20, Input::Speech { segment, audio });
                    self.schedule(ms + 20, Input::SpeechEnd { segment });
                }
                Output::Play { frame, .. } => {
                    self.carrier_end = self.carrier_end.max(self.now) + FRAME;
                    self.outstanding.push_back((self.carrier_end, number_of(&frame)));
                    if let Some(held) = self.held.take() {
                        tally.silent_ms.push(ms - held);
                    }
                }
                Output::Clear => {
                    self.carrier_end = self.now;
                    self.outstanding.clear();
                    self.marks.iter_mut().for_each(|(at, _)| *at = self.now);
                }
                Output::Mark(name) => self.marks.push_back((self.carrier_end.max(self.now), name)),
                Output::Event(Event::BargeInHeld { .. }) => self.held = Some(ms),
                Output::Event(Event::BargeIn { .. }) => {
                    self.ended = true;
                    self.held = None;
                    tally.stopped_ms.push(ms.saturating_sub(self.speech.0));
                }
                Output::Event(Event::State(transition)) if transition.to == State::Listening => {
                    self.held = None;
                }
                _ => {}
            }
        }
    }
}

/// A loud frame that bears its number.
fn numbered(number: usize) -> [u8; FRAME_BYTES] {
    let mut frame = [0xA0; FRAME_BYTES];
    [frame[0], frame[1]] = [(number / 100) as u8, (number % 100) as u8];
    frame
}

fn number_of(frame: &Frame) -> usize {
    usize::from(frame.0[0]) * 100 + usize::from(frame.0[1])
}
