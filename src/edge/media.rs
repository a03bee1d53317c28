//! A request at the media path: what is refused, in the order of what it costs, and what becomes a call.

use std::sync::Arc;
use std::time::Instant;

use http::{StatusCode, header};
use pingora::Result;
use pingora::proxy::Session;
use tokio::io::AsyncWriteExt;
use tracing::{debug, info, warn};

use super::forwarded;
use super::gateway::Gateway;
use super::handshake::{self, Refusal};
use super::opening::serve_call;
use super::outflow::Outflow;
use super::respond::{TEXT, respond};
use super::signed;
use super::take_over::take_over;
use crate::observe::{Busy, HandshakeResult};

pub(super) async fn answer(session: &mut Session, gateway: &Arc<Gateway>) -> Result<()> {
    let limits = &gateway.config.limits;
    let client = forwarded::client(session, gateway);
    if let Some(client) = client
        && !gateway.addresses.admit(client, limits.handshakes_per_second, Instant::now())
    {
        let why = "[limits] handshakes_per_second";
        warn!(result = HandshakeResult::RateLimited.as_str(), %client, why, "HANDSHAKE_REFUSED");
        gateway.metrics.handshake(HandshakeResult::RateLimited);
        let (why, retry) = ("too many handshakes from this address\n", [(header::RETRY_AFTER, "1")]);
        return respond(session, StatusCode::TOO_MANY_REQUESTS, TEXT, why.to_owned(), &retry).await;
    }
    let request = session.req_header();
    let twilio = &gateway.config.twilio;
    let path = request.uri.path();
    let token = gateway.tokens.of_path(path);
    let path = if token.is_some() { &twilio.path } else { path };
    let judged = handshake::judge(&request.method, request.version, &request.headers, &twilio.subprotocol);
    let handshake = match judged {
        Ok(_) if path != twilio.path && path.strip_suffix('/') != Some(&twilio.path) => {
            // Twilio signs the URL as it is written, and the app must not see this request.
            let why = format!("the path must be written {}", twilio.path);
            return malformed(session, gateway, &why).await;
        }
        Ok(handshake) => handshake,
        Err(refusal @ (Refusal::NoUpgrade | Refusal::UpgradeLost)) => {
            if refusal == Refusal::UpgradeLost {
                let why = "a proxy in between does not pass `Upgrade: websocket` on";
                spoilt(gateway, why);
            } else {
                gateway.metrics.handshake(HandshakeResult::NoUpgrade);
            }
            let why = format!(
                "{} takes Twilio Media Streams over WebSocket: give it as the <Stream url> of \
                 your TwiML, with wss://\n",
                twilio.path
            );
            let upgrade = [(header::UPGRADE, "websocket")];
            return respond(session, StatusCode::UPGRADE_REQUIRED, TEXT, why, &upgrade).await;
        }
        Err(Refusal::Malformed(why)) => return malformed(session, gateway, why).await,
    };
    if let Some(why) = gateway.busy() {
        return busy(session, gateway, why).await;
    }
    if let Err(why) = signed::handshake(request, gateway) {
        return forbidden(session, gateway, HandshakeResult::BadSignature, why.to_string()).await;
    }
    let pass = match gateway.tokens.admit(token) {
        Ok(pass) => pass,
        Err(fault) => {
            let why = format!("the token of this stream: {fault}");
            return forbidden(session, gateway, HandshakeResult::BadToken, why).await;
        }
    };
    let offered = handshake::told(&handshake::offered(&request.headers).collect::<Vec<_>>());
    let Some(place) = gateway.calls.enter() else {
        return busy(session, gateway, Busy::Capacity).await;
    };
    info!(offered, selected = handshake.subprotocol, "SUBPROTOCOL");
    let (transport, early) = take_over(session, StatusCode::SWITCHING_PROTOCOLS).await?;
    // A call has a bound of its own.
    let mut transport = Outflow::unbounded(transport);
    let gateway = gateway.clone();
    gateway.metrics.handshake(HandshakeResult::Ok);
    tokio::spawn(async move {
        let answered = async {
            transport.write_all(handshake.answer().as_bytes()).await?;
            transport.flush().await
        };
        match answered.await {
            Ok(()) => serve_call(transport, early, handshake.subprotocol, gateway, place, pass).await,
            Err(error) => debug!(%error, "the client went away in its handshake"),
        }
    });
    Ok(())
}

/// Counts, and tells, a handshake that something in between has spoilt.
fn spoilt(gateway: &Gateway, why: &str) {
    let result = HandshakeResult::BadRequest;
    gateway.metrics.handshake(result);
    warn!(result = result.as_str(), why, "HANDSHAKE_REFUSED");
}

async fn malformed(session: &mut Session, gateway: &Gateway, why: &str) -> Result<()> {
    spoilt(gateway, why);
    // RFC 6455, section 4.4: which version would have been understood.
    let version = [(header::SEC_WEBSOCKET_VERSION, "13")];
    respond(session, StatusCode::BAD_REQUEST, TEXT, format!("{why}\n"), &version).await
}

async fn forbidden(
    session: &mut Session,
    gateway: &Gateway,
    result: HandshakeResult,
    why: String,
) -> Result<()> {
    gateway.metrics.handshake(result);
    let client = forwarded::client(session, gateway).map(|client| client.to_string());
    warn!(result = result.as_str(), client, why, "HANDSHAKE_REFUSED");
    respond(session, StatusCode::FORBIDDEN, TEXT, format!("{why}\n"), &[]).await
}

async fn busy(session: &mut Session, gateway: &Gateway, busy: Busy) -> Result<()> {
    let (result, why) = (HandshakeResult::Busy(busy), busy.why());
    gateway.metrics.handshake(result);
    warn!(result = result.as_str(), why, "HANDSHAKE_REFUSED");
    let retry = [(header::RETRY_AFTER, "5")];
    respond(session, StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n"), &retry).await
}
