//! The model's side of a call: its responses, what of them is wanted, the functions that it calls, and
//! what the caller hears when there is nothing of it to hear.

use std::time::Duration;

use super::super::event::{Event, Ignored, TurnResult};
use super::super::input::{Action, Failure, FailureKind, Service, StopReason};
use super::super::pacer::Mark;
use super::link::Link;
use super::model::{About, Answered, FunctionCall, Meaning, Request, ResponseEnd, Role, Told};
use super::playback::Cut;
use super::{LONGEST_REPLY, PCM_RATE, Realtime};
use crate::audio::{BYTES_PER_MS, Hint};
use crate::time::CallTime;
use crate::turn::{State, Why};

/// Responses in one reply: a model that calls functions without end has lost its way.
const MOST_ROUNDS: u32 = 8;
/// Functions that are called at once.
const MOST_FUNCTIONS: usize = 8;
/// Responses that are remembered as over.
const MOST_PAST: usize = 16;
/// How long the end of a response that nobody wants is waited for before the next is asked for.
const LETTING_GO: Duration = Duration::from_secs(2);

/// A reply on its way to the caller; it may be made of several responses.
#[derive(Debug)]
pub(super) struct Reply {
    /// 0 for what answers nobody.
    pub(super) turn: u64,
    pub(super) speech_end: Option<CallTime>,
    pub(super) since: CallTime,
    pub(super) first_audio_at: Option<CallTime>,
    pub(super) speaking_since: CallTime,
    pub(super) first_mark_sent: Option<CallTime>,
    /// The caller hears an apology.
    failed: bool,
    /// Something of the model's has come.
    begun: bool,
    rounds: u32,
    end_marked: bool,
    pub(super) end_sent: bool,
}

impl Reply {
    pub(super) fn new(turn: u64, speech_end: Option<CallTime>, now: CallTime) -> Reply {
        Reply {
            turn,
            speech_end,
            since: now,
            first_audio_at: None,
            speaking_since: now,
            first_mark_sent: None,
            failed: false,
            begun: false,
            rounds: 0,
            end_marked: false,
            end_sent: false,
        }
    }
}

/// What the model is at.
#[derive(Debug)]
pub(super) enum Response {
    None,
    /// Asked for; nothing of it has come.
    Asked,
    Active(String),
}

/// A function that the app was asked for.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: String,
    due: CallTime,
    /// The caller does not wait for it any more; the model is told all the same.
    pub(super) stale: bool,
}

impl Realtime {
    pub(super) fn greet(&mut self, now: CallTime) {
        if let Some(opening) = self.manner.opening.clone() {
            self.reply = Some(Reply::new(0, None, now));
            self.wanted = Some(Some(opening).filter(|words| !words.is_empty()));
            let transition = self.machine.think(Why::Greeting);
            self.moved(transition);
        }
    }

    pub(super) fn told(&mut self, told: Told, now: CallTime) {
        match told {
            Told::Ready { audio } => {
                self.ready = true;
                if audio.is_some() {
                    self.hint = Hint::new(audio.as_deref(), PCM_RATE);
                }
            }
            Told::SpeechStarted => self.speech_started(now),
            Told::SpeechStopped => self.speech_stopped(now),
            Told::ResponseStarted { response } => self.response_started(response, now),
            Told::Audio { response, item, content, audio } => {
                if self.takes(&response, now) {
                    self.audio((&response, &item, content), &audio, now);
                }
            }
            Told::AudioEnded { response, item } => {
                if self.playback.is_last(&response, &item) {
                    self.playback.end_part(&mut self.pacer);
                }
            }
            Told::Words { response, item, content, text } => {
                if self.takes(&response, now) {
                    self.something_came(now);
                    self.playback.words((&response, &item, content), &text, &mut self.pacer);
                }
            }
            Told::FunctionCalled { response, call } => {
                if self.takes(&response, now) {
                    self.function_called(call, now);
                }
            }
            Told::ResponseEnded { response, end } => self.response_ended(&response, end, now),
            Told::Partial { text } => self.tell(Event::SttPartial { text }),
            Told::Transcript { text } => {
                self.history.push(Role::Caller, &text);
                self.tell(Event::SttFinal { text, took: now.since(self.finished_at) });
            }
            Told::Refused { about, failure } => self.refused(about, failure, now),
        }
    }

