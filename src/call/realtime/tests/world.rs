//! Everything around such a call, in virtual time: a caller, a carrier that plays and returns marks, a
//! model that answers as a script says, and an app.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use crate::audio::{BYTES_PER_MS, mulaw};
use crate::call::tests::world::{TELEVISION, settings};
use crate::call::{Failure, FailureKind};

pub(super) fn manner(ears: Ears) -> Manner {
    Manner { ears, interrupts: true, opening: None }
}

pub(super) fn failure(kind: FailureKind, why: &str) -> Failure {
    Failure { upstream: "model".into(), kind, why: why.into() }
}

/// Audio that is plainly μ-law, and of which each frame begins with this byte. In whole frames.
pub(super) fn tone(ms: usize, value: u8) -> Bytes {
    assert_eq!(ms * BYTES_PER_MS % FRAME_BYTES, 0);
    let wave = |i: usize| (6_000.0 * (i as f32 * std::f32::consts::TAU / FRAME_BYTES as f32).sin()) as i16;
    let byte = |i| if i % FRAME_BYTES == 0 { value } else { mulaw::encode(wave(i)) };
    (0..ms * BYTES_PER_MS).map(byte).collect()
}

/// What the model does when it is to reply.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// Says this, at so many times the speed of speech.
    Says(u64, &'static str),
    /// Calls a function, having said something or not.
    Calls(&'static str, Meaning),
    Fails,
    Nothing,
}

pub(super) struct World {
    pub(super) call: Realtime,
    pub(super) now: CallTime,
    /// When the caller speaks, in ms: [from, to).
    pub(super) speech: Vec<(u64, u64)>,
    /// When nobody does but a television.
    pub(super) television: Vec<(u64, u64)>,
    pub(super) replies: VecDeque<Reply>,
    /// How the app answers, after how many ms.
    pub(super) app: VecDeque<(u64, Answered)>,
    /// What becomes of each dial; `Ok` where nothing is said. And after how many ms.
    pub(super) dials: VecDeque<Result<(), Failure>>,
    pub(super) dial_takes: u64,
    /// Whether the model's ear stops a reply by itself, and whether marks come back.
    pub(super) stops: bool,
    pub(super) marks: bool,
    pub(super) timeline: Vec<String>,
    /// Every frame with the time it left.
    pub(super) played: Vec<(u64, u8)>,
    /// ms of the caller that the model was given.
    pub(super) given: u64,
    /// How many it had been given at the end of each utterance.
    pub(super) committed: Vec<u64>,
    coming: BinaryHeap<Reverse<(CallTime, u64)>>,
    inputs: std::collections::HashMap<u64, Given>,
    serial: u64,
    responses: u64,
    active: Option<u64>,
    carrier_end: CallTime,
    next_media: CallTime,
    hears: bool,
}

pub(super) enum Given {
    Input(Input<'static>),
    Mark(String),
    /// Of a response: told unless it was stopped in the meantime.
    Of(u64, Told),
}

impl World {
    pub(super) fn new(manner: Manner) -> World {
        World {
            call: Realtime::new(Arc::new(settings()), manner, CallTime::ZERO),
            now: CallTime::ZERO,
            speech: Vec::new(),
            television: Vec::new(),
            replies: VecDeque::new(),
            app: VecDeque::new(),
            dials: VecDeque::new(),
            dial_takes: 150,
            stops: true,
            marks: true,
            timeline: Vec::new(),
            played: Vec::new(),
            given: 0,
            committed: Vec::new(),
            coming: BinaryHeap::new(),
            inputs: Default::default(),
            serial: 0,
            responses: 0,
            active: None,
            carrier_end: CallTime::ZERO,
            next_media: CallTime::ZERO,
            hears: false,
        }
    }

    pub(super) fn at(&mut self, ms: u64, given: Given) {
        self.schedule(CallTime::from_millis(ms), given);
    }

    fn schedule(&mut self, at: CallTime, given: Given) {
        self.serial += 1;
        self.coming.push(Reverse((at, self.serial)));
        self.inputs.insert(self.serial, given);
    }

    /// Runs until `until_ms`; the caller's line carries a frame every 20 ms.
    pub(super) fn run(&mut self, until_ms: u64) -> &mut World {
        self.drain();
        let until = CallTime::from_millis(until_ms);
        loop {
            let input = self.coming.peek().map(|Reverse((at, _))| *at);
            let next = [input, self.call.poll_timeout(), Some(self.next_media)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            if input == Some(next) {
                if let Some(Reverse((_, id))) = self.coming.pop()
                    && let Some(given) = self.inputs.remove(&id)
                {
                    self.give(given);
                }
            } else if next == self.next_media {
                self.next_media = self.next_media + FRAME;
                let ms = self.now.as_millis();
                let during = |times: &[(u64, u64)]| times.iter().any(|(from, to)| (*from..*to).contains(&ms));
                let speaks = during(&self.speech);
                let payload = &[if speaks { 0x9F } else { 0xFF }; FRAME_BYTES];
                let frames = &[TELEVISION];
                let media = match during(&self.television) {
                    true => Input::Measured { payload, timestamp_ms: None, frames },
                    false => Input::Media { payload, timestamp_ms: None },
                };
                self.call.handle(media, self.now);
                self.model_hears(speaks, ms);
            } else {
                self.call.handle_timeout(self.now);
                let next = self.call.poll_timeout();
                assert!(next.is_none_or(|at| at > self.now), "still overdue at {}", self.now);
            }
            self.drain();
        }
        self.now = until;
        self
    }

    fn give(&mut self, given: Given) {
        match given {
            Given::Input(input) => self.call.handle(input, self.now),
            Given::Mark(name) => self.call.handle(Input::Mark(&name), self.now),
            Given::Of(response, told) => {
                let ends = matches!(told, Told::ResponseEnded { .. });
                if self.active == Some(response) {
                    if ends {
                        self.active = None;
                    }
                    self.call.handle(Input::Told(told), self.now);
                }
            }
        }
    }

    /// The model's ear: it notices at once that somebody speaks, and after 500 ms that nobody does.
    fn model_hears(&mut self, speaks: bool, ms: u64) {
        if self.call.manner.ears == Ears::Ours || !self.call.link.is_up() {
            return;
        }
        if speaks && !self.hears {
            self.hears = true;
            self.call.handle(Input::Told(Told::SpeechStarted), self.now);
            if self.stops {
                self.stop();
            }
        }
        let ended = self.speech.iter().any(|(_, to)| to + 500 == ms);
        if self.hears && ended {
            self.hears = false;
            self.call.handle(Input::Told(Told::SpeechStopped), self.now);
            if self.active.is_none() {
                self.respond();
            }
        }
    }

    fn stop(&mut self) {
        if let Some(response) = self.active.take() {
            // What was on its way comes too late.
            let late = self.audio_of(response, tone(200, 0x80 + response as u8));
            self.call.handle(Input::Told(late), self.now);
            let end = Told::ResponseEnded { response: format!("r{response}"), end: ResponseEnd::Cancelled };
            self.call.handle(Input::Told(end), self.now);
        }
    }

    fn audio_of(&self, response: u64, audio: Bytes) -> Told {
        Told::Audio { response: format!("r{response}"), item: format!("i{response}"), content: 0, audio }
    }

    pub(super) fn respond(&mut self) {
        let reply = self.replies.pop_front().unwrap_or(Reply::Says(4, "All right."));
        self.responses += 1;
        let number = self.responses;
        let (response, item) = (format!("r{number}"), format!("i{number}"));
        if matches!(reply, Reply::Nothing) {
            return;
        }
        self.active = Some(number);
        let begin = self.now + Duration::from_millis(200);
        self.schedule(begin, Given::Of(number, Told::ResponseStarted { response: response.clone() }));
        let (end, at) = match reply {
            Reply::Says(speed, text) => {
                let mut at = begin;
                // 60 ms of audio a character, in pieces of 300 ms.
                for piece in text.as_bytes().chunks(5) {
                    let words = Told::Words {
                        response: response.clone(),
                        item: item.clone(),
                        content: 0,
                        text: String::from_utf8_lossy(piece).into_owned(),
                    };
                    self.schedule(at, Given::Of(number, words));
                    let audio = tone(piece.len() * 60, 0x80 + number as u8);
                    let audio = self.audio_of(number, audio);
                    self.schedule(at, Given::Of(number, audio));
                    at = at + Duration::from_millis(piece.len() as u64 * 60 / speed);
                }
                (ResponseEnd::Completed, at)
            }
            Reply::Calls(name, meaning) => {
                let call = FunctionCall {
                    id: format!("c{number}"),
                    name: name.into(),
                    arguments: "{}".into(),
                    meaning,
                };
                self.schedule(
                    begin,
                    Given::Of(number, Told::FunctionCalled { response: response.clone(), call }),
                );
                (ResponseEnd::Completed, begin)
            }
            Reply::Fails => (ResponseEnd::Broken(failure(FailureKind::Http5xx, "the vendor failed")), begin),
            Reply::Nothing => return,
        };
        self.schedule(at, Given::Of(number, Told::ResponseEnded { response, end }));
    }

    pub(super) fn say(&mut self, what: String) {
        self.timeline.push(format!("{:>6} {what}", self.now.as_millis()));
    }

    fn drain(&mut self) {
        loop {
            if let Some(output) = self.call.poll_output() {
                self.output(output);
            } else if let Some(request) = self.call.poll_request() {
                self.request(request);
            } else {
                return;
            }
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Play { frame, due } => {
                assert!(due <= self.now, "a frame left before it was due");
                self.carrier_end = self.carrier_end.max(self.now) + FRAME;
                let ahead = self.carrier_end.since(self.now);
                assert!(ahead <= self.call.settings.lead.max(FRAME), "{ahead:?} ahead at {}", self.now);
                self.played.push((self.now.as_millis(), frame.0[0]));
            }
            Output::Mark(name) => {
                if self.marks {
                    let at = self.carrier_end.max(self.now);
                    self.schedule(at, Given::Mark(name));
                }
            }
            Output::Clear => {
                self.say("→ clear".into());
                self.carrier_end = self.now;
            }
            Output::Hangup(reason) => self.say(format!("→ hang up: {}", reason.as_str())),
            Output::Event(event) => self.event(event),
            other => panic!("{other:?} is not for such a call"),
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::State(t) => {
                self.say(format!("{} → {} ({})", t.from.as_str(), t.to.as_str(), t.why.as_str()));
            }
            Event::BargeIn { cleared, heard, .. } => {
                self.say(format!("barge-in: {} ms unheard, heard {heard:?}", cleared.as_millis()));
            }
            Event::TurnEnded { turn, result } => self.say(format!("turn {turn} {}", result.as_str())),
            Event::UpstreamFailed { failure, .. } => self.say(format!("failed: {}", failure.why)),
            Event::FirstFrame { since_speech_end, .. } => {
                let since = since_speech_end.map_or("-".into(), |d| format!("{} ms", d.as_millis()));
                self.say(format!("first frame, {since} after the end of speech"));
            }
            Event::MediaTx { frames, .. } => self.say(format!("sent {frames} frames")),
            Event::SttFinal { text, .. } => self.say(format!("heard: {text}")),
            Event::Underrun => self.say("underrun".into()),
            Event::ActionIgnored { action, .. } => self.say(format!("ignored: {action}")),
            Event::Ended { reason } => self.say(format!("ended: {}", reason.as_str())),
            _ => {}
        }
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Hear(audio) => self.given += (audio.len() / BYTES_PER_MS) as u64,
            Request::Dial => {
                self.say("→ dial".into());
                let input = match self.dials.pop_front().unwrap_or(Ok(())) {
                    Ok(()) => Input::Linked,
                    Err(failure) => Input::Unlinked(failure),
                };
                self.schedule(self.now + Duration::from_millis(self.dial_takes), Given::Input(input));
            }
            Request::Respond { say } => {
                self.say(format!("→ respond{}", say.map(|say| format!(": {say}")).unwrap_or_default()));
                match self.active {
                    None => self.respond(),
                    Some(_) => {
                        let why = failure(FailureKind::Http4xx, "busy");
                        let about = Some(About::Response { busy: true });
                        let told = Told::Refused { about, failure: why };
                        self.schedule(self.now, Given::Input(Input::Told(told)));
                    }
                }
            }
            Request::Cancel { response } => {
                self.say(format!("→ cancel {response}"));
                self.stop();
            }
            Request::Truncate { item, heard, .. } => {
                self.say(format!("→ truncate {item} at {} ms", heard.as_millis()));
            }
            Request::Function { turn, call, .. } => {
                self.say(format!("→ function {} of turn {turn}", call.name));
                if let Some((after, answer)) = self.app.pop_front() {
                    let at = self.now + Duration::from_millis(after);
                    self.schedule(at, Given::Input(Input::FunctionAnswered { call: call.id, answer }));
                }
            }
            Request::Answer { call, output } => self.say(format!("→ answer {call}: {output}")),
            Request::Remember { role, text } => self.say(format!("→ remember {role:?}: {text}")),
            Request::Commit => {
                self.committed.push(self.given);
                self.say("→ commit".into());
            }
            Request::Forget => self.say("→ forget".into()),
            Request::DropFunction { call } => self.say(format!("→ drop {call}")),
        }
    }

    pub(super) fn told(&self) -> String {
        self.timeline.join("\n")
    }

    /// How many ms of this value were played.
    pub(super) fn heard_ms(&self, value: u8) -> usize {
        self.played.iter().filter(|(_, played)| *played == value).count() * 20
    }
}
