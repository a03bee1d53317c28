//! Calls as OpenTelemetry sees them: one trace a call, a span a turn and a span a stage of it, made from
//! the call's events. Whoever observes a call only puts a span into a queue; it never waits for one.

mod export;
mod span;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, Sender};
use tokio::sync::oneshot;
use tokio::time::timeout;

pub use export::Exporter;
pub(super) use span::Spans;

use super::call::CallLabels;
use super::metrics::Metrics;
use crate::config;
use crate::upstream::Trace;
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
