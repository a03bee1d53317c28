//! The configuration as meant: durations, addresses and enums, every value checked.

mod dialogue;

pub use dialogue::*;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub server: Server,
    pub admin: Admin,
    pub log: Log,
    pub twilio: Twilio,
    pub turn: Turn,
    pub playout: Playout,
    pub dialogue: Dialogue,
    /// The app behind the gateway: every HTTP path that is not the gateway's own.
    pub app: Upstream,
    pub recording: Recording,
    /// `None` where calls are not traced.
    pub traces: Option<Traces>,
    pub limits: Limits,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub listen: SocketAddr,
    /// `https://bot.example.com`, without a trailing slash; `None` where it was not said.
    pub public_url: Option<String>,
    pub deploy_id: String,
    pub drain: Duration,
    /// Spoken to who is still there then; empty for none.
    pub drain_goodbye: String,
    /// Worker threads; 0 is one a core.
    pub threads: usize,
    /// `None` where something in front terminates TLS. With `acme`, where the certificate will be.
    pub tls: Option<Tls>,
    /// Who gets and renews the certificate, where no person does.
    pub acme: Option<Acme>,
    /// Whose word counts about where a request came from.
    pub trusted_proxies: Vec<IpNet>,
    /// They say so by the PROXY protocol, before anything else.
    pub proxy_protocol: bool,
}

/// Two PEM files; they may change at any time.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// The certificate and its chain.
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Certificates by the protocol ACME, proved by HTTP-01.
#[derive(Clone, Debug, PartialEq)]
pub struct Acme {
    /// Whom the certificate is for: at least one, in small letters.
    pub names: Vec<String>,
    pub email: String,
    /// Where plain HTTP is served, by which the issuer asks for proof.
    pub listen: SocketAddr,
    /// Where accounts and certificates are kept, a folder for each issuer.
    pub folder: PathBuf,
    /// The issuer: where its directory is.
    pub directory: String,
    /// The authorities by which the issuer's server is known; `None` for the system's.
    pub root: Option<PathBuf>,
    /// The first wait after a failure.
    pub retry: Duration,
}

impl Acme {
    /// What one issuer gave: a certificate of a trial is not to stand in for a real one.
    pub fn of_issuer(&self) -> PathBuf {
        let name = self.directory.strip_prefix("https://").unwrap_or(&self.directory);
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        self.folder.join(name.trim_matches('/').chars().map(plain).collect::<String>())
    }

    /// The certificate and its key, which are one file so that they change as one.
    pub fn files(&self) -> Tls {
        let file = self.of_issuer().join("certificate.pem");
        Tls { cert: file.clone(), key: file }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    pub listen: SocketAddr,
    pub token: Option<Secret>,
}

/// Spans of calls, sent as OTLP over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// The URL that they are posted to.
    pub endpoint: String,
    /// By which they are known there.
    pub service_name: String,
    pub headers: Vec<(String, Secret)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub format: LogFormat,
    pub transcripts: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Twilio {
    pub path: String,
    pub subprotocol: String,
    pub ping_interval: Duration,
    pub stream_status: String,
    pub incoming_call: String,
    pub stream_ended: String,
    /// Who answers these two.
    pub twiml: Twiml,
    /// Served TwiML has a call whose stream breaks come back.
    pub resume: bool,
    /// Mends what the app's TwiML has wrong, where that is safe.
    pub twiml_fix: bool,
    /// What the caller hears where the app does not answer a voice webhook; empty for nothing.
    pub fallback_twiml: String,
    /// What the caller hears where no more calls are taken; empty for the app's own answer, or a busy signal.
    pub busy_twiml: String,
    /// Whether a stream must bear the token of the TwiML that voxgate has served.
    pub token: Strictness,
    /// The account's secret at Twilio.
    pub auth_token: Option<Secret>,
    /// What becomes of a webhook or a stream without Twilio's signature.
    pub signature: Strictness,
    /// By these it may be signed as well: while the account's secret changes.
    pub more_auth_tokens: Vec<Secret>,
    pub api: CarrierApi,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twiml {
    Forward,
    Serve,
}

/// What becomes of a request that does not show where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    Off,
    /// Says so and lets the call in.
    Warn,
    Enforce,
}

impl Twilio {
    /// The secrets by which Twilio may have signed.
    pub fn auth_tokens(&self) -> Vec<&str> {
        self.auth_token.iter().chain(&self.more_auth_tokens).map(|token| token.0.as_str()).collect()
    }
}

/// Twilio's REST API, by which calls are ended and taken elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct CarrierApi {
    /// Where it begins, without a slash at its end.
    pub url: String,
    /// For a whole request.
    pub timeout: Duration,
    /// `None`: that of the call.
    pub account_sid: Option<String>,
    /// `None`: it cannot be asked.
    pub credentials: Option<Credentials>,
    pub hangup: Hangup,
    pub transfer: Transfer,
}

/// How a call ends that the bot ends, where Twilio can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangup {
    Rest,
    /// By closing the stream: the TwiML behind `<Connect>` says what comes next.
    Close,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Of the account.
    AuthToken(Secret),
    /// One of the account's keys, which can be revoked alone.
    ApiKey { sid: String, secret: Secret },
}

