//! Everything around a call, in virtual time: a caller, a carrier that plays and returns marks, and
//! three services that answer as a script says.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use crate::audio::{FRAME_BYTES, mulaw};
use crate::turn::{Endpointing, Vad, Words};

pub(in crate::call) fn settings() -> Settings {
    Settings {
        mode: Mode::Dialogue,
        hearing: Hearing::Utterances,
        vad: Vad::Rms,
        vad_rms: 210.0,
        endpointing: Endpointing {
            eou: Duration::from_millis(450),
            tail: Duration::ZERO,
            max_utterance: Duration::from_secs(30),
        },
        adaptive_eou: false,
        early_agent: false,
        silence: Silence::default(),
        barge_in: true,
        words: Arc::new(Words::new(&["en".into()], &[], &[])),
        dedup_window: Duration::from_secs(8),
        greeting: None,
        apology: tone_of("Sorry.", 0xEE),
        filler: Phrase::default(),
        filler_after: Duration::from_millis(1500),
        reply_deadline: Duration::from_secs(6),
        transfer_apology: tone_of("No.", 0xED),
        digits: Collecting::default(),
        control: None,
        ask_to_hang_up: true,
        memory: Memory::default(),
        lead: Duration::from_millis(100),
        media_timeout: Duration::from_secs(30),
    }
}

/// A phrase of half a second.
fn tone_of(text: &str, value: u8) -> Phrase {
    Phrase { text: text.into(), audio: tone(500, value) }
}

/// Audio that is loud and can be told apart: μ-law bytes of one value.
pub(super) fn tone(ms: usize, value: u8) -> Bytes {
    assert!(mulaw::decode(value).unsigned_abs() > 100);
    Bytes::from(vec![value; ms * BYTES_PER_MS])
}

/// A voice that is not the caller's, like a television's: loud enough to be noticed, and no utterance.
pub(in crate::call) const TELEVISION: Measured =
    Measured { level_db: 60.0, floor_db: 20.0, p: 0.7, echo_db: 0.0, holds_turn: false, against_bot: 1.0 };

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Marks {
    /// Played or cleared, a mark comes back (Twilio).
    Returned,
    /// A cleared mark never comes back.
    DroppedByClear,
    Never,
    LateBy(u64),
}

