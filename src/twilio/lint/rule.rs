//! What can be wrong with TwiML that starts a media stream: the name of each rule, the code that
//! Twilio would raise, why it matters and what to write instead.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    ContentType,
    NotXml,
    LeadingSpace,
    TooLong,
    Case,
    Misplaced,
    Start,
    Scheme,
    BadUrl,
    Query,
    DoubleSlash,
    Track,
    SeveralStreams,
    Parameter,
    NoCallSid,
    NoStatusCallback,
    StatusCallback,
    Play,
    NoClosingVerb,
    Pause,
}

impl Rule {
    pub const ALL: [Rule; 20] = [
        Self::ContentType,
        Self::NotXml,
        Self::LeadingSpace,
        Self::TooLong,
        Self::Case,
        Self::Misplaced,
        Self::Start,
        Self::Scheme,
        Self::BadUrl,
        Self::Query,
        Self::DoubleSlash,
        Self::Track,
        Self::SeveralStreams,
        Self::Parameter,
        Self::NoCallSid,
        Self::NoStatusCallback,
        Self::StatusCallback,
        Self::Play,
        Self::NoClosingVerb,
        Self::Pause,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ContentType => "content_type",
            Self::NotXml => "not_xml",
            Self::LeadingSpace => "leading_space",
            Self::TooLong => "too_long",
            Self::Case => "case",
            Self::Misplaced => "misplaced",
            Self::Start => "start",
            Self::Scheme => "scheme",
            Self::BadUrl => "bad_url",
            Self::Query => "query",
            Self::DoubleSlash => "double_slash",
            Self::Track => "track",
            Self::SeveralStreams => "several_streams",
            Self::Parameter => "parameter",
            Self::NoCallSid => "no_call_sid",
            Self::NoStatusCallback => "no_status_callback",
            Self::StatusCallback => "status_callback",
            Self::Play => "play",
            Self::NoClosingVerb => "no_closing_verb",
            Self::Pause => "pause",
        }
    }

    /// What Twilio's console would show; `None` where it says nothing and only the caller suffers.
    pub fn code(self) -> Option<u16> {
        match self {
            Self::ContentType => Some(12300),
            Self::NotXml | Self::LeadingSpace => Some(12100),
            Self::TooLong => Some(11750),
            Self::Case | Self::Misplaced => Some(12200),
            Self::Start => Some(31924),
            Self::Scheme => Some(31922),
            Self::BadUrl => Some(31923),
            Self::Query | Self::DoubleSlash => Some(31920),
            Self::Track | Self::SeveralStreams => Some(31941),
            Self::Parameter
            | Self::NoCallSid
            | Self::NoStatusCallback
            | Self::StatusCallback
            | Self::Play
            | Self::NoClosingVerb
            | Self::Pause => None,
        }
    }

    /// What comes of it.
    pub fn why(self) -> &'static str {
        match self {
            Self::ContentType => "Twilio takes no TwiML of this type, and reads plain text out to the caller",
            Self::NotXml => "Twilio cannot read this as TwiML: the caller hears an application error",
            Self::LeadingSpace => "something stands before <?xml …?>: Twilio cannot read it",
            Self::TooLong => "Twilio takes 64 kB of TwiML and no more",
            Self::Case => "the names of TwiML are case-sensitive: Twilio skips this one",
            Self::Misplaced => "a <Stream> outside of <Connect> and <Start> does nothing",
            Self::Start => "<Start> only listens: what the bot says never reaches the caller",
            Self::Scheme => "Twilio streams to wss:// only",
            Self::BadUrl => "the url of the <Stream> is malformed",
            Self::Query => "Twilio drops the query of a <Stream> url, or refuses it",
            Self::DoubleSlash => "a path with // is another path: nothing may answer there",
            Self::Track => "<Connect> knows only the inbound_track",
            Self::SeveralStreams => "a call has one two-way stream",
            Self::Parameter => "name and value of a <Parameter> have 500 characters between them",
            Self::NoCallSid => "the bot is not told which call this is by a <Parameter>",
            Self::NoStatusCallback => "nobody is told when a stream fails, and why",
            Self::StatusCallback => "a statusCallback is an absolute URL",
            Self::Play => "a <Play> makes the caller wait, and cannot be interrupted",
            Self::NoClosingVerb => "nothing says what happens when the stream ends or fails",
            Self::Pause => "a <Pause> at the end keeps the call up in silence when the bot has hung up",
        }
    }

    /// What to write instead.
    pub fn cure(self) -> &'static str {
        match self {
            Self::ContentType => "answer with Content-Type: text/xml",
            Self::NotXml => "answer with <Response>…</Response>, & written as &amp;",
            Self::LeadingSpace => "begin the answer with <?xml, or leave that line out",
            Self::TooLong => "send less; data goes by <Parameter>, or stays in the app",
            Self::Case => "write it with Twilio's capitals: Response, Connect, Stream, Parameter, Hangup",
            Self::Misplaced | Self::Start => "put the <Stream> into <Connect>",
            Self::Scheme => "write wss:// in the url of the <Stream>",
            Self::BadUrl => "write wss://HOST/PATH; is a variable of the template unfilled?",
            Self::Query => "put the data into <Parameter name=\"…\" value=\"…\"/>",
            Self::DoubleSlash => "join host and path with one /",
            Self::Track => "leave `track` out",
            Self::SeveralStreams => "keep one <Stream> in <Connect>",
            Self::Parameter => "send less, or a key to it",
            Self::NoCallSid => "add <Parameter name=\"call_sid\" value=\"…\"/>",
            Self::NoStatusCallback => "add statusCallback=\"https://HOST/webhook/stream_status\"",
            Self::StatusCallback => "write it with https:// and the host",
            Self::Play => "let the bot greet: [turn] greeting",
            Self::NoClosingVerb => "add <Hangup/> behind </Connect>",
            Self::Pause => "end in <Hangup/>",
        }
    }

    /// Whether it can be mended without a guess at what was meant.
    pub fn is_safe_to_mend(self) -> bool {
        matches!(
            self,
            Self::LeadingSpace
                | Self::Scheme
                | Self::Query
                | Self::DoubleSlash
                | Self::Track
                | Self::NoStatusCallback
                | Self::StatusCallback
                | Self::NoClosingVerb
        )
    }
}
