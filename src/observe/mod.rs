//! What an operator sees: one event type becomes a log line and a metric, here and nowhere else.

mod call;
mod http;
mod labels;
mod log;
mod metrics;
mod pace;
mod refused;
mod segments;
mod timeline;
mod traces;

pub use call::{CallLabels, CallObserver, Ending, never_began};
pub use labels::{Route, SignedKind};
pub use log::{EVERY_REQUEST, Log, init as init_log};
pub use metrics::Metrics;
pub use refused::{Busy, HandshakeResult, TwimlFallback};
pub use timeline::Timeline;
pub use traces::{Exporter, Traces};
