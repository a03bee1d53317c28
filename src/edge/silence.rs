//! How long the app may be silent, where that depends on whether it has begun to answer. Pingora has one
//! time-out for all that it reads, and a request keeps the one that it began with. So the connection itself
//! looks at the clock where `first_byte_timeout` and `stall_timeout` differ. It serves one request, and the app
//! is told so: Pingora knows the connections that it keeps by their descriptors, and this one shows none.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::prelude::HttpPeer;
use pingora::protocols::l4::ext::connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use crate::config::Upstream;

/// For an app that leaves its side open all the same. Pingora's timers know no zero.
const AT_ONCE: Duration = Duration::from_millis(1);
/// Connections of these are kept apart from those that any request may use.
const APART: u64 = 1;

/// The limits of one request.
#[derive(Clone, Debug)]
pub(super) struct Silence {
    before_answer: Duration,
    within_answer: Duration,
    answers: Arc<AtomicBool>,
}

impl Silence {
    /// None where one time-out does for both.
    pub(super) fn of(app: &Upstream) -> Option<Silence> {
        let (before_answer, within_answer) = (app.first_byte_timeout, app.stall_timeout);
        let differ = before_answer != within_answer;
        differ.then(|| Silence { before_answer, within_answer, answers: Arc::default() })
    }

    /// Has a request's connection made so.
    pub(super) fn bounds(&self, peer: &mut HttpPeer) {
        peer.options.custom_l4 = Some(Arc::new(self.clone()));
        peer.options.idle_timeout = Some(AT_ONCE);
        peer.group_key = APART;
    }

    /// The head of the answer has come.
    pub(super) fn is_broken(&self) {
        self.answers.store(true, Ordering::Relaxed);
    }

    fn shortest(&self) -> Duration {
        self.before_answer.min(self.within_answer)
    }

    /// As far as is known now.
    fn longest(&self) -> Duration {
        match self.answers.load(Ordering::Relaxed) {
            true => self.within_answer,
            false => self.before_answer,
        }
    }
}

/// Whether it was too long, or the network gave up.
pub(super) fn was_too_long(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

#[async_trait]
impl L4Connect for Silence {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Error::e_explain(ErrorType::InternalError, "an app has an address of the internet's");
        };
        let stream = connect(address, None).await?;
        let alarm = Box::pin(sleep(Duration::MAX));
        let watched = Watched { stream, silence: self.clone(), since: None, alarm };
        Ok(VirtualSocketStream::new(Box::new(watched)).into())
    }
}

/// A connection to the app.
#[derive(Debug)]
struct Watched {
    stream: TcpStream,
    silence: Silence,
    /// Since when something is awaited, and nothing came or went.
    since: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(cx, buf) {
            this.since = None;
            return Poll::Ready(read);
        }
        let since = *this.since.get_or_insert_with(|| {
            let now = Instant::now();
            this.alarm.as_mut().reset(now + this.silence.shortest());
            now
        });
        // Which of the two it is shows when the first is over: what has been read may turn out to be the head
        // of the answer after this has been asked for more, and nobody asks again for that.
        loop {
            ready!(this.alarm.as_mut().poll(cx));
            let due = since + this.silence.longest();
            if Instant::now() >= due {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            this.alarm.as_mut().reset(due);
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, buf));
        this.since = None;
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl VirtualSocket for Watched {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.stream.set_nodelay(true),
            // None other is asked for.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_hours(1);

    /// What becomes of a read, if the answer begins, or not, after it was asked for.
    async fn read(before_answer: Duration, within_answer: Duration, answers: bool) -> Option<io::ErrorKind> {
        let silence = Silence { before_answer, within_answer, answers: Arc::default() };
        let app = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = SocketAddr::Inet(app.local_addr().expect("its address"));
        let mut stream = silence.connect(&address).await.expect("a connection");
        let accepted = app.accept().await.expect("a connection");
        let reading = tokio::spawn(async move { stream.read_u8().await });
        // This task runs when the other one waits.
        yield_now().await;
        if answers {
            silence.is_broken();
        }
        let read = timeout(SHORT * 10, reading).await;
        drop(accepted);
        read.ok().map(|read| read.expect("no panic").expect_err("nothing was sent").kind())
    }

    #[tokio::test]
    async fn each_limit_holds_for_its_part_whenever_the_answer_begins() {
        let too_long = Some(io::ErrorKind::TimedOut);
        assert_eq!(read(SHORT, LONG, false).await, too_long);
        assert_eq!(read(SHORT, LONG, true).await, None);
        assert_eq!(read(LONG, SHORT, true).await, too_long);
        assert_eq!(read(LONG, SHORT, false).await, None);
    }
}