    // ---- responses --------------------------------------------------------------------------------

    /// The caller waits for more of the model.
    pub(super) fn is_busy(&self) -> bool {
        let under_way = !matches!(self.response, Response::None) && self.unwanted.is_none();
        under_way || self.wanted.is_some() || self.asks_app()
    }

    /// The app is asked for something that the caller waits for.
    pub(super) fn asks_app(&self) -> bool {
        self.functions.iter().any(|function| !function.stale)
    }

    /// Asks for a response, if one is wanted and may be asked for.
    pub(super) fn respond_if_wanted(&mut self, now: CallTime) {
        let at_another = match self.response {
            Response::None => false,
            Response::Asked | Response::Active(_) => {
                self.unwanted.is_none_or(|since| now < since + LETTING_GO)
            }
        };
        if !self.link.is_up() || self.asks_app() || at_another {
            return;
        }
        let Some(say) = self.wanted.take() else { return };
        self.end_response();
        self.response = Response::Asked;
        self.waited_from = self.waited_from.max(now);
        self.request(Request::Respond { say });
    }

    /// When a response that nobody wants has been waited for long enough.
    pub(super) fn response_due(&self) -> Option<CallTime> {
        let waits = self.wanted.is_some() && self.link.is_up() && !self.asks_app();
        self.unwanted.filter(|_| waits).map(|since| since + LETTING_GO)
    }

    fn response_started(&mut self, response: String, now: CallTime) {
        if !response.is_empty() && self.past.contains(&response) {
            return;
        }
        match &self.response {
            // The one that was asked for, wanted or not by now.
            Response::Asked => {}
            Response::Active(id) if *id == response => return,
            Response::None | Response::Active(_) => {
                self.end_response();
                self.begins_by_itself(now);
            }
        }
        self.response = Response::Active(response);
    }

    /// The model begins to speak without having been asked by this side.
    fn begins_by_itself(&mut self, now: CallTime) {
        // Where its own ear counts, it answers what it has heard.
        self.wanted = None;
        match self.state() {
            State::Listening => {
                self.reply = Some(Reply::new(0, None, now));
                self.waited_from = now;
                let transition = self.machine.think(Why::Unasked);
                self.moved(transition);
            }
            State::Thinking => self.waited_from = now,
            State::Speaking => {
                self.waited_from = now;
                self.goes_on();
            }
            State::Ended => {}
        }
    }

    /// Whether something of this response is wanted. One that the model did not announce is taken as
    /// begun.
    fn takes(&mut self, response: &str, now: CallTime) -> bool {
        let is_it = match &self.response {
            Response::Active(id) => id.is_empty() || response.is_empty() || id == response,
            Response::None | Response::Asked => false,
        };
        if !is_it {
            if self.past.iter().any(|past| past == response) {
                return false;
            }
            self.response_started(response.to_owned(), now);
        }
        if self.unwanted.is_some() && std::mem::take(&mut self.stops_itself) {
            // It does not stop by itself after all.
            self.request(Request::Cancel { response: response.to_owned() });
        }
        self.unwanted.is_none()
    }

    fn audio(&mut self, place: (&str, &str, u64), audio: &[u8], now: CallTime) {
        if self.pacer.queued() >= LONGEST_REPLY {
            if !std::mem::replace(&mut self.overflowed, true) {
                self.tell(Event::BotOverflow);
            }
            return;
        }
        self.something_came(now);
        if let Some(reply) = &mut self.reply {
            reply.first_audio_at.get_or_insert(now);
        }
        let hint = self.hint.clone();
        if let Err(why) = self.playback.push(place, audio, &hint, &mut self.pacer) {
            let why = format!("the vendor: audio that is none: {why}");
            self.failed(FailureKind::Protocol, why);
            self.apologise(now);
        }
    }

