//! Calls as stories: a script in, a timeline out, in virtual time.

mod properties;
mod stories;
mod unasked;
pub(in crate::call) mod world;
