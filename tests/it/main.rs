//! The gateway as its users meet it: the real program, real sockets, a real Flask app under gunicorn,
//! real speech and a real recogniser. One binary, so that it is linked once.
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there fails")]
#![allow(unreachable_pub, reason = "`pub` is what a module of the tests offers to the others")]

mod acme;
mod admin;
mod agents;
mod app_faults;
mod audio_quality;
mod chaos;
mod check;
mod child;
mod conducted_tapes;
mod control;
mod conversation;
mod deploy;
mod docs;
mod doctor;
mod drain;
mod events;
mod forwarded;
mod fuzz;
mod grafana;
mod handshake;
mod hostile;
mod http;
mod killed;
mod legacy_websocket;
mod limits;
mod privacy;
mod probing;
mod realtime;
mod relay;
mod relay_bots;
mod reload;
mod services_fail;
mod signature;
mod smuggling;
mod streaming;
mod tapes;
mod tidy;
mod tls;
mod traces;
mod twiml;
mod upgrade;
mod vendors;
mod wire;
mod world;
