//! The carrier's WebSocket: tungstenite over its transport, polled with the call's own waker.
//! tokio-tungstenite's stream is the same with a waker of its own for each direction, which costs several
//! cache misses a message where thousands of calls take turns.

use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

pub(super) struct CarrierSocket<S> {
    context: WebSocketContext,
    transport: S,
    ended: bool,
}

impl<S> CarrierSocket<S> {
    /// One that has shaken hands; `early` is what has come behind that.
    pub(super) fn new(transport: S, early: Vec<u8>, config: WebSocketConfig) -> CarrierSocket<S> {
        let context = WebSocketContext::from_partially_read(early, Role::Server, Some(config));
        CarrierSocket { context, transport, ended: false }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for CarrierSocket<S> {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let CarrierSocket { context, transport, ended } = self.get_mut();
        if *ended {
            return Poll::Ready(None);
        }
        match context.read(&mut Polled { transport, cx }) {
            Ok(message) => Poll::Ready(Some(Ok(message))),
            Err(error) if would_block(&error) => Poll::Pending,
            Err(error) => {
                *ended = true;
                let over = matches!(error, Error::ConnectionClosed | Error::AlreadyClosed);
                Poll::Ready((!over).then_some(Err(error)))
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Message> for CarrierSocket<S> {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    /// Only queues.
    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        match self.get_mut().context.write(&mut Later, message) {
            Err(error) if would_block(&error) => Ok(()),
            sent => sent,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let CarrierSocket { context, transport, .. } = self.get_mut();
        match context.flush(&mut Polled { transport, cx }) {
            Err(error) if would_block(&error) => Poll::Pending,
            flushed => Poll::Ready(flushed),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_flush(cx)
    }
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(why) if why.kind() == ErrorKind::WouldBlock)
}

/// The transport as tungstenite knows one: where the task has to wait, it would block.
struct Polled<'a, 'b, S> {
    transport: &'a mut S,
    cx: &'a mut Context<'b>,
}

fn now<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

impl<S: AsyncRead + Unpin> Read for Polled<'_, '_, S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut into = ReadBuf::new(into);
        now(Pin::new(&mut *self.transport).poll_read(self.cx, &mut into))?;
        Ok(into.filled().len())
    }
}

impl<S: AsyncWrite + Unpin> Write for Polled<'_, '_, S> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        now(Pin::new(&mut *self.transport).poll_write(self.cx, from))
    }

    fn flush(&mut self) -> io::Result<()> {
        now(Pin::new(&mut *self.transport).poll_flush(self.cx))
    }
}

/// A transport that takes nothing yet.
struct Later;

impl Read for Later {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

impl Write for Later {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(ErrorKind::WouldBlock.into())
    }
}
