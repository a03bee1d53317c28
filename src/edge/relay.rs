//! The loop of a call that a bot of the operator's own conducts: what the carrier says goes to the bot
//! as it is, what the bot says goes through the pacer. The bot never shakes hands with the carrier.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::clock::Clock;
use super::farewell::{Farewell, Told};
use super::gateway::Gateway;
use super::opening::Opened;
use super::pulse::Pulse;
use super::session::{GOING_AWAY, NORMAL, POLICY, Served, TOO_LONG_A_CALL, ending_of};
use super::tapes::recorder;
use super::websocket::{self, ClientSocket, Close, Received, Socket};
use crate::call::{Event, Failure, FailureKind, Output, Relay, Service, StopReason};
use crate::observe::{CallObserver, Ending};
use crate::tape::{Conductor, Entry, TapedRelay};
use crate::time::CallTime;
use crate::twilio::{Malformed, Message, Outbound, Reader};
use crate::upstream::Bot;

const NO_CODE: u16 = 1005;
const INTERNAL: u16 = 1011;

/// How long what the bot said last may still be played once it has gone.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// How long after a bot has left its carrier may still say that the stream has stopped: with a call that the bot
/// has taken elsewhere.
const TRANSFER: Duration = Duration::from_millis(1_500);

/// Conducts the call to its end.
pub(super) async fn relay(
    socket: Socket,
    mut opened: Opened,
    subprotocol: Option<String>,
    gateway: Arc<Gateway>,
    bot: Bot,
) -> Served {
    let (observer, trace) = gateway.observer(&opened.start);
    observer.started(subprotocol.as_deref(), &opened.start.account_sid, "relay");
    if opened.start.resumed() > 0 {
        observer.resumed(0);
    }
    let settings = gateway.call_settings(&opened.start);
    let recorder = recorder(&gateway, &opened.start, &settings, Conductor::Bot);
    let relay = Relay::new(settings.lead, settings.media_timeout);
    let started = Instant::now();
    let connected = bot.connect(websocket::config_for_bot(), trace.as_ref()).await;
    let mut talk = Talk {
        socket,
        bot: None,
        bot_seen: Instant::now(),
        bot_answered: connected.is_ok().then(|| started.elapsed().as_secs_f64()),
        bot_result: "ok",
        upstream: bot,
        relay: TapedRelay::new(relay, recorder),
        from_carrier: Reader::default(),
        from_bot: Reader::of_any_track(),
        outbound: Outbound::new(&opened.start.stream_sid),
        observer,
        started,
        pulse: Pulse::new(started, gateway.config.twilio.ping_interval),
        last_words: None,
        end: None,
        gateway,
    };
    match connected {
        Ok(ws) => talk.meet(Socket::over(ws), &opened),
        Err(failure) => talk.failed(failure),
    }
    let farewell = talk.gateway.farewell(opened.replaced.take());
    talk.run(farewell).await
}

struct Talk {
    socket: Socket,
    /// `None` once it has gone, or where it never came.
    bot: Option<ClientSocket>,
    /// When anything came from it last.
    bot_seen: Instant,
    /// After how many seconds it shook hands, and what is to be counted at the end.
    bot_answered: Option<f64>,
    bot_result: &'static str,
    upstream: Bot,
    relay: TapedRelay,
    from_carrier: Reader,
    from_bot: Reader,
    outbound: Outbound,
    observer: CallObserver,
    started: Instant,
    pulse: Pulse,
    /// The call ends when what is queued has been played, or at this time.
    last_words: Option<(Instant, StopReason, u16)>,
    end: Option<(StopReason, Ending)>,
    gateway: Arc<Gateway>,
}

enum Woken {
    Carrier(Received),
    Bot(Received),
    Time,
    Told(Told),
}

