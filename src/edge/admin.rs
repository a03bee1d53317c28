//! The admin listener: `/metrics`, `/readyz`, `/healthz`, and commands to the gateway. Kept apart from
//! the public one, so that it can stay on loopback.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::sync::watch;

use super::gateway::Gateway;
use super::reload::Live;
use super::upgrade::Upgrade;

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
        match head.uri.path() {
            "/metrics" => {
                answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", &gateway.metrics.text())
            }
            "/readyz" => match not_ready(&gateway) {
                Some(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, why),
                None => answer(StatusCode::OK, TEXT, "ready\n"),
            },
            "/upgrade" if head.method == Method::POST => match gateway.upgrade.begin().await {
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
    given.strip_prefix(b"Bearer ").is_some_and(|given| same(given, token.0.as_bytes()))
}

fn not_ready(gateway: &Gateway) -> Option<&'static str> {
    if gateway.is_draining() {
        Some("draining: no new calls are taken\n")
    } else if gateway.calls.active() >= gateway.config.limits.max_calls {
        Some("full: [limits] max_calls are under way\n")
    } else {
        None
    }
}

/// Compares in a time that does not tell how much of it was right.
fn same(given: &[u8], expected: &[u8]) -> bool {
    given.len() == expected.len() && given.iter().zip(expected).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
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
