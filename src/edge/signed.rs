//! Whether a webhook or a stream is Twilio's, by its signature; `[twilio] signature` says what becomes of
//! one that is not. The app behind gets the same request, and may check it again.

use http::uri::Authority;
use http::{Method, header};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use tracing::{debug, warn};

use super::gateway::Gateway;
use super::respond::{Cut, whole_body};
use crate::config::Strictness;
use crate::observe::SignedKind;
use crate::twilio::signature::{self, Signed, Unsigned};

/// Why a request is turned away.
pub(super) enum Turned {
    /// 403.
    Unsigned(Unsigned),
    /// 413 or 408: no webhook of Twilio's.
    NoWebhook(Cut),
}

/// Whether a stream may go on.
pub(super) fn handshake(request: &RequestHeader, gateway: &Gateway) -> Result<(), Unsigned> {
    if gateway.config.twilio.signature == Strictness::Off {
        return Ok(());
    }
    let target = String::from_utf8_lossy(request.raw_path());
    let judged =
        signature::handshake(signed(request, &target, gateway), &gateway.config.twilio.auth_tokens());
    admit(SignedKind::Handshake, judged, gateway)
}

/// Whether a webhook may go on. Its body is read for that, and kept.
pub(super) async fn webhook(
    session: &mut Session,
    gateway: &Gateway,
) -> Result<std::result::Result<(), Turned>> {
    if gateway.config.twilio.signature == Strictness::Off {
        return Ok(Ok(()));
    }
    let body = match whole_body(session, gateway).await? {
        Ok(body) => body,
        // Its path has a bound of its own, where it needs one.
        Err(cut) if lets_in(gateway) => {
            warn!(kind = SignedKind::Webhook.as_str(), why = cut.why(), "SIGNATURE");
            return Ok(Ok(()));
        }
        Err(cut) => return Ok(Err(Turned::NoWebhook(cut))),
    };
    let request = session.req_header();
    let kind =
        request.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_form = request.method == Method::POST
        && kind.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded");
    let target = String::from_utf8_lossy(request.raw_path());
    let tokens = gateway.config.twilio.auth_tokens();
    let judged = signature::webhook(signed(request, &target, gateway), &tokens, &body, is_form);
    Ok(admit(SignedKind::Webhook, judged, gateway).map_err(Turned::Unsigned))
}

fn signed<'a>(request: &'a RequestHeader, target: &'a str, gateway: &'a Gateway) -> Signed<'a> {
    Signed {
        // The configuration has made sure that it is there.
        public_url: gateway.config.server.public_url.as_deref().unwrap_or_default(),
        port: asked_port(request),
        target,
        signature: request.headers.get("x-twilio-signature").map(|signature| signature.as_bytes()),
    }
}

/// The port in `Host`; HTTP/2 has it in its URL.
fn asked_port(request: &RequestHeader) -> Option<u16> {
    let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.trim().parse::<Authority>().ok());
    host.as_ref().or_else(|| request.uri.authority())?.port_u16()
}

/// Whether nobody is turned away.
fn lets_in(gateway: &Gateway) -> bool {
    gateway.config.twilio.signature != Strictness::Enforce
}

fn admit(
    kind: SignedKind,
    judged: std::result::Result<String, Unsigned>,
    gateway: &Gateway,
) -> std::result::Result<(), Unsigned> {
    gateway.metrics.signature(kind, judged.as_ref().err().copied());
    match judged {
        Ok(url) => {
            // Its query may say who calls.
            let url = url.split('?').next();
            debug!(kind = kind.as_str(), url, "SIGNATURE");
            Ok(())
        }
        Err(why) if !lets_in(gateway) => Err(why),
        Err(why) => {
            warn!(kind = kind.as_str(), %why, "SIGNATURE");
            Ok(())
        }
    }
}
