//! A call's WebSocket: reading goes on while writing waits, what waits is bounded, and a carrier
//! that does not read is noticed.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::carrier_socket::CarrierSocket;
use crate::upstream::BotStream;

/// Small buffers: a message is 400 bytes, and the defaults cost 100 KiB a connection. Before each read
/// tungstenite fills what is free of it with zeros.
const READ_BUFFER: usize = 1024;
const WRITE_BUFFER: usize = 2 * 1024;
/// Audio that waits to be written at most: about four seconds.
const MAX_WRITE_BUFFER: usize = 64 * 1024;
/// The longest message of a model.
pub(super) const MODEL_MESSAGE: usize = 4 * 1024 * 1024;
/// A bot may send a whole reply at once: this is over a minute and a half of audio.
const BOT_MESSAGE: usize = 1024 * 1024;
/// What waits for a bot at most; its marks come back by the hundred after a `clear`.
const BOT_WRITE_BUFFER: usize = 256 * 1024;
/// How long a goodbye may take, from our close frame to the peer's.
const CLOSING: Duration = Duration::from_secs(2);

/// The transport under the WebSocket, as Pingora hands it over.
pub(super) type Transport = pingora::protocols::Stream;

pub(super) struct Socket<W = CarrierSocket<Transport>> {
    ws: W,
    /// Something was written and not flushed, since when.
    unflushed: Option<Instant>,
}

/// The one to a bot or a model.
pub(super) type ClientSocket = Socket<WebSocketStream<BotStream>>;

/// What the peer did.
#[derive(Debug)]
pub(super) enum Received {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// Answered already.
    Ping,
    Pong(Bytes),
    Closed(Close),
}

/// How the connection ended.
#[derive(Debug)]
pub(super) enum Close {
    /// The peer closed it, with this code.
    ByPeer(u16),
    /// It broke.
    Lost(String),
    /// The peer sent something longer than is allowed.
    TooLong,
    /// The peer sent text that is no text.
    NotUtf8,
    /// The peer broke the WebSocket protocol.
    Protocol(String),
}

/// The peer does not read: what was sent does not fit any more.
#[derive(Debug)]
pub(super) struct Full;

/// Small buffers and short messages.
fn config(max_message: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message))
}

/// The same for a bot of the operator's own.
pub(super) fn config_for_bot() -> WebSocketConfig {
    config(BOT_MESSAGE).max_write_buffer_size(BOT_WRITE_BUFFER)
}

/// The same for a model, whose messages may be minutes of audio.
pub(super) fn config_for_model() -> WebSocketConfig {
    config(MODEL_MESSAGE)
}

impl Socket {
    /// The carrier's, which has shaken hands, and may have sent more already.
    pub(super) fn new(transport: Transport, early: Vec<u8>, max_message: usize) -> Socket {
        Socket::over(CarrierSocket::new(transport, early, config(max_message)))
    }
}

impl<W> Socket<W>
where
    W: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin,
{
    pub(super) fn over(ws: W) -> Socket<W> {
        Socket { ws, unflushed: None }
    }

    /// Queues a message. It leaves with the next `next`.
    pub(super) fn send_text(&mut self, text: Bytes) -> Result<(), Full> {
        // Our own messages are ASCII; the check is a scan of 300 bytes.
        match Utf8Bytes::try_from(text) {
            Ok(text) => self.send(Message::Text(text)),
            Err(_) => Ok(()),
        }
    }

    pub(super) fn send_ping(&mut self, payload: [u8; 8]) -> Result<(), Full> {
        self.send(Message::Ping(Bytes::copy_from_slice(&payload)))
    }

    fn send(&mut self, message: Message) -> Result<(), Full> {
        self.unflushed.get_or_insert_with(Instant::now);
        match Pin::new(&mut self.ws).start_send(message) {
            Err(Error::WriteBufferFull(_)) => Err(Full),
            // Any other error is met again, and told, by the next read.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Since when the peer has left what was sent unread.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.unflushed
    }

    /// Writes what is queued and waits for the next thing from the peer. Cancel-safe.
    pub(super) async fn next(&mut self) -> Received {
        poll_fn(|cx| {
            self.poll_flush(cx);
            self.poll_receive(cx)
        })
        .await
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) {
        if self.unflushed.is_some() && Pin::new(&mut self.ws).poll_flush(cx).is_ready() {
            // An error here is met again, and told, by the next read.
            self.unflushed = None;
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        loop {
            let received = match std::task::ready!(Pin::new(&mut self.ws).poll_next(cx)) {
                Some(Ok(Message::Text(text))) => Received::Text(text),
                Some(Ok(Message::Binary(bytes))) => Received::Binary(bytes),
                Some(Ok(Message::Pong(payload))) => Received::Pong(payload),
                // Tungstenite has queued the pong; it leaves with the next flush.
                Some(Ok(Message::Ping(_))) => {
                    self.unflushed.get_or_insert_with(Instant::now);
                    self.poll_flush(cx);
                    Received::Ping
                }
                Some(Ok(Message::Frame(_))) => continue,
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map_or(u16::from(CloseCode::Status), |frame| frame.code.into());
                    Received::Closed(Close::ByPeer(code))
                }
                Some(Err(error)) => Received::Closed(close_of(error)),
                None => Received::Closed(Close::Lost("the connection is closed".into())),
            };
            return Poll::Ready(received);
        }
    }

    /// Says goodbye with a code, and waits a moment for the peer to do the same.
    pub(super) async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: Utf8Bytes::default() };
        let _ = Pin::new(&mut self.ws).start_send(Message::Close(Some(frame)));
        self.unflushed.get_or_insert_with(Instant::now);
        let goodbye = async { while !matches!(self.next().await, Received::Closed(_)) {} };
        let _ = tokio::time::timeout(CLOSING, goodbye).await;
    }
}

fn close_of(error: Error) -> Close {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Close::TooLong,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            Close::Lost("the connection is closed".into())
        }
        Error::Protocol(error) => Close::Protocol(error.to_string()),
        Error::Utf8(_) => Close::NotUtf8,
        other => Close::Lost(other.to_string()),
    }
}
