//! The admin listener: `/metrics`, `/readyz`, `/healthz`, and commands to the gateway. Kept apart from
//! the public one, so that it can stay on loopback.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::uri::Authority;
use http::{Method, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;

use super::gateway::Gateway;
use super::reload::Live;
use super::upgrade::Upgrade;
use crate::observe::Busy;

pub(super) struct Admin(pub(super) Arc<Live>);

/// When the admin listener is to stop: as soon as there is a successor, which alone answers from then on.
/// A monitor that asked now this process and now that one would take every other answer for a restart.
pub(super) fn until_succeeded(mut shutdown: ShutdownWatch, upgrade: Arc<Upgrade>) -> ShutdownWatch {
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = shutdown.changed() => {}
            () = upgrade.sockets_sent() => {}
        }
        stop.send_replace(true);
    });
    stopped
}

const TEXT: &str = "text/plain; charset=utf-8";

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let gateway = self.0.gateway();
        if !is_allowed(&gateway, &head.headers) {
            return answer(StatusCode::UNAUTHORIZED, TEXT, "a token is needed: Authorization: Bearer …\n");
        }
        if let Some(why) = is_lured(&gateway, head) {
            return answer(StatusCode::FORBIDDEN, TEXT, why);
        }
        match head.uri.path() {
            "/metrics" => {
                answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", &gateway.metrics.text())
            }
            "/readyz" => match not_ready(&gateway) {
                Some(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, &why),
                None => answer(StatusCode::OK, TEXT, "ready\n"),
            },
            "/upgrade" if head.method == Method::POST => match gateway.begin_upgrade().await {
                Ok(pid) => {
                    let said = format!("process {pid} takes over; this one ends with its last call\n");
                    answer(StatusCode::OK, TEXT, &said)
                }
                Err(why) => answer(StatusCode::CONFLICT, TEXT, &format!("not upgraded: {why}\n")),
            },
            "/reload" if head.method == Method::POST => match self.0.reload().await {
                Ok(done) => answer(StatusCode::OK, TEXT, &format!("{done}\n")),
                Err(why) => {
                    answer(StatusCode::UNPROCESSABLE_ENTITY, TEXT, &format!("not reloaded:\n{why}\n"))
                }
            },
            "/healthz" => answer(StatusCode::OK, TEXT, "ok\n"),
            _ => answer(
                StatusCode::NOT_FOUND,
                TEXT,
                "here are /metrics, /readyz, /healthz, POST /reload and POST /upgrade\n",
            ),
        }
    }
}

fn is_allowed(gateway: &Gateway, headers: &http::HeaderMap) -> bool {
    let Some(token) = &gateway.config.admin.token else { return true };
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    // In a time that does not tell how much of it was right.
    let same = |given: &[u8]| given.ct_eq(token.0.as_bytes()).into();
    given.strip_prefix(b"Bearer ").is_some_and(same)
}

/// Whether a page that the operator looks at has made the browser ask: it can send commands, though not
/// read the answers; and it can read them too once its own name leads here, which only `Host` tells.
fn is_lured(gateway: &Gateway, head: &RequestHeader) -> Option<&'static str> {
    let header = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let site = header("sec-fetch-site").unwrap_or("none");
    let by_page = head.headers.contains_key(header::ORIGIN) || !["none", "same-origin"].contains(&site);
    if by_page && !matches!(head.method, Method::GET | Method::HEAD) {
        return Some("commands are not taken from web pages\n");
    }
    // No page knows the token.
    let host = header("host").unwrap_or_default();
    (gateway.config.admin.token.is_none() && !is_address(host))
        .then_some("ask for this listener by its address or as localhost, or set [admin] token\n")
}

/// An address or `localhost`, with a port or without.
fn is_address(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

fn not_ready(gateway: &Gateway) -> Option<String> {
    gateway.busy().map(|busy| match busy {
        Busy::Draining => "draining: no new calls are taken\n".to_owned(),
        Busy::Capacity | Busy::Unstarted | Busy::Memory | Busy::Number => format!("full: {}\n", busy.why()),
    })
}

fn answer(status: StatusCode, content_type: &str, body: &str) -> Response<Vec<u8>> {
    let mut response = Response::new(body.as_bytes().to_vec());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Ok(value) = content_type.parse() {
        headers.insert(header::CONTENT_TYPE, value);
    }
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_here_may_be_anybodys() {
        for ours in ["127.0.0.1", "127.0.0.1:9090", "[::1]:9090", "localhost", "LOCALHOST:1", "10.0.0.7:9090"]
        {
            assert!(is_address(ours), "{ours}");
        }
        for other in ["", "evil.example.com", "localhost.evil.com", "127.0.0.1.evil.com:9090", "a b", "::1"] {
            assert!(!is_address(other), "{other}");
        }
    }
}
