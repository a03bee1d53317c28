//! A media stream held by hand: for everything that the polite caller of `voxgate call` never does.
//! Blocking, and unpaced: the gateway counts frames, so that a second of speech takes no second.

use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::{IntoClientRequest as _, client};
use tokio_tungstenite::tungstenite::handshake::HandshakeError;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};
use voxgate::audio::SILENCE;
use voxgate::cli::call::check::{self, Sent};

use super::{Gateway, SOON, tone};

/// What the gateway says on a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Media(Vec<u8>),
    Mark(String),
    Clear,
    Ping,
    /// The end, with the close code; 1006 if there was none.
    Closed(u16),
}

pub struct MediaStream {
    pub ws: WebSocket<TcpStream>,
    pub stream_sid: String,
    pub call_sid: String,
    sequence: u64,
    /// Audio sent so far, in bytes.
    sent: usize,
}

impl MediaStream {
    /// The handshake, and nothing more.
    pub fn open(gateway: &Gateway) -> MediaStream {
        MediaStream::try_open(gateway).unwrap()
    }

    pub fn try_open(gateway: &Gateway) -> Result<MediaStream, Error> {
        MediaStream::try_open_at(gateway, "/ws/twilio-media")
    }

    pub fn try_open_at(gateway: &Gateway, path: &str) -> Result<MediaStream, Error> {
        MediaStream::try_open_on(gateway.port, path)
    }

