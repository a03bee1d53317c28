//! The loop of a call that a bot of the operator's own conducts: what the carrier says goes to the bot
//! as it is, what the bot says goes through the pacer. The bot never shakes hands with the carrier.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::carrier::Carrier;
use super::gateway::Gateway;
use super::session::{Opened, ending_of, told_to_hang_up};
use super::websocket::{self, Close, Received, Socket};
use crate::call::{Event, Relay, Service, StopReason};
use crate::twilio::{Message, Reader};
use crate::upstream::{Bot, BotStream};

const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
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
    let mut talk = Talk {
        carrier: Carrier::new(socket, &opened.start, subprotocol.as_deref(), &gateway, "relay"),
        bot: None,
        relay: Relay::new(gateway.config.playout.lead),
        from_carrier: Reader::default(),
        from_bot: Reader::of_any_track(),
        last_words: None,
        gateway,
    };
    let max_message = talk.gateway.config.limits.max_message;
    match bot.connect(websocket::config(max_message)).await {
        Ok(ws) => talk.meet(Socket::over(ws), &opened),
        Err(failure) => {
            talk.carrier.observer.event(Event::UpstreamFailed { service: Service::Agent, failure });
            talk.apologise();
        }
    }
    talk.run().await
}

struct Talk {
    carrier: Carrier,
    /// `None` once it has gone, or where it never came.
    bot: Option<Socket<BotStream>>,
    relay: Relay,
    from_carrier: Reader,
    from_bot: Reader,
    /// The call ends when what is queued has been played, or at this time.
    last_words: Option<(Instant, StopReason, u16)>,
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
        let now = self.carrier.now();
        self.relay.audio(&apology.audio, now);
        self.bot = None;
        self.last_words = Some((Instant::now() + LAST_WORDS, StopReason::Error, INTERNAL));
    }

    async fn run(mut self) -> (Socket, u16) {
        let mut hang_up = self.gateway.hang_up();
        let timer = sleep_until(self.carrier.started);
        tokio::pin!(timer);
        loop {
            while let Some(output) = self.relay.poll_output() {
                self.carrier.carry_out(output);
            }
            if self.carrier.ended().is_some() {
                break;
            }
            let deadline = self.deadline();
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            let woken = tokio::select! {
                () = told_to_hang_up(&mut hang_up) => Woken::HangUp,
                received = self.carrier.socket.next() => Woken::Carrier(received),
                received = next_of(&mut self.bot) => Woken::Bot(received),
                () = &mut timer => Woken::Time,
            };
            match woken {
                Woken::Carrier(received) => self.carrier(received),
                Woken::Bot(received) => self.bot(received),
                Woken::Time => self.time_passed(),
                Woken::HangUp => {
                    self.carrier.finish(StopReason::Drain, GOING_AWAY, "the gateway is going down");
                }
            }
        }
        if let Some(bot) = self.bot {
            tokio::spawn(bot.close(NORMAL));
        }
        self.carrier.stop()
    }

    fn deadline(&self) -> Instant {
        let relay = self.relay.poll_timeout().map(|at| self.carrier.at(at));
        let last = self.last_words.map(|(at, ..)| at);
        [relay, last].into_iter().flatten().fold(self.carrier.due(), Instant::min)
    }

    fn time_passed(&mut self) {
        let at = Instant::now();
        if let Some(payload) = self.carrier.time_passed(at)
            && let Some(bot) = &mut self.bot
        {
            let _ = bot.send_ping(payload);
        }
        let now = self.carrier.now();
        self.relay.handle_timeout(now);
        if let Some((until, reason, code)) = self.last_words
            && (until <= at || self.relay.is_quiet(now))
        {
            self.carrier.finish(reason, code, "the bot has gone");
        }
    }

    fn carrier(&mut self, received: Received) {
        let Some(text) = self.carrier.received(received) else { return };
        let stopped = match self.from_carrier.read(&text) {
            Ok(Message::Media { payload, .. }) => {
                self.carrier.observer.heard(payload.len());
                false
            }
            Ok(message) => message == Message::Stop,
            // The bot may make more of it than we do.
            Err(_) => false,
        };
        if let Some(bot) = &mut self.bot
            && bot.send_text(Bytes::from(text)).is_err()
        {
            self.carrier.observer.dropped("bot_slow", "the bot does not read what the caller says");
        }
        if stopped {
            self.carrier.finish(StopReason::CallerHangup, NORMAL, "");
        }
    }

    fn bot(&mut self, received: Received) {
        let now = self.carrier.now();
        match received {
            Received::Text(text) => match self.from_bot.read(&text) {
                Ok(Message::Media { payload, .. }) => self.relay.audio(payload, now),
                Ok(Message::Mark { name }) => self.relay.mark(&name, now),
                Ok(Message::Clear) => {
                    for name in self.relay.clear(now) {
                        let mark = self.carrier.outbound.mark(&name);
                        if let Some(bot) = &mut self.bot {
                            let _ = bot.send_text(mark);
                        }
                    }
                }
                Ok(message) => self.carrier.observer.unknown(&format!("from the bot: {message:?}")),
                Err(malformed) => {
                    let why = format!("from the bot: {malformed} (31951)");
                    self.carrier.observer.dropped("bot_malformed", &why);
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
}

/// What the bot does next; nothing, for ever, where there is none.
async fn next_of(bot: &mut Option<Socket<BotStream>>) -> Received {
    match bot {
        Some(bot) => bot.next().await,
        None => std::future::pending().await,
    }
}
