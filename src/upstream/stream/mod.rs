//! Recognisers that hear the whole call as it is said, over a WebSocket of the call's own. The handle
//! that the call's loop holds never waits; a task of its own does, and ends when the handle goes.
//!
//! A connection that breaks in mid-call is made again, and the audio that the recogniser was not done
//! with is sent again: its words are said once, by whichever connection finishes them. Where there is
//! another recogniser, it is the next to hear them, at once. Only when that takes too long, or what is
//! wrong will not mend itself, does a question fail.

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
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio_tungstenite::tungstenite::Message;

use self::listener::{Listener, Patience};
use self::tape::Tape;
use super::health::Health;
use super::http::Unusable;
use super::observed::Tell;
use super::{CallIds, Pools};
use crate::call::Posted;
use crate::config::{Endpoint, OpenAiStt, Secret, Stt, Upstream};

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

/// The recognisers as configured, in the order in which they are asked; shared by all calls.
pub(super) struct Streaming {
    /// Never empty.
    sources: Vec<Arc<Source>>,
    /// How long one has until it has said anything, where there is another.
    after: Duration,
    patience: Patience,
}

/// A recogniser.
struct Source {
    target: Target,
    wire: Wire,
    health: Arc<Health>,
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
    pub(super) fn new(all: &[&Stt], after: Duration, pools: &mut Pools) -> Result<Self, Unusable> {
        let sources =
            all.iter().map(|stt| Source::new(stt, pools).map(Arc::new)).collect::<Result<_, _>>()?;
        Ok(Streaming { sources, after, patience: Patience::default() })
    }

    /// Begins to listen to a call.
    pub(super) fn start(self: Arc<Self>, ids: &Arc<CallIds>, to: Sender<Posted>, tell: Tell) -> Recogniser {
        let tape = Arc::<Tape>::default();
        if let Some(source) = self.sources.first().cloned() {
            let listener = Listener::new(self, source, Arc::clone(&tape), Arc::clone(ids), to, tell);
            tokio::spawn(listener.run());
        }
        Recogniser { tape }
    }

    pub(super) fn upstream(&self) -> &str {
        self.sources.first().map_or("", |source| source.upstream())
    }
}

impl Source {
    fn new(stt: &Stt, pools: &mut Pools) -> Result<Self, Unusable> {
        let health = pools.health(&stt.endpoint().upstream);
        let (target, wire) = match stt {
            Stt::Deepgram(stt) => {
                let authorization = stt.api_key.as_ref();
                let authorization =
                    authorization.map(|key| ("Authorization".to_owned(), Secret(format!("Token {}", key.0))));
                let target = Target::new(&stt.endpoint, "/listen", &deepgram::query(stt), authorization)?;
                (target, Wire::Deepgram)
            }
            Stt::Vosk(stt) => {
                let target = Target::new(&stt.endpoint, "", "", None)?;
                (target, Wire::Vosk { opening: vosk::opening(stt) })
            }
            Stt::Webhook { endpoint, .. } | Stt::OpenAi(OpenAiStt { endpoint, .. }) => {
                let upstream = endpoint.upstream.name.clone();
                return Err(Unusable { upstream, why: "hears utterances, not calls".to_owned() });
            }
        };
        Ok(Source { target, wire, health })
    }

    fn upstream(&self) -> &str {
        &self.target.upstream.name
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
        // One that the operator wrote counts.
        let wrote = |name: &str| endpoint.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let authorization = authorization.filter(|(name, _)| !wrote(name));
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