    fn something_came(&mut self, now: CallTime) {
        if let Some(reply) = &mut self.reply
            && !std::mem::replace(&mut reply.begun, true)
        {
            let took = now.since(reply.since);
            self.tell(Event::AgentFirstText { took });
        }
    }

    fn response_ended(&mut self, response: &str, end: ResponseEnd, now: CallTime) {
        let is_it = match &self.response {
            Response::Active(id) => id.is_empty() || response.is_empty() || id == response,
            // One that ended before anything of it was told.
            Response::Asked => !self.past.iter().any(|past| past == response),
            Response::None => false,
        };
        if !is_it {
            return;
        }
        let wanted = self.unwanted.is_none();
        self.response = Response::Active(response.to_owned());
        self.end_response();
        if !wanted {
            return self.respond_if_wanted(now);
        }
        self.playback.end_part(&mut self.pacer);
        let bytes = self.playback.bytes_of(response);
        if bytes > 0 {
            self.tell(Event::TtsLen { ms: bytes / BYTES_PER_MS as u64 });
        }
        let follows = std::mem::take(&mut self.follows);
        let asks_nothing = !follows && self.action == Action::None;
        match end {
            ResponseEnd::Completed if bytes == 0 && asks_nothing && self.playback.has_audio_of(response) => {
                self.failed(FailureKind::Protocol, "the vendor: audio without a sound".into());
                return self.apologise(now);
            }
            ResponseEnd::Completed => {
                self.failures = 0;
                let unsaid = self.action != Action::None && bytes == 0;
                if follows || unsaid && self.reply.as_ref().is_none_or(|reply| reply.rounds == 0) {
                    self.ask_again(now);
                }
            }
            ResponseEnd::Cancelled => {}
            ResponseEnd::Broken(failure) => {
                self.tell(Event::UpstreamFailed { service: Service::Agent, failure });
                return self.apologise(now);
            }
        }
        self.conclude(now);
    }

    /// A reply needs one more response.
    fn ask_again(&mut self, now: CallTime) {
        let Some(reply) = &mut self.reply else { return };
        reply.rounds += 1;
        if reply.rounds > MOST_ROUNDS {
            let why =
                format!("the vendor: the model has called functions {MOST_ROUNDS} times without an end");
            self.failed(FailureKind::Protocol, why);
            return self.apologise(now);
        }
        self.wanted = Some(None);
        self.waited_from = self.waited_from.max(now);
        self.respond_if_wanted(now);
    }

    /// Nothing more of the present response is heard.
    fn end_response(&mut self) {
        self.unwanted = None;
        self.stops_itself = false;
        if let Response::Active(id) = std::mem::replace(&mut self.response, Response::None)
            && !id.is_empty()
        {
            if self.past.len() == MOST_PAST {
                self.past.pop_front();
            }
            self.past.push_back(id);
        }
    }

    /// Nothing of what the model is at is wanted any more.
    pub(super) fn drop_response(&mut self, stops_itself: bool, now: CallTime) {
        self.wanted = None;
        self.follows = false;
        self.functions.iter_mut().for_each(|function| function.stale = true);
        let id = match &self.response {
            Response::None => return,
            Response::Asked => String::new(),
            Response::Active(id) => id.clone(),
        };
        if self.unwanted.is_none() {
            self.unwanted = Some(now);
            self.stops_itself = stops_itself;
            if !stops_itself {
                self.request(Request::Cancel { response: id });
            }
        }
    }

    pub(super) fn truncate(&mut self, cuts: Vec<Cut>) {
        for Cut { item, content, heard } in cuts {
            self.request(Request::Truncate { item, content, heard });
        }
    }

