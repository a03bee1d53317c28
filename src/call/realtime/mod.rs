//! A call that a model conducts, one that hears and speaks by itself. What the caller says goes to the
//! model as it is said, and what the model says leaves here on the 20 ms grid. This side knows what the
//! caller has really heard, and cuts the model's memory to that when it is interrupted; it asks the app
//! for what the model wants to know; and it answers for the model when the model fails.
//!
//! The states are those of every call (see `turn`). Whose ear says when the caller begins and has
//! finished, the model's or ours, is a matter of [`Manner`].

mod caller;
mod link;
mod model;
mod playback;
mod reply;
#[cfg(test)]
mod tests;

pub use model::{About, Answered, FunctionCall, Input, Meaning, Request, ResponseEnd, Role, Told};

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::link::{Backlog, History, Link};
use self::playback::Playback;
use self::reply::{Pending, Reply, Response};
use super::digits::Digits;
use super::event::Event;
use super::input::{Action, StopReason};
use super::line::{Line, LineFault};
use super::output::Output;
use super::pacer::{Mark, Pacer, Sent};
use super::playback::Playback as Levels;
use super::recording::Recording;
use super::settings::Settings;
use crate::audio::{FRAME_BYTES, Hint};
use crate::time::{CallTime, FRAME};
use crate::turn::{Ear, FrontEnd, Interruption, Machine, Measured, State, Transition};

/// How long after the clock says that all is played the end mark is waited for; and the network and the telephone,
/// before the call is ended, where marks do not come back.
const MARK_SLACK: Duration = Duration::from_millis(500);
/// No reply is longer, and no more audio is queued; a model that never stops talking is cut.
const LONGEST_REPLY: Duration = Duration::from_secs(300);
/// A rate that the API has for PCM, and that servers send who do not heed what they are asked for.
const PCM_RATE: u32 = 24_000;

/// How a call is conducted, beside what [`Settings`] say of every call. A tape of it keeps this too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manner {
    pub ears: Ears,
    /// The caller may interrupt the model.
    pub interrupts: bool,
    /// The model speaks first: these words, or its own where there are none.
    pub opening: Option<String>,
}

/// Who notices that the caller begins to speak, and has finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ears {
    /// The model: it also replies, and stops, by itself.
    Models,
    Ours,
}

/// One call.
#[derive(Debug)]
pub struct Realtime {
    settings: Arc<Settings>,
    manner: Manner,
    machine: Machine,
    // The caller.
    line: Line,
    /// What our ear is told; `None` where the model's counts and ours only measures, or where everything
    /// was measured before.
    front: Option<FrontEnd>,
    /// What our ear made of the audio that was handed in last.
    measured: Vec<Measured>,
    /// What the caller hears of the bot: its echo is no speech.
    levels: Levels,
    ear: Ear,
    interruption: Interruption,
    recording: Recording,
    digits: Digits,
    /// Our ear hears an utterance, and what is heard goes to the model.
    listening: bool,
    /// An utterance waits until the bot has finished, where it may not be interrupted.
    waiting: bool,
    /// When the utterance began, and when there was voice last.
    voice_since: CallTime,
    last_voiced: CallTime,
    /// When the last utterance was over.
    finished_at: CallTime,
    // The model.
    link: Link,
    /// The model has said that the session is as it shall be.
    ready: bool,
    /// Links that could not be had, or were lost, since the model last said something whole.
    failures: u32,
    backlog: Backlog,
    history: History,
    response: Response,
    /// Since when nothing of the present response is wanted.
    unwanted: Option<CallTime>,
    /// The model stops by itself, and has not been told to.
    stops_itself: bool,
    /// Responses that are over: nothing more of them is heard.
    past: VecDeque<String>,
    /// A response is to be asked for as soon as the model is at none; with these words, if any.
    wanted: Option<Option<String>>,
    /// The present response has called functions whose answers it must be told aloud.
    follows: bool,
    functions: Vec<Pending>,
    /// What the model says that its audio is.
    hint: Hint,
    // The bot.
    pacer: Pacer,
    playback: Playback,
    reply: Option<Reply>,
    action: Action,
    /// Since when the caller waits, for the present step of the reply.
    waited_from: CallTime,
    turns: u64,
    /// Goes up with every `clear` and every reply; marks of an older one are stale.
    epoch: u64,
    /// The carrier does not send marks back: the clock alone tells when all is played.
    marks_lost: bool,
    overflowed: bool,
    outputs: VecDeque<Output>,
    requests: VecDeque<Request>,
}

