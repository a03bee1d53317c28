//! What came of a call: its timeline and its figures.

use super::carrier::Spurt;
use super::check::Violation;
use hdrhistogram::Histogram;
use std::fmt;
use std::time::Duration;

/// At most that many violations are kept with their text; all are counted.
const KEPT: usize = 50;

/// Something that happened, in milliseconds since `start` was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    pub ms: u64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// 101 came; `start` goes out.
    Connected {
        handshake: Duration,
        subprotocol: Option<String>,
    },
    SaidStart,
    /// The last voiced frame went out.
    SaidEnd,
    /// The first frame of a reply, or of a greeting (no latency), came.
    ReplyStart {
        latency: Option<Duration>,
    },
    /// A spurt began that answers nothing: a second part of a reply.
    SpurtStart,
    Underrun {
        gap: Duration,
    },
    MarkReceived(String),
    MarkReturned(String),
    ClearReceived {
        thrown: Duration,
        since_barge_in: Option<Duration>,
    },
    Dtmf(char),
    Ping,
    Violation(Violation),
    GaveUp(String),
    HungUp,
    Closed(Close),
}

/// How the socket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The server's close code; 1005 if it gave none, 1006 if the connection just went.
    pub code: u16,
    pub reason: String,
    pub by_server: bool,
}

/// Something said and what was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// When the first and the last voiced frame went out.
    pub said_at: Duration,
    pub said_until: Option<Duration>,
    /// When the first frame, and the first frame with something to hear, came back.
    pub reply_at: Option<Duration>,
    pub audible_at: Option<Duration>,
    /// The reply began before the caller had finished: an echo, or a server that talks over people.
    pub early: bool,
    /// It was said into a reply.
    pub interrupts: bool,
}

impl Turn {
    /// From the caller's last voiced frame to the first frame of the reply.
    pub fn latency(&self) -> Option<Duration> {
        Some(self.reply_at?.saturating_sub(self.said_until?))
    }

    /// The same to the first frame with something to hear.
    pub fn audible_latency(&self) -> Option<Duration> {
        Some(self.audible_at?.saturating_sub(self.said_until?))
    }
}

/// An interruption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BargeIn {
    /// When its first voiced frame went out.
    pub at: Duration,
    /// From then to the arrival of `clear`.
    pub clear: Option<Duration>,
    /// How much of the old reply the caller still heard from then on.
    pub heard_after: Option<Duration>,
}

/// Everything that one call showed.
#[derive(Clone, Debug)]
pub struct CallReport {
    pub stream_sid: String,
    pub call_sid: String,
    /// From the first SYN to the 101.
    pub handshake: Duration,
    pub subprotocol: Option<String>,
    /// From `start` to the end of the socket.
    pub duration: Duration,
    /// Empty unless [`super::CallOptions::record`].
    pub timeline: Vec<Moment>,
    /// What the caller heard, μ-law from `start` on; empty unless recorded.
    pub heard: Vec<u8>,
    pub spurts: Vec<Spurt>,
    pub turns: Vec<Turn>,
    pub barge_ins: Vec<BargeIn>,
    /// How late frames came against the 20 ms grid, in µs: see `meter.rs`.
    pub lateness: Histogram<u32>,
    /// How late this caller's own frames went out, in µs. If this is large, the generator was short
    /// of processor time, and the other figures say less about the server.
    pub own_lateness: Histogram<u32>,
    pub max_gap: Duration,
    pub underruns: u64,
    pub gap_total: Duration,
    pub max_lead: Duration,
    pub frames_in: u64,
    pub bytes_in: u64,
    pub frames_out: u64,
    pub marks_in: u64,
    pub marks_out: u64,
    pub clears: u64,
    pub pings: u64,
    pub violations: Vec<Violation>,
    pub violation_count: u64,
    /// Steps of the script that waited in vain.
    pub gave_up: Vec<String>,
    /// Utterances of the script that the call ended before.
    pub unsaid: usize,
    pub close: Option<Close>,
}

/// A histogram of microseconds up to a minute, of a few KiB, since every call of a crowd has two.
pub(super) fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, 60_000_000, 2)
        .unwrap_or_else(|e| unreachable!("constant bounds are valid: {e}"))
}

