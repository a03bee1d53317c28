//! The log of a call that does not happen now: the same lines, at times of their own, as text.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, dispatcher};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::time::FormatTime;

use super::call::{CallLabels, CallObserver, Ending};
use super::metrics::Metrics;
use crate::time::CallTime;

/// What an observer says of a call, without the ids that every line would repeat.
pub struct Timeline {
    clock: Clock,
    text: Text,
    lines: Dispatch,
    observer: CallObserver,
}

impl Timeline {
    pub fn new(metrics: Arc<Metrics>, labels: CallLabels, transcripts: bool) -> Timeline {
        let (clock, text) = (Clock::default(), Text::default());
        let to = text.clone();
        let fields = debug_fn(|line, field, value| match field.name() {
            "call_sid" | "stream_sid" => Ok(()),
            "message" => write!(line, "{value:?}"),
            name => write!(line, " {name}={value:?}"),
        });
        let lines = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::DEBUG)
            .with_timer(clock.clone())
            .with_writer(move || to.clone())
            .with_ansi(false)
            .with_level(false)
            .with_target(false)
            .fmt_fields(fields.delimited(""))
            .finish();
        let observer = CallObserver::new(metrics, labels, transcripts).telling_every_guess();
        Timeline { clock, text, lines: Dispatch::new(lines), observer }
    }

    /// Has something observed that happens at this time.
    pub fn at(&mut self, now: CallTime, observe: impl FnOnce(&mut CallObserver)) {
        self.clock.0.store(now.as_micros(), Ordering::Relaxed);
        dispatcher::with_default(&self.lines, || observe(&mut self.observer));
    }

    /// Something that is not in the log, because it passes through here as it is.
    pub fn passed(&mut self, now: CallTime, what: &str, name: Option<&str>) {
        self.at(now, |_| tracing::info!(name, "{what}"));
    }

    /// Audio of the caller came. It is only counted: no line comes of it.
    pub fn heard(&mut self, bytes: usize) {
        self.observer.heard_then(bytes);
    }

    /// A frame was sent.
    pub fn sent(&mut self) {
        self.observer.sent_then();
    }

    /// The last line, and all of them.
    pub fn end(self, lasted: CallTime) -> String {
        self.clock.0.store(lasted.as_micros(), Ordering::Relaxed);
        let lasted = Duration::from_micros(lasted.as_micros());
        dispatcher::with_default(&self.lines, || self.observer.stopped(lasted, &Ending::default()));
        let text = std::mem::take(&mut *self.text.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Seconds of the call.
#[derive(Clone, Default)]
struct Clock(Arc<AtomicU64>);

impl FormatTime for Clock {
    fn format_time(&self, to: &mut Writer<'_>) -> fmt::Result {
        let us = self.0.load(Ordering::Relaxed);
        write!(to, "{:5}.{:03}", us / 1_000_000, us / 1_000 % 1_000)
    }
}

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
