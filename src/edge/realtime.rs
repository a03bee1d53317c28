//! The loop of a call that a model conducts: it owns both sockets, the carrier's and the model's, the
//! clock, and what the app is asked for. What is decided is decided in `call::realtime`.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::carrier::Carrier;
use super::farewell::{Farewell, Told};
use super::gateway::Gateway;
use super::opening::Opened;
use super::session::{NORMAL, Served, ending_of};
use super::tapes::recorder;
use super::websocket::{self, ClientSocket, Close, MODEL_MESSAGE, Received, Socket};
use crate::call::realtime::{Answered, Input, Manner, Realtime, Request};
use crate::call::{Event, Failure, FailureKind, Output, StopReason};
use crate::tape::{Conductor, TapedRealtime};
use crate::time::CallTime;
use crate::twilio::{Malformed, Message, Reader, Start};
use crate::upstream::{CallIds, Model, ModelLink, ModelReader, Watch};

const INTERNAL: u16 = 1011;

/// How much later than the second ping in a row nothing at all may have come from the model.
const SLACK: Duration = Duration::from_secs(5);

/// Conducts the call to its end.
pub(super) async fn realtime(
    socket: Socket,
    opened: Opened,
    subprotocol: Option<String>,
    gateway: Arc<Gateway>,
    model: Arc<Model>,
    manner: Manner,
) -> Served {
    let farewell = gateway.farewell(opened.replaced);
    let carrier = Carrier::new(socket, &opened.start, subprotocol.as_deref(), &gateway, "realtime");
    let call_sid = opened.start.known_as().to_owned();
    let settings = Arc::new(gateway.call_settings(&opened.start));
    let recorder = recorder(&gateway, &opened.start, &settings, Conductor::Model(manner.clone()));
    let Start { stream_sid, account_sid, parameters, .. } = opened.start;
    let trace = carrier.trace.clone();
    let talk = Talk {
        carrier,
        call: TapedRealtime::new(Realtime::new(settings, manner, CallTime::ZERO), recorder),
        from_carrier: Reader::default(),
        line: Line::Down,
        functions: JoinSet::new(),
        handles: HashMap::new(),
        last_failure: String::new(),
        ids: Arc::new(CallIds { call_sid, stream_sid, account_sid, parameters, trace }),
        model,
        gateway,
    };
    talk.run(farewell).await
}

struct Talk {
    carrier: Carrier,
    call: TapedRealtime,
    from_carrier: Reader,
    line: Line,
    /// What the app was asked for; all of it ends with the call.
    functions: JoinSet<(String, Answered)>,
    handles: HashMap<String, AbortHandle>,
    /// Why there is no model any more, for the last line of the log.
    last_failure: String,
    ids: Arc<CallIds>,
    model: Arc<Model>,
    gateway: Arc<Gateway>,
}

type Linked = Result<Box<ModelLink>, Failure>;

/// The line to the model.
enum Line {
    Down,
    Dialling(Pin<Box<dyn Future<Output = Linked> + Send>>),
    Up(Box<Connected>),
}

struct Connected {
    socket: ClientSocket,
    reader: ModelReader,
    watch: Watch,
    /// When anything came last, be it a pong.
    heard_at: Instant,
}

enum FromModel {
    Linked(Linked),
    Received(Received),
}

enum Woken {
    Carrier(Received),
    Model(FromModel),
    App(String, Answered),
    Time,
    Told(Told),
}

impl Talk {
    async fn run(mut self, mut farewell: Farewell) -> Served {
        let timer = sleep_until(self.carrier.started);
        tokio::pin!(timer);
        loop {
            self.carry_out();
            if let Some(reason) = self.carrier.ended() {
                let now = self.carrier.now();
                self.call.handle(Input::Stop(reason), now);
                self.carry_out();
                break;
            }
            let deadline = self.deadline();
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            let woken = tokio::select! {
                biased;
                told = farewell.told() => Woken::Told(told),
                received = self.carrier.socket.next() => Woken::Carrier(received),
                said = self.line.next() => Woken::Model(said),
                Some(done) = self.functions.join_next() => match done {
                    Ok((call, answer)) => Woken::App(call, answer),
                    // Dropped: nobody waits for it.
                    Err(_) => continue,
                },
                () = &mut timer => Woken::Time,
            };
            let now = self.carrier.now();
            match woken {
                Woken::Carrier(received) => self.carrier_said(received, now),
                Woken::Model(FromModel::Linked(linked)) => self.linked(linked, now),
                Woken::Model(FromModel::Received(received)) => self.model_said(received, now),
                Woken::App(call, answer) => {
                    self.handles.remove(&call);
                    self.call.handle(Input::FunctionAnswered { call, answer }, now);
                }
                Woken::Time => {}
                Woken::Told(told) => {
                    let (reason, code, why) = told.ending();
                    self.carrier.finish(reason, code, why);
                }
            }
            // Peers that never pause do not stop the clock.
            if Instant::now() >= deadline {
                self.time_passed();
            }
        }
        if let Line::Up(mut connected) = std::mem::replace(&mut self.line, Line::Down) {
            connected.watch.ok();
            tokio::spawn(connected.socket.close(NORMAL));
        }
        self.carrier.stop()
    }

