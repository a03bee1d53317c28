//! The WebSocket of a bot that conducts a call itself, over the carrier's own protocol. It is dialled
//! as the carrier would dial it, and need not be reachable from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::Unusable;
use super::answer::seconds;
use super::http::in_trace;
use super::owner::Owner;
use super::quote::quote;
use crate::call::{Failure, FailureKind, Trace};
use crate::config::Endpoint;

/// The transport under a bot's WebSocket.
pub type BotStream = MaybeTlsStream<TcpStream>;

/// Where a bot is, and how it is asked.
#[derive(Clone)]
pub struct Bot {
    endpoint: Endpoint,
    /// One for each server.
    requests: Vec<Request>,
    /// Whose turn it is; clones share it.
    turn: Arc<AtomicUsize>,
}

impl Bot {
    pub fn new(endpoint: &Endpoint, subprotocol: Option<&str>) -> Result<Bot, Unusable> {
        // Fails if the program has chosen before: just as well.
        rustls::crypto::ring::default_provider().install_default().ok();
        let servers = &endpoint.upstream.servers;
        if servers.is_empty() {
            return Err(unusable(endpoint, "no servers".to_owned()));
        }
        let requests = servers.iter().map(|server| request(endpoint, server, subprotocol));
        Ok(Bot {
            endpoint: endpoint.clone(),
            requests: requests.collect::<Result<_, _>>()?,
            turn: Arc::default(),
        })
    }

    pub fn upstream(&self) -> &str {
        &self.endpoint.upstream.name
    }

    /// With nothing of the bot's for this long, it has stalled.
    pub fn stall_timeout(&self) -> Duration {
        self.endpoint.upstream.stall_timeout
    }

    /// What became of a bot that had been reached.
    pub fn failure(&self, kind: FailureKind, why: &str) -> Failure {
        Failure { upstream: self.upstream().to_owned(), kind, why: format!("your bot: {why}") }
    }

    /// Dials the bot: the server whose turn it is, or the next that can be reached.
    pub async fn connect(
        &self,
        config: WebSocketConfig,
        trace: Option<&Trace>,
    ) -> Result<WebSocketStream<BotStream>, Failure> {
        let servers = self.requests.len();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut tried = 1;
        loop {
            let mut request = self.requests[first.wrapping_add(tried - 1) % servers].clone();
            in_trace(request.headers_mut(), trace);
            let failed = match self.dial(request, config).await {
                Ok(socket) => return Ok(socket),
                Err(failed) => failed,
            };
            let all_alike = matches!(failed.kind, FailureKind::Http4xx | FailureKind::Protocol);
            if all_alike || tried == servers {
                return Err(failed);
            }
            tried += 1;
        }
    }

    async fn dial(
        &self,
        request: Request,
        config: WebSocketConfig,
    ) -> Result<WebSocketStream<BotStream>, Failure> {
        let upstream = &self.endpoint.upstream;
        let within = upstream.connect_timeout * 2;
        // Without the query, where operators put keys.
        let url = request.uri().to_string();
        let url = url.split('?').next().unwrap_or_default().to_owned();
        let dialled = connect_async_with_config(request, Some(config), true);
        let (kind, owner, why) = match timeout(within, dialled).await {
            Ok(Ok((socket, _))) => return Ok(socket),
            Ok(Err(error)) => refused(error),
            Err(_) => (FailureKind::Timeout, "your bot", format!("no answer within {}", seconds(within))),
        };
        Err(Failure { upstream: upstream.name.clone(), kind, why: format!("{owner}: GET {url}: {why}") })
    }
}

fn unusable(endpoint: &Endpoint, why: String) -> Unusable {
    Unusable { upstream: endpoint.upstream.name.clone(), why }
}

fn request(endpoint: &Endpoint, server: &str, subprotocol: Option<&str>) -> Result<Request, Unusable> {
    let unusable = |why: String| unusable(endpoint, why);
    let scheme = if endpoint.upstream.tls { "wss" } else { "ws" };
    let url = format!("{scheme}://{server}{}", endpoint.path);
    let mut request = url.into_client_request().map_err(|error| unusable(error.to_string()))?;
    for (name, value) in &endpoint.headers {
        let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::try_from(&value.0)) else {
            return Err(unusable(format!("header {name:?} cannot be sent")));
        };
        value.set_sensitive(true);
        request.headers_mut().append(name, value);
    }
    if let Some(subprotocol) = subprotocol {
        let value = HeaderValue::try_from(subprotocol);
        let value = value.map_err(|_| unusable("the subprotocol cannot be sent".to_owned()))?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    Ok(request)
}

/// Whose a failed handshake is to mend, and why it failed.
fn refused(error: Error) -> (FailureKind, &'static str, String) {
    match error {
        Error::Http(answer) => {
            let status = answer.status().as_u16();
            let (kind, owner) = match status {
                500.. => (FailureKind::Http5xx, "your bot"),
                401 | 403 => (FailureKind::Http4xx, "your config: headers"),
                400..500 => (FailureKind::Http4xx, "your config: url"),
                _ => (FailureKind::Protocol, "your config: url"),
            };
            let body = answer.body().as_deref().map(quote).unwrap_or_default();
            (kind, owner, format!("answered {status} instead of 101: {body}"))
        }
        Error::Io(error) => {
            let (owner, why) = Owner::of_io(&error);
            let owner = match owner {
                Owner::Config(_) => "your config: url",
                Owner::Network => "the network",
                Owner::Vendor | Owner::Refusing | Owner::Failing => "your bot",
            };
            (FailureKind::Connect, owner, why)
        }
        Error::Tls(error) => (FailureKind::Connect, "your bot", format!("no TLS: {error}")),
        other => (FailureKind::Protocol, "your bot", format!("no WebSocket handshake: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::dialogue;
    use super::*;
    use crate::config::Mode;

    #[tokio::test]
    async fn a_failure_does_not_show_the_query() {
        let Mode::Dialogue { agent, .. } = dialogue(&["127.0.0.1:9".to_owned()]).mode else {
            panic!("a dialogue");
        };
        let endpoint = Endpoint { path: "/media?key=s3cret".to_owned(), ..agent.endpoint().clone() };
        let bot = Bot::new(&endpoint, None).unwrap();
        let failure = bot.connect(WebSocketConfig::default(), None).await.unwrap_err();
        assert!(failure.why.contains("GET ws://127.0.0.1:9/media: "), "{}", failure.why);
    }
}
