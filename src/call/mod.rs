//! One call, as a value: inputs and the time go in, outputs and the next deadline come out.
//!
//! The owner of a call does three things: it hands in what happened (`handle`), or that time has
//! passed (`handle_timeout`), and then takes `poll_output` until it is empty and waits no longer
//! than `poll_timeout`. A call cannot fail: a service that fails is an input like any other, and the
//! machine decides what the caller hears. From any inputs it comes back to LISTENING, or to ENDED,
//! in bounded time. The diagram of its states is in `turn`.
//!
//! "The bot is speaking" means that audio is outstanding at the carrier, by its marks, or by the
//! clock where marks do not come back; never that we have finished sending.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod address;
mod control;
mod dialogue;
mod digits;
mod early;
mod ending;
mod event;
mod file;
mod hold;
mod idle;
mod input;
mod line;
mod marks;
mod memory;
mod merge;
mod output;
mod own_words;
mod pacer;
mod playback;
pub mod realtime;
mod recording;
mod relay;
mod reply;
mod sentences;
mod settings;
#[cfg(test)]
mod tests;
mod trace;
mod unasked;

pub use address::{Destination, Keys};
pub use control::Control;
pub use digits::{Collecting, FinishOn, Gather, MOST_DIGITS};
pub use event::{Event, Ignored, TurnResult};
pub use idle::Silence;
pub use input::{Action, Failure, FailureKind, Input, Job, Posted, Service, StopReason};
pub use memory::{Counts, Memory};
pub use output::{Output, Question, ReplyHeard};
pub use relay::Relay;
pub use reply::SILENT_RMS;
pub use settings::{Hearing, Mode, Phrase, Settings};
pub use trace::{SpanId, Trace};

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::audio::{BYTES_PER_MS, FRAME_BYTES, Frame};
use crate::time::{CallTime, FRAME};
use crate::turn::{
    Ear, Ended, Endpoint, FrontEnd, Heard, Interruption, Machine, Measured, State, Transition, decibels,
};
use control::Pending;
use digits::Digits;
use early::Early;
use hold::Hold;
use idle::Idle;
use line::{Line, LineFault};
use own_words::OwnWords;
use pacer::{Mark, Pacer, Sent};
use playback::Playback;
use recording::Recording;
use reply::Reply;
use unasked::Unasked;

/// How long after the clock says that all is played the end mark is waited for; and the network and the telephone,
/// before the call is ended or taken elsewhere, where marks do not come back.
const MARK_SLACK: Duration = Duration::from_millis(500);
/// No reply is longer; a service that never stops talking is cut.
const LONGEST_REPLY: Duration = Duration::from_secs(300);
/// Audio queued ahead of the pacer; with more, no speech is taken from the services.
const MOST_QUEUED: Duration = Duration::from_secs(30);

