//! The loop of a call that a bot of the operator's own conducts: what the carrier says goes to the bot
//! as it is, what the bot says goes through the pacer. The bot never shakes hands with the carrier.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::clock::Clock;
use super::gateway::Gateway;
use super::pulse::Pulse;
use super::session::{Opened, ending_of, told_to_hang_up};
use super::websocket::{self, Close, Received, Socket};
use crate::call::{Event, Output, Relay, Service, StopReason};
use crate::observe::{CallLabels, CallObserver, Ending};
use crate::time::CallTime;
use crate::twilio::{Message, Outbound, Reader};
use crate::upstream::{Bot, BotStream};

const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const POLICY: u16 = 1008;
const INTERNAL: u16 = 1011;

/// How long what the bot said last may still be played once it has gone.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// Conducts the call to its end; the socket is still to be closed, with this code.
pub(super) async fn relay(
    socket: Socket,
    opened: Opened,
    subprotocol: Option<String>,
    gateway: Arc<Gateway>,
    bot: Bot,
) -> (Socket, u16) {
    let call_sid = opened.start.known_as().to_owned();
    let labels = CallLabels { call_sid, stream_sid: opened.start.stream_sid.clone() };
    let observer = CallObserver::new(gateway.metrics.clone(), labels, gateway.config.log.transcripts);
    observer.started(subprotocol.as_deref(), &opened.start.account_sid, "relay");
    let started = Instant::now();
    let mut talk = Talk {
        socket,
        bot: None,
        relay: Relay::new(gateway.config.playout.lead),
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
    let max_message = talk.gateway.config.limits.max_message;
    match bot.connect(websocket::config(max_message)).await {
        Ok(ws) => talk.meet(Socket::over(ws), &opened),
        Err(failure) => {
            talk.observer.event(Event::UpstreamFailed { service: Service::Agent, failure });
            talk.apologise();
        }
    }
    talk.run().await
}

struct Talk {
    socket: Socket,
    /// `None` once it has gone, or where it never came.
    bot: Option<Socket<BotStream>>,
    relay: Relay,
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
    HangUp,
}

impl Talk {
    /// Tells the bot what the carrier has told already.
    fn meet(&mut self, mut bot: Socket<BotStream>, opened: &Opened) {
        let connected = Bytes::from_static(br#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#);
        for message in [connected, Bytes::from(opened.text.clone())] {
            let _ = bot.send_text(message);
        }
        self.bot = Some(bot);
    }

    fn apologise(&mut self) {
        let apology = self.gateway.phrases.apology();
        let now = self.now();
        self.relay.audio(&apology.audio, now);
        self.bot = None;
        self.last_words = Some((Instant::now() + LAST_WORDS, StopReason::Error, INTERNAL));
    }

    async fn run(mut self) -> (Socket, u16) {
        let (mut hang_up, mut goodbye) = (self.gateway.hang_up(), self.gateway.goodbye());
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
                () = told_to_hang_up(&mut hang_up) => Woken::HangUp,
                () = told_to_hang_up(&mut goodbye) => Woken::HangUp,
                received = self.socket.next() => Woken::Carrier(received),
                received = next_of(&mut self.bot) => Woken::Bot(received),
                () = &mut timer => Woken::Time,
            };
            match woken {
                Woken::Carrier(received) => self.carrier(received),
                Woken::Bot(received) => self.bot(received),
                Woken::Time => self.time_passed(),
                Woken::HangUp => self.finish(StopReason::Drain, GOING_AWAY, "the gateway is going down"),
            }
        }
        let Talk { socket, bot, mut observer, started, end, .. } = self;
        if let Some(bot) = bot {
            tokio::spawn(bot.close(NORMAL));
        }
        let (reason, ending) = end.unwrap_or((StopReason::Error, Ending::default()));
        observer.event(Event::Ended { reason });
        observer.stopped(started.elapsed(), &ending);
        (socket, ending.close_code.unwrap_or(NORMAL))
    }

    fn now(&self) -> CallTime {
        Clock(self.started).now()
    }

    fn deadline(&self) -> Instant {
        let relay = self.relay.poll_timeout().map(|at| Clock(self.started).at(at));
        let write = self.socket.blocked_since().map(|since| since + self.gateway.config.limits.write_timeout);
        let last = self.last_words.map(|(at, ..)| at);
        [relay, write, last].into_iter().flatten().fold(self.pulse.due(), Instant::min)
    }

    fn time_passed(&mut self) {
        let at = Instant::now();
        let write_timeout = self.gateway.config.limits.write_timeout;
        if self.socket.blocked_since().is_some_and(|since| since + write_timeout <= at) {
            return self.finish(StopReason::Timeout, POLICY, "the carrier has stopped reading");
        }
        let now = self.now();
        if let Some(payload) = self.pulse.ping(at, now, &self.observer) {
            let _ = self.socket.send_ping(payload);
            if let Some(bot) = &mut self.bot {
                let _ = bot.send_ping(payload);
            }
        }
        self.relay.handle_timeout(self.now());
        if let Some((until, reason, code)) = self.last_words
            && (until <= at || self.relay.is_quiet(self.now()))
        {
            self.finish(reason, code, "the bot has gone");
        }
    }

    fn carrier(&mut self, received: Received) {
        let text = match received {
            Received::Text(text) => text,
            Received::Binary(_) => return self.observer.dropped("binary", "Media Streams are text (31950)"),
            Received::Pong(payload) => return self.pulse.pong(&payload, self.now(), &self.observer),
            Received::Ping => return,
            Received::Closed(close) => {
                let (code, why) = ending_of(&close);
                let reason = match close {
                    Close::ByPeer(_) | Close::Lost(_) => StopReason::WsLost,
                    Close::TooLong | Close::NotUtf8 | Close::Protocol(_) => StopReason::Error,
                };
                return self.finish(reason, code, &why);
            }
        };
        let stopped = match self.from_carrier.read(&text) {
            Ok(Message::Media { payload, .. }) => {
                self.observer.heard(payload.len());
                false
            }
            Ok(message) => message == Message::Stop,
            // The bot may make more of it than we do.
            Err(_) => false,
        };
        if let Some(bot) = &mut self.bot
            && bot.send_text(Bytes::from(text)).is_err()
        {
            self.observer.dropped("bot_slow", "the bot does not read what the caller says");
        }
        if stopped {
            self.finish(StopReason::CallerHangup, NORMAL, "");
        }
    }

    fn bot(&mut self, received: Received) {
        let now = self.now();
        match received {
            Received::Text(text) => match self.from_bot.read(&text) {
                Ok(Message::Media { payload, .. }) => self.relay.audio(payload, now),
                Ok(Message::Mark { name }) => self.relay.mark(&name, now),
                Ok(Message::Clear) => {
                    for name in self.relay.clear(now) {
                        let mark = self.outbound.mark(&name);
                        if let Some(bot) = &mut self.bot {
                            let _ = bot.send_text(mark);
                        }
                    }
                }
                Ok(message) => self.observer.unknown(&format!("from the bot: {message:?}")),
                Err(malformed) => {
                    self.observer.dropped("bot_malformed", &format!("from the bot: {malformed} (31951)"));
                }
            },
            // Twilio would warn with 31950; what it holds is sound all the same.
            Received::Binary(audio) => self.relay.audio(&audio, now),
            Received::Ping | Received::Pong(_) => {}
            Received::Closed(close) => {
                let (code, why) = ending_of(&close);
                tracing::info!(code, why, "BOT_GONE");
                if matches!(close, Close::ByPeer(1000 | 1001 | 1005)) {
                    self.bot = None;
                    self.relay.finish(now);
                    let until = Instant::now() + LAST_WORDS;
                    self.last_words = Some((until, StopReason::BotEnd, NORMAL));
                } else {
                    self.relay.clear(now);
                    self.apologise();
                }
            }
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
                _ => continue,
            };
            if self.socket.send_text(message).is_err() {
                self.finish(
                    StopReason::Timeout,
                    POLICY,
                    "the carrier has stopped reading: too much is waiting",
                );
            }
        }
    }

    fn finish(&mut self, reason: StopReason, code: u16, detail: &str) {
        let ending = Ending { close_code: Some(code), carrier_code: None, detail: detail.to_owned() };
        self.end.get_or_insert((reason, ending));
    }
}

/// What the bot does next; nothing, for ever, where there is none.
async fn next_of(bot: &mut Option<Socket<BotStream>>) -> Received {
    match bot {
        Some(bot) => bot.next().await,
        None => std::future::pending().await,
    }
}
