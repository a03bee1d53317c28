//! The world side of the gateway, on Pingora: one listener, the dispatch that decides who answers
//! before anything can reach the app, the proxy to the app, and the loop of each call.

mod acme;
mod addresses;
mod admin;
mod admission;
mod bell;
mod beside;
mod calls;
mod carrier;
mod carrier_socket;
mod clock;
mod door;
mod farewell;
mod forwarded;
mod gateway;
mod handover;
mod handshake;
mod head;
mod live;
mod media;
mod names;
mod numbers;
mod opening;
mod origin;
mod outflow;
mod patience;
mod phrases;
mod predecessor;
mod proxy;
mod pulse;
mod realtime;
mod relay;
mod reload;
mod respond;
mod serve;
mod session;
mod shutdown;
mod signed;
mod silence;
mod spelling;
mod stall;
mod take_over;
mod tapes;
mod target;
mod tls;
mod tokens;
mod tunnel;
mod upgrade;
mod voice;
mod websocket;

// Of use without a listener to the fuzz targets only.
#[doc(hidden)]
pub use {door::read_header, forwarded::way, spelling::Spelling};

pub use gateway::settings;
pub use phrases::apology;
pub use predecessor::{UPGRADE_VARIABLES, is_successor};
pub use serve::{StartError, serve};
pub use tls::Certificate;
