//! A bound on how long a client may leave unread what it is sent. Pingora bounds the writing of a body, and
//! nothing else: with a head, with an answer's last chunk or with a frame of HTTP/2 it would wait for ever for
//! a client that reads nothing, and a drain would wait for that request.

use std::fmt::{self, Debug, Formatter};
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::config::HttpLimits;

/// What Pingora reads of an app's answer at once, and writes on.
const PIECE: u64 = 64 * 1024;

/// How slow a client may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unread {
    pub(super) within: Duration,
    /// So many bytes have to be received in that time.
    least: u64,
}

/// How long a client may take over a piece of an answer: it may pause as within a body of its own, and it may
/// be as slow as then.
pub(super) fn unread(limits: &HttpLimits) -> Unread {
    let slowest = PIECE.checked_div(limits.min_body_rate);
    let within = limits.body_timeout.max(Duration::from_secs(slowest.unwrap_or(0)));
    Unread { within, least: if slowest.is_some() { PIECE } else { 1 } }
}

/// How slow that is now.
pub(super) type Limit = Arc<dyn Fn() -> Unread + Send + Sync>;

/// A connection that fails when none of what is written to it has gone for so long.
pub(super) struct Outflow {
    stream: Stream,
    limit: Limit,
    /// There while something waits.
    alarm: Option<Alarm>,
}

struct Alarm {
    rings: Pin<Box<Sleep>>,
    /// What the client had received when it was set.
    received: Option<u64>,
}

impl Outflow {
    pub(super) fn new(stream: Stream, limit: Limit) -> Outflow {
        Outflow { stream, limit, alarm: None }
    }

    /// The connection by itself, for who has bounds of its own.
    pub(super) fn unbounded(stream: Stream) -> Stream {
        if !stream.as_any().is::<Outflow>() {
            return stream;
        }
        match stream.into_any().downcast::<Outflow>() {
            Ok(outflow) => outflow.stream,
            Err(_) => unreachable!("it is one"),
        }
    }

    fn in_time<T>(&mut self, polled: Poll<Result<T>>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        if polled.is_ready() {
            self.alarm = None;
            return polled;
        }
        let Outflow { stream, limit, alarm } = self;
        let alarm = alarm.get_or_insert_with(|| Alarm {
            rings: Box::pin(sleep(limit().within)),
            received: received(stream),
        });
        while alarm.rings.as_mut().poll(cx).is_ready() {
            // Room is told of only when a third of the system's buffer is free, megabytes perhaps.
            let (now, Unread { within, least }) = (received(stream), limit());
            if now.zip(alarm.received).is_none_or(|(now, before)| now < before + least) {
                let why = "the client does not read what it is sent";
                return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, why)));
            }
            alarm.received = now;
            alarm.rings.as_mut().reset(Instant::now() + within);
        }
        Poll::Pending
    }
}

/// How many bytes the client's machine has received; `None` where that is not known, as on Linux before 6.2.
fn received(stream: &Stream) -> Option<u64> {
    Some(stream.get_socket_digest()?.tcp_info()?.tcpi_bytes_acked)
}

impl AsyncWrite for Outflow {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let outflow = self.get_mut();
        let polled = Pin::new(&mut outflow.stream).poll_write(cx, bytes);
        outflow.in_time(polled, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let outflow = self.get_mut();
        let polled = Pin::new(&mut outflow.stream).poll_write_vectored(cx, slices);
        outflow.in_time(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let outflow = self.get_mut();
        let polled = Pin::new(&mut outflow.stream).poll_flush(cx);
        outflow.in_time(polled, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let outflow = self.get_mut();
        let polled = Pin::new(&mut outflow.stream).poll_shutdown(cx);
        outflow.in_time(polled, cx)
    }
}

// The rest is the connection's own.

impl AsyncRead for Outflow {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, into)
    }
}

impl Debug for Outflow {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}

#[async_trait]
impl Shutdown for Outflow {
    async fn shutdown(&mut self) {
        // Its own would say goodbye without a bound.
        let _ = tokio::io::AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Outflow {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Outflow {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl GetTimingDigest for Outflow {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream.get_write_pending_time()
    }
}

impl GetProxyDigest for Outflow {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.stream.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for Outflow {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.stream.set_socket_digest(digest);
    }
}

#[async_trait]
impl Peek for Outflow {
    async fn try_peek(&mut self, into: &mut [u8]) -> Result<bool> {
        self.stream.try_peek(into).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn outflow() -> (Outflow, DuplexStream) {
        let (client, server) = duplex(1024);
        (Outflow::new(Box::new(server), Arc::new(|| Unread { within: LIMIT, least: 1 })), client)
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_is_not_waited_for() {
        let (mut outflow, client) = outflow();
        let start = Instant::now();
        // The second time it has waited before.
        for _ in 0..2 {
            let failed = outflow.write_all(&[0; 2048]).await.unwrap_err();
            assert_eq!((failed.kind(), start.elapsed().as_secs()), (ErrorKind::TimedOut, LIMIT.as_secs()));
        }
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_is_served_to_the_end() {
        let (mut outflow, mut client) = outflow();
        let start = Instant::now();
        let reading = async {
            for _ in 0..100 {
                sleep(LIMIT * 2 / 3).await;
                client.read_exact(&mut [0; 100]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(outflow.write_all(&[0; 10_000]), reading);
        written.unwrap();
        assert!(start.elapsed() > LIMIT * 60, "{:?}", start.elapsed());
    }

    #[test]
    fn a_pause_is_as_long_as_in_a_body_or_what_a_slow_piece_takes() {
        let mut limits = crate::config::Config::default().limits.http;
        limits.body_timeout = LIMIT;
        for (rate, seconds, least) in [(0, 30, 1), (500, 131, PIECE), (1_000_000, 30, PIECE)] {
            limits.min_body_rate = rate;
            let within = Duration::from_secs(seconds);
            assert_eq!(unread(&limits), Unread { within, least }, "{rate}");
        }
    }

    #[tokio::test]
    async fn what_is_in_it_can_be_had_back() {
        let (outflow, mut client) = outflow();
        let mut stream = Outflow::unbounded(Outflow::unbounded(Box::new(outflow)));
        assert!(!stream.as_any().is::<Outflow>());
        stream.write_all(b"x").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'x');
    }
}
