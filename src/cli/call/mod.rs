pub mod caller;
pub mod carrier;
pub mod check;
mod connect;
mod meter;
pub mod report;
pub mod script;
mod wire;
pub use caller::*;