impl Realtime {
    pub fn new(settings: Arc<Settings>, manner: Manner, now: CallTime) -> Realtime {
        let front = (manner.ears == Ears::Ours).then(|| FrontEnd::new(settings.vad, settings.vad_rms));
        Realtime::with(settings, manner, front, now)
    }

    /// A call whose audio was measured before: it is told [`Input::Measured`], and never `Media`.
    pub fn measured_before(settings: Arc<Settings>, manner: Manner, now: CallTime) -> Realtime {
        Realtime::with(settings, manner, None, now)
    }

    fn with(settings: Arc<Settings>, manner: Manner, front: Option<FrontEnd>, now: CallTime) -> Realtime {
        let mut call = Realtime {
            machine: Machine::default(),
            line: Line::new(now),
            front,
            measured: Vec::new(),
            levels: Levels::default(),
            ear: Ear::new(settings.endpointing),
            interruption: Interruption::default(),
            recording: Recording::new(0),
            digits: Digits::new(settings.digits),
            listening: false,
            waiting: false,
            voice_since: now,
            last_voiced: now,
            finished_at: now,
            link: Link::Dialling,
            ready: false,
            failures: 0,
            backlog: Backlog::default(),
            history: History::default(),
            response: Response::None,
            unwanted: None,
            stops_itself: false,
            past: VecDeque::new(),
            wanted: None,
            follows: false,
            functions: Vec::new(),
            hint: Hint::new(Some("audio/pcmu"), PCM_RATE),
            pacer: Pacer::new(settings.lead),
            playback: Playback::default(),
            reply: None,
            action: Action::None,
            waited_from: now,
            turns: 0,
            epoch: 0,
            marks_lost: false,
            overflowed: false,
            outputs: VecDeque::new(),
            requests: VecDeque::from([Request::Dial]),
            settings,
            manner,
        };
        call.greet(now);
        call
    }

    pub fn state(&self) -> State {
        self.machine.state()
    }