    fn refused(&mut self, about: Option<About>, failure: Failure, now: CallTime) {
        match about {
            Some(About::Response { busy: true }) => {
                // It is at one that it has not told of, or will not have told of before that ends.
                if matches!(self.response, Response::Asked) {
                    self.response = Response::Active(String::new());
                    if self.unwanted.is_none() {
                        self.wanted.get_or_insert(None);
                    }
                    self.unwanted.get_or_insert(now);
                }
            }
            Some(About::Response { busy: false }) => {
                self.tell(Event::UpstreamFailed { service: Service::Agent, failure });
                let wanted = self.unwanted.is_none();
                if matches!(self.response, Response::Asked) {
                    self.end_response();
                    if wanted {
                        return self.apologise(now);
                    }
                }
                self.respond_if_wanted(now);
            }
            None if self.ready || failure.kind != FailureKind::Http4xx => {
                self.tell(Event::UpstreamFailed { service: Service::Agent, failure });
            }
            // What is wrong before there is a session will not mend itself.
            Some(About::Session) | None => {
                self.tell(Event::UpstreamFailed { service: Service::Agent, failure });
                self.give_up(now);
            }
            Some(About::Other) => {
                self.tell(Event::UpstreamFailed { service: Service::Agent, failure });
            }
        }
    }

    // ---- functions --------------------------------------------------------------------------------

    fn function_called(&mut self, call: FunctionCall, now: CallTime) {
        self.something_came(now);
        let id = call.id.clone();
        let output = match &call.meaning {
            Meaning::Act(action, note) => {
                self.action = action.clone();
                note.clone()
            }
            Meaning::Wrong(why) => {
                self.follows = true;
                format!("Error: {why}")
            }
            Meaning::App if self.functions.len() >= MOST_FUNCTIONS => {
                self.follows = true;
                "Error: too many functions are called at once".to_owned()
            }
            Meaning::App => {
                self.follows = true;
                self.waited_from = now;
                let due = now + self.settings.reply_deadline;
                self.functions.push(Pending { id, due, stale: false });
                let deadline = self.settings.reply_deadline;
                return self.requests.push_back(Request::Function { turn: self.turns, call, deadline });
            }
        };
        self.request(Request::Answer { call: id, output });
    }

    pub(super) fn function_answered(&mut self, call: &str, answer: Answered, now: CallTime) {
        let Some(place) = self.functions.iter().position(|function| function.id == call) else { return };
        let function = self.functions.remove(place);
        let output = match answer {
            Ok((output, action)) => {
                if action != Action::None && !function.stale {
                    self.action = action;
                }
                output
            }
            Err(failure) => {
                let why = "Error: there is no answer. Tell the caller that this does not work right now.";
                self.tell(Event::UpstreamFailed { service: Service::Agent, failure });
                why.to_owned()
            }
        };
        self.request(Request::Answer { call: function.id, output });
        if !function.stale {
            self.waited_from = now;
            self.respond_if_wanted(now);
        }
    }

    pub(super) fn functions_due(&self) -> Option<CallTime> {
        self.functions.iter().map(|function| function.due).min()
    }

    pub(super) fn functions_overdue(&mut self, now: CallTime) {
        while let Some(function) = self.functions.iter().find(|function| function.due <= now) {
            let call = function.id.clone();
            let why = format!("the app: no answer within {} ms", self.settings.reply_deadline.as_millis());
            let failure = Failure { upstream: String::new(), kind: FailureKind::Timeout, why };
            self.requests.push_back(Request::DropFunction { call: call.clone() });
            self.function_answered(&call, Err(failure), now);
        }
    }

    // ---- the end of a reply -----------------------------------------------------------------------

    /// Ends the reply, if nothing more of it will come.
    fn conclude(&mut self, now: CallTime) {
        if self.is_busy() || !matches!(self.state(), State::Thinking | State::Speaking) {
            return;
        }
        if self.playback.is_silent() {
            return self.nothing_to_play(now);
        }
        self.playback.end_part(&mut self.pacer);
        if let Some(reply) = &mut self.reply
            && !std::mem::replace(&mut reply.end_marked, true)
        {
            self.pacer.mark(Mark::End);
        }
    }

    /// A reply that was complete is not.
    fn goes_on(&mut self) {
        if let Some(reply) = &mut self.reply
            && std::mem::take(&mut reply.end_marked)
        {
            reply.end_sent = false;
            // Its end mark may come back yet.
            self.epoch += 1;
            self.pacer.unmark(Mark::End);
        }
    }

