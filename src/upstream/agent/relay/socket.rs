//! The socket to a ConversationRelay app: how it is opened, and what a failure to do so means.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::super::super::answer::seconds;
use super::super::super::http::in_trace;
use super::super::super::owner::Owner;
use super::super::super::quote::quote;
use super::Relay;
use crate::call::{Failure, FailureKind, Trace};

/// The longest message of an app.
const LONGEST_MESSAGE: usize = 64 * 1024;

pub(super) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What came of the app.
pub(super) enum Received {
    Text(Utf8Bytes),
    /// No more of this socket, and why.
    Lost(String),
}

impl Relay {
    /// The next server's socket, and which server that is.
    pub(super) async fn connect(&self, trace: Option<&Trace>) -> Result<(Socket, usize), Failure> {
        let mut ticket = self.health.turn()?;
        let connected = self.connect_to(ticket.server(), trace).await;
        // That it takes a socket does not forgive an app that answers nobody: an answer does.
        if let Err(failure) = &connected {
            ticket.failed(failure.kind, &failure.why, false);
        }
        connected.map(|socket| (socket, ticket.server()))
    }

    async fn connect_to(&self, server: usize, trace: Option<&Trace>) -> Result<Socket, Failure> {
        let upstream = &self.config.endpoint.upstream;
        let server = upstream.servers.get(server).map_or("", String::as_str);
        let scheme = if upstream.tls { "wss" } else { "ws" };
        let url = format!("{scheme}://{server}{}", self.config.endpoint.path);
        // Without the query, where operators put keys.
        let shown = url.split('?').next().unwrap_or_default().to_owned();
        let failed = |kind, owner: Owner, why: String| Failure {
            upstream: upstream.name.clone(),
            kind,
            why: format!("{owner}: {shown}: {why}"),
        };
        let mut request = url
            .as_str()
            .into_client_request()
            .map_err(|error| failed(FailureKind::Connect, Owner::Config("url"), error.to_string()))?;
        let agent = concat!("voxgate/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert("user-agent", reqwest::header::HeaderValue::from_static(agent));
        request.headers_mut().extend(self.headers.clone());
        in_trace(request.headers_mut(), trace);
        let config = WebSocketConfig::default()
            .max_message_size(Some(LONGEST_MESSAGE))
            .max_frame_size(Some(LONGEST_MESSAGE))
            .write_buffer_size(0);
        let connecting = connect_async_with_config(request, Some(config), true);
        match timeout(upstream.connect_timeout, connecting).await {
            Ok(Ok((stream, _))) => Ok(Socket { stream }),
            Ok(Err(error)) => {
                let (kind, owner, why) = no_socket(&error);
                Err(failed(kind, owner, why))
            }
            Err(_) => {
                let why = format!("no socket within {}", seconds(upstream.connect_timeout));
                Err(failed(FailureKind::Timeout, Owner::Vendor, why))
            }
        }
    }

    /// A failure of a socket that was open.
    pub(super) fn failure(&self, kind: FailureKind, why: &str) -> Failure {
        let upstream = self.config.endpoint.upstream.name.clone();
        Failure { upstream, kind, why: format!("{}: the app {why}", Owner::Vendor) }
    }
}

fn no_socket(error: &Error) -> (FailureKind, Owner, String) {
    match error {
        Error::Http(response) => {
            let status = response.status().as_u16();
            let body = response.body().as_deref().unwrap_or_default();
            let (kind, owner) = match status {
                401 | 403 => (FailureKind::Http4xx, Owner::Config("headers")),
                400..=499 => (FailureKind::Http4xx, Owner::Config("url")),
                500..=599 => (FailureKind::Http5xx, Owner::Failing),
                _ => (FailureKind::Protocol, Owner::Config("url")),
            };
            let said = if body.is_empty() { "(no body)".to_owned() } else { quote(body) };
            (kind, owner, format!("answered {status}, and not with a WebSocket: {said}"))
        }
        Error::Io(cause) => {
            let (owner, why) = Owner::of_io(cause);
            (FailureKind::Connect, owner, why)
        }
        Error::Tls(tls) => (FailureKind::Connect, Owner::Network, format!("no TLS: {tls}")),
        _ => (FailureKind::Protocol, Owner::Vendor, format!("no sound handshake: {error}")),
    }
}

impl Socket {
    pub(super) async fn next(&mut self) -> Received {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Received::Text(text),
                // An empty text is no message either.
                Some(Ok(Message::Binary(_))) => return Received::Text(Utf8Bytes::default()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(None))) => return Received::Lost("closed the socket".to_owned()),
                Some(Ok(Message::Close(Some(frame)))) => {
                    let said = quote(frame.reason.as_bytes());
                    let said = if said.is_empty() { said } else { format!(": {said}") };
                    let code = u16::from(frame.code);
                    return Received::Lost(format!("closed the socket with {code}{said}"));
                }
                Some(Err(error)) => return Received::Lost(format!("broke the socket: {error}")),
                None => return Received::Lost("dropped the socket".to_owned()),
            }
        }
    }

    pub(super) async fn send(&mut self, text: String) -> Result<(), Error> {
        self.stream.send(Message::text(text)).await
    }

    /// Says that this is the end, and waits for nothing.
    pub(super) async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::from(reason) };
        let _ = self.stream.close(Some(frame)).await;
    }
}
