//! Why a call is not taken: the labels of what is turned away.

/// What there is no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    Draining,
    Capacity,
    /// Too many sockets have not said `start`.
    Unstarted,
    Memory,
    /// The caller has enough calls.
    Number,
}

impl Busy {
    pub const ALL: [Busy; 5] = [Self::Draining, Self::Capacity, Self::Unstarted, Self::Memory, Self::Number];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Capacity => "capacity",
            Self::Unstarted => "unstarted",
            Self::Memory => "memory",
            Self::Number => "number",
        }
    }

    pub fn why(self) -> &'static str {
        match self {
            Self::Draining => "this gateway is going down",
            Self::Capacity => "[limits] max_calls are under way",
            Self::Unstarted => "[limits] max_unstarted sockets have not said `start`",
            Self::Memory => "more memory than [limits] max_memory_mb is in use",
            Self::Number => "[limits] max_calls_per_number are under way with this caller",
        }
    }
}

/// What became of a request at the media path.
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
    /// Too many from one address: 429.
    RateLimited,
    Busy(Busy),
}

impl HandshakeResult {
    pub(super) fn all() -> impl Iterator<Item = HandshakeResult> {
        let own = [
            Self::Ok,
            Self::NoUpgrade,
            Self::BadRequest,
            Self::BadSignature,
            Self::BadToken,
            Self::RateLimited,
        ];
        // Who calls is known only to the voice webhook.
        let busy = Busy::ALL.into_iter().filter(|busy| *busy != Busy::Number);
        own.into_iter().chain(busy.map(Self::Busy))
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoUpgrade => "no_upgrade",
            Self::BadRequest => "bad_request",
            Self::BadSignature => "bad_signature",
            Self::BadToken => "bad_token",
            Self::RateLimited => "rate_limited",
            Self::Busy(busy) => busy.as_str(),
        }
    }
}

/// Why a caller hears TwiML of the operator's in the place of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TwimlFallback {
    AppDown,
    App5xx,
    Busy(Busy),
}

impl TwimlFallback {
    pub(super) fn all() -> impl Iterator<Item = TwimlFallback> {
        [Self::AppDown, Self::App5xx].into_iter().chain(Busy::ALL.map(Self::Busy))
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::AppDown => "app_down",
            Self::App5xx => "app_5xx",
            Self::Busy(busy) => busy.as_str(),
        }
    }
}
