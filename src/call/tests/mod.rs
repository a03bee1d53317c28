//! Calls as stories: a script in, a timeline out, in virtual time.

mod control;
mod endings;
mod interruptions;
mod properties;
mod stories;
mod unasked;
mod world;
