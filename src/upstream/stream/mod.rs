//! Recognisers that hear the whole call as it is said, over a WebSocket of the call's own. The handle
//! that the call's loop holds never waits; a task of its own does, and ends when the handle goes.
//!
//! A connection that breaks in mid-call is made again, and the audio that the recogniser was not done
//! with is sent again: its words are said once, by whichever connection finishes them. Only when that
//! takes too long, or what is wrong will not mend itself, does a question fail.

mod connection;
mod deepgram;
mod listener;
mod socket;
mod tape;
#[cfg(test)]
mod tests;
mod vosk;
mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio_tungstenite::tungstenite::Message;

use self::listener::{Listener, Patience};
use self::tape::Tape;
use super::http::Unusable;
use super::observed::OnDone;
use crate::call::Input;
use crate::config::{DeepgramStt, Endpoint, Secret, Stt, Upstream, VoskStt};

/// The longest wait for a first answer and between two, whatever an upstream made for requests may
/// allow: a caller is on the line.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
const STALL: Duration = Duration::from_secs(10);

/// A call's streaming recogniser. Dropping it ends the connection.
pub struct Recogniser {
    tape: Arc<Tape>,
}

impl Recogniser {
    /// Hears audio of the caller: μ-law, 8 kHz, mono. Never waits; audio that the recogniser is too
    /// slow or too long away for is dropped, the oldest first.
    pub fn hear(&mut self, payload: &[u8]) {
        self.tape.push(payload);
    }

    /// Asks what was said since the last transcript: answered by `Transcript` or `Failed`.
    pub fn finalize(&mut self, utterance: u64) {
        self.tape.order(Some(utterance));
    }

    /// What was said since the last transcript is of no use.
    pub fn forget(&mut self) {
        self.tape.order(None);
    }

    /// Bytes of audio that were dropped before the recogniser had heard them.
    pub fn lost(&self) -> u64 {
        self.tape.lost()
    }
}

impl Drop for Recogniser {
    fn drop(&mut self) {
        self.tape.end_it();
    }
}

/// A recogniser as configured, shared by all calls.
pub(super) struct Streaming {
    target: Target,
    wire: Wire,
    next: AtomicUsize,
    patience: Patience,
}

/// Where a recogniser is, or a model that hears by itself.
pub(super) struct Target {
    pub(super) upstream: Upstream,
    pub(super) servers: Vec<Server>,
    headers: Vec<(String, Secret)>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

pub(super) struct Server {
    /// `host:port`.
    address: String,
    url: String,
    /// The URL as failures name it: without the query.
    pub(super) shown: String,
}

/// What the vendors' wires have apart.
enum Wire {
    Deepgram,
    Vosk { opening: String },
}

/// What a recogniser's message means.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Words {
        text: String,
        /// These words will not change any more.
        is_final: bool,
        /// The caller has finished.
        ended: bool,
        /// This answers a `Finalize`.
        settles: bool,
        /// The audio that the words are about: bytes since the connection began.
        from: Option<u64>,
        until: Option<u64>,
    },
    /// The caller has finished.
    Ended,
    /// The recogniser says that something is wrong.
    Fault(String),
    Nothing,
}

impl Streaming {
    /// `None` if this kind of recogniser is asked about one utterance after the other.
    pub(super) fn new(stt: &Stt) -> Result<Option<Self>, Unusable> {
        match stt {
            Stt::Webhook { .. } | Stt::OpenAi(_) => Ok(None),
            Stt::Deepgram(stt) => Self::deepgram(stt).map(Some),
            Stt::Vosk(stt) => Self::vosk(stt).map(Some),
        }
    }

    fn deepgram(stt: &DeepgramStt) -> Result<Self, Unusable> {
        let authorization =
            stt.api_key.as_ref().map(|key| ("Authorization".to_owned(), Secret(format!("Token {}", key.0))));
        let target = Target::new(&stt.endpoint, "/listen", &deepgram::query(stt), authorization)?;
        Ok(Self { target, wire: Wire::Deepgram, next: AtomicUsize::new(0), patience: Patience::default() })
    }

    fn vosk(stt: &VoskStt) -> Result<Self, Unusable> {
        let target = Target::new(&stt.endpoint, "", "", None)?;
        Ok(Self {
            target,
            wire: Wire::Vosk { opening: vosk::opening(stt) },
            next: AtomicUsize::new(0),
            patience: Patience::default(),
        })
    }

