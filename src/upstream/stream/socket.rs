//! A WebSocket to a recogniser: the handshake and what a refused one means, reading that goes on
//! while writing waits, and never more than one message that waits to be written.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Sink, Stream};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use super::super::answer::seconds;
use super::super::http::in_trace;
use super::super::owner::Owner;
use super::super::quote::{quote, quote_without};
use super::{Server, Target};
use crate::call::{Failure, FailureKind, Trace};
use crate::config::Secret;

/// Small buffers: what comes and goes is some hundred bytes, and the defaults cost 100 KiB.
const READ_BUFFER: usize = 4 * 1024;
/// The longest answer of a recogniser: words with their times and alternatives.
const LONGEST_ANSWER: usize = 256 * 1024;

pub(super) struct Socket {
    ws: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// A message waits to be written, since when.
    pub(super) unwritten: Option<Instant>,
    /// Its URL, as failures name it.
    pub(super) shown: String,
    /// What it may repeat as it closes.
    secret: Option<Secret>,
}

/// What became of a socket.
#[derive(Debug)]
pub(super) enum Event {
    Text(Utf8Bytes),
    /// All that was to be sent has left.
    Written,
    /// It is gone: the close code, if the recogniser gave one, and what there is to say.
    Closed(Option<u16>, String),
}

impl Socket {
    /// Connects to a server of a target.
    pub(super) async fn connect(
        target: &Target,
        server: &Server,
        trace: Option<&Trace>,
    ) -> Result<Socket, Failure> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(LONGEST_ANSWER))
            .max_frame_size(Some(LONGEST_ANSWER));
        let ws = target.open(server, config, trace).await?;
        let secret = target.secret().map(|secret| Secret(secret.to_owned()));
        Ok(Socket { ws, unwritten: None, shown: server.shown.clone(), secret })
    }

    /// Takes a message; it leaves with the next `next`. Must not be called while one waits.
    pub(super) fn send(&mut self, message: Message) {
        self.unwritten = Some(Instant::now());
        // An error is met again, and told, by the next read.
        let _ = Pin::new(&mut self.ws).start_send(message);
    }

    /// Writes what waits, and says what happened next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Event {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.unwritten.is_some() && Pin::new(&mut self.ws).poll_flush(cx).is_ready() {
            // An error here is met again, and told, by the next read.
            self.unwritten = None;
            return Poll::Ready(Event::Written);
        }
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.ws).poll_next(cx)) {
                Some(Ok(Message::Text(text))) => Event::Text(text),
                // Pings are answered by the library, with the next read or write.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_))) => {
                    continue;
                }
                Some(Ok(Message::Close(None))) => Event::Closed(None, "closed without a reason".to_owned()),
                Some(Ok(Message::Close(Some(frame)))) => {
                    let secret = self.secret.as_ref().map(|secret| secret.0.as_str());
                    let reason = quote_without(secret, frame.reason.as_bytes());
                    let code = u16::from(frame.code);
                    let why = if reason.is_empty() { code.to_string() } else { format!("{code} ({reason})") };
                    Event::Closed(Some(code), format!("closed with {why}"))
                }
                Some(Err(error)) => {
                    Event::Closed(None, format!("broke off: {}", quote(error.to_string().as_bytes())))
                }
                None => Event::Closed(None, "broke off".to_owned()),
            });
        }
    }

    /// Says these words and goodbye, and waits a moment for the peer to do the same.
    pub(super) async fn close(mut self, words: Option<&'static str>, wait: Duration) {
        let goodbye = async {
            if self.unwritten.is_some() {
                while !matches!(self.next().await, Event::Written | Event::Closed(..)) {}
            }
            if let Some(words) = words {
                self.send(Message::text(words));
            } else {
                self.send(Message::Close(None));
            }
            while !matches!(self.next().await, Event::Closed(..)) {}
            // Answers the peer's close.
            let _ = poll_fn(|cx| Pin::new(&mut self.ws).poll_flush(cx)).await;
        };
        let _ = timeout(wait, goodbye).await;
    }
}

