//! A media stream from its handshake to its `start`, and who conducts its call from there.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tracing::warn;

use super::calls::Place;
use super::gateway::Gateway;
use super::numbers::Counted;
use super::realtime::realtime;
use super::relay::relay;
use super::session::{ABNORMAL, GOING_AWAY, NORMAL, POLICY, Served, Session, ending_of};
use super::websocket::{Received, Socket, Transport};
use crate::call::{Control, Failure, Input, Service, StopReason};
use crate::config::Mode;
use crate::observe::{Busy, CallLabels, Ending, never_began};
use crate::twilio::{Malformed, Message, Pass, Reader, Start, caller};
use crate::upstream::{CallIds, Carrier};

/// Serves one media stream from its handshake to its end. Each part is in a box of its own, so that a call
/// holds nothing of how it began and how it will end.
pub(super) async fn serve_call(
    transport: Transport,
    early: Vec<u8>,
    subprotocol: Option<String>,
    gateway: Arc<Gateway>,
    mut place: Place,
    pass: Option<Pass>,
) {
    // In a block: what was borrowed would stay in the future until the end of its own.
    let (conducted, call_sid, resumable, _counted) = {
        let begun = Box::pin(begin(transport, early, &gateway, &mut place, pass)).await;
        let Some((socket, opened, counted)) = begun else { return };
        let call_sid = opened.start.known_as().to_owned();
        let resumable = Resumable::of(&opened.start, &gateway).map(Box::new);
        (conduct(socket, opened, subprotocol, gateway), call_sid, resumable, counted)
    };
    let Served { socket, code, reason } = conducted.await;
    // Before the carrier asks what comes next.
    let last = place.ended(&call_sid, reason);
    Box::pin(async move {
        if let Some(resumable) = resumable.filter(|_| last) {
            resumable.ended(reason).await;
        }
        socket.close(code).await;
    })
    .await;
}

/// A call that comes back when its stream ends, to whichever process is asked. That it was ended on purpose only
/// this one knows: Twilio is to end it.
struct Resumable {
    ids: CallIds,
    carrier: Arc<Carrier>,
    /// Its bot or its model has no other way to have it ended.
    conducted: bool,
    /// When it has lasted long enough.
    longest: Option<Instant>,
}

impl Resumable {
    fn of(start: &Start, gateway: &Gateway) -> Option<Resumable> {
        let carrier = gateway.carrier.clone().filter(|_| gateway.config.twilio.resume)?;
        let ids = CallIds {
            call_sid: start.call_sid.clone(),
            account_sid: start.account_sid.clone(),
            stream_sid: start.stream_sid.clone(),
            ..CallIds::default()
        };
        let conducted = !matches!(gateway.config.dialogue.mode, Mode::Dialogue { .. });
        Some(Resumable { ids, carrier, conducted, longest: gateway.longest(Instant::now()) })
    }

    async fn ended(self: Box<Self>, reason: StopReason) {
        let ends = match reason {
            StopReason::BotEnd => self.conducted,
            // Who is heard no more has perhaps gone on with a stream of another process.
            StopReason::Timeout => self.longest.is_some_and(|longest| longest <= Instant::now()),
            StopReason::CallerHangup
            | StopReason::Transfer
            | StopReason::SendDigits
            | StopReason::WsLost
            | StopReason::Drain
            | StopReason::Error => false,
        };
        if !ends {
            return;
        }
        let (to, mut answers) = mpsc::channel(1);
        self.carrier.control(&self.ids, 0, &Control::Hangup, "", &to).await;
        if let Ok(answer) = answers.try_recv()
            && let Input::Failed { failure, .. } = *answer
        {
            let CallIds { call_sid, stream_sid, .. } = self.ids;
            let Failure { upstream, kind, why } = failure;
            let (service, kind) = (Service::Carrier.as_str(), kind.as_str());
            warn!(call_sid, stream_sid, service, upstream, kind, why, "UPSTREAM_FAILED");
        }
    }
}

/// A stream that has started, and its part of what its caller may have; `None` of one that was refused.
async fn begin(
    transport: Transport,
    early: Vec<u8>,
    gateway: &Gateway,
    place: &mut Place,
    pass: Option<Pass>,
) -> Option<(Socket, Opened, Option<Counted>)> {
    let mut socket = Socket::new(transport, early, gateway.config.limits.max_message);
    let (begun, mut dropped) = (Instant::now(), 0);
    let started = wait_for_start(&mut socket, gateway, &mut dropped).await;
    let (Refused { reason, ending }, labels) = match started {
        Ok(mut opened) => match admit(&opened.start, pass.as_ref(), gateway) {
            Ok(counted) => {
                let resumes = gateway.config.twilio.resume;
                opened.replaced = place.start(opened.start.known_as(), resumes).await;
                return Some((socket, opened, counted));
            }
            Err(refused) => (refused, Some(CallLabels::of(&opened.start))),
        },
        Err(refused) => (refused, None),
    };
    gateway.metrics.calls_without_start.inc();
    never_began(labels.as_ref(), begun.elapsed(), dropped, reason, &ending);
    if let Some(code) = ending.close_code.filter(|code| *code != ABNORMAL) {
        socket.close(code).await;
    }
    None
}