/// How a call is put through to somebody else: TwiML's `<Dial>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Whom the other side sees; `None` for the caller.
    pub caller_id: Option<String>,
    /// How long it rings.
    pub timeout: Duration,
    /// The URL that is asked what comes next.
    pub action: Option<String>,
    /// The URL that is told how the other side's call goes on.
    pub status_callback: Option<String>,
    /// Spoken where the call could not be put through.
    pub apology: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    pub vad: Vad,
    /// RMS on the 16-bit scale of one 20 ms frame.
    pub vad_rms: f32,
    pub eou: Duration,
    /// It follows the habit of each caller.
    pub adaptive_eou: bool,
    /// The agent is asked before the caller has certainly finished.
    pub early_agent: bool,
    /// After so much silence the caller is asked once, and then told goodbye; `None` for never.
    pub idle_prompt: Option<Duration>,
    pub idle_prompt_text: String,
    pub idle_hangup: Option<Duration>,
    pub idle_hangup_text: String,
    pub barge_in: bool,
    /// Whose words say "go on" and "stop" to a bot that is speaking: codes of languages.
    pub languages: Vec<String>,
    /// More such words.
    pub backchannels: Vec<String>,
    pub stop_words: Vec<String>,
    pub dedup_window: Duration,
    /// Spoken once per call; empty for none.
    pub greeting: String,
    /// An utterance is taken as finished after this long, whatever the line sounds like.
    pub max_utterance: Duration,
    /// Digits are taken as complete after this long without another…
    pub dtmf_timeout: Duration,
    /// …or as soon as there are so many…
    pub dtmf_num_digits: usize,
    /// …or at this key.
    pub dtmf_finish_on_key: Option<char>,
}

/// Languages whose words for "go on" and "stop" are shipped.
pub const LANGUAGES: [&str; 6] = ["en", "he", "es", "de", "fr", "ru"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vad {
    Neural,
    Rms,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Playout {
    pub lead: Duration,
}

/// Where a service is, and how long it may take.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Its servers, time-outs and bounds.
    pub upstream: Upstream,
    /// Path and query, with the leading slash.
    pub path: String,
    /// Sent with every request.
    pub headers: Vec<(String, Secret)>,
}

impl Endpoint {
    /// The URL of this service on one of its servers.
    pub fn url_of(&self, server: &str) -> String {
        let scheme = if self.upstream.tls { "https" } else { "http" };
        format!("{scheme}://{server}{}", self.path)
    }
}

/// A pool of servers that do the same thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// As the operator named it in `[upstreams.NAME]`, or the host of a `url`.
    pub name: String,
    /// `host:port`, at least one.
    pub servers: Vec<String>,
    pub tls: bool,
    pub connect_timeout: Duration,
    /// From the request to the first byte of the answer.
    pub first_byte_timeout: Duration,
    /// Between two pieces of an answer.
    pub stall_timeout: Duration,
    /// How long an unused connection is kept. Must be below the server's own keep-alive time.
    pub idle_timeout: Duration,
    /// Requests under way at once, over all servers.
    pub max_in_flight: usize,
    pub breaker: BreakerLimits,
    pub health: HealthCheck,
}

/// When a server is not asked any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// So many failures in a row; `None` for never.
    pub failures: Option<NonZeroU32>,
    /// Then for this long, and until a request has gone well.
    pub cooldown: Duration,
}

/// How servers are looked at between requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// GET this, and a 2xx is well; `None` only connects.
    pub path: Option<String>,
    /// Zero for never.
    pub interval: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// Where the tapes are; `None` where calls are not recorded.
    pub folder: Option<PathBuf>,
    /// A tape goes this long after its call.
    pub keep: Duration,
    /// All tapes together, in bytes; the oldest go first.
    pub most_bytes: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub max_calls: usize,
    /// Calls of one caller at once, by its number; 0 for any.
    pub max_calls_per_number: usize,
    /// Sockets whose `start` has not come yet.
    pub max_unstarted: usize,
    /// Handshakes of one address; 0 for any.
    pub handshakes_per_second: usize,
    /// The longest call; `None` for any.
    pub max_call: Option<Duration>,
    /// Spoken then; empty for none.
    pub max_call_goodbye: String,
    /// With more resident memory than this, in bytes, no new calls are taken; 0 for any.
    pub max_memory: u64,
    /// The longest message of the carrier, in bytes.
    pub max_message: usize,
    /// From the handshake to `start`.
    pub start_timeout: Duration,
    /// How long the carrier may leave our audio unread.
    pub write_timeout: Duration,
    /// How long the caller's audio may stay away.
    pub media_timeout: Duration,
    pub http: HttpLimits,
}

/// What a client of the public listener may do to us over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Request line and headers, in bytes.
    pub max_head: usize,
    /// What is forwarded to the app, in bytes; 0 for any.
    pub max_body: u64,
    /// From the first byte of a head, or from the connection, to its end.
    pub head_timeout: Duration,
    /// How long a connection is kept without a request.
    pub keepalive: Duration,
    /// Between two pieces of a body.
    pub body_timeout: Duration,
    /// Bytes a second, on average; 0 for any.
    pub min_body_rate: u64,
}

/// A string that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
