//! The admin listener: `/metrics`, `/readyz`, `/healthz`, and commands to the gateway. Kept apart from the public one, so that it
//! can stay on loopback.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;

use super::gateway::Gateway;

pub(super) struct Admin(pub(super) Arc<Gateway>);

const TEXT: &str = "text/plain; charset=utf-8";

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        if !self.is_allowed(&head.headers) {
            return answer(StatusCode::UNAUTHORIZED, TEXT, "a token is needed: Authorization: Bearer …\n");
        }
        match head.uri.path() {
            "/metrics" => {
                answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", &self.0.metrics.text())
            }
            "/readyz" => match self.not_ready() {
                Some(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, why),
                None => answer(StatusCode::OK, TEXT, "ready\n"),
            },
            "/upgrade" if head.method == Method::POST => match self.0.upgrade.begin().await {
                Ok(pid) => {
                    let said = format!("process {pid} takes over; this one ends with its last call\n");
                    answer(StatusCode::OK, TEXT, &said)
                }
                Err(why) => answer(StatusCode::CONFLICT, TEXT, &format!("not upgraded: {why}\n")),
            },
            "/healthz" => answer(StatusCode::OK, TEXT, "ok\n"),
            _ => answer(
                StatusCode::NOT_FOUND,
                TEXT,
                "here are /metrics, /readyz, /healthz and POST /upgrade\n",
            ),
        }
    }
}

impl Admin {
    fn is_allowed(&self, headers: &http::HeaderMap) -> bool {
        let Some(token) = &self.0.config.admin.token else { return true };
        let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
        given.strip_prefix(b"Bearer ").is_some_and(|given| same(given, token.0.as_bytes()))
    }

    fn not_ready(&self) -> Option<&'static str> {
        if self.0.is_draining() {
            Some("draining: no new calls are taken\n")
        } else if self.0.calls.active() >= self.0.config.limits.max_calls {
            Some("full: [limits] max_calls are under way\n")
        } else {
            None
        }
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