/// Whether a stream that has started may be a call. One in a format that we do not speak would be noise both ways.
fn admit(start: &Start, pass: Option<&Pass>, gateway: &Gateway) -> Result<Option<Counted>, Refused> {
    if let Some(format) = start.format.as_ref().filter(|format| !format.is_mulaw_8k_mono()) {
        return Err(unfit(format!("the stream is {format}; only μ-law, 8000 Hz, mono is spoken")));
    }
    let admitted = gateway.tokens.admit_call(pass, start);
    admitted.map_err(|fault| unfit(format!("the token of this stream: {fault}")))?;
    count(start, gateway)
}

/// The call, by whoever conducts it.
fn conduct(
    socket: Socket,
    opened: Opened,
    subprotocol: Option<String>,
    gateway: Arc<Gateway>,
) -> Pin<Box<dyn Future<Output = Served> + Send>> {
    let model = gateway.services.model().cloned();
    match (gateway.bot.clone(), model.zip(gateway.manner(&opened.start))) {
        (Some(bot), _) => Box::pin(relay(socket, opened, subprotocol, gateway, bot)),
        (None, Some((model, manner))) => {
            Box::pin(realtime(socket, opened, subprotocol, gateway, model, manner))
        }
        // The text of `start` holds the buffer that it was read into.
        (None, None) => {
            let farewell = gateway.farewell(opened.replaced);
            Box::pin(Box::new(Session::new(socket, opened.start, subprotocol, gateway)).run(farewell))
        }
    }
}

/// Counts a call for its caller.
fn count(start: &Start, gateway: &Gateway) -> Result<Option<Counted>, Refused> {
    let most = gateway.config.limits.max_calls_per_number;
    if most == 0 {
        return Ok(None);
    }
    let number = start.parameters.iter().find(|(name, _)| name.as_str() == "From");
    let number = number.and_then(|(_, number)| caller(number));
    let entered = gateway.numbers.enter(&start.call_sid, number, most, std::time::Instant::now());
    entered.map_err(|()| unfit(Busy::Number.why()))
}

/// A stream that has started.
pub(super) struct Opened {
    pub(super) start: Start,
    /// The message as it came.
    pub(super) text: Utf8Bytes,
    /// Turns true when the call comes back with another.
    pub(super) replaced: Option<watch::Receiver<bool>>,
}

/// Why a stream was given up before it was a call.
struct Refused {
    reason: StopReason,
    ending: Ending,
}

fn refused(reason: StopReason, code: u16, why: impl Into<String>) -> Refused {
    Refused { reason, ending: Ending::ours(code, why) }
}

/// One that has started, and is none for us.
fn unfit(why: impl Into<String>) -> Refused {
    refused(StopReason::Error, POLICY, why)
}

/// Everything before `start` says nothing about a call; it is counted.
async fn wait_for_start(
    socket: &mut Socket,
    gateway: &Gateway,
    all_dropped: &mut u64,
) -> Result<Opened, Refused> {
    let limit = gateway.config.limits.start_timeout;
    let deadline = Instant::now() + limit;
    let mut dropped = |reason: &str| {
        gateway.metrics.frames_dropped.with_label_values(&["in", reason]).inc();
        *all_dropped += 1;
    };
    let mut reader = Reader::default();
    let mut farewell = gateway.farewell(None);
    loop {
        let received = tokio::select! {
            received = timeout_at(deadline, socket.next()) => received,
            _ = farewell.told() => {
                return Err(refused(StopReason::Drain, GOING_AWAY, "the gateway is going down"));
            }
        };
        // A peer that never pauses does not stop the clock.
        let (Ok(received), true) = (received, Instant::now() < deadline) else {
            let why = format!("no `start` within {} ms", limit.as_millis());
            return Err(refused(StopReason::Timeout, POLICY, why));
        };
        match received {
            Received::Text(text) => match reader.read(&text) {
                Ok(Message::Start(start)) => return Ok(Opened { start, text, replaced: None }),
                Ok(Message::Connected | Message::Clear | Message::Unknown { .. }) => {}
                Ok(Message::Stop) => {
                    let detail = "`stop` before `start`".to_owned();
                    let ending = Ending { close_code: Some(NORMAL), carrier_code: None, detail };
                    return Err(Refused { reason: StopReason::CallerHangup, ending });
                }
                Ok(
                    Message::Media { .. } | Message::OtherTrack | Message::Dtmf { .. } | Message::Mark { .. },
                ) => {
                    dropped("before_start");
                }
                Err(Malformed::Base64) => dropped("base64"),
                Err(_) => dropped("malformed"),
            },
            Received::Binary(_) => dropped("binary"),
            Received::Ping | Received::Pong(_) => {}
            Received::Closed(close) => {
                let (reason, mut ending) = ending_of(&close);
                ending.detail += ", before `start`";
                return Err(Refused { reason, ending });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made<A, B, C, D, E, F, Made>(_: fn(A, B, C, D, E, F) -> Made) -> usize {
        size_of::<Made>()
    }

    #[test]
    fn what_a_call_waits_in_is_small() {
        let bytes = made(serve_call);
        assert!(bytes <= 512, "{bytes} bytes");
    }
}
