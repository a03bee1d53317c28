//! The commands.

pub mod call;