    fn deadline(&self) -> Instant {
        let call = self.call.poll_timeout().map(|at| self.carrier.at(at));
        let model = match &self.line {
            Line::Up(connected) => {
                let write = self.gateway.config.limits.write_timeout;
                let blocked = connected.socket.blocked_since().map(|since| since + write);
                Some(blocked.map_or(self.silent_at(connected), |at| at.min(self.silent_at(connected))))
            }
            Line::Down | Line::Dialling(_) => None,
        };
        [call, model].into_iter().flatten().fold(self.carrier.due(), Instant::min)
    }

    /// When a model that says nothing, not even to pings, is taken for lost.
    fn silent_at(&self, connected: &Connected) -> Instant {
        connected.heard_at + self.gateway.config.twilio.ping_interval * 2 + SLACK
    }

    fn time_passed(&mut self) {
        let at = Instant::now();
        let ping = self.carrier.time_passed(at);
        if let Line::Up(connected) = &mut self.line {
            if let Some(payload) = ping {
                let _ = connected.socket.send_ping(payload);
            }
            let write = self.gateway.config.limits.write_timeout;
            let blocked = connected.socket.blocked_since().is_some_and(|since| since + write <= at);
            if blocked {
                self.lost(FailureKind::Timeout, "the vendor", "has stopped reading");
            } else if let Line::Up(connected) = &self.line
                && self.silent_at(connected) <= at
            {
                self.lost(FailureKind::Timeout, "the network", "says nothing any more, not even to pings");
            }
        }
        self.call.handle_timeout(self.carrier.now());
    }

    // ---- from the carrier -------------------------------------------------------------------------

    fn carrier_said(&mut self, received: Received, now: CallTime) {
        let Some(text) = self.carrier.received(received) else { return };
        let observer = &mut self.carrier.observer;
        match self.from_carrier.read(&text) {
            Ok(Message::Media { payload, timestamp_ms }) => {
                let before = observer.heard(payload.len(), timestamp_ms, now).then(Instant::now);
                self.call.handle(Input::Media { payload, timestamp_ms }, now);
                if let Some(before) = before {
                    observer.took(before.elapsed());
                    observer.waits(self.call.queued());
                }
            }
            Ok(Message::Mark { name }) => self.call.handle(Input::Mark(&name), now),
            Ok(Message::Dtmf { digit }) => self.call.handle(Input::Dtmf(digit), now),
            Ok(Message::Stop) => self.carrier.stopped(),
            Ok(Message::Connected | Message::Clear) => {}
            Ok(Message::OtherTrack) => observer.dropped("other_track", "only the caller is listened to"),
            Ok(Message::Start(_)) => observer.dropped("malformed", "a second `start`"),
            Ok(Message::Unknown { event }) => observer.unknown(&event),
            Err(Malformed::Base64) => observer.dropped("base64", "a payload that is not base64"),
            Err(malformed) => observer.dropped("malformed", &malformed.to_string()),
        }
    }

    // ---- from the model ---------------------------------------------------------------------------

    fn linked(&mut self, linked: Linked, now: CallTime) {
        match linked {
            Ok(link) => {
                let ModelLink { ws, watch } = *link;
                let mut socket = Socket::over(ws);
                // The first message of an empty socket fits.
                let _ = socket.send_text(Bytes::from(self.model.opening()));
                let reader = ModelReader::new(self.model.clone());
                let heard_at = Instant::now();
                self.line = Line::Up(Box::new(Connected { socket, reader, watch, heard_at }));
                self.call.handle(Input::Linked, now);
            }
            Err(failure) => {
                self.line = Line::Down;
                self.unlinked(failure);
            }
        }
    }

