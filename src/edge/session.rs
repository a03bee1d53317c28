//! The loop of one call: it owns the socket, the clock and the requests to the services, and
//! translates between the carrier's messages and the call with two `match`es without wildcards. What
//! the call says is done; what is decided is decided in `call`.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::bell::Bell;
use super::clock::Clock;
use super::farewell::{Farewell, Told};
use super::gateway::Gateway;
use super::handover::Handover;
use super::pulse::Pulse;
use super::tapes::recorder;
use super::websocket::{Close, Full, Received, Socket};
use crate::call::{
    Action, Call, Control, Event, Failure, FailureKind, Input, Job, Mode, Output, Posted, Service, StopReason,
};
use crate::observe::{CallObserver, Ending};
use crate::tape::{Conductor, Taped};
use crate::time::CallTime;
use crate::turn::State;
use crate::twilio::{Malformed, Message, Outbound, Reader, Start};
use crate::upstream::{CallIds, CallServices, Carrier, Recogniser};

/// Answers of the services that wait for the call; a full queue holds the services back.
const INBOX: usize = 16;

/// How long the end of what is being said is waited for, in a call that has become too long, and then how long its
/// last words may take.
const GOODBYE: Duration = Duration::from_secs(20);
pub(super) const TOO_LONG_A_CALL: &str = "the call has lasted [limits] max_call";

/// WebSocket close codes (RFC 6455, section 7.4.1).
pub(super) const NORMAL: u16 = 1000;
pub(super) const GOING_AWAY: u16 = 1001;
const PROTOCOL: u16 = 1002;
pub(super) const ABNORMAL: u16 = 1006;
const NOT_UTF8: u16 = 1007;
pub(super) const POLICY: u16 = 1008;
const TOO_LONG: u16 = 1009;

/// A stream that has ended; its socket is still to be closed, with this code.
pub(super) struct Served {
    pub(super) socket: Socket,
    pub(super) code: u16,
    pub(super) reason: StopReason,
}

/// How a stream ends whose socket does, without a `stop`.
pub(super) fn ending_of(close: &Close) -> (StopReason, Ending) {
    let (code, detail) = match close {
        Close::ByPeer(code) => (*code, "the carrier closed the socket".into()),
        Close::Lost(why) => (ABNORMAL, format!("the socket was lost: {why}")),
        Close::TooLong => (TOO_LONG, "a message was longer than [limits] max_message".into()),
        Close::NotUtf8 => (NOT_UTF8, "a text message was not UTF-8".into()),
        Close::Protocol(why) => (PROTOCOL, format!("the WebSocket protocol was broken: {why}")),
    };
    let (reason, carrier_code) = match close {
        Close::ByPeer(_) => (StopReason::WsLost, None),
        Close::Lost(_) => (StopReason::WsLost, Some(31903)),
        Close::TooLong | Close::NotUtf8 | Close::Protocol(_) => (StopReason::Error, Some(31924)),
    };
    (reason, Ending { close_code: Some(code), carrier_code, detail })
}

/// A request to a service; it ends when this is dropped.
struct Request {
    job: Job,
    task: AbortHandle,
}

impl Drop for Request {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) struct Session {
    socket: Socket,
    mode: Mode,
    call: Taped,
    reader: Reader,
    outbound: Outbound,
    observer: CallObserver,
    gateway: Arc<Gateway>,
    services: CallServices,
    ids: Arc<CallIds>,
    /// Where what is asked for answers to.
    answers: mpsc::Sender<Posted>,
    started: Instant,
    requests: Vec<Request>,
    /// Hears the whole call, where the recogniser is of that kind; and what it says, for which there is always
    /// room: the caller interrupts with it.
    recogniser: Option<(Recogniser, mpsc::Receiver<Posted>)>,
    inbox: mpsc::Receiver<Posted>,
    pulse: Pulse,
    ending: Ending,
    /// When the call has lasted long enough, or the goodbye after that.
    longest: Option<Instant>,
    /// It has lasted so long, and was told so often to say goodbye.
    goodbyes: u8,
}

/// What woke the loop.
enum Woken {
    Received(Received),
    Answered(Posted),
    Time,
    Told(Told),
}

