//! The values of the metrics' labels that no other room has a type for: closed sets, all of them.

/// How a handshake at the media path ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeResult {
    Ok,
    /// Not an upgrade at all: 426.
    NoUpgrade,
    BadRequest,
    /// Not signed as Twilio signs.
    BadSignature,
    /// Without the token of a call, or with a wrong one.
    BadToken,
    Capacity,
    Draining,
}

impl HandshakeResult {
    pub(super) const ALL: [HandshakeResult; 7] = [
        Self::Ok,
        Self::NoUpgrade,
        Self::BadRequest,
        Self::BadSignature,
        Self::BadToken,
        Self::Capacity,
        Self::Draining,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoUpgrade => "no_upgrade",
            Self::BadRequest => "bad_request",
            Self::BadSignature => "bad_signature",
            Self::BadToken => "bad_token",
            Self::Capacity => "capacity",
            Self::Draining => "draining",
        }
    }
}

/// What Twilio has signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedKind {
    Webhook,
    Handshake,
}

impl SignedKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Handshake => "handshake",
        }
    }
}

/// Who answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Media,
    Healthz,
    Version,
    StreamStatus,
    /// The voice webhooks: answered here, or by the app.
    Voice,
    App,
    /// An upgrade that is passed through to the app.
    AppUpgrade,
    /// An issuer that wants to see proof.
    Acme,
}

impl Route {
    pub(super) const ALL: [Route; 8] = [
        Self::Media,
        Self::Healthz,
        Self::Version,
        Self::StreamStatus,
        Self::Voice,
        Self::App,
        Self::AppUpgrade,
        Self::Acme,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Media => "media",
            Self::Healthz => "healthz",
            Self::Version => "version",
            Self::StreamStatus => "stream_status",
            Self::Voice => "voice",
            Self::App => "app",
            Self::AppUpgrade => "app_upgrade",
            Self::Acme => "acme",
        }
    }
}

/// Why a caller hears the fallback TwiML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TwimlFallback {
    AppDown,
    App5xx,
    /// This gateway is full or going down.
    Busy,
}

impl TwimlFallback {
    pub(super) const ALL: [TwimlFallback; 3] = [Self::AppDown, Self::App5xx, Self::Busy];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::AppDown => "app_down",
            Self::App5xx => "app_5xx",
            Self::Busy => "busy",
        }
    }
}

/// What becomes of a stretch that the detector took for speech.
pub(super) const SPEECH: &str = "speech";
pub(super) const TOO_SHORT: &str = "too_short";
pub(super) const NOISE: &str = "noise";
