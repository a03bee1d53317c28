//! Calls that a model conducts: what callers live through, and what holds whatever happens.

mod properties;
mod stories;
mod waits;
mod world;