impl Session {
    pub(super) fn new(
        socket: Socket,
        start: Start,
        subprotocol: Option<String>,
        gateway: Arc<Gateway>,
    ) -> Session {
        let call_sid = start.known_as().to_owned();
        let mut settings = gateway.call_settings(&start);
        let (observer, trace) = gateway.observer(&start);
        let mode = settings.mode;
        let mode_name = match mode {
            Mode::Echo => "echo",
            Mode::Dialogue => "dialogue",
        };
        observer.started(subprotocol.as_deref(), &start.account_sid, mode_name);
        let before = gateway.handovers.take(&call_sid);
        settings.memory = match &before {
            Some(handover) => handover.memory.clone(),
            None => gateway.calls.memory(&call_sid).after(start.resumed()),
        };
        if before.is_some() || start.resumed() > 0 {
            observer.resumed(settings.memory.turns());
        }
        let recorder = recorder(&gateway, &start, &settings, Conductor::Ours);
        let call = Taped::new(Call::new(Arc::new(settings), CallTime::ZERO), recorder);
        let started = Instant::now();
        let outbound = Outbound::new(&start.stream_sid);
        let Start { stream_sid, account_sid, parameters, .. } = start;
        let ids = Arc::new(CallIds { call_sid, stream_sid, account_sid, parameters, trace });
        let (services, answers, inbox) = match before {
            Some(Handover { services, inbox, answers, .. }) => {
                (services.for_stream(ids.clone()), answers, inbox)
            }
            None => {
                let (answers, inbox) = mpsc::channel(INBOX);
                (gateway.services.for_call(ids.clone(), answers.clone()), answers, inbox)
            }
        };
        let recogniser = gateway.services.recognise(&ids, INBOX);
        Session {
            socket,
            mode,
            call,
            reader: Reader::default(),
            outbound,
            observer,
            services,
            ids,
            started,
            requests: Vec::new(),
            recogniser,
            answers,
            inbox,
            pulse: Pulse::new(started, gateway.config.twilio.ping_interval),
            // Unless the carrier ends it.
            ending: Ending::ours(NORMAL, ""),
            longest: gateway.longest(started),
            goodbyes: 0,
            gateway,
        }
    }

    /// Runs the call to its end.
    pub(super) async fn run(mut self: Box<Self>, mut farewell: Farewell) -> Served {
        let (mut bell, mut words_bell) = (Bell::new(), Bell::new());
        let timer = sleep_until(self.started);
        tokio::pin!(timer);
        loop {
            self.carry_out();
            if self.call.state() == State::Ended {
                break;
            }
            let deadline = self.deadline();
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            let woken = tokio::select! {
                biased;
                told = farewell.told() => Woken::Told(told),
                received = self.socket.next() => Woken::Received(received),
                Some(input) = poll_fn(|cx| match &mut self.recogniser {
                    Some((_, words)) => words_bell.ask(cx, |cx| words.poll_recv(cx)),
                    None => Poll::Ready(None),
                }) => Woken::Answered(input),
                Some(input) = poll_fn(|cx| bell.ask(cx, |cx| self.inbox.poll_recv(cx))),
                    if self.call.has_room() => Woken::Answered(input),
                () = &mut timer => Woken::Time,
            };
            let (now, is_time) = (self.now(), matches!(woken, Woken::Time));
            match woken {
                Woken::Received(received) => self.receive(received, now),
                Woken::Answered(input) => self.call.handle(*input, now),
                Woken::Time => {}
                Woken::Told(Told::Goodbye) => self.say_goodbye(now),
                Woken::Told(told @ (Told::HangUp | Told::Replaced)) => {
                    let (reason, code, why) = told.ending();
                    self.end(reason, Ending::ours(code, why));
                }
            }
            // Who never pauses does not stop the clock.
            if is_time || Clock(self.started).at(now) >= deadline {
                self.time_passed(now);
            }
        }
        let Session { socket, call, observer, started, ending, requests, recogniser, gateway, ids, .. } =
            *self;
        drop(requests);
        gateway.calls.remember(&ids.call_sid, call.memory());
        let reason = observer.reason();
        if let Some(reason) = reason {
            let Session { services, answers, inbox, .. } = *self;
            let handover = Handover { services, inbox, answers, memory: call.memory() };
            gateway.handovers.keep(&ids.call_sid, reason, gateway.config.twilio.resume, handover);
        }
        let unheard = recogniser.map_or(0, |(recogniser, _)| recogniser.lost());
        gateway.metrics.frames_dropped.with_label_values(&["in", "stt_behind"]).inc_by(unheard / 160);
        observer.stopped(started.elapsed(), &ending);
        let code = ending.close_code.unwrap_or(NORMAL);
        Served { socket, code, reason: reason.unwrap_or(StopReason::Error) }
    }

