//! One call: the socket, the clock and nothing else. What to say comes from the script, when marks
//! come back from the carrier's model, what it all means goes to the meter.

use super::carrier::{Carrier, CarrierOptions};
use super::check::{self, Sent, Violation};
use super::connect::{self, Connected};
use super::meter::Meter;
use super::report::{CallReport, Close, Moment, What};
use super::script::{Act, Director, Step, View};
use super::wire::Wire;
use anyhow::Result;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

const FRAME: Duration = crate::time::FRAME;
/// A server that takes nothing for this long has stopped reading.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for the server's end of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How to make a call.
#[derive(Clone, Debug)]
pub struct CallOptions {
    /// `ws://` or `wss://`.
    pub url: String,
    /// Offered in the handshake. Twilio offers none.
    pub subprotocol: Option<String>,
    /// Sent with the handshake; `x-twilio-signature`, for instance.
    pub headers: Vec<(String, String)>,
    /// The `callSid`, where a call is to open another stream; else one is made up.
    pub call_sid: Option<String>,
    /// `customParameters` of the `start` message.
    pub parameters: Vec<(String, String)>,
    pub connect_timeout: Duration,
    /// Time between the 101 and `start`, in which the server must not send anything.
    pub before_start: Duration,
    /// The script starts over at its end until this much time has passed.
    pub repeat_for: Option<Duration>,
    pub carrier: CarrierOptions,
    /// Keep the timeline and the audio. Off for load.
    pub record: bool,
}

impl CallOptions {
    pub fn new(url: impl Into<String>) -> CallOptions {
        CallOptions {
            url: url.into(),
            subprotocol: None,
            headers: Vec::new(),
            call_sid: None,
            parameters: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            before_start: Duration::from_millis(20),
            repeat_for: None,
            carrier: CarrierOptions::default(),
            record: true,
        }
    }
}

/// Is told what happens as it happens.
pub type Watch<'a> = &'a mut (dyn FnMut(&Moment) + Send);

/// Makes a call and plays the script. Fails only where no call came about; what went wrong in a call
/// is in its report.
pub async fn run_call(options: CallOptions, script: Vec<Step>) -> Result<CallReport> {
    run_call_watched(options, script, &mut |_| {}).await
}

/// [`run_call`], with the timeline told live.
pub async fn run_call_watched(
    options: CallOptions,
    script: Vec<Step>,
    watch: Watch<'_>,
) -> Result<CallReport> {
    let Connected { socket, took, subprotocol } = connect::connect(&options).await?;
    let mut talk = Talk::new(socket, options, script, watch);
    talk.report.handshake = took;
    talk.report.subprotocol = subprotocol;
    Ok(talk.run().await)
}

/// Why the loop of a call ends.
enum End {
    HungUp,
    Lost(Close),
}