/// One call.
#[derive(Debug)]
pub struct Call {
    settings: Arc<Settings>,
    /// Nothing softer interrupts the bot.
    least_db: f32,
    machine: Machine,
    line: Line,
    /// `None` where everything was measured before.
    front: Option<FrontEnd>,
    /// The frames of the latest audio of the caller's.
    measured: Vec<Measured>,
    playback: Playback,
    ear: Ear,
    endpoint: Endpoint,
    idle: Idle,
    interruption: Interruption,
    hold: Hold,
    recording: Recording,
    digits: Digits,
    pacer: Pacer,
    reply: Option<Reply>,
    /// Since when there is something to answer, while THINKING.
    thinking: Thinking,
    transcribing: Option<Asked>,
    asking: Option<Asked>,
    /// What the carrier was asked for, until that is done or has failed. The state stays what it was.
    control: Option<Pending>,
    /// What could not be done, until the agent has been told.
    failed_action: Option<&'static str>,
    /// Its last words are said: nothing is answered any more.
    leaving: bool,
    /// Since when the reply waits, before its first frame, for a caller who may be going on.
    giving_way: Option<CallTime>,
    speaking_since: CallTime,
    /// The position up to which what is queued is filler, and no reply.
    filler_end: u64,
    /// When the present reply's first audio came, and when its first mark was sent.
    first_audio_at: CallTime,
    first_mark_sent: Option<CallTime>,
    /// Counts the caller's turns, the utterances, the sentences given to a voice, and what the carrier
    /// was asked for.
    turns: u64,
    utterances: u64,
    segments: u64,
    controls: u64,
    /// Goes up with every `clear`; marks of an older one are stale.
    epoch: u64,
    /// The carrier does not send marks back: the clock alone tells when all is played.
    marks_lost: bool,
    /// Words of a turn that the caller took up again before it was answered, where the recogniser
    /// does not say them twice.
    unanswered: Vec<String>,
    /// What the agent has to say that nobody asked for, while it waits for the line.
    unasked: Unasked,
    /// What the agent was asked, until something of the answer was heard.
    asked_text: Option<String>,
    /// The keys that it was, and those that were given up because of what the caller may be saying now.
    asked_keys: Option<String>,
    unanswered_keys: Option<(u64, String)>,
    last_final: Option<(String, CallTime)>,
    previous: Previous,
    /// While the reply has hardly begun, and its turn could be taken up again: what the agent was to
    /// be told with it.
    unsettled: Option<Previous>,
    /// What the bot said last.
    own_words: OwnWords,
    /// The recogniser's guess at what is being said.
    partial_text: String,
    early: Option<Early>,
    /// When the caller began to speak last.
    utterance_began: CallTime,
    outputs: VecDeque<Output>,
}

/// A request that is under way: its number and since when.
#[derive(Clone, Copy, Debug)]
struct Asked {
    number: u64,
    at: CallTime,
}

#[derive(Clone, Copy, Debug, Default)]
struct Thinking {
    /// When the caller finished speaking; `None` for a greeting.
    speech_end: Option<CallTime>,
    since: CallTime,
    /// Voiced frames of the utterance: what a cough has few of.
    voiced_frames: u32,
    /// The filler has been said.
    filled: bool,
}

/// What became of the bot's previous reply: told to the agent until a new one is heard.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Previous {
    heard: String,
    interrupted: bool,
}

impl Call {
    pub fn new(settings: Arc<Settings>, now: CallTime) -> Call {
        let front = FrontEnd::new(settings.vad, settings.vad_rms);
        Call::with(settings, Some(front), now)
    }

    /// A call whose audio was measured before: it is told [`Input::Measured`], and never `Media`.
    pub fn measured_before(settings: Arc<Settings>, now: CallTime) -> Call {
        Call::with(settings, None, now)
    }

    fn with(settings: Arc<Settings>, front: Option<FrontEnd>, now: CallTime) -> Call {
        let longest = settings.endpointing.max_utterance.as_millis() as usize * BYTES_PER_MS * 2;
        let mut call = Call {
            least_db: decibels(settings.vad_rms),
            machine: Machine::default(),
            line: Line::new(now),
            front,
            measured: Vec::new(),
            playback: Playback::default(),
            ear: Ear::new(settings.endpointing),
            endpoint: Endpoint::new(settings.endpointing.eou, settings.adaptive_eou),
            idle: Idle::new(now),
            interruption: Interruption::default(),
            hold: Hold::default(),
            recording: Recording::new(longest),
            digits: Digits::new(settings.digits),
            pacer: Pacer::new(settings.lead),
            reply: None,
            thinking: Thinking::default(),
            transcribing: None,
            asking: None,
            control: None,
            failed_action: None,
            leaving: false,
            giving_way: None,
            speaking_since: now,
            filler_end: 0,
            first_audio_at: now,
            first_mark_sent: None,
            turns: settings.memory.turns,
            utterances: settings.memory.utterances,
            segments: settings.memory.segments,
            controls: settings.memory.controls,
            epoch: 0,
            marks_lost: false,
            unanswered: Vec::new(),
            unasked: Unasked::default(),
            asked_text: None,
            asked_keys: None,
            unanswered_keys: None,
            last_final: None,
            previous: settings.memory.previous.clone(),
            unsettled: None,
            own_words: OwnWords::default(),
            partial_text: String::new(),
            early: None,
            utterance_began: now,
            outputs: VecDeque::new(),
            settings,
        };
        call.greet(now);
        call.pump(now);
        call
    }