    /// At another listener than the gateway's usual one.
    pub fn try_open_on(port: u16, path: &str) -> Result<MediaStream, Error> {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let tcp = TcpStream::connect(("127.0.0.1", port))?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(SOON))?;
        tcp.set_write_timeout(Some(SOON))?;
        let request = format!("ws://127.0.0.1:{port}{path}").into_client_request()?;
        let (ws, _) = client(request, tcp).map_err(|error| match error {
            HandshakeError::Failure(error) => error,
            HandshakeError::Interrupted(_) => Error::Io(ErrorKind::TimedOut.into()),
        })?;
        let (stream_sid, call_sid) = (format!("MZ{number:032x}"), format!("CA{number:032x}"));
        Ok(MediaStream { ws, stream_sid, call_sid, sequence: 0, sent: 0 })
    }

    /// A stream that has started.
    pub fn start(gateway: &Gateway) -> MediaStream {
        let mut stream = MediaStream::open(gateway);
        stream.begin();
        stream
    }

    /// `connected` and `start`, as Twilio sends them.
    pub fn begin(&mut self) {
        self.send(&json!({"event": "connected", "protocol": "Call", "version": "1.0.0"}));
        let start = self.start_message();
        self.send(&start);
    }

    pub fn start_message(&mut self) -> Value {
        let sequence = self.count();
        json!({"event": "start", "sequenceNumber": sequence, "streamSid": self.stream_sid, "start": {
            "accountSid": "AC00000000000000000000000000000000", "streamSid": self.stream_sid,
            "callSid": self.call_sid, "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {}}})
    }

    /// The next sequence number: a string of digits.
    fn count(&mut self) -> String {
        self.sequence += 1;
        self.sequence.to_string()
    }

    pub fn send(&mut self, message: &Value) {
        self.text(message.to_string());
    }

    pub fn text(&mut self, text: impl Into<String>) {
        self.ws.send(Message::text(text.into())).unwrap();
    }

    /// Bytes under the WebSocket.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.ws.get_mut().write_all(bytes).unwrap();
    }

    pub fn media_message(&mut self, payload: &[u8]) -> String {
        let (timestamp, sequence) = ((self.sent / 8).to_string(), self.count());
        self.sent += payload.len();
        json!({"event": "media", "sequenceNumber": sequence, "streamSid": self.stream_sid,
            "media": {"track": "inbound", "chunk": sequence, "timestamp": timestamp,
                      "payload": STANDARD.encode(payload)}})
        .to_string()
    }

    pub fn media(&mut self, payload: &[u8]) {
        let text = self.media_message(payload);
        self.text(text);
    }

    /// Speaks in payloads of 20 ms, and is silent until that has been noticed.
    pub fn say(&mut self, audio: &[u8]) {
        self.say_in_pieces(audio, 160);
    }

    pub fn say_in_pieces(&mut self, audio: &[u8], length: usize) {
        let said: Vec<u8> = audio.iter().copied().chain([SILENCE; 500 * 8]).collect();
        said.chunks(length).for_each(|piece| self.media(piece));
    }

    pub fn mark(&mut self, name: &str) {
        let sequence = self.count();
        let mark = json!({"event": "mark", "sequenceNumber": sequence, "streamSid": self.stream_sid,
            "mark": {"name": name}});
        self.send(&mark);
    }

    pub fn dtmf(&mut self, digit: &str) {
        let sequence = self.count();
        let dtmf = json!({"event": "dtmf", "sequenceNumber": sequence, "streamSid": self.stream_sid,
            "dtmf": {"track": "inbound_track", "digit": digit}});
        self.send(&dtmf);
    }

    pub fn stop(&mut self) {
        let sequence = self.count();
        let stop = json!({"event": "stop", "sequenceNumber": sequence, "streamSid": self.stream_sid,
            "stop": {"accountSid": "AC00000000000000000000000000000000", "callSid": self.call_sid}});
        self.send(&stop);
    }

    /// The next thing that the gateway says; a message that Twilio would not take is a panic.
    pub fn hear(&mut self) -> Heard {
        loop {
            match self.ws.read() {
                Ok(Message::Text(text)) => return self.understood(text.as_str()),
                Ok(Message::Ping(_)) => return Heard::Ping,
                Ok(Message::Close(frame)) => {
                    // Reading on sends the answer to the close frame.
                    let _ = self.ws.read();
                    return Heard::Closed(frame.map_or(1005, |frame| frame.code.into()));
                }
                Ok(other @ (Message::Binary(_) | Message::Frame(_))) => panic!("not text: {other}"),
                Ok(Message::Pong(_)) => {}
                Err(Error::Io(e)) if e.kind() == ErrorKind::WouldBlock => panic!("nothing in {SOON:?}"),
                Err(_) => return Heard::Closed(1006),
            }
        }
    }

    fn understood(&self, text: &str) -> Heard {
        match check::check(text, &self.stream_sid) {
            Ok(Sent::Media(payload)) => {
                let mut audio = Vec::new();
                check::decode(&payload, &mut audio).unwrap();
                Heard::Media(audio)
            }
            Ok(Sent::Mark(name)) => Heard::Mark(name.into_owned()),
            Ok(Sent::Clear) => Heard::Clear,
            Err(violation) => panic!("{violation}"),
        }
    }

    /// The audio of a whole reply; its marks go back as they come, the last when all has been played.
    pub fn reply(&mut self) -> Vec<u8> {
        let mut audio = Vec::new();
        let mut played = Instant::now();
        loop {
            match self.hear() {
                Heard::Media(frame) => {
                    played = played.max(Instant::now()) + Duration::from_micros(125) * frame.len() as u32;
                    audio.extend(frame);
                }
                Heard::Mark(name) if name.ends_with(".end") => {
                    // No wait for the gateway: this is how long a telephone takes.
                    std::thread::sleep(played.saturating_duration_since(Instant::now()));
                    self.mark(&name);
                    return audio;
                }
                Heard::Mark(name) => self.mark(&name),
                Heard::Ping => {}
                other @ (Heard::Clear | Heard::Closed(_)) => panic!("{other:?} in a reply"),
            }
        }
    }

    /// Reads to the end of the stream; the close code.
    pub fn closed(&mut self) -> u16 {
        loop {
            if let Heard::Closed(code) = self.hear() {
                return code;
            }
        }
    }

    /// `stop`, and the close that answers it.
    pub fn hang_up(mut self) {
        self.stop();
        assert_eq!(self.closed(), 1000);
    }
}

/// Asserts that the gateway is well: a call is served, none is left over, and the log bears events
/// only.
pub fn is_well(gateway: &Gateway) {
    let said = tone(200);
    let mut stream = MediaStream::start(gateway);
    stream.say(&said);
    assert!(has(&stream.reply(), &said), "a call is not echoed");
    stream.hang_up();
    super::until("all calls to end", || (gateway.metric("voxgate_calls_active") == 0.0).then_some(()));
    assert_eq!(gateway.noise(), Vec::<String>::new());
}

/// A frame of a client, masked with zeros, as bytes under the WebSocket. `first` is opcode and flags.
pub fn ws_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        medium @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Whether this was said in there, byte for byte.
pub fn has(heard: &[u8], said: &[u8]) -> bool {
    heard.windows(said.len()).any(|window| window == said)
}
