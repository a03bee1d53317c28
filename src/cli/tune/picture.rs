//! What there is to see of a call: series of values, spans and marks, each with a name and a look.
//! Whoever knows more of a frame adds a series with a name of its own, and it is drawn.

/// Where something is drawn, from top to bottom. A lane that nothing is in takes no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// How loud the caller is: 20·log10 of the RMS on the 16-bit scale.
    Caller,
    /// What the detector thinks: 0 to 1.
    Probability,
    /// Frames that count as speech.
    Speech,
    /// The caller's pause, and how long it has to be: seconds.
    Pause,
    /// The bot holds its tongue.
    Hold,
    /// How loud the bot is, as it is played.
    Bot,
    State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Filled from below, a step for each point.
    Area,
    /// Interrupted where there are no points.
    Line,
    /// A value that always holds.
    Dashes,
}

#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) lane: Lane,
    pub(super) kind: Kind,
    pub(super) colour: &'static str,
    /// Seconds, value; one each frame, or where it changes. A gap is a time without points.
    pub(super) points: Vec<(f64, f32)>,
}

#[derive(Debug)]
pub(super) struct Span {
    pub(super) name: &'static str,
    pub(super) lane: Lane,
    pub(super) colour: &'static str,
    pub(super) from: f64,
    pub(super) to: f64,
}

/// A decision, or something that came.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) name: &'static str,
    pub(super) colour: &'static str,
    pub(super) at: f64,
    /// What was decided and by which value, in a few words.
    pub(super) text: String,
}

#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) seconds: f64,
    pub(super) series: Vec<Series>,
    pub(super) spans: Vec<Span>,
    pub(super) marks: Vec<Mark>,
}
