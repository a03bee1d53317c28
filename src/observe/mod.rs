//! What an operator sees: one event type becomes a log line and a metric, here and nowhere else.

mod call;
mod log;
mod metrics;
mod timeline;
mod traces;

pub use call::{CallLabels, CallObserver, Ending};
pub use log::init as init_log;
pub use metrics::{HandshakeResult, Metrics, Route, SignedKind, TwimlFallback};
pub use timeline::Timeline;
pub use traces::{Exporter, Traces};
