//! The gateway as its users meet it: the real program, real sockets, a real Flask app under gunicorn,
//! real speech and a real recogniser. One binary, so that it is linked once.
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there fails")]

mod agents;
mod grafana;
mod tidy;
mod vendors;
mod world;
