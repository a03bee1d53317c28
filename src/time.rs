//! Time within a call: microseconds since the carrier's `start` message. Never read here, always
//! handed in, so that a minute's call is tested in milliseconds.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// The length of one frame of audio on the wire.
pub const FRAME: Duration = Duration::from_millis(20);

/// A moment of a call: µs since `start`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallTime(u64);

impl CallTime {
    pub const ZERO: CallTime = CallTime(0);

    pub const fn from_micros(us: u64) -> CallTime {
        CallTime(us)
    }

    pub const fn from_millis(ms: u64) -> CallTime {
        CallTime(ms * 1_000)
    }

    pub const fn as_micros(self) -> u64 {
        self.0
    }

    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub const fn since(self, earlier: CallTime) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// What a duration has of them: more than there are in a `u64` are as many as there are.
const fn micros(d: Duration) -> u64 {
    d.as_secs().saturating_mul(1_000_000).saturating_add(d.subsec_micros() as u64)
}

impl Add<Duration> for CallTime {
    type Output = CallTime;
    fn add(self, d: Duration) -> CallTime {
        CallTime(self.0.saturating_add(micros(d)))
    }
}

impl Sub<Duration> for CallTime {
    type Output = CallTime;
    fn sub(self, d: Duration) -> CallTime {
        CallTime(self.0.saturating_sub(micros(d)))
    }
}

/// Milliseconds with three decimals: `1234.500 ms`.
impl fmt::Display for CallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} ms", self.0 / 1_000, self.0 % 1_000)
    }
}
