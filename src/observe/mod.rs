//! What an operator sees: one event type becomes a log line and a metric, here and nowhere else.

mod call;
mod log;
mod metrics;
mod refused;
mod timeline;

pub use call::{CallLabels, CallObserver, Ending};
pub use log::init as init_log;
pub use metrics::{Metrics, Route, SignedKind};
pub use refused::{Busy, HandshakeResult, TwimlFallback};
pub use timeline::Timeline;