impl Target {
    /// Opens a WebSocket to a server; what hinders it has an owner.
    pub(in crate::upstream) async fn open(
        &self,
        server: &Server,
        config: WebSocketConfig,
        trace: Option<&Trace>,
    ) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, Failure> {
        let failed = |kind, owner: &str, why: String| self.failure(&server.shown, kind, owner, &why);
        let within = self.upstream.connect_timeout;
        let tcp = match timeout(within, TcpStream::connect(&server.address)).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) => {
                let (owner, why) = Owner::of_io(&error);
                return Err(failed(FailureKind::Connect, &owner.to_string(), why));
            }
            Err(_) => {
                let why = format!("no connection within {}", seconds(within));
                return Err(failed(FailureKind::Connect, "the network", why));
            }
        };
        // Audio must not wait to be sent in company.
        let _ = tcp.set_nodelay(true);
        let mut request = request(self, &server.url)
            .map_err(|why| failed(FailureKind::Protocol, "your config: url", why))?;
        in_trace(request.headers_mut(), trace);
        let connector = self.tls.as_ref().map_or(Connector::Plain, |tls| Connector::Rustls(Arc::clone(tls)));
        let within = self.first_answer();
        let handshake = client_async_tls_with_config(request, tcp, Some(config), Some(connector));
        match timeout(within, handshake).await {
            Ok(Ok((ws, _))) => Ok(ws),
            Ok(Err(error)) => {
                let (kind, owner, why) = refused(error, self.secret());
                Err(failed(kind, &owner, why))
            }
            Err(_) => {
                let why = format!("no answer to the handshake within {}", seconds(within));
                Err(failed(FailureKind::Timeout, "the vendor", why))
            }
        }
    }
}

fn request(
    target: &Target,
    url: &str,
) -> Result<tokio_tungstenite::tungstenite::handshake::client::Request, String> {
    let mut request = url.into_client_request().map_err(|error| format!("is no address: {error}"))?;
    let headers = request.headers_mut();
    let agent = concat!("voxgate/", env!("CARGO_PKG_VERSION"));
    headers.insert("user-agent", HeaderValue::from_static(agent));
    for (name, value) in &target.headers {
        let key =
            HeaderName::try_from(name).map_err(|_| format!("{name:?} cannot be the name of a header"))?;
        // The value is secret: it is not shown even if it is wrong.
        let mut value = HeaderValue::try_from(&value.0)
            .map_err(|_| format!("the value of header {name} cannot be sent"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(request)
}

/// Whose a failed handshake is to mend, and why it failed.
fn refused(error: Error, secret: Option<&str>) -> (FailureKind, String, String) {
    let response = match error {
        Error::Http(response) => response,
        Error::Io(error) => {
            let tls = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            return match tls {
                Some(tls) => {
                    let (owner, why) = Owner::of_tls(tls);
                    (FailureKind::Connect, owner.to_string(), why)
                }
                None => {
                    let why = format!("the handshake broke off: {error}");
                    (FailureKind::Connect, Owner::Network.to_string(), why)
                }
            };
        }
        other => {
            let why = format!("no WebSocket handshake: {}", quote(other.to_string().as_bytes()));
            return (FailureKind::Protocol, Owner::Vendor.to_string(), why);
        }
    };
    let status = response.status().as_u16();
    let mut said = quote_without(secret, response.body().as_deref().unwrap_or_default());
    if said.is_empty() {
        "(no body)".clone_into(&mut said);
    }
    let (kind, owner) = match status {
        401 | 403 => (FailureKind::Http4xx, "your config: api_key"),
        400 | 422 => (FailureKind::Http4xx, "your config"),
        404 | 405 | 426 => (FailureKind::Http4xx, "your config: url"),
        402..=499 => (FailureKind::Http4xx, "the vendor refused"),
        500.. => (FailureKind::Http5xx, "the vendor failed"),
        _ => (FailureKind::Protocol, "your config: url"),
    };
    (kind, owner.to_owned(), format!("answered {status} instead of 101: {said}"))
}
