//! Tests: a recogniser of our own at the other end of a real socket, every message of which is where
//! a test wants it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::{Recogniser, Streaming, tape};
use crate::call::{Input, Posted};
use crate::config::{BreakerLimits, DeepgramStt, Endpoint, Secret, Stt, Upstream, VoskStt};
use crate::upstream::fake::{nowhere, tell_done};
use crate::upstream::observed::Tell;
use crate::upstream::tests::ids;
use crate::upstream::{Observation, Pools};

mod deepgram_wire;
mod faults;
mod vosk_wire;

/// The vendor's words, as its reference has them: not those of the code.
mod deepgram {
    pub(super) const FINALIZE: &str = r#"{"type":"Finalize"}"#;
    pub(super) const CLOSE: &str = r#"{"type":"CloseStream"}"#;
    pub(super) const KEEP_ALIVE: &str = r#"{"type":"KeepAlive"}"#;
}

/// A result about audio from one time to another, in ms.
fn results(text: &str, from: u32, until: u32, flags: &str) -> String {
    format!(
        r#"{{"type":"Results","start":{},"duration":{},{flags}"channel":{{"alternatives":[{{"transcript":"{text}"}}]}}}}"#,
        f64::from(from) / 1000.0,
        f64::from(until - from) / 1000.0
    )
}

/// The answer to a question.
const ANSWER: &str = r#""is_final":true,"from_finalize":true,"#;

/// Long enough on the busiest machine; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(80);

/// What came over a connection.
#[derive(Debug, PartialEq)]
enum Got {
    Audio(Vec<u8>),
    Text(String),
    /// The other end has closed, or is gone.
    Closed,
}

/// The recogniser's end of a connection.
struct Peer {
    ws: WebSocketStream<TcpStream>,
    got: UnboundedSender<(usize, Got)>,
    connection: usize,
}

impl Peer {
    /// The next message, which the test sees as well.
    async fn next(&mut self) -> Got {
        let got = loop {
            match self.ws.next().await {
                Some(Ok(Message::Binary(audio))) => break Got::Audio(audio.to_vec()),
                Some(Ok(Message::Text(text))) => break Got::Text(text.as_str().to_owned()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => break Got::Closed,
            }
        };
        let seen = match &got {
            Got::Audio(audio) => Got::Audio(audio.clone()),
            Got::Text(text) => Got::Text(text.clone()),
            Got::Closed => Got::Closed,
        };
        let _ = self.got.send((self.connection, seen));
        got
    }

    async fn send(&mut self, text: impl Into<String>) {
        let _ = self.ws.send(Message::text(text.into())).await;
    }

    /// Takes what comes until this text has come.
    async fn until(&mut self, text: &str) {
        loop {
            match self.next().await {
                Got::Text(got) if got == text => return,
                Got::Audio(_) | Got::Text(_) => {}
                Got::Closed => panic!("closed before {text}"),
            }
        }
    }

    /// Takes what comes until so many bytes of audio have come.
    async fn until_heard(&mut self, bytes: usize) {
        let mut heard = 0;
        while heard < bytes {
            match self.next().await {
                Got::Audio(audio) => heard += audio.len(),
                Got::Text(_) => {}
                Got::Closed => return,
            }
        }
    }

    async fn until_closed(&mut self) {
        while self.next().await != Got::Closed {}
    }

    async fn close(&mut self, code: u16, reason: &'static str) {
        let _ = self.ws.close(Some(CloseFrame { code: code.into(), reason: reason.into() })).await;
        self.until_closed().await;
    }
}

struct Fake {
    server: String,
    got: UnboundedReceiver<(usize, Got)>,
    /// Request line and headers of each handshake.
    heads: UnboundedReceiver<String>,
    done: (UnboundedSender<Observation>, UnboundedReceiver<Observation>),
}

impl Fake {
    /// Serves every connection with this, told which one it is.
    async fn serving<F>(serve: impl Fn(usize, Peer) -> F + Send + 'static) -> Fake
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap().to_string();
        let (got, seen) = unbounded_channel();
        let (head, heads) = unbounded_channel();
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
                let note = |request: &Request, response: Response| {
                    let headers = request.headers().iter();
                    let headers =
                        headers.map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
                    let _ = head.send(format!("{}\n{}", request.uri(), headers.collect::<String>()));
                    Ok(response)
                };
                if let Ok(ws) = tokio_tungstenite::accept_hdr_async(stream, note).await {
                    tokio::spawn(serve(connection, Peer { ws, got: got.clone(), connection }));
                }
            }
        });
        Fake { server, got: seen, heads, done: unbounded_channel() }
    }

    /// Listens to a call by Deepgram's wire, impatiently.
    fn deepgram(&self) -> (Recogniser, Receiver<Posted>) {
        self.start(&Stt::Deepgram(deepgram_stt(&self.server)), |_| {})
    }

    fn vosk(&self) -> (Recogniser, Receiver<Posted>) {
        let endpoint = endpoint(&self.server, "/");
        self.start(&Stt::Vosk(VoskStt { endpoint, phrase_list: vec!["yes".to_owned()] }), |_| {})
    }

    fn start(&self, stt: &Stt, change: impl FnOnce(&mut Streaming)) -> (Recogniser, Receiver<Posted>) {
        self.start_all(&[stt], PATIENCE, change)
    }

    /// With others that stand in for the first.
    fn start_all(
        &self,
        stts: &[&Stt],
        after: Duration,
        change: impl FnOnce(&mut Streaming),
    ) -> (Recogniser, Receiver<Posted>) {
        let done = self.done.0.clone();
        let tell: Tell = Arc::new(move |notice| tell_done(&done, notice));
        let mut streaming = Streaming::new(stts, after, &mut Pools::new(&tell)).unwrap();
        // Small, so that a fault is told soon; no test waits for one of these that does not fail.
        streaming.patience.while_down = Duration::from_secs(1);
        streaming.patience.pauses = (Duration::from_millis(1), SOON);
        change(&mut streaming);
        let (to, inputs) = channel(4);
        (Arc::new(streaming).start(&ids(), to, tell), inputs)
    }

    /// What came next, and over which connection.
    async fn got(&mut self) -> (usize, Got) {
        timeout(PATIENCE, self.got.recv()).await.expect("a message").unwrap()
    }

    /// All audio of a connection until it got this text, in messages that are neither tiny nor long.
    async fn audio_until(&mut self, connection: usize, text: &str) -> Vec<u8> {
        let mut heard = Vec::new();
        loop {
            match self.got().await {
                (from, Got::Audio(audio)) if from == connection => heard.extend(audio),
                (from, Got::Text(got)) if from == connection => {
                    assert_eq!(got, text);
                    return heard;
                }
                other => assert_eq!(other.1, Got::Closed, "{}", other.0),
            }
        }
    }

    /// How the next connection ended.
    async fn result(&mut self) -> &'static str {
        timeout(PATIENCE, self.done.1.recv()).await.expect("an observation").unwrap().result
    }
}