    fn nothing_to_play(&mut self, now: CallTime) {
        let failed = self.reply.as_ref().is_some_and(|reply| reply.failed);
        self.turn_ended(if failed { TurnResult::Failed } else { TurnResult::Empty });
        if self.let_go_if_asked() {
            return;
        }
        self.back_to_listening(if failed { Why::Failed } else { Why::EmptyReply }, now);
    }

    /// The carrier has played the whole reply.
    pub(super) fn played(&mut self, now: CallTime) {
        let failed = self.reply.as_ref().is_some_and(|reply| reply.failed);
        let heard = self.playback.heard(u64::MAX);
        self.history.push(Role::Model, &heard);
        self.turn_ended(if failed { TurnResult::Failed } else { TurnResult::Answered });
        self.tell_spurt();
        if self.let_go_if_asked() {
            return;
        }
        self.back_to_listening(Why::Played, now);
    }

    /// Does what the model, or the app, wants done once the caller has heard the reply.
    fn let_go_if_asked(&mut self) -> bool {
        match std::mem::take(&mut self.action) {
            Action::None => {}
            Action::Hangup => {
                self.let_go();
                return true;
            }
            Action::Transfer { .. } => self.ignore("transfer"),
            Action::SendDigits { .. } => self.ignore("send_digits"),
            Action::Gather(_) => self.ignore("gather"),
        }
        false
    }

    fn ignore(&mut self, action: &'static str) {
        self.tell(Event::ActionIgnored { action, why: Ignored::Mode });
    }

    pub(super) fn let_go(&mut self) {
        let reason = if self.is_gone() { StopReason::Error } else { StopReason::BotEnd };
        self.hang_up(reason);
    }

    pub(super) fn turn_ended(&mut self, result: TurnResult) {
        let turn = self.reply.as_ref().map_or(0, |reply| reply.turn);
        if turn > 0 {
            self.tell(Event::TurnEnded { turn, result });
        }
    }

    pub(super) fn back_to_listening(&mut self, why: Why, now: CallTime) {
        self.tell_spurt();
        self.reply = None;
        self.playback.forget();
        self.interruption.forget();
        self.epoch += 1;
        let transition = self.machine.listen(why);
        self.moved(transition);
        if why != Why::BargeIn {
            self.answer_waiting(now);
        }
        self.take_digits(now);
    }

    // ---- when something fails ---------------------------------------------------------------------

    fn failed(&mut self, kind: FailureKind, why: String) {
        let failure = Failure { upstream: String::new(), kind, why };
        self.tell(Event::UpstreamFailed { service: Service::Agent, failure });
    }

    /// Nothing could be heard in time, or nothing more came.
    pub(super) fn reply_overdue(&mut self, now: CallTime) {
        // A line that cannot be had was told of already.
        if matches!(self.link, Link::Up) {
            let why =
                format!("the vendor: nothing to play within {} ms", self.settings.reply_deadline.as_millis());
            self.failed(FailureKind::Timeout, why);
        }
        self.apologise(now);
    }

    pub(super) fn apologise(&mut self, now: CallTime) {
        self.drop_response(false, now);
        self.goes_on();
        let turn = self.turns;
        let reply = self.reply.get_or_insert_with(|| Reply::new(turn, None, now));
        let again = std::mem::replace(&mut reply.failed, true);
        let apology = &self.settings.apology;
        if !again && !apology.audio.is_empty() {
            reply.first_audio_at.get_or_insert(now);
            self.playback.push_ours(&apology.text, &apology.audio, &mut self.pacer);
        }
        self.action = self.action_after_failure();
        self.conclude(now);
    }

    /// The longest time for a reply is over.
    pub(super) fn cut(&mut self, now: CallTime) {
        let cuts = self.playback.cuts(self.pacer.heard(now));
        self.drop_response(false, now);
        self.clear(now);
        self.truncate(cuts);
        self.turn_ended(TurnResult::Failed);
        if self.let_go_if_asked() {
            return;
        }
        self.back_to_listening(Why::Failed, now);
    }
}
