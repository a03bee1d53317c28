//! One call, as a value: inputs and the time go in, outputs and the next deadline come out.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod event;
mod input;
mod output;

pub use event::{Event, State, TurnResult, Why};
pub use input::{Action, Failure, FailureKind, Input, Job, Service, StopReason};
pub use output::{Output, Question};