fn endpoint(server: &str, path: &str) -> Endpoint {
    Endpoint {
        // Never open: a test sees each failure for itself.
        upstream: Upstream {
            breaker: BreakerLimits { failures: None, cooldown: PATIENCE },
            ..Upstream::new("ears", vec![server.to_owned()])
        },
        path: path.to_owned(),
        headers: vec![("X-Team".to_owned(), Secret("blue".to_owned()))],
    }
}

fn deepgram_stt(server: &str) -> DeepgramStt {
    DeepgramStt {
        endpoint: endpoint(server, "/v1?tag=a"),
        api_key: Some(Secret("hush".to_owned())),
        model: "nova-3".to_owned(),
        language: Some("en".to_owned()),
        endpointing: Some(Duration::from_millis(300)),
        utterance_end: Some(Duration::from_secs(1)),
        smart_format: false,
        punctuate: true,
        keyterm: vec!["Acme & Co".to_owned()],
    }
}

/// What the call is told next.
async fn told(inputs: &mut Receiver<Posted>) -> String {
    match timeout(PATIENCE, inputs.recv()).await.expect("an input").map(|input| *input) {
        Some(Input::Partial { text }) => format!("partial: {text}"),
        Some(Input::SpeechFinal) => "end of speech".to_owned(),
        Some(Input::Transcript { utterance, text }) => format!("{utterance}: {text}"),
        Some(Input::Failed { failure, .. }) => {
            assert_eq!(failure.upstream, "ears");
            format!("{}: {}", failure.kind.as_str(), failure.why)
        }
        other => panic!("{other:?}"),
    }
}

/// Audio that can be told from other audio: every 20 ms counts on from `first`.
fn frames(first: u8, count: u8) -> Vec<u8> {
    (first..first + count).flat_map(|value| [value; 160]).collect()
}

fn hear(recogniser: &mut Recogniser, audio: &[u8]) {
    audio.chunks(160).for_each(|frame| recogniser.hear(frame));
}
