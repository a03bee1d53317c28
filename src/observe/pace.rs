//! What is seen fifty times a second in each call: gathered without a lock, and told once a second, by
//! the caller's own frames, so that no clock is asked for it.

use std::time::Duration;

use prometheus::local::{LocalHistogram, LocalIntCounter};
use prometheus::{Gauge, Histogram};

use super::metrics::Metrics;
use crate::time::CallTime;

/// A second of the caller's messages.
const TELL_EVERY: u32 = 50;
/// Sums of such fractions are exact, so that the last call leaves a zero.
const FRACTION: f64 = 1024.0;

pub(super) struct Pace {
    frames_in: LocalIntCounter,
    lateness: LocalHistogram,
    jitter: LocalHistogram,
    inference: Histogram,
    /// Audio that waits here, of all calls; and this one's part of it.
    buffers: Gauge,
    buffered: f64,
    /// When the last audio of the caller came, and where in the stream it belongs.
    last: Option<(CallTime, Option<u64>)>,
    messages: u32,
}

impl Pace {
    pub(super) fn new(metrics: &Metrics) -> Pace {
        Pace {
            frames_in: metrics.frames_in.local(),
            lateness: metrics.lateness.local(),
            jitter: metrics.jitter.local(),
            inference: metrics.inference.clone(),
            buffers: metrics.playout_buffer.clone(),
            buffered: 0.0,
            last: None,
            messages: 0,
        }
    }

    /// A frame was sent, so late.
    pub(super) fn sent(&self, late: Duration) {
        self.lateness.observe(late.as_secs_f64());
    }

    /// Audio of the caller came, `long` of it, with which so many frames are whole. True once a second: it
    /// is time to look at the rest.
    pub(super) fn heard(
        &mut self,
        frames: u64,
        long: Duration,
        timestamp_ms: Option<u64>,
        at: CallTime,
    ) -> bool {
        self.frames_in.inc_by(frames);
        if let Some((before, timestamp_before)) = self.last.replace((at, timestamp_ms)) {
            let by_stream = timestamp_ms.zip(timestamp_before).and_then(|(now, then)| now.checked_sub(then));
            let expected = by_stream.map_or(long, Duration::from_millis);
            self.jitter.observe(at.since(before).abs_diff(expected).as_secs_f64());
        }
        self.messages += 1;
        let tell = self.messages.is_multiple_of(TELL_EVERY);
        if tell {
            self.flush();
        }
        tell
    }

    /// How long one frame of the caller's took.
    pub(super) fn took(&self, one_frame: Duration) {
        self.inference.observe(one_frame.as_secs_f64());
    }

    /// So much audio waits to be sent.
    pub(super) fn buffered(&mut self, waits: Duration) {
        let now = (waits.as_secs_f64() * FRACTION).round() / FRACTION;
        self.buffers.add(now - self.buffered);
        self.buffered = now;
    }

    pub(super) fn flush(&self) {
        self.frames_in.flush();
        self.lateness.flush();
        self.jitter.flush();
    }
}

/// However a call ends, nothing of it is left behind.
impl Drop for Pace {
    fn drop(&mut self) {
        self.flush();
        self.buffers.sub(self.buffered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> CallTime {
        CallTime::from_millis(ms)
    }

    #[test]
    fn jitter_is_what_the_stream_does_not_explain_and_is_told_once_a_second() {
        let metrics = Metrics::new().expect("metrics");
        let mut pace = Pace::new(&metrics);
        let frame = Duration::from_millis(20);
        for n in 0..49 {
            assert!(!pace.heard(1, frame, Some(n * 20), ms(n * 20 + 7)));
        }
        assert_eq!((metrics.jitter.get_sample_count(), metrics.frames_in.get()), (0, 0), "not told yet");
        assert!(pace.heard(1, frame, Some(49 * 20), ms(49 * 20 + 7 + 5)));
        assert_eq!(metrics.jitter.get_sample_count(), 49, "between fifty");
        assert!((metrics.jitter.get_sample_sum() - 0.005).abs() < 1e-9);
        // A second that was lost on the way is no jitter. Without timestamps, the audio's own length.
        pace.heard(1, frame, Some(2_000), ms(2_012));
        pace.heard(3, Duration::from_millis(60), None, ms(2_072));
        drop(pace);
        assert_eq!((metrics.jitter.get_sample_count(), metrics.frames_in.get()), (51, 54));
        assert!(
            (metrics.jitter.get_sample_sum() - 0.005).abs() < 1e-9,
            "{}",
            metrics.jitter.get_sample_sum()
        );
    }

    #[test]
    fn what_waits_is_summed_over_calls_and_gone_with_them() {
        let metrics = Metrics::new().expect("metrics");
        let (mut one, mut other) = (Pace::new(&metrics), Pace::new(&metrics));
        one.buffered(Duration::from_millis(100));
        other.buffered(Duration::from_millis(300));
        one.buffered(Duration::from_millis(160));
        assert!((metrics.playout_buffer.get() - 0.46).abs() < 2.0 / FRACTION);
        drop(other);
        drop(one);
        assert_eq!(metrics.playout_buffer.get().to_bits(), 0.0_f64.to_bits());
    }
}