impl CallReport {
    pub(super) fn new(stream_sid: &str, call_sid: &str) -> CallReport {
        CallReport {
            stream_sid: stream_sid.to_owned(),
            call_sid: call_sid.to_owned(),
            handshake: Duration::ZERO,
            subprotocol: None,
            duration: Duration::ZERO,
            timeline: Vec::new(),
            heard: Vec::new(),
            spurts: Vec::new(),
            turns: Vec::new(),
            barge_ins: Vec::new(),
            lateness: histogram(),
            own_lateness: histogram(),
            max_gap: Duration::ZERO,
            underruns: 0,
            gap_total: Duration::ZERO,
            max_lead: Duration::ZERO,
            frames_in: 0,
            bytes_in: 0,
            frames_out: 0,
            marks_in: 0,
            marks_out: 0,
            clears: 0,
            pings: 0,
            violations: Vec::new(),
            violation_count: 0,
            gave_up: Vec::new(),
            unsaid: 0,
            close: None,
        }
    }

    /// Counts a violation, and says whether it was also kept.
    pub(super) fn violation(&mut self, violation: Violation) -> bool {
        self.violation_count += 1;
        let kept = self.violations.len() < KEPT;
        if kept {
            self.violations.push(violation);
        }
        kept
    }

    /// Why this call does not count as served; `None` if it does.
    pub fn problem(&self) -> Option<String> {
        // A bot may say goodbye and hang up, once the caller has said everything.
        let goodbye = |close: &Close| close.code == 1000 && self.unsaid == 0;
        if let Some(close) = self.close.as_ref().filter(|close| close.by_server && !goodbye(close)) {
            let Close { code, reason, .. } = close;
            let seconds = self.duration.as_secs_f32();
            return Some(format!(
                "the server closed the socket after {seconds:.1} s with {code} {reason:?} (Twilio: 31921): \
                 look for this call in the server's log ({})",
                self.call_sid
            ));
        }
        if let Some(violation) = self.violations.first() {
            return Some(format!(
                "{} messages that Twilio would not take, the first {violation}: correct what the server sends",
                self.violation_count
            ));
        }
        let unanswered = self.turns.iter().filter(|turn| turn.reply_at.is_none()).count();
        if unanswered > 0 {
            let hint = if self.frames_in == 0 {
                "101 and silence: no frame was ever sent; is TTS blocking the media path?"
            } else {
                "look for an STT, agent or TTS failure in the server's log"
            };
            return Some(format!(
                "{unanswered} of {} utterances had no reply ({}): {hint}",
                self.turns.len(),
                self.gave_up.first().map_or("the call ended first", |gave_up| gave_up.as_str()),
            ));
        }
        self.gave_up
            .first()
            .map(|gave_up| format!("{gave_up}: raise --timeout or look into the server's log"))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6}.{:03} s  {}", self.ms / 1_000, self.ms % 1_000, self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: &Duration| d.as_millis();
        match self {
            What::Connected { handshake, subprotocol } => {
                let subprotocol = subprotocol.as_deref().unwrap_or("no subprotocol");
                write!(f, "101 after {:.1} ms, {subprotocol}", handshake.as_secs_f64() * 1e3)
            }
            What::SaidStart => write!(f, "caller speaks"),
            What::SaidEnd => write!(f, "caller has spoken"),
            What::ReplyStart { latency: Some(latency) } => write!(f, "reply, after {} ms", ms(latency)),
            What::ReplyStart { latency: None } => write!(f, "server speaks"),
            What::SpurtStart => write!(f, "more audio from the server"),
            What::Underrun { gap } => write!(f, "underrun: {} ms of silence inside the reply", ms(gap)),
            What::MarkReceived(name) => write!(f, "mark {name} received"),
            What::MarkReturned(name) => write!(f, "mark {name} returned"),
            What::ClearReceived { thrown, since_barge_in } => {
                write!(f, "clear: {} ms thrown away", ms(thrown))?;
                since_barge_in.map_or(Ok(()), |d| write!(f, ", {} ms after the interruption", ms(&d)))
            }
            What::Dtmf(digit) => write!(f, "caller presses {digit}"),
            What::Ping => write!(f, "ping answered"),
            What::Violation(violation) => write!(f, "VIOLATION {violation}"),
            What::GaveUp(what) => write!(f, "GAVE UP: {what}"),
            What::HungUp => write!(f, "caller hangs up"),
            What::Closed(Close { code, reason, by_server }) => {
                let who = if *by_server { "server closed" } else { "closed" };
                write!(f, "{who}: {code} {reason}")
            }
        }
    }
}
