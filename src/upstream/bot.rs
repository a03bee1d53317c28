//! The WebSocket of a bot that conducts a call itself, over the carrier's own protocol. It is dialled
//! as the carrier would dial it, and need not be reachable from outside.

use http::header::{HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::Unusable;
use super::answer::{quote, seconds};
use super::owner::Owner;
use crate::call::{Failure, FailureKind};
use crate::config::Endpoint;

/// The transport under a bot's WebSocket.
pub type BotStream = MaybeTlsStream<TcpStream>;

/// Where a bot is, and how it is asked.
#[derive(Clone)]
pub struct Bot {
    endpoint: Endpoint,
    request: Request,
}

impl Bot {
    pub fn new(endpoint: &Endpoint, subprotocol: Option<&str>) -> Result<Bot, Unusable> {
        // Fails if the program has chosen before: just as well.
        rustls::crypto::ring::default_provider().install_default().ok();
        let upstream = &endpoint.upstream;
        let unusable = |why: String| Unusable { upstream: upstream.name.clone(), why };
        let scheme = if upstream.tls { "wss" } else { "ws" };
        let server = upstream.servers.first().ok_or_else(|| unusable("no servers".to_owned()))?;
        let url = format!("{scheme}://{server}{}", endpoint.path);
        let mut request = url.into_client_request().map_err(|error| unusable(error.to_string()))?;
        for (name, value) in &endpoint.headers {
            let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::try_from(&value.0))
            else {
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
        Ok(Bot { endpoint: endpoint.clone(), request })
    }

    pub fn upstream(&self) -> &str {
        &self.endpoint.upstream.name
    }

    /// Dials the bot.
    pub async fn connect(&self, config: WebSocketConfig) -> Result<WebSocketStream<BotStream>, Failure> {
        let upstream = &self.endpoint.upstream;
        let failed = |kind, owner: Owner, why: String| Failure {
            upstream: upstream.name.clone(),
            kind,
            why: format!("{}: {why}", owner.named(false)),
        };
        let within = upstream.connect_timeout + upstream.connect_timeout;
        let dialled = connect_async_with_config(self.request.clone(), Some(config), true);
        match timeout(within, dialled).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(Error::Http(answer))) => {
                let (status, kind) = match answer.status() {
                    status if status.is_server_error() => (status, FailureKind::Http5xx),
                    status => (status, FailureKind::Http4xx),
                };
                let owner = match status.as_u16() {
                    // A page where a socket was expected.
                    ..400 => Owner::Config("url"),
                    status => Owner::of_status(status),
                };
                let body = answer.body().as_deref().map(quote).unwrap_or_default();
                Err(failed(kind, owner, format!("the bot answered {status} to the WebSocket: {body}")))
            }
            Ok(Err(error)) => {
                let (owner, why) = match &error {
                    Error::Io(error) => Owner::of_io(error),
                    other => (Owner::Vendor, format!("no sound handshake: {other}")),
                };
                Err(failed(FailureKind::Connect, owner, format!("the bot cannot be reached: {why}")))
            }
            Err(_) => Err(failed(
                FailureKind::Timeout,
                Owner::Vendor,
                format!("the bot did not answer within {}", seconds(within)),
            )),
        }
    }
}