    pub fn state(&self) -> State {
        self.machine.state()
    }

    /// What the frames told that the latest input made whole; time that passes changes nothing of it.
    pub fn measured(&self) -> &[Measured] {
        &self.measured
    }

    /// The silence within the caller's utterance so far, and how much of it would end one now.
    pub fn pause(&self, now: CallTime) -> (Option<Duration>, Duration) {
        (self.ear.silence(), self.endpoint.wait(now))
    }

    /// Whether speech from a service can be taken; if not, it should wait where it is.
    pub fn has_room(&self) -> bool {
        self.pacer.queued() < MOST_QUEUED
    }

    /// Audio for the caller that waits to be sent.
    pub fn queued(&self) -> Duration {
        self.pacer.queued()
    }

    /// Takes one input. Nothing happens once the call has ended.
    pub fn handle(&mut self, input: Input<'_>, now: CallTime) {
        self.measured.clear();
        if self.state() == State::Ended {
            return;
        }
        match input {
            Input::Media { payload, timestamp_ms } => self.media(payload, timestamp_ms, &[], now),
            Input::Measured { payload, timestamp_ms, frames } => {
                self.media(payload, timestamp_ms, frames, now);
            }
            Input::Dtmf(key) => self.key(key, now),
            Input::Mark(name) => self.mark_returned(name, now),
            Input::Transcript { utterance, text } => self.transcript(utterance, text, now),
            Input::Partial { text } => self.partial(text, now),
            Input::SpeechFinal => self.speech_final(now),
            Input::ReplyText { turn, text } => self.reply_text(turn, &text, now),
            Input::ReplyEnd { turn, action } => self.reply_end(turn, action, now),
            Input::Speech { segment, audio } => self.speech(segment, &audio, now),
            Input::SpeechEnd { segment } => self.speech_end(segment, now),
            Input::Controlled { number } => self.controlled(number, now),
            Input::Failed { job, failure } => self.job_failed(job, failure, now),
            Input::LastWords { text } => self.last_words(text, now),
            Input::Stop(reason) => self.broken_off(reason, now),
        }
        self.pump(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: CallTime) {
        if self.state() == State::Ended {
            return;
        }
        match self.line.check(now, self.settings.media_timeout) {
            Some(LineFault::Stalled) => {
                self.tell(Event::MediaStalled);
                let heard = self.ear.end();
                self.heard(heard, now);
            }
            Some(LineFault::Dead) => {
                self.broken_off(StopReason::Timeout, now);
                return self.outputs.push_back(Output::Hangup(StopReason::Timeout));
            }
            None => {}
        }
        if self.state_deadline().is_some_and(|at| at <= now) {
            self.state_overdue(now);
        }
        self.take_digits(now);
        self.idle_overdue(now);
        self.pump(now);
    }

    /// The next thing to do, until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `handle_timeout` wants to be called; `None` once the call has ended.
    pub fn poll_timeout(&self) -> Option<CallTime> {
        let digits = self.digits.due().filter(|_| self.may_take_digits());
        let line = Some(self.line.deadline(self.settings.media_timeout));
        match self.state() {
            State::Ended => None,
            State::Listening | State::Thinking | State::Speaking => {
                [self.audio_due(), self.state_deadline(), self.idle_deadline(), digits, line]
                    .into_iter()
                    .flatten()
                    .min()
            }
        }
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn moved(&mut self, transition: Option<Transition>) {
        if let Some(transition) = transition {
            self.tell(Event::State(transition));
        }
    }

    // ---- the caller -------------------------------------------------------------------------------

    fn media(&mut self, payload: &[u8], timestamp_ms: Option<u64>, measured: &[Measured], now: CallTime) {
        if let Some(after) = self.line.alive(now) {
            self.tell(Event::MediaResumed { after });
        }
        let mut measured = measured.iter().copied();
        let (lost, fill) = self.line.takes(payload, timestamp_ms);
        for mut audio in [fill, payload] {
            if self.line.is_even() {
                let (whole, rest) = audio.as_chunks();
                whole.iter().for_each(|frame| self.frame(frame, measured.next(), now));
                audio = rest;
            }
            while let Some(frame) = self.line.next(&mut audio) {
                self.frame(&frame.0, measured.next(), now);
            }
        }
        if let Some(ms) = lost {
            self.tell(Event::MediaGap { ms });
        }
    }

    fn frame(&mut self, frame: &[u8; FRAME_BYTES], before: Option<Measured>, now: CallTime) {
        let measured = match (before, &mut self.front) {
            (Some(measured), _) => measured,
            (None, Some(front)) => front.hear(&Frame(*frame), self.playback.level_db(now)),
            (None, None) => Measured::default(),
        };
        self.measured.push(measured);
        self.recording.push(frame);
        self.ear.wait(self.silence_to_wait(now));
        let heard = self.ear.hear(measured.is_turn());
        self.heard(heard, now);
        match self.state() {
            // What the carrier was asked for cannot be taken back.
            State::Thinking | State::Speaking if self.is_leaving() => self.interruption.forget(),
            State::Thinking => self.heard_while_thinking(measured, now),
            State::Speaking => self.heard_while_speaking(measured, now),
            State::Listening => {
                self.interruption.forget();
                self.ask_early(now);
            }
            State::Ended => {}
        }
    }

    fn heard(&mut self, heard: Heard, now: CallTime) {
        match heard {
            Heard::Same => {}
            Heard::Started { frames_ago } => {
                self.utterance_began = now - FRAME * frames_ago;
                if self.state() == State::Listening {
                    // Of a filler that nothing came of.
                    self.be_quiet(now);
                }
                self.endpoint.started(now);
                self.recording.begin();
                self.tell(Event::UtteranceStarted);
            }
            Heard::Ended(ended) => self.utterance_ended(ended, now),
        }
    }

    fn utterance_ended(&mut self, ended: Ended, now: CallTime) {
        match self.state() {
            State::Listening => {
                self.endpoint.ended(now);
                self.tell(Event::UtteranceEnded { speech: ended.speech, endpoint: ended.silence });
                self.answer_utterance(ended, now);
            }
            // The caller may be gone in a moment.
            State::Thinking | State::Speaking if self.is_leaving() => self.recording.queue(),
            // Too short to have interrupted: it stays with the turn that is being answered.
            State::Thinking => {}
            State::Speaking if self.hold.utterance_ended(ended) => {}
            State::Speaking if self.answers_the_end() => {
                self.settle_turn();
                self.recording.queue();
            }
            // Too short to have interrupted, or not allowed to.
            State::Speaking if self.settings.barge_in => {
                self.settle_turn();
                self.recording.answered(false);
                self.forget_words();
            }
            State::Speaking => self.recording.queue(),
            State::Ended => {}
        }
    }

    // ---- playout ----------------------------------------------------------------------------------

    /// Sends what is due.
    fn pump(&mut self, now: CallTime) {
        while !self.gives_way(now)
            && let Some(sent) = self.pacer.next(now)
        {
            match sent {
                Sent::Frame { frame, due, underrun } => {
                    let position = self.pacer.sent() - FRAME_BYTES as u64;
                    if underrun && !self.reply.as_ref().is_some_and(|reply| reply.begins_at(position)) {
                        self.tell(Event::Underrun);
                    }
                    if self.front.is_some() {
                        self.playback.sent(&frame, self.pacer.playout_end());
                    }
                    self.outputs.push_back(Output::Play { frame, due });
                    if self.state() == State::Thinking && position >= self.filler_end {
                        self.first_frame(now);
                    }
                }
                Sent::Mark(mark) => {
                    if mark == Mark::End
                        && let Some(reply) = &mut self.reply
                    {
                        reply.end_sent = true;
                    }
                    self.send_mark(mark);
                }
            }
        }
    }

    fn first_frame(&mut self, now: CallTime) {
        let greeting = self.reply.as_ref().is_some_and(|reply| reply.turn == 0);
        let since_speech_end = self.thinking.speech_end.map(|end| now.since(end));
        let since_thinking = now.since(self.thinking.since);
        let since_audio = now.since(self.first_audio_at);
        self.tell(Event::FirstFrame { since_speech_end, since_thinking, since_audio, greeting });
        let transition = self.machine.speak();
        self.moved(transition);
        self.speaking_since = now;
        self.first_mark_sent = Some(now);
        self.hold.forget();
        self.unsettled = Some(std::mem::take(&mut self.previous));
        // The greeting, and what cannot be interrupted, collide with nothing.
        if greeting || !self.settings.barge_in {
            self.settle_turn();
        }
        if !greeting {
            self.failed_action = None;
        }
        self.send_mark(Mark::First);
    }

    /// When the present state has lasted too long. LISTENING has no deadline.
    fn state_deadline(&self) -> Option<CallTime> {
        if let Some(pending) = &self.control {
            return Some(pending.due);
        }
        match self.state() {
            State::Listening | State::Ended => None,
            // The reply is about to begin, behind a filler or a caller: `audio_due` says when.
            State::Thinking if self.reply_is_queued() => None,
            State::Thinking => {
                let from = self.thinking.speech_end.unwrap_or(self.thinking.since);
                let waits = if self.may_fill() { self.settings.filler_after } else { Duration::MAX };
                Some(from + self.settings.reply_deadline.min(waits))
            }
            State::Speaking => {
                if let Some(deadline) = self.hold.deadline() {
                    return Some(deadline);
                }
                let longest = self.speaking_since + LONGEST_REPLY;
                let played = self.pacer.playout_end();
                let end = match &self.reply {
                    Some(reply) if reply.end_sent && self.marks_lost && !self.leads_away(&reply.action) => {
                        played
                    }
                    Some(reply) if reply.end_sent => played + MARK_SLACK,
                    Some(_) if self.pacer.is_dry() => played + self.settings.reply_deadline,
                    Some(_) => longest,
                    None => played,
                };
                Some(end.min(longest))
            }
        }
    }

    fn state_overdue(&mut self, now: CallTime) {
        if self.control.is_some() {
            return self.control_overdue(now);
        }
        match self.state() {
            State::Listening | State::Ended => {}
            State::Thinking => {
                let from = self.thinking.speech_end.unwrap_or(self.thinking.since);
                if from + self.settings.reply_deadline <= now {
                    self.reply_overdue(now);
                } else {
                    self.fill();
                }
            }
            State::Speaking if self.hold.is_held() => self.hold_overdue(now),
            State::Speaking if self.speaking_since + LONGEST_REPLY <= now => self.cut_reply(now),
            State::Speaking if self.reply.as_ref().is_none_or(|reply| reply.end_sent) => {
                self.marks_lost = true;
                self.played(now);
            }
            State::Speaking => self.reply_overdue(now),
        }
    }

    fn tell_spurt(&mut self) {
        let frames = self.pacer.end_spurt();
        if frames > 0 {
            self.tell(Event::MediaTx { frames, ms: frames * FRAME.as_millis() as u64 });
        }
    }
}
