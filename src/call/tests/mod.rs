//! Calls as stories: a script in, a timeline out, in virtual time.

mod control;
mod endings;
mod interruptions;
mod last_words;
mod properties;
mod stories;
mod unanswered;
mod unasked;
pub(in crate::call) mod world;