/// How a service answers, and after how many ms.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Text(u64, &'static str),
    /// Pieces of a streamed reply, each with its delay after the one before.
    Pieces(Vec<(u64, &'static str)>),
    ThenHangup(u64, &'static str),
    Then(u64, &'static str, Action),
    Fails(u64),
    Never,
}

/// What the carrier does when it is asked for something, and after how many ms.
#[derive(Clone, Copy, Debug)]
pub(super) enum Carrier {
    /// It agrees, and ends the stream so much later.
    Agrees(u64, u64),
    /// It ends the stream before it answers.
    EndsFirst(u64),
    AgreesOnly(u64),
    Refuses(u64),
    Never,
}

pub(super) struct World {
    pub(super) call: Call,
    pub(super) now: CallTime,
    pub(super) marks: Marks,
    pub(super) stt: VecDeque<Answer>,
    pub(super) agent: VecDeque<Answer>,
    /// Text-to-speech: delay to the first audio; `None` never answers. 60 ms of audio a character.
    pub(super) tts: Option<u64>,
    /// What the carrier does when it is asked for something; by default it does it.
    pub(super) carrier: VecDeque<Carrier>,
    /// When the caller speaks, in ms: [from, to).
    pub(super) speech: Vec<(u64, u64)>,
    /// When nobody does but a television.
    pub(super) television: Vec<(u64, u64)>,
    pub(super) timeline: Vec<String>,
    /// Every frame with the time it left.
    pub(super) played: Vec<(u64, u8)>,
    /// What the carrier has to play, with the end of each frame; and what it has played.
    outstanding: VecDeque<(CallTime, u8)>,
    pub(super) carried: Vec<u8>,
    pub(super) questions: Vec<Question>,
    pub(super) heard: Vec<ReplyHeard>,
    pub(super) transcribed: Vec<usize>,
    coming: BinaryHeap<Reverse<(CallTime, u64)>>,
    inputs: std::collections::HashMap<u64, Input<'static>>,
    mark_names: std::collections::HashMap<u64, String>,
    serial: u64,
    carrier_end: CallTime,
    pending_marks: Vec<u64>,
    next_media: CallTime,
}

impl World {
    pub(super) fn new(settings: Settings) -> World {
        World {
            call: Call::new(Arc::new(settings), CallTime::ZERO),
            now: CallTime::ZERO,
            marks: Marks::Returned,
            stt: VecDeque::new(),
            agent: VecDeque::new(),
            tts: Some(100),
            carrier: VecDeque::new(),
            speech: Vec::new(),
            television: Vec::new(),
            timeline: Vec::new(),
            played: Vec::new(),
            outstanding: VecDeque::new(),
            carried: Vec::new(),
            questions: Vec::new(),
            heard: Vec::new(),
            transcribed: Vec::new(),
            coming: BinaryHeap::new(),
            inputs: Default::default(),
            mark_names: Default::default(),
            serial: 0,
            carrier_end: CallTime::ZERO,
            pending_marks: Vec::new(),
            next_media: CallTime::ZERO,
        }
    }

    fn schedule(&mut self, after_ms: u64, input: Input<'static>) -> u64 {
        let at = self.now + Duration::from_millis(after_ms);
        self.schedule_at(at, input)
    }

    pub(super) fn schedule_at(&mut self, at: CallTime, input: Input<'static>) -> u64 {
        self.serial += 1;
        self.coming.push(Reverse((at, self.serial)));
        self.inputs.insert(self.serial, input);
        self.serial
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
                    && let Some(input) = self.inputs.remove(&id)
                {
                    self.call.handle(input, self.now);
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

    fn say(&mut self, what: String) {
        self.timeline.push(format!("{:>6} {what}", self.now.as_millis()));
    }

    fn drain(&mut self) {
        while let Some((_, value)) = self.outstanding.pop_front_if(|(end, _)| *end <= self.now) {
            self.carried.push(value);
        }
        while let Some(output) = self.call.poll_output() {
            match output {
                Output::Play { frame, due } => {
                    assert!(due <= self.now, "a frame left before it was due");
                    self.carrier_end = self.carrier_end.max(self.now) + FRAME;
                    let ahead = self.carrier_end.since(self.now);
                    assert!(ahead <= self.call.settings.lead.max(FRAME), "{ahead:?} ahead at {}", self.now);
                    self.outstanding.push_back((self.carrier_end, frame.0[0]));
                    self.played.push((self.now.as_millis(), frame.0[0]));
                }
                Output::Mark(name) => self.mark(name),
                Output::Clear => {
                    self.say("→ clear".into());
                    self.carrier_end = self.now;
                    self.outstanding.clear();
                    for id in std::mem::take(&mut self.pending_marks) {
                        let name = self.mark_names.remove(&id);
                        if let (Marks::Returned, Some(name)) = (self.marks, name) {
                            self.mark_back(self.now, name);
                        }
                    }
                }
                Output::Finalize { utterance } => {
                    self.say(format!("→ finalize {utterance}"));
                    match self.stt.pop_front().unwrap_or(Answer::Text(50, "hello")) {
                        Answer::Text(ms, text) => {
                            self.schedule(ms, Input::Transcript { utterance, text: text.into() });
                        }
                        other => self.fail_or_not(other, Job::Transcribe { utterance }),
                    }
                }
                Output::Forget => self.say("→ forget".into()),
                Output::Heard(heard) => self.heard.push(heard),
                Output::Transcribe { utterance, audio } => {
                    self.say(format!("→ transcribe {} ms", audio.len() / BYTES_PER_MS));
                    self.transcribed.push(audio.len() / BYTES_PER_MS);
                    let job = Job::Transcribe { utterance };
                    match self.stt.pop_front().unwrap_or(Answer::Text(50, "hello")) {
                        Answer::Text(ms, text) => {
                            self.schedule(ms, Input::Transcript { utterance, text: text.into() });
                        }
                        other => self.fail_or_not(other, job),
                    }
                }
                Output::Ask(question) => {
                    self.say(format!("→ ask {}: {}", question.turn, question.text));
                    let turn = question.turn;
                    self.questions.push(question);
                    match self.agent.pop_front().unwrap_or(Answer::Text(100, "All right.")) {
                        Answer::Text(ms, text) => self.reply(turn, vec![(ms, text)], Action::None),
                        Answer::Pieces(pieces) => self.reply(turn, pieces, Action::None),
                        Answer::ThenHangup(ms, text) => self.reply(turn, vec![(ms, text)], Action::Hangup),
                        Answer::Then(ms, text, action) => self.reply(turn, vec![(ms, text)], action),
                        other => self.fail_or_not(other, Job::Ask { turn }),
                    }
                }
                Output::Say { segment, text } => {
                    self.say(format!("→ say {segment}: {text}"));
                    if let Some(delay) = self.tts {
                        // In three chunks, so that a segment is never whole at once.
                        let audio = tone(text.chars().count() * 60, 0x80 + (segment % 32) as u8);
                        let size = audio.len().div_ceil(3);
                        for (i, chunk) in audio.chunks(size).enumerate() {
                            let audio = Bytes::copy_from_slice(chunk);
                            self.schedule(delay + 10 * i as u64, Input::Speech { segment, audio });
                        }
                        self.schedule(delay + 40, Input::SpeechEnd { segment });
                    }
                }
                Output::Control { number, control } => {
                    self.say(format!("→ {control:?}"));
                    let job = Job::Control { number };
                    match self.carrier.pop_front().unwrap_or(Carrier::Agrees(200, 50)) {
                        Carrier::Agrees(ms, later) => {
                            self.schedule(ms, Input::Controlled { number });
                            self.schedule(ms + later, Input::Stop(StopReason::CallerHangup));
                        }
                        Carrier::EndsFirst(ms) => {
                            self.schedule(ms, Input::Stop(StopReason::CallerHangup));
                        }
                        Carrier::AgreesOnly(ms) => {
                            self.schedule(ms, Input::Controlled { number });
                        }
                        Carrier::Refuses(ms) => self.fail_or_not(Answer::Fails(ms), job),
                        Carrier::Never => {}
                    }
                }
                Output::Cancel(job) => self.say(format!("→ cancel {job:?}")),
                Output::Hangup(reason) => self.say(format!("→ hang up: {}", reason.as_str())),
                Output::Event(event) => self.event(event),
            }
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
            Event::BargeInHeld { .. } => self.say("held".into()),
            Event::BargeInResumed { after } => self.say(format!("goes on after {} ms", after.as_millis())),
            Event::BargeInSuppressed { echo } => {
                self.say(format!("no interruption: {}", if echo { "an echo" } else { "not allowed" }));
            }
            Event::TurnEnded { turn, result } => self.say(format!("turn {turn} {}", result.as_str())),
            Event::UpstreamFailed { service, failure } => {
                self.say(format!("{} failed: {}", service.as_str(), failure.why));
            }
            Event::FirstFrame { since_speech_end, .. } => {
                let since = since_speech_end.map_or("-".into(), |d| format!("{} ms", d.as_millis()));
                self.say(format!("first frame, {since} after the end of speech"));
            }
            Event::MediaTx { frames, .. } => self.say(format!("sent {frames} frames")),
            Event::SttPartial { text } => self.say(format!("partial: {text}")),
            Event::Duplicate { text } => self.say(format!("duplicate: {text}")),
            Event::OwnWords { text } => self.say(format!("its own words: {text}")),
            Event::Underrun => self.say("underrun".into()),
            Event::MediaStalled => self.say("media stalled".into()),
            Event::MediaResumed { after } => self.say(format!("media back after {} ms", after.as_millis())),
            Event::ActionIgnored { action, .. } => self.say(format!("ignored: {action}")),
            Event::Ended { reason } => self.say(format!("ended: {}", reason.as_str())),
            Event::UtteranceStarted
            | Event::UtteranceEnded { .. }
            | Event::SttFinal { .. }
            | Event::AgentFirstText { .. }
            | Event::TtsFirstAudio { .. }
            | Event::TtsLen { .. }
            | Event::FirstFrameHeard { .. }
            | Event::BotOverflow
            | Event::BotUnplayable { .. }
            | Event::Dtmf { .. }
            | Event::MediaGap { .. } => {}
        }
    }

    fn reply(&mut self, turn: u64, pieces: Vec<(u64, &str)>, action: Action) {
        let mut at = 0;
        for (wait, text) in pieces {
            at += wait;
            self.schedule(at, Input::ReplyText { turn, text: text.into() });
        }
        self.schedule(at, Input::ReplyEnd { turn, action });
    }

    fn fail_or_not(&mut self, answer: Answer, job: Job) {
        if let Answer::Fails(ms) = answer {
            let failure =
                Failure { upstream: "x".into(), kind: FailureKind::Http5xx, why: "answered 500".into() };
            self.schedule(ms, Input::Failed { job, failure });
        }
    }

    fn mark(&mut self, name: String) {
        match self.marks {
            Marks::Never => {}
            Marks::LateBy(ms) => {
                self.mark_back(self.carrier_end + Duration::from_millis(ms), name);
            }
            Marks::Returned | Marks::DroppedByClear => {
                let at = self.carrier_end.max(self.now);
                let id = self.mark_back(at, name.clone());
                self.mark_names.insert(id, name);
                self.pending_marks.push(id);
            }
        }
    }

    fn mark_back(&mut self, at: CallTime, name: String) -> u64 {
        // `Input::Mark` borrows; the story leaks a few names.
        self.schedule_at(at, Input::Mark(Box::leak(name.into_boxed_str())))
    }

    /// The frames that were sent, as stretches: from, to (ms), first byte.
    pub(super) fn stretches(&self) -> Vec<(u64, u64, u8)> {
        let mut told: Vec<(u64, u64, u8)> = Vec::new();
        for &(at, value) in &self.played {
            match told.last_mut() {
                Some((_, to, last)) if *last == value => *to = at,
                _ => told.push((at, at, value)),
            }
        }
        told
    }

    pub(super) fn told(&self) -> String {
        self.timeline.join("\n")
    }
}