    /// What each frame told of the audio that was handed in last; nothing where the model's ear counts.
    pub fn measured(&self) -> &[Measured] {
        &self.measured
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
            Input::Linked => self.linked(now),
            Input::Unlinked(failure) => self.unlinked(failure, now),
            Input::Told(told) if self.link.is_up() => self.told(told, now),
            Input::Told(_) => {}
            Input::FunctionAnswered { call, answer } => self.function_answered(&call, answer, now),
            Input::Stop(reason) => self.end(reason),
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
            Some(LineFault::Dead) => self.hang_up(StopReason::Timeout),
            None => {}
        }
        if self.link.due().is_some_and(|at| at <= now) {
            self.dial();
        }
        self.functions_overdue(now);
        // What is overdue may bring on what is overdue too: the end of what was played long ago.
        while self.state_deadline().is_some_and(|at| at <= now) {
            self.state_overdue(now);
            self.pump(now);
        }
        self.respond_if_wanted(now);
        self.take_digits(now);
        self.pump(now);
    }

    /// Audio for the caller that waits to be sent.
    pub fn queued(&self) -> Duration {
        self.pacer.queued()
    }

    /// The next thing to do towards the carrier, until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next thing to do towards the model and the app, until `None`.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// When `handle_timeout` wants to be called; `None` once the call has ended.
    pub fn poll_timeout(&self) -> Option<CallTime> {
        let line = Some(self.line.deadline(self.settings.media_timeout));
        let others = [self.pacer.due(), self.digits_due(), self.link.due(), self.functions_due()];
        let reply = [line, self.state_deadline(), self.response_due()];
        match self.state() {
            State::Ended => None,
            State::Listening | State::Thinking | State::Speaking => {
                others.into_iter().chain(reply).flatten().min()
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

    // ---- playout ----------------------------------------------------------------------------------

    /// Sends what is due.
    fn pump(&mut self, now: CallTime) {
        while let Some(sent) = self.pacer.next(now) {
            match sent {
                Sent::Frame { frame, due, underrun } => {
                    let position = self.pacer.sent() - FRAME_BYTES as u64;
                    if underrun && !self.playback.begins_at(position) {
                        self.tell(Event::Underrun);
                    }
                    if self.front.is_some() {
                        self.levels.sent(&frame, self.pacer.playout_end());
                    }
                    self.outputs.push_back(Output::Play { frame, due });
                    if self.state() == State::Thinking {
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
        let transition = self.machine.speak();
        if let Some(reply) = &mut self.reply {
            reply.speaking_since = now;
            reply.first_mark_sent = Some(now);
            let event = Event::FirstFrame {
                since_speech_end: reply.speech_end.map(|end| now.since(end)),
                since_thinking: now.since(reply.since),
                since_audio: now.since(reply.first_audio_at.unwrap_or(now)),
                greeting: reply.turn == 0 && self.turns == 0,
            };
            self.tell(event);
        }
        self.moved(transition);
        self.send_mark(Mark::First);
    }

    fn mark_prefix(&self) -> String {
        let turn = self.reply.as_ref().map_or(self.turns, |reply| reply.turn);
        format!("t{turn}.e{}.", self.epoch)
    }

    fn send_mark(&mut self, mark: Mark) {
        let name = self.mark_prefix() + &mark.place();
        self.outputs.push_back(Output::Mark(name));
    }

    fn mark_returned(&mut self, name: &str, now: CallTime) {
        let prefix = self.mark_prefix();
        let (Some(reply), State::Speaking) = (&mut self.reply, self.machine.state()) else { return };
        let Some(place) = name.strip_prefix(&prefix) else { return };
        match place {
            "first" => {
                if let Some(sent) = reply.first_mark_sent.take() {
                    self.tell(Event::FirstFrameHeard { took: now.since(sent) });
                }
            }
            "end" if reply.end_sent => {
                self.marks_lost = false;
                self.played(now);
            }
            _ => {
                if let Some(number) = place.strip_prefix('s').and_then(|number| number.parse().ok()) {
                    self.playback.part_heard(number);
                }
            }
        }
    }

    /// Has the carrier forget what it has not played. Marks that come back from now on are stale.
    fn clear(&mut self, now: CallTime) -> Duration {
        let unheard = self.pacer.clear(now);
        self.levels.clear(now);
        self.outputs.push_back(Output::Clear);
        self.epoch += 1;
        unheard
    }

    fn tell_spurt(&mut self) {
        let frames = self.pacer.end_spurt();
        if frames > 0 {
            self.tell(Event::MediaTx { frames, ms: frames * FRAME.as_millis() as u64 });
        }
    }

    // ---- deadlines --------------------------------------------------------------------------------

    /// When the present state has lasted too long. LISTENING has no deadline; and while the app is
    /// asked for something, its answer has one.
    fn state_deadline(&self) -> Option<CallTime> {
        let patience = (!self.asks_app()).then_some(self.settings.reply_deadline);
        match self.state() {
            State::Listening | State::Ended => None,
            State::Thinking => patience.map(|patience| self.waited_from + patience),
            State::Speaking => {
                let since = self.reply.as_ref().map_or(self.waited_from, |reply| reply.speaking_since);
                let longest = since + LONGEST_REPLY;
                let played = self.pacer.playout_end();
                let end = match &self.reply {
                    Some(reply) if reply.end_sent && self.marks_lost && self.action != Action::Hangup => {
                        Some(played)
                    }
                    Some(reply) if reply.end_sent => Some(played + MARK_SLACK),
                    Some(_) if self.pacer.is_dry() => {
                        patience.map(|patience| played.max(self.waited_from) + patience)
                    }
                    Some(_) => None,
                    None => Some(played),
                };
                Some(end.map_or(longest, |end| end.min(longest)))
            }
        }
    }

    fn state_overdue(&mut self, now: CallTime) {
        match (self.state(), &self.reply) {
            (State::Listening | State::Ended, _) => {}
            (State::Thinking, _) => self.reply_overdue(now),
            (State::Speaking, Some(reply)) if reply.speaking_since + LONGEST_REPLY <= now => self.cut(now),
            (State::Speaking, Some(reply)) if !reply.end_sent => self.reply_overdue(now),
            (State::Speaking, _) => {
                self.marks_lost = true;
                self.played(now);
            }
        }
    }

    // ---- the end ----------------------------------------------------------------------------------

    fn hang_up(&mut self, reason: StopReason) {
        self.end(reason);
        self.outputs.push_back(Output::Hangup(reason));
    }

    fn end(&mut self, reason: StopReason) {
        self.pacer.clear(CallTime::ZERO);
        self.tell_spurt();
        self.reply = None;
        self.functions.clear();
        self.requests.clear();
        let transition = self.machine.end();
        self.moved(transition);
        self.tell(Event::Ended { reason });
    }
}
