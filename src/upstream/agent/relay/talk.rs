//! One call's talk with a ConversationRelay app: who is to answer what, which words are of an answer
//! and which nobody asked for, and when a socket is given up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Instant, sleep_until, timeout};

use super::super::super::CallIds;
use super::super::super::answer::seconds;
use super::super::super::health::Ticket;
use super::super::super::quote::{quote, words};
use super::super::LONGEST_REPLY;
use super::message::{FromApp, ToApp};
use super::socket::{Received, Socket};
use super::{Asking, Command, Relay};
use crate::call::{Action, Failure, FailureKind, Input, Keys, Posted, Question, ReplyHeard};

/// As many messages in a row that are none end the socket, as at Twilio, with this code.
const MOST_MALFORMED: u32 = 10;
const BAD_PAYLOAD: u16 = 1007;
const NORMAL: u16 = 1000;

/// What the app says when nobody has asked is of turn 0.
const UNASKED: u64 = 0;

pub(super) struct Talk {
    relay: Arc<Relay>,
    ids: Arc<CallIds>,
    to: Sender<Posted>,
    socket: Option<Socket>,
    /// Of the server that the socket is with, while a reply of it is awaited.
    ticket: Option<Ticket>,
    server: usize,
    asking: Option<Asking>,
    /// When the reply under way must have gone on.
    deadline: Option<Instant>,
    /// What nobody asked for is being said, and has not ended.
    unasked: bool,
    /// The reply that comes in is not wanted any more; what comes up to its end is dropped.
    stale: bool,
    /// The turn that was asked last, and bytes of its reply so far.
    turn: u64,
    said: usize,
    /// The app has ended the call.
    ended: bool,
    malformed: u32,
    /// Waits for the call to take it; no more is read meanwhile.
    pending: VecDeque<Input<'static>>,
}

impl Talk {
    pub(super) fn new(relay: Arc<Relay>, ids: Arc<CallIds>, to: Sender<Posted>) -> Self {
        Self {
            relay,
            ids,
            to,
            socket: None,
            ticket: None,
            server: 0,
            asking: None,
            deadline: None,
            unasked: false,
            stale: false,
            turn: 0,
            said: 0,
            ended: false,
            malformed: 0,
            pending: VecDeque::new(),
        }
    }

