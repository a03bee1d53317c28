//! The carrier's end of a call that somebody else conducts: its socket, its pings, its log, and how the
//! call ended. What is said in it is for the loops that own it.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::clock::Clock;
use super::gateway::Gateway;
use super::pulse::Pulse;
use super::session::{NORMAL, POLICY, Served, TOO_LONG_A_CALL, ending_of};
use super::websocket::{Received, Socket};
use crate::call::{Event, Output, StopReason, Trace};
use crate::observe::{CallObserver, Ending};
use crate::time::CallTime;
use crate::twilio::{Outbound, Start};

pub(super) struct Carrier {
    pub(super) socket: Socket,
    pub(super) observer: CallObserver,
    /// `None` where calls are not traced.
    pub(super) trace: Option<Trace>,
    pub(super) outbound: Outbound,
    pub(super) started: Instant,
    pulse: Pulse,
    end: Option<(StopReason, Ending)>,
    gateway: Arc<Gateway>,
}

impl Carrier {
    pub(super) fn new(
        socket: Socket,
        start: &Start,
        subprotocol: Option<&str>,
        gateway: &Arc<Gateway>,
        mode: &str,
    ) -> Carrier {
        let (observer, trace) = gateway.observer(start);
        observer.started(subprotocol, &start.account_sid, mode);
        if start.resumed() > 0 {
            observer.resumed(0);
        }
        let started = Instant::now();
        Carrier {
            socket,
            observer,
            trace,
            outbound: Outbound::new(&start.stream_sid),
            started,
            pulse: Pulse::new(started, gateway.config.twilio.ping_interval),
            end: None,
            gateway: gateway.clone(),
        }
    }

    pub(super) fn now(&self) -> CallTime {
        Clock(self.started).now()
    }

    /// When that moment of the call is.
    pub(super) fn at(&self, moment: CallTime) -> Instant {
        Clock(self.started).at(moment)
    }

    /// When `time_passed` wants to be called.
    pub(super) fn due(&self) -> Instant {
        let write = self.socket.blocked_since().map(|since| since + self.gateway.config.limits.write_timeout);
        [write, self.gateway.longest(self.started)].into_iter().flatten().fold(self.pulse.due(), Instant::min)
    }

    /// Ends a call whose carrier does not read. The ping that was due, for whoever else wants one.
    pub(super) fn time_passed(&mut self, at: Instant) -> Option<[u8; 8]> {
        let write_timeout = self.gateway.config.limits.write_timeout;
        if self.socket.blocked_since().is_some_and(|since| since + write_timeout <= at) {
            self.finish(StopReason::WsLost, POLICY, "the carrier has stopped reading");
            return None;
        }
        if self.gateway.longest(self.started).is_some_and(|longest| longest <= at) {
            self.finish(StopReason::Timeout, NORMAL, TOO_LONG_A_CALL);
            return None;
        }
        let payload = self.pulse.ping(at, self.now(), &self.observer)?;
        let _ = self.socket.send_ping(payload);
        Some(payload)
    }

    /// What the carrier says, where that is a message.
    pub(super) fn received(&mut self, received: Received) -> Option<Utf8Bytes> {
        match received {
            Received::Text(text) => return Some(text),
            Received::Binary(_) => self.observer.dropped("binary", "Media Streams are text (31950)"),
            Received::Pong(payload) => self.pulse.pong(&payload, self.now(), &self.observer),
            Received::Ping => {}
            Received::Closed(close) => {
                self.end.get_or_insert(ending_of(&close));
            }
        }
        None
    }

    /// Does what is wanted of the carrier, and tells what happened.
    pub(super) fn carry_out(&mut self, output: Output) {
        let message = match output {
            Output::Play { frame, due } => {
                self.observer.sent(self.now().since(due));
                self.outbound.media(&frame)
            }
            Output::Mark(name) => self.outbound.mark(&name),
            Output::Clear => self.outbound.clear(),
            Output::Event(event) => return self.observer.event(event),
            // These belong to a dialogue, or to the loop.
            _ => return,
        };
        if self.socket.send_text(message).is_err() {
            self.finish(StopReason::WsLost, POLICY, "the carrier has stopped reading: too much is waiting");
        }
    }

    /// Ends the call; the first reason counts.
    pub(super) fn finish(&mut self, reason: StopReason, code: u16, detail: &str) {
        self.end.get_or_insert_with(|| (reason, Ending::ours(code, detail)));
    }

    /// The carrier has said `stop`.
    pub(super) fn stopped(&mut self) {
        let ending = Ending { close_code: Some(NORMAL), ..Ending::default() };
        self.end.get_or_insert((StopReason::CallerHangup, ending));
    }

    /// The caller's audio has stayed away.
    pub(super) fn finish_unheard(&mut self) {
        let ending = Ending {
            close_code: Some(NORMAL),
            carrier_code: Some(31953),
            detail: "no audio of the caller came any more".to_owned(),
        };
        self.end.get_or_insert((StopReason::Timeout, ending));
    }

    /// Why the call is over, if it is.
    pub(super) fn ended(&self) -> Option<StopReason> {
        self.end.as_ref().map(|(reason, _)| *reason)
    }

    /// Sums the call up.
    pub(super) fn stop(self) -> Served {
        let Carrier { socket, mut observer, started, end, .. } = self;
        let (reason, ending) = end.unwrap_or((StopReason::Error, Ending::default()));
        observer.event(Event::Ended { reason });
        observer.stopped(started.elapsed(), &ending);
        Served { socket, code: ending.close_code.unwrap_or(NORMAL), reason }
    }
}