    /// Begins to listen to a call.
    pub(super) fn start(self: Arc<Self>, to: Sender<Input<'static>>, on_done: OnDone) -> Recogniser {
        let tape = Arc::<Tape>::default();
        tokio::spawn(Listener::new(self, Arc::clone(&tape), to, on_done).run());
        Recogniser { tape }
    }

    pub(super) fn upstream(&self) -> &str {
        &self.target.upstream.name
    }

    /// The server for the next connection.
    fn turn(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Target {
    /// `path` is what the endpoint's own must end in.
    pub(super) fn new(
        endpoint: &Endpoint,
        path: &str,
        query: &str,
        authorization: Option<(String, Secret)>,
    ) -> Result<Self, Unusable> {
        let upstream = &endpoint.upstream;
        let unusable = |why: &str| Unusable { upstream: upstream.name.clone(), why: why.to_owned() };
        if upstream.servers.is_empty() {
            return Err(unusable("no servers"));
        }
        let (own_path, own_query) = endpoint.path.split_once('?').unwrap_or((&endpoint.path, ""));
        let own_path = own_path.trim_end_matches('/');
        let path = format!("{own_path}{}", if own_path.ends_with(path) { "" } else { path });
        let path = if path.is_empty() { "/" } else { &path };
        let queries: Vec<&str> = [query, own_query].into_iter().filter(|query| !query.is_empty()).collect();
        let query = if queries.is_empty() { String::new() } else { format!("?{}", queries.join("&")) };
        let scheme = if upstream.tls { "wss" } else { "ws" };
        let server = |address: &String| {
            let shown = format!("{scheme}://{address}{path}");
            Server { address: address.clone(), url: format!("{shown}{query}"), shown }
        };
        Ok(Target {
            servers: upstream.servers.iter().map(server).collect(),
            headers: endpoint.headers.iter().cloned().chain(authorization).collect(),
            tls: if upstream.tls { Some(tls().map_err(|why| unusable(&why))?) } else { None },
            upstream: upstream.clone(),
        })
    }

    fn first_answer(&self) -> Duration {
        self.upstream.first_byte_timeout.min(FIRST_ANSWER)
    }

    fn stall(&self) -> Duration {
        self.upstream.stall_timeout.min(STALL)
    }

    /// The key, which a vendor may repeat in what it says.
    fn secret(&self) -> Option<&str> {
        let authorization =
            self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"))?;
        authorization.1.0.split_whitespace().last()
    }
}

/// Trusts whom the machine trusts. Reading that takes a while: once for all calls.
fn tls() -> Result<Arc<rustls::ClientConfig>, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("no certificate authorities on this machine: install ca-certificates".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

impl Wire {
    /// What a connection begins with.
    fn opening(&self) -> Option<Message> {
        match self {
            Wire::Deepgram => None,
            Wire::Vosk { opening } => Some(Message::text(opening.clone())),
        }
    }

    fn audio(&self, mulaw: Vec<u8>) -> Message {
        match self {
            Wire::Deepgram => Message::binary(mulaw),
            Wire::Vosk { .. } => Message::binary(vosk::pcm16(&mulaw)),
        }
    }

    /// Asks for what was said so far.
    fn finalize(&self) -> &'static str {
        match self {
            Wire::Deepgram => deepgram::FINALIZE,
            Wire::Vosk { .. } => vosk::EOF,
        }
    }

    /// The last words of a connection.
    fn close(&self) -> &'static str {
        match self {
            Wire::Deepgram => deepgram::CLOSE,
            Wire::Vosk { .. } => vosk::EOF,
        }
    }

    /// What to say when there has been nothing to say for a while.
    fn keep_alive(&self) -> Option<&'static str> {
        match self {
            Wire::Deepgram => Some(deepgram::KEEP_ALIVE),
            Wire::Vosk { .. } => None,
        }
    }

    /// Each message of audio has one answer, and the answer to `finalize` is the last.
    fn answers_each(&self) -> bool {
        match self {
            Wire::Deepgram => false,
            Wire::Vosk { .. } => true,
        }
    }

    fn understand(&self, text: &str) -> Result<Said, String> {
        match self {
            Wire::Deepgram => deepgram::understand(text),
            Wire::Vosk { .. } => vosk::understand(text),
        }
    }
}