    fn now(&self) -> CallTime {
        Clock(self.started).now()
    }

    fn deadline(&self) -> Instant {
        let call = self.call.poll_timeout().map(|at| Clock(self.started).at(at));
        let write = self.socket.blocked_since().map(|since| since + self.gateway.config.limits.write_timeout);
        [call, write, self.longest].into_iter().flatten().fold(self.pulse.due(), Instant::min)
    }

    fn time_passed(&mut self, now: CallTime) {
        let at = Instant::now();
        let limits = &self.gateway.config.limits;
        if self.socket.blocked_since().is_some_and(|since| since + limits.write_timeout <= at) {
            return self.end(StopReason::WsLost, Ending::ours(POLICY, "the carrier has stopped reading"));
        }
        if self.longest.is_some_and(|longest| longest <= at) {
            self.too_long(now);
        }
        if let Some(payload) = self.pulse.ping(at, now, &self.observer) {
            let sent = self.socket.send_ping(payload);
            self.must_fit(sent);
        }
        self.call.handle_timeout(now);
    }

    // ---- from the carrier -------------------------------------------------------------------------

    fn receive(&mut self, received: Received, now: CallTime) {
        match received {
            Received::Text(text) => self.message(&text, now),
            Received::Binary(_) => self.observer.dropped("binary", "Media Streams are text (31950)"),
            Received::Ping => {}
            Received::Pong(payload) => self.pulse.pong(&payload, now, &self.observer),
            Received::Closed(close) => {
                let (reason, ending) = ending_of(&close);
                self.end(reason, ending);
            }
        }
    }

    fn message(&mut self, text: &str, now: CallTime) {
        match self.reader.read(text) {
            Ok(Message::Media { payload, timestamp_ms }) => {
                let look = self.observer.heard(payload.len(), timestamp_ms, now);
                // First: what the call asks about this audio must come behind it.
                if let Some((recogniser, _)) = &mut self.recogniser {
                    recogniser.hear(payload);
                }
                let before = look.then(Instant::now);
                self.call.handle(Input::Media { payload, timestamp_ms }, now);
                if let Some(before) = before {
                    self.observer.took(before.elapsed());
                    self.observer.waits(self.call.queued());
                }
            }
            Ok(Message::Mark { name }) => self.call.handle(Input::Mark(&name), now),
            Ok(Message::Dtmf { digit }) => self.call.handle(Input::Dtmf(digit), now),
            Ok(Message::Stop) => {
                self.ending.carrier_code = None;
                self.call.handle(Input::Stop(StopReason::CallerHangup), now);
            }
            Ok(Message::Connected | Message::Clear) => {}
            Ok(Message::OtherTrack) => self.observer.dropped("other_track", "only the caller is listened to"),
            Ok(Message::Start(_)) => self.observer.dropped("malformed", "a second `start`"),
            Ok(Message::Unknown { event }) => self.observer.unknown(&event),
            Err(Malformed::Base64) => self.observer.dropped("base64", "a payload that is not base64"),
            Err(malformed) => self.observer.dropped("malformed", &malformed.to_string()),
        }
    }

    // ---- what the call wants ----------------------------------------------------------------------

    fn carry_out(&mut self) {
        while let Some(output) = self.call.poll_output() {
            match output {
                Output::Play { frame, due } => {
                    self.observer.sent(self.now().since(due));
                    let message = self.outbound.media(&frame);
                    let sent = self.socket.send_text(message);
                    self.must_fit(sent);
                }
                Output::Mark(name) => {
                    let message = self.outbound.mark(&name);
                    let sent = self.socket.send_text(message);
                    self.must_fit(sent);
                }
                Output::Clear => {
                    let message = self.outbound.clear();
                    let sent = self.socket.send_text(message);
                    self.must_fit(sent);
                }
                Output::Transcribe { utterance, audio } => {
                    let job = self.services.transcribe(utterance, audio);
                    self.request(Job::Transcribe { utterance }, job);
                }
                Output::Finalize { utterance } => {
                    if let Some((recogniser, _)) = &mut self.recogniser {
                        recogniser.finalize(utterance);
                    }
                }
                Output::Forget => {
                    if let Some((recogniser, _)) = &mut self.recogniser {
                        recogniser.forget();
                    }
                }
                Output::Heard(reply) => self.services.heard(reply),
                Output::Ask(question) => {
                    let turn = question.turn;
                    let job = self.services.ask(question);
                    self.request(Job::Ask { turn }, job);
                }
                Output::Say { segment, text } => {
                    let job = self.services.say(segment, text);
                    self.request(Job::Say { segment }, job);
                }
                Output::Control { number, control } => self.control(number, control),
                Output::Cancel(job) => self.requests.retain(|request| request.job != job),
                Output::Hangup(reason) => self.hang_up(reason),
                Output::Event(event) => self.observe(event),
            }
        }
    }