    fn model_said(&mut self, received: Received, now: CallTime) {
        let Line::Up(connected) = &mut self.line else { return };
        connected.heard_at = Instant::now();
        let text = match received {
            Received::Text(text) => text,
            Received::Ping | Received::Pong(_) => return,
            Received::Binary(_) => {
                return self.carrier.observer.dropped("model_malformed", "from the model: a binary message");
            }
            Received::Closed(close) => {
                let (owner, why) = match &close {
                    Close::ByPeer(code) => ("the vendor", format!("closed the connection with {code}")),
                    Close::Lost(why) => ("the network", format!("was lost: {why}")),
                    Close::TooLong => ("the vendor", format!("sent more than {MODEL_MESSAGE} bytes at once")),
                    Close::NotUtf8 | Close::Protocol(_) => ("the vendor", ending_of(&close).1.detail),
                };
                return self.lost(FailureKind::Protocol, owner, &why);
            }
        };
        match connected.reader.read(&text) {
            Ok(read) => {
                if let Some(limit) = read.limit {
                    self.carrier.observer.limit_reached(&limit.name, limit.reset_seconds);
                }
                for told in read.told {
                    self.call.handle(Input::Told(told), now);
                }
            }
            Err(why) => self.carrier.observer.dropped("model_malformed", &format!("from the model: {why}")),
        }
    }

    /// The model's socket is of no use any more.
    fn lost(&mut self, kind: FailureKind, owner: &str, why: &str) {
        let failure = self.model.failure(kind, owner, why);
        if let Line::Up(mut connected) = std::mem::replace(&mut self.line, Line::Down) {
            connected.watch.failed(&failure);
        }
        self.unlinked(failure);
    }

    fn unlinked(&mut self, failure: Failure) {
        let now = self.carrier.now();
        self.call.handle(Input::Unlinked(failure), now);
    }

    // ---- what the call wants ----------------------------------------------------------------------

    fn carry_out(&mut self) {
        loop {
            if let Some(output) = self.call.poll_output() {
                match output {
                    Output::Hangup(reason) => self.hang_up(reason),
                    Output::Event(event) => self.observe(event),
                    other => self.carrier.carry_out(other),
                }
            } else if let Some(request) = self.call.poll_request() {
                self.request(request);
            } else {
                return;
            }
        }
    }

    fn observe(&mut self, mut event: Event) {
        if let Event::UpstreamFailed { failure, .. } = &mut event {
            if failure.upstream.is_empty() {
                failure.upstream = self.model.upstream().to_owned();
            }
            self.last_failure.clone_from(&failure.why);
        }
        self.carrier.observer.event(event);
    }

    fn hang_up(&mut self, reason: StopReason) {
        match reason {
            StopReason::Timeout => self.carrier.finish_unheard(),
            StopReason::Error => {
                let why = std::mem::take(&mut self.last_failure);
                self.carrier.finish(reason, INTERNAL, &why);
            }
            StopReason::CallerHangup
            | StopReason::BotEnd
            | StopReason::Transfer
            | StopReason::SendDigits
            | StopReason::WsLost
            | StopReason::Drain => {
                self.carrier.finish(reason, NORMAL, "");
            }
        }
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Dial => {
                let config = websocket::config_for_model();
                self.line = Line::Dialling(Box::pin(self.model.connect(config, self.ids.trace.clone())));
            }
            Request::Function { turn, call, deadline } => {
                let id = call.id.clone();
                let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                let work = self.model.function(&self.ids, turn, call, deadline_ms);
                let named = id.clone();
                let handle = self.functions.spawn(async move { (named, work.await) });
                self.handles.insert(id, handle);
            }
            Request::DropFunction { call } => {
                if let Some(handle) = self.handles.remove(&call) {
                    handle.abort();
                }
            }
            request => {
                let Line::Up(connected) = &mut self.line else { return };
                let Some(message) = self.model.write(&request) else { return };
                if connected.socket.send_text(Bytes::from(message)).is_err() {
                    self.lost(FailureKind::Timeout, "the vendor", "has stopped reading: too much is waiting");
                }
            }
        }
    }
}

impl Line {
    /// What the line does next; nothing, for ever, where there is none. Cancel-safe.
    async fn next(&mut self) -> FromModel {
        match self {
            Line::Down => std::future::pending().await,
            Line::Dialling(dialling) => FromModel::Linked(dialling.as_mut().await),
            Line::Up(connected) => FromModel::Received(connected.socket.next().await),
        }
    }
}