    /// Until the call is over.
    pub(super) async fn run(mut self, mut commands: Receiver<Command>) {
        let to = self.to.clone();
        let connected = tokio::select! {
            biased;
            // A call that is over waits for no app.
            () = to.closed() => return,
            connected = self.connect() => connected,
        };
        if let Err(failure) = connected {
            let CallIds { call_sid, stream_sid, .. } = &*self.ids;
            tracing::warn!(call_sid, stream_sid, why = failure.why, "AGENT_NOT_CONNECTED");
        }
        loop {
            let deadline = self.deadline.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Ask(question, asking)) => self.ask(&question, asking).await,
                    Some(Command::Heard(reply)) => self.heard(&reply).await,
                    Some(Command::Moved(ids)) => self.ids = ids,
                    None => break,
                },
                place = to.reserve(), if !self.pending.is_empty() => {
                    let (Ok(place), Some(input)) = (place, self.pending.pop_front()) else { break };
                    place.send(Box::new(input));
                }
                received = next(&mut self.socket), if self.pending.is_empty() => match received {
                    Received::Text(text) => self.message(&text).await,
                    Received::Lost(why) => self.lost(&why),
                },
                () = unwanted(&mut self.asking) => self.give_up_reply(),
                () = sleep_until(deadline), if self.deadline.is_some() => self.overdue(),
            }
        }
        self.give_up_reply();
        self.close(NORMAL, "").await;
    }

    // ---- the call speaks --------------------------------------------------------------------------

    async fn ask(&mut self, question: &Question, mut asking: Asking) {
        self.end_unasked();
        // Until this is asked, what comes may be the late answer to an earlier question.
        let late = self.stale || self.asking.is_some();
        self.give_up_reply();
        self.stale = late;
        (self.turn, self.said) = (question.turn, 0);
        if self.ended {
            self.pending.push_back(Input::ReplyEnd { turn: question.turn, action: Action::Hangup });
            let _ = asking.done.send(Ok(()));
            return;
        }
        if self.socket.is_none()
            && let Err(failure) = self.connect().await
        {
            let _ = asking.done.send(Err(failure));
            return;
        }
        if let Some(keys) = &question.dtmf {
            for digit in keys.chars() {
                self.tell(&ToApp::Dtmf { digit }).await;
            }
            self.stale = false;
            // An app may well have nothing to say to a key: what it does say comes unasked.
            asking.first.take().map(|first| first.send(()));
            self.pending.push_back(Input::ReplyEnd { turn: question.turn, action: Action::None });
            let _ = asking.done.send(Ok(()));
            return;
        }
        // Also of a socket that is open: an app that takes sockets and answers nobody is as good as gone.
        self.ticket = match self.relay.health.turn_with(self.server) {
            Ok(ticket) => Some(ticket),
            Err(failure) => {
                let _ = asking.done.send(Err(failure));
                return;
            }
        };
        let relay = Arc::clone(&self.relay);
        let lang = &relay.config.language;
        (self.asking, self.stale) = (Some(asking), false);
        self.deadline = Some(Instant::now() + relay.config.endpoint.upstream.first_byte_timeout);
        self.tell(&ToApp::Prompt { voice_prompt: &question.text, lang, last: true }).await;
    }

    async fn heard(&mut self, reply: &ReplyHeard) {
        if !reply.interrupted {
            return;
        }
        let was_heard = !reply.after.is_zero();
        let begun = reply.turn == self.turn && self.said > 0 || reply.turn == UNASKED && self.unasked;
        if self.asking.as_ref().is_some_and(|asking| asking.turn == reply.turn) {
            self.give_up_reply();
        }
        if reply.turn == UNASKED && self.unasked {
            self.end_unasked();
            self.stale = true;
        }
        // An app that has said nothing yet has nothing to take back.
        if (was_heard || begun) && self.socket.is_some() {
            let duration_until_interrupt_ms = u64::try_from(reply.after.as_millis()).unwrap_or(u64::MAX);
            let utterance_until_interrupt = &reply.text;
            self.tell(&ToApp::Interrupt { utterance_until_interrupt, duration_until_interrupt_ms }).await;
        }
    }

    /// Nobody waits for the reply under way any more. Who has waited in vain for long has met an app that
    /// does not work.
    fn give_up_reply(&mut self) {
        if let (Some(asking), Some(mut ticket)) = (self.asking.take(), self.ticket.take()) {
            let waited = asking.since.elapsed();
            if asking.first.is_some() && waited >= asking.patience {
                let why = format!("said nothing within {}", seconds(Duration::from_secs(waited.as_secs())));
                let failure = self.relay.failure(FailureKind::Timeout, &why);
                ticket.failed(failure.kind, &failure.why, false);
            }
        }
        self.deadline = None;
        self.stale = true;
    }

    fn end_unasked(&mut self) {
        if std::mem::take(&mut self.unasked) {
            self.pending.push_back(Input::ReplyEnd { turn: UNASKED, action: Action::None });
        }
    }

    // ---- the app speaks ---------------------------------------------------------------------------

    async fn message(&mut self, text: &str) {
        // Given up since the socket was read last: another agent may answer in its place by now.
        if self.asking.as_ref().is_some_and(|asking| asking.done.is_closed()) {
            self.give_up_reply();
        }
        let message = match FromApp::read(text) {
            Ok(message) => message,
            Err(why) => return self.not_understood(text, why).await,
        };
        self.malformed = 0;
        match message {
            FromApp::Text { token, last } => self.text(token, last),
            FromApp::End { handoff_data } => {
                let handoff_data = handoff_data.unwrap_or_default();
                let data = quote(handoff_data.as_bytes());
                let CallIds { call_sid, stream_sid, .. } = &*self.ids;
                tracing::info!(call_sid, stream_sid, handoff_data = %data, "AGENT_ENDED_CALL");
                self.ended = true;
                self.end_reply();
                self.unasked = false;
                self.pending.push_back(Input::ReplyEnd { turn: UNASKED, action: Action::Hangup });
                self.close(NORMAL, "").await;
            }
            FromApp::SendDigits { digits } => match Keys::parse(&digits) {
                Ok(digits) => {
                    let action = Action::SendDigits { digits };
                    self.pending.push_back(Input::ReplyEnd { turn: UNASKED, action });
                }
                Err(_) => self.ignored("sendDigits", &digits),
            },
            FromApp::Play { source } => self.ignored("play", &source),
            FromApp::Language { tts_language, transcription_language } => {
                let both = [tts_language, transcription_language].map(Option::unwrap_or_default);
                self.ignored("language", &both.join(" "));
            }
        }
    }

    fn text(&mut self, token: String, last: bool) {
        if self.stale {
            self.stale = !last;
            return;
        }
        let Some(asking) = &mut self.asking else {
            self.unasked = true;
            if !token.is_empty() {
                self.pending.push_back(Input::ReplyText { turn: UNASKED, text: token });
            }
            if last {
                self.end_unasked();
            }
            return;
        };
        asking.first.take().map(|first| first.send(()));
        let turn = asking.turn;
        self.said += token.len();
        if self.said > LONGEST_REPLY {
            let why = format!("said more than {LONGEST_REPLY} bytes of text");
            return self.fail(FailureKind::Protocol, &why);
        }
        self.deadline = Some(Instant::now() + self.relay.config.endpoint.upstream.stall_timeout);
        if !token.is_empty() {
            self.pending.push_back(Input::ReplyText { turn, text: token });
        }
        if last {
            self.end_reply();
        }
    }

    fn end_reply(&mut self) {
        self.deadline = None;
        if let Some(asking) = self.asking.take() {
            self.pending.push_back(Input::ReplyEnd { turn: asking.turn, action: Action::None });
            if let Some(mut ticket) = self.ticket.take() {
                ticket.ok();
            }
            let _ = asking.done.send(Ok(()));
        }
    }

    fn ignored(&self, what: &str, value: &str) {
        let CallIds { call_sid, stream_sid, .. } = &*self.ids;
        let value = quote(value.as_bytes());
        tracing::warn!(call_sid, stream_sid, what, %value, "AGENT_MESSAGE_IGNORED");
    }

    async fn not_understood(&mut self, text: &str, why: String) {
        self.malformed += 1;
        let CallIds { call_sid, stream_sid, .. } = &*self.ids;
        let (in_a_row, said) = (self.malformed, quote(text.as_bytes()));
        tracing::warn!(call_sid, stream_sid, in_a_row, %said, why, "AGENT_MESSAGE_MALFORMED");
        if self.malformed >= MOST_MALFORMED {
            self.close(BAD_PAYLOAD, "too many invalid messages").await;
            return self.lost("sent nothing but invalid messages");
        }
        let description = format!("Invalid message received: {}", words(text.as_bytes()));
        self.tell(&ToApp::Error { description }).await;
    }

    // ---- the socket -------------------------------------------------------------------------------

    async fn connect(&mut self) -> Result<(), Failure> {
        let (socket, server) = self.relay.connect(self.ids.trace.as_ref()).await?;
        (self.socket, self.server) = (Some(socket), server);
        (self.stale, self.malformed) = (false, 0);
        let ids = Arc::clone(&self.ids);
        self.tell(&ToApp::setup(&ids)).await;
        Ok(())
    }

    async fn tell(&mut self, message: &ToApp<'_>) {
        let Some(socket) = &mut self.socket else { return };
        let patience = self.relay.config.endpoint.upstream.connect_timeout;
        match timeout(patience, socket.send(message.to_json())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.lost(&format!("broke the socket: {error}")),
            Err(_) => self.lost(&format!("has read nothing for {}", seconds(patience))),
        }
    }

    async fn close(&mut self, code: u16, reason: &str) {
        if let Some(socket) = self.socket.take() {
            let patience = self.relay.config.endpoint.upstream.connect_timeout;
            let _ = timeout(patience, socket.close(code, reason)).await;
        }
    }

    fn lost(&mut self, why: &str) {
        self.socket = None;
        let CallIds { call_sid, stream_sid, .. } = &*self.ids;
        tracing::warn!(call_sid, stream_sid, why = format!("the app {why}"), "AGENT_LOST");
        self.end_unasked();
        self.fail(FailureKind::Protocol, why);
        self.stale = false;
    }

    fn overdue(&mut self) {
        let upstream = &self.relay.config.endpoint.upstream;
        let why = match self.said {
            0 => format!("said nothing within {}", seconds(upstream.first_byte_timeout)),
            _ => format!("fell silent for {} before its last word", seconds(upstream.stall_timeout)),
        };
        self.fail(FailureKind::Timeout, &why);
    }

    /// Ends the reply under way, if there is one.
    fn fail(&mut self, kind: FailureKind, why: &str) {
        if let Some(asking) = self.asking.take() {
            let failure = self.relay.failure(kind, why);
            if let Some(mut ticket) = self.ticket.take() {
                ticket.failed(kind, &failure.why, false);
            }
            let _ = asking.done.send(Err(failure));
            self.give_up_reply();
        }
    }
}

/// Until nobody waits for the reply under way any more.
async fn unwanted(asking: &mut Option<Asking>) {
    match asking {
        Some(asking) => asking.done.closed().await,
        None => std::future::pending().await,
    }
}

async fn next(socket: &mut Option<Socket>) -> Received {
    match socket {
        Some(socket) => socket.next().await,
        None => std::future::pending().await,
    }
}