    fn observe(&mut self, mut event: Event) {
        if let Event::UpstreamFailed { service, failure } = &mut event
            && failure.upstream.is_empty()
        {
            failure.upstream = match service {
                Service::Carrier => Carrier::NAME,
                Service::Stt | Service::Agent | Service::Tts => self.gateway.services.upstream(*service),
            }
            .to_owned();
        }
        // To the call it is as if the agent had hung up.
        if let Event::Ended { reason: reason @ StopReason::BotEnd } = &mut event
            && self.goodbyes > 0
        {
            *reason = StopReason::Timeout;
        }
        self.observer.event(event);
    }

    fn request(&mut self, job: Job, work: impl Future<Output = ()> + Send + 'static) {
        self.requests.retain(|request| !request.task.is_finished());
        self.requests.push(Request { job, task: tokio::spawn(work).abort_handle() });
    }

    fn control(&mut self, number: u64, control: Control) {
        // The stream with which the call would come back is refused.
        if matches!(control, Control::SendDigits { .. }) && self.gateway.is_leaving() {
            let why = "the gateway is going down: the call could not come back".to_owned();
            let failure = Failure { upstream: String::new(), kind: FailureKind::Busy, why };
            let failed = Input::Failed { job: Job::Control { number }, failure };
            return self.call.handle(failed, self.now());
        }
        if let Some(carrier) = self.gateway.carrier.clone() {
            let (ids, to) = (self.ids.clone(), self.answers.clone());
            let path = self.gateway.tokens.path_for(&ids.call_sid);
            let job = async move { carrier.control(&ids, number, &control, &path, &to).await };
            self.request(Job::Control { number }, job);
        }
    }

    fn hang_up(&mut self, reason: StopReason) {
        if reason == StopReason::Timeout && self.ending.detail.is_empty() {
            self.ending.carrier_code = Some(31953);
            self.ending.detail = "no audio of the caller came any more".into();
        }
    }

    fn say_goodbye(&mut self, now: CallTime) {
        if self.mode != Mode::Dialogue {
            let (reason, code, why) = Told::Goodbye.ending();
            return self.end(reason, Ending::ours(code, why));
        }
        self.ending.close_code = Some(GOING_AWAY);
        self.ending.detail = "the gateway is going down, and has said goodbye".into();
        self.say_last(self.gateway.config.server.drain_goodbye.clone(), now);
    }

    /// The caller is told, where there is something to say, and has a while to hear it: once nobody is speaking, and
    /// if that does not come, into what is being said.
    fn too_long(&mut self, now: CallTime) {
        let text = self.gateway.config.limits.max_call_goodbye.clone();
        if self.goodbyes == 2 || text.is_empty() || self.mode != Mode::Dialogue {
            return self.end(StopReason::Timeout, Ending::ours(NORMAL, TOO_LONG_A_CALL));
        }
        self.goodbyes += 1;
        self.longest = Some(Instant::now() + GOODBYE);
        self.ending.detail = format!("{TOO_LONG_A_CALL}, and has said goodbye");
        match self.goodbyes {
            1 => self.say_last(text, now),
            _ => self.call.handle(Input::LastWords { text }, now),
        }
    }

    /// As the agent would: once nobody is speaking, and the call ends when it was heard.
    fn say_last(&mut self, text: String, now: CallTime) {
        self.call.handle(Input::ReplyText { turn: 0, text }, now);
        self.call.handle(Input::ReplyEnd { turn: 0, action: Action::Hangup }, now);
    }

    fn must_fit(&mut self, sent: Result<(), Full>) {
        if sent.is_err() {
            let why = "the carrier has stopped reading: too much is waiting";
            self.end(StopReason::WsLost, Ending::ours(POLICY, why));
        }
    }

    /// Ends the call from outside of it.
    fn end(&mut self, reason: StopReason, ending: Ending) {
        if self.call.state() == State::Ended {
            return;
        }
        self.ending = ending;
        self.call.handle(Input::Stop(reason), self.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_small() {
        assert!(size_of::<Session>() <= 3_584, "{} bytes", size_of::<Session>());
    }
}
