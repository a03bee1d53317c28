//! Calls as OpenTelemetry sees them: one trace a call, a span a turn and a span a stage of it, made from
//! the call's events. Whoever observes a call only puts a span into a queue; it never waits for one.

mod export;
mod span;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, Sender};
use tokio::sync::oneshot;
use tokio::time::timeout;

pub use export::Exporter;
pub(super) use span::Spans;

use super::call::CallLabels;
use super::metrics::Metrics;
use crate::call::{SpanId, Trace};
use crate::config;
use opentelemetry_proto::tonic::trace::v1::Span;

/// Spans that wait; what comes on top is dropped and counted. A turn makes some six.
const MOST_WAITING: usize = 4096;
/// How long the last spans may take to leave when the process ends.
const FLUSH: Duration = Duration::from_secs(2);

enum Told {
    Span(Box<Span>),
    /// Everything before this is to leave now.
    Flush(oneshot::Sender<()>),
}

/// Where spans go.
pub struct Traces {
    queue: Sender<Told>,
    metrics: Arc<Metrics>,
}

impl Traces {
    /// The queue, and what empties it.
    pub fn new(config: &config::Traces, metrics: &Arc<Metrics>) -> Result<(Traces, Exporter), String> {
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        let exporter = Exporter::new(config, waiting, metrics.clone())?;
        Ok((Traces { queue, metrics: metrics.clone() }, exporter))
    }

    /// The trace of a call that begins here.
    pub fn of_call(&self, call_sid: &str) -> Trace {
        Trace::of_call(call_sid, new_span())
    }

    pub(super) fn call(&self, trace: &Trace, labels: &CallLabels) -> Spans {
        Spans::new(self.queue.clone(), self.metrics.clone(), trace.clone(), labels)
    }

    /// Waits until what was told has left, but not long.
    pub async fn flush(&self) {
        let (done, left) = oneshot::channel();
        let flush = async {
            if self.queue.send(Told::Flush(done)).await.is_ok() {
                let _ = left.await;
            }
        };
        let _ = timeout(FLUSH, flush).await;
    }
}

fn new_span() -> SpanId {
    RandomState::new().hash_one(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Event, TurnResult};

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let config = config::Traces {
            endpoint: "http://127.0.0.1:1/v1/traces".to_owned(),
            service_name: "voxgate".to_owned(),
            headers: Vec::new(),
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        // Nobody empties the queue.
        let (traces, _exporter) = Traces::new(&config, &metrics).unwrap();
        let labels = CallLabels { call_sid: "CA1".to_owned(), stream_sid: "MZ1".to_owned() };
        let mut spans = traces.call(&traces.of_call("CA1"), &labels);
        for turn in 0..MOST_WAITING as u64 + 3 {
            spans.event(&Event::TurnEnded { turn, result: TurnResult::Answered });
        }
        assert_eq!(metrics.spans.with_label_values(&["dropped"]).get(), 3);
    }
}