struct Talk<'a, S> {
    socket: WebSocketStream<S>,
    options: CallOptions,
    wire: Wire,
    carrier: Carrier,
    director: Director,
    meter: Meter,
    report: CallReport,
    watch: Watch<'a>,
    /// When `start` went out: zero of the call.
    zero: Instant,
    audio: Vec<u8>,
    /// The server's close frame, once it has come.
    close: Option<Close>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Talk<'a, S> {
    fn new(
        socket: WebSocketStream<S>,
        options: CallOptions,
        script: Vec<Step>,
        watch: Watch<'a>,
    ) -> Talk<'a, S> {
        let wire = Wire::new(options.call_sid.clone());
        let record = options.record && options.carrier.record;
        Talk {
            socket,
            carrier: Carrier::new(CarrierOptions { record, ..options.carrier.clone() }),
            director: Director::new(script, options.repeat_for),
            meter: Meter::default(),
            report: CallReport::new(&wire.stream_sid, &wire.call_sid),
            watch,
            wire,
            options,
            zero: Instant::now(),
            audio: Vec::with_capacity(1024),
            close: None,
        }
    }

    async fn run(mut self) -> CallReport {
        let end = match self.open().await {
            Ok(()) => self.talk().await,
            Err(close) => End::Lost(close),
        };
        let close = match end {
            End::HungUp => self.hang_up().await,
            End::Lost(close) => close,
        };
        let now = self.now();
        self.carrier.poll(now);
        self.meter.close_barge_in(&self.carrier, &mut self.report);
        self.tell(now, What::Closed(close.clone()));
        self.report.unsaid = self.director.unsaid();
        let Talk { carrier, mut report, .. } = self;
        report.duration = now;
        report.underruns = carrier.underruns();
        report.gap_total = carrier.gap_total();
        report.max_lead = carrier.max_lead();
        report.heard = carrier.heard().to_vec();
        report.spurts = carrier.spurts().to_vec();
        report.close = Some(close);
        report
    }

    /// `connected` and `start`, before which a server has nothing to say.
    async fn open(&mut self) -> Result<(), Close> {
        if let Ok(early) = timeout(self.options.before_start, self.socket.next()).await {
            match early {
                Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                    let violation = Violation::new(31_951, "a message before `start`");
                    self.violation(Duration::ZERO, violation);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                other => return Err(self.ended(other)),
            }
        }
        let connected = self.wire.connected();
        self.send(connected).await?;
        let start = self.wire.start(&self.options.parameters);
        self.zero = Instant::now();
        self.send(start).await?;
        let subprotocol = self.report.subprotocol.clone();
        self.tell(Duration::ZERO, What::Connected { handshake: self.report.handshake, subprotocol });
        Ok(())
    }

    async fn talk(&mut self) -> End {
        let mut tick = self.zero + FRAME;
        let timer = sleep_until(tick);
        tokio::pin!(timer);
        loop {
            let wake = self.carrier.next_mark_at().map_or(tick, |at| tick.min(self.zero + at));
            if timer.deadline() != wake {
                timer.as_mut().reset(wake);
            }
            let stepped = tokio::select! {
                biased;
                () = timer.as_mut() => {
                    let now = Instant::now();
                    if now >= tick {
                        let late = u64::try_from((now - tick).as_micros()).unwrap_or(u64::MAX);
                        self.report.own_lateness.saturating_record(late);
                        tick += FRAME;
                        match self.tick().await {
                            Ok(true) => return End::HungUp,
                            Ok(false) => Ok(()),
                            Err(close) => Err(close),
                        }
                    } else {
                        Ok(())
                    }
                }
                message = self.socket.next() => self.receive(message).await,
            };
            let marked = match stepped {
                Ok(()) => self.return_marks().await,
                Err(close) => Err(close),
            };
            if let Err(close) = marked {
                return End::Lost(close);
            }
        }
    }

    /// What the caller does every 20 ms; `true` when that is to hang up.
    async fn tick(&mut self) -> Result<bool, Close> {
        let now = self.now();
        self.carrier.poll(now);
        self.meter.tick(now, &self.carrier, &mut self.report);
        let act = self.director.tick(View {
            now,
            reply_at: self.meter.reply_at(&self.report),
            audible_until: self.carrier.audible_until(),
            speaking: self.carrier.speaking(),
        });
        // The frame that ends now began 20 ms ago.
        let at_ms = self.report.frames_out * 20;
        self.report.frames_out += 1;
        match act {
            Act::Hangup => {
                self.report.frames_out -= 1;
                return Ok(true);
            }
            Act::Silence => {}
            Act::Dtmf(digit) => {
                self.tell(now, What::Dtmf(digit));
                let message = self.wire.dtmf(digit);
                self.send(message).await?;
            }
            Act::GaveUp(what) => {
                self.report.gave_up.push(what.clone());
                self.tell(now, What::GaveUp(what));
            }
            Act::Speak(spoken) => {
                if spoken.onset {
                    self.meter.said_start(now, &self.carrier, &mut self.report);
                    self.tell(now, What::SaidStart);
                }
                if spoken.last_voiced {
                    self.meter.said_end(now, &mut self.report);
                    self.tell(now, What::SaidEnd);
                }
                let message = self.wire.media(Some(spoken.frame()), at_ms);
                return self.send(message).await.map(|()| false);
            }
        }
        let message = self.wire.media(None, at_ms);
        self.send(message).await.map(|()| false)
    }

    async fn receive(&mut self, message: Option<Result<Message, Error>>) -> Result<(), Close> {
        let now = self.now();
        match message {
            Some(Ok(Message::Text(text))) => {
                self.text(text.as_str(), now);
                Ok(())
            }
            Some(Ok(Message::Binary(_))) => {
                self.violation(now, Violation::new(31_950, "a binary frame"));
                Ok(())
            }
            Some(Ok(Message::Ping(_))) => {
                // The answer is queued already; it only has to go out.
                self.report.pings += 1;
                self.tell(now, What::Ping);
                self.socket.flush().await.map_err(|e| self.ended(Some(Err(e))))
            }
            Some(Ok(Message::Pong(_) | Message::Frame(_))) => Ok(()),
            Some(Ok(Message::Close(frame))) => {
                let (code, reason) =
                    frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.as_str().to_owned()));
                self.close = Some(Close { code, reason, by_server: true });
                Ok(())
            }
            other => Err(self.ended(other)),
        }
    }

    fn text(&mut self, text: &str, now: Duration) {
        let sent = check::check(text, &self.wire.stream_sid).and_then(|sent| match &sent {
            Sent::Media(payload) => check::decode(payload, &mut self.audio).map(|()| sent),
            Sent::Mark(_) | Sent::Clear => Ok(sent),
        });
        match sent {
            Err(violation) => self.violation(now, violation),
            Ok(Sent::Media(_)) => self.media(now),
            Ok(Sent::Mark(name)) => {
                self.report.marks_in += 1;
                self.carrier.mark(&name, now);
                self.tell(now, What::MarkReceived(name.into_owned()));
            }
            Ok(Sent::Clear) => {
                let thrown = self.carrier.clear(now);
                let since_barge_in = self.meter.clear(now, &mut self.report);
                self.tell(now, What::ClearReceived { thrown, since_barge_in });
            }
        }
    }

    fn media(&mut self, now: Duration) {
        let arrival = self.carrier.media(&self.audio, now);
        if let Some(gap) = arrival.underrun {
            self.tell(now, What::Underrun { gap });
        }
        if arrival.dropped > 0 {
            self.violation(now, Violation::new(31_931, "more than ten minutes of audio are queued"));
        }
        if let Some(header) = arrival.new_spurt.then(|| check::header(&self.audio)).flatten() {
            self.violation(now, header);
        }
        let what = self.meter.media(self.audio.len(), arrival, now, &self.carrier, &mut self.report);
        if let Some(what) = what {
            self.tell(now, what);
        }
    }

    async fn return_marks(&mut self) -> Result<(), Close> {
        let now = self.now();
        while let Some(name) = self.carrier.poll_mark(now) {
            self.report.marks_out += 1;
            let message = self.wire.mark(&name);
            self.tell(now, What::MarkReturned(name));
            self.send(message).await?;
        }
        Ok(())
    }

    /// `stop`, then the closing handshake.
    async fn hang_up(&mut self) -> Close {
        let now = self.now();
        self.tell(now, What::HungUp);
        let stop = self.wire.stop();
        if let Err(close) = self.send(stop).await {
            return close;
        }
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let closing = async {
            _ = self.socket.close(Some(frame)).await;
            while let Some(Ok(_)) = self.socket.next().await {}
        };
        let reason = match timeout(CLOSE_TIMEOUT, closing).await {
            Ok(()) => "the caller hung up",
            Err(_) => "the caller hung up, and the server did not close its end",
        };
        Close { code: 1000, reason: reason.to_owned(), by_server: false }
    }

    async fn send(&mut self, message: Message) -> Result<(), Close> {
        let mut sending = self.socket.send(message);
        // Nearly always the socket takes a message at once; only the rest pays for a timer.
        let sent = match (&mut sending).now_or_never() {
            Some(sent) => sent,
            None => match timeout(WRITE_TIMEOUT, sending).await {
                Ok(sent) => sent,
                Err(_) => {
                    let reason = "the server stopped reading (Twilio: 31930)".to_owned();
                    return Err(Close { code: 1006, reason, by_server: true });
                }
            },
        };
        sent.map_err(|e| self.ended(Some(Err(e))))
    }

    /// Why the socket is at its end.
    fn ended(&mut self, last: Option<Result<Message, Error>>) -> Close {
        if let Some(close) = self.close.take() {
            return close;
        }
        let reason = match last {
            Some(Ok(Message::Close(frame))) => {
                let (code, reason) =
                    frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.as_str().to_owned()));
                return Close { code, reason, by_server: true };
            }
            Some(Err(e @ (Error::Protocol(_) | Error::Utf8(_) | Error::Capacity(_)))) => {
                let text = e.to_string();
                if !text.contains("without closing handshake") {
                    let now = self.now();
                    self.violation(now, Violation::new(31_924, format!("WebSocket framing: {text}")));
                }
                text
            }
            Some(Err(e)) => e.to_string(),
            Some(Ok(_)) | None => "the connection ended".to_owned(),
        };
        Close { code: 1006, reason, by_server: true }
    }

    fn violation(&mut self, now: Duration, violation: Violation) {
        // A server that sends thousands of them has made its point with the first few.
        if self.report.violation(violation.clone()) {
            self.tell(now, What::Violation(violation));
        }
    }

    fn tell(&mut self, now: Duration, what: What) {
        let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let moment = Moment { ms, what };
        (self.watch)(&moment);
        if self.options.record {
            self.report.timeline.push(moment);
        }
    }

    fn now(&self) -> Duration {
        self.zero.elapsed()
    }
}

#[cfg(test)]
#[path = "caller_tests.rs"]
mod tests;
