//! The values of the metrics' labels that no other room has a type for: closed sets, all of them.

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

    /// Whether it may take time: what is answered at once needs no histogram.
    pub(super) fn takes_time(self) -> bool {
        !matches!(self, Self::Healthz | Self::Version | Self::Acme)
    }

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

/// What becomes of a stretch that the detector took for speech.
pub(super) const SPEECH: &str = "speech";
pub(super) const TOO_SHORT: &str = "too_short";
pub(super) const NOISE: &str = "noise";