impl Talk {
    /// Tells the bot what the carrier has told already.
    fn meet(&mut self, mut bot: ClientSocket, opened: &Opened) {
        let connected = Bytes::from_static(br#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#);
        for message in [connected, Bytes::from(opened.text.clone())] {
            let _ = bot.send_text(message);
        }
        self.bot = Some(bot);
        // The caller was not listened to while the bot was dialled.
        self.relay.linked(self.now());
    }

    /// The bot has let the call down: the caller hears an apology, and the call ends.
    fn failed(&mut self, failure: Failure) {
        self.bot = None;
        self.bot_result = failure.kind.as_str();
        let now = self.now();
        self.relay.failed(&failure, now);
        self.observer.event(Event::UpstreamFailed { service: Service::Agent, failure });
        if self.relay.is_quiet(now) {
            self.relay.finish(now);
        } else {
            self.relay.clear(now);
        }
        self.relay.audio(&self.gateway.phrases.apology().audio, now);
        self.last_words = Some((Instant::now() + LAST_WORDS, StopReason::Error, INTERNAL));
    }

    async fn run(mut self, mut farewell: Farewell) -> Served {
        let timer = sleep_until(self.started);
        tokio::pin!(timer);
        loop {
            self.carry_out();
            if self.end.is_some() {
                break;
            }
            let deadline = self.deadline();
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            let woken = tokio::select! {
                told = farewell.told() => Woken::Told(told),
                received = self.socket.next() => Woken::Carrier(received),
                received = next_of(&mut self.bot) => Woken::Bot(received),
                () = &mut timer => Woken::Time,
            };
            match woken {
                Woken::Carrier(received) => self.carrier(received),
                Woken::Bot(received) => self.bot(received),
                Woken::Time => self.time_passed(),
                Woken::Told(told) => {
                    let (reason, code, why) = told.ending();
                    self.finish(reason, Ending::ours(code, why));
                }
            }
            self.last_words_heard();
        }
        let (reason, ending) = self.end.take().unwrap_or((StopReason::Error, Ending::default()));
        let now = self.now();
        self.relay.stop(reason, now);
        // What has left of the bot's last spurt is told while there is a call to tell it of.
        self.carry_out();
        let Talk { socket, bot, mut observer, started, gateway, upstream, .. } = self;
        gateway.metrics.upstream_done(
            upstream.upstream(),
            Service::Agent,
            self.bot_result,
            self.bot_answered,
        );
        if let Some(bot) = bot {
            tokio::spawn(bot.close(NORMAL));
        }
        observer.event(Event::Ended { reason });
        observer.stopped(started.elapsed(), &ending);
        Served { socket, code: ending.close_code.unwrap_or(NORMAL), reason }
    }

    fn now(&self) -> CallTime {
        Clock(self.started).now()
    }

    fn deadline(&self) -> Instant {
        let relay = self.relay.poll_timeout().map(|at| Clock(self.started).at(at));
        let write = self.socket.blocked_since().map(|since| since + self.gateway.config.limits.write_timeout);
        let last = self.last_words.map(|(at, ..)| at);
        let dead = self.bot.is_some().then(|| self.bot_dead_at());
        [relay, write, last, dead, self.gateway.longest(self.started)]
            .into_iter()
            .flatten()
            .fold(self.pulse.due(), Instant::min)
    }

    /// A bot that only listens still answers pings: with nothing at all for this long, it is gone.
    fn bot_dead_at(&self) -> Instant {
        self.bot_seen + self.upstream.stall_timeout().max(self.gateway.config.twilio.ping_interval * 2)
    }

    fn time_passed(&mut self) {
        let at = Instant::now();
        let write_timeout = self.gateway.config.limits.write_timeout;
        if self.socket.blocked_since().is_some_and(|since| since + write_timeout <= at) {
            let ending = Ending::ours(POLICY, "the carrier has stopped reading");
            return self.finish(StopReason::WsLost, ending);
        }
        if self.gateway.longest(self.started).is_some_and(|longest| longest <= at) {
            return self.finish(StopReason::Timeout, Ending::ours(NORMAL, TOO_LONG_A_CALL));
        }
        let now = self.now();
        if let Some(payload) = self.pulse.ping(at, now, &self.observer) {
            let _ = self.socket.send_ping(payload);
            if let Some(bot) = &mut self.bot {
                let _ = bot.send_ping(payload);
            }
        }
        if self.bot.is_some() && self.bot_dead_at() <= at {
            let silent = (at - self.bot_seen).as_secs();
            let why = format!("nothing came for {silent} s, not even the answer to a ping");
            self.failed(self.upstream.failure(FailureKind::Timeout, &why));
        }
        self.relay.handle_timeout(self.now());
    }

    /// With the bot gone, the call lasts until its last words have been heard.
    fn last_words_heard(&mut self) {
        if let Some((until, reason, code)) = self.last_words
            && (until <= Instant::now() || self.relay.is_over(self.now()))
        {
            self.finish(reason, Ending::ours(code, "the bot has gone"));
        }
    }

    fn carrier(&mut self, received: Received) {
        let text = match received {
            Received::Text(text) => text,
            Received::Binary(_) => return self.observer.dropped("binary", "Media Streams are text (31950)"),
            Received::Pong(payload) => return self.pulse.pong(&payload, self.now(), &self.observer),
            Received::Ping => return,
            Received::Closed(close) => {
                let (reason, ending) = ending_of(&close);
                return self.finish(reason, ending);
            }
        };
        let stopped = match self.from_carrier.read(&text) {
            Ok(Message::Media { payload, timestamp_ms }) => {
                let now = Clock(self.started).now();
                if self.observer.heard(payload.len(), timestamp_ms, now) {
                    self.observer.waits(self.relay.queued());
                }
                self.relay.heard(payload, timestamp_ms, now);
                false
            }
            Ok(Message::Dtmf { digit }) => {
                self.relay.told(&Entry::Dtmf(digit), Clock(self.started).now());
                false
            }
            Ok(Message::Mark { name }) => {
                self.relay.told(&Entry::Mark(name), Clock(self.started).now());
                false
            }
            Ok(message) => message == Message::Stop,
            Err(malformed) => {
                let reason = if malformed == Malformed::Base64 { "base64" } else { "malformed" };
                self.observer.dropped(reason, &malformed.to_string());
                // The bot may make more of it than we do.
                false
            }
        };
        self.tell_bot(Bytes::from(text));
        if stopped {
            let ending = Ending { close_code: Some(NORMAL), ..Ending::default() };
            self.finish(StopReason::CallerHangup, ending);
        }
    }

    fn bot(&mut self, received: Received) {
        let now = self.now();
        self.bot_seen = Instant::now();
        match received {
            Received::Text(text) => {
                for name in self.bot_says(&text, now) {
                    let mark = self.outbound.mark(&name);
                    self.tell_bot(mark);
                }
            }
            // Twilio would warn with 31950; what it holds is sound all the same.
            Received::Binary(audio) => self.relay.audio(&audio, now),
            Received::Ping | Received::Pong(_) => {}
            Received::Closed(close) => self.bot_closed(close),
        }
    }

    /// Returns the marks that come back to the bot from here, because the carrier will never have them.
    fn bot_says(&mut self, text: &str, now: CallTime) -> Vec<String> {
        match self.from_bot.read(text) {
            Ok(Message::Media { payload, .. }) => self.relay.audio(payload, now),
            Ok(Message::Mark { name }) if name.is_empty() => {
                self.observer.dropped("bot_malformed", "from the bot: a mark without a name (31951)");
            }
            Ok(Message::Mark { name }) => {
                if !self.relay.mark(&name, now) {
                    return vec![name.into_owned()];
                }
            }
            Ok(Message::Clear) => return self.relay.clear(now),
            Ok(Message::Unknown { event }) => self.observer.unknown(&event),
            Ok(_) => self.observer.unknown("of the carrier's, but from the bot"),
            Err(malformed) => {
                self.observer.dropped("bot_malformed", &format!("from the bot: {malformed} (31951)"));
            }
        }
        Vec::new()
    }

    fn bot_closed(&mut self, close: Close) {
        let why = match close {
            Close::ByPeer(code @ (NORMAL | GOING_AWAY | NO_CODE)) => {
                self.observer.bot_gone(code);
                self.bot = None;
                let now = self.now();
                self.relay.told(&Entry::BotGone(code), now);
                // A call that it has transferred by itself must not be hung up as one that it has ended.
                let is_hung_up = self.gateway.config.twilio.resume && self.gateway.carrier.is_some();
                self.relay.leave(if is_hung_up { TRANSFER } else { Duration::ZERO }, now);
                let until = Instant::now() + LAST_WORDS;
                self.last_words = Some((until, StopReason::BotEnd, NORMAL));
                return;
            }
            Close::ByPeer(code) => format!("it closed the socket with {code}"),
            Close::Lost(why) => format!("it broke off: {why}"),
            Close::TooLong => "it sent a message of more than 1 MiB".to_owned(),
            Close::NotUtf8 => "it sent text that is not UTF-8".to_owned(),
            Close::Protocol(why) => format!("it broke the WebSocket protocol: {why}"),
        };
        self.failed(self.upstream.failure(FailureKind::Protocol, &why));
    }

    fn tell_bot(&mut self, message: Bytes) {
        if let Some(bot) = &mut self.bot
            && bot.send_text(message).is_err()
        {
            self.observer.dropped("bot_slow", "the bot does not read what it is told");
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.relay.poll_output() {
            let message = match output {
                Output::Play { frame, due } => {
                    self.observer.sent(self.now().since(due));
                    self.outbound.media(&frame)
                }
                Output::Mark(name) => self.outbound.mark(&name),
                Output::Clear => self.outbound.clear(),
                Output::Event(event) => {
                    self.observer.event(event);
                    continue;
                }
                Output::Hangup(reason) => {
                    let why = "no audio of the caller came any more";
                    self.finish(reason, Ending { carrier_code: Some(31953), ..Ending::ours(NORMAL, why) });
                    continue;
                }
                // Only a dialogue asks services.
                Output::Transcribe { .. }
                | Output::Finalize { .. }
                | Output::Forget
                | Output::Heard(_)
                | Output::Ask(_)
                | Output::Say { .. }
                | Output::Control { .. }
                | Output::Cancel(_) => continue,
            };
            if self.socket.send_text(message).is_err() {
                let why = "the carrier has stopped reading: too much is waiting";
                self.finish(StopReason::WsLost, Ending::ours(POLICY, why));
            }
        }
    }

    /// Ends the call; the first reason counts.
    fn finish(&mut self, reason: StopReason, ending: Ending) {
        self.end.get_or_insert((reason, ending));
    }
}

/// What the bot does next; nothing, for ever, where there is none.
async fn next_of(bot: &mut Option<ClientSocket>) -> Received {
    match bot {
        Some(bot) => bot.next().await,
        None => std::future::pending().await,
    }
}
