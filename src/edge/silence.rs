//! How long the app may be silent, where that depends on how far a request has come: an app that waits for the
//! rest of its body is not silent, and one that has begun to answer may have another limit than one that has
//! not. Pingora has one time-out for all that it reads, and a request keeps the one that it began with. So the
//! connection itself looks at the clock where that does not do. It serves one request, and the app is told so:
//! Pingora knows the connections that it keeps by their descriptors, and this one shows none.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
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
/// Whose bound comes first where there are two for the same.
const SOON: Duration = Duration::from_secs(1);
/// Connections of these are kept apart from those that any request may use.
const APART: u64 = 1;

/// The limits of one request.
#[derive(Clone, Debug)]
pub(super) struct Silence {
    within_request: Duration,
    before_answer: Duration,
    within_answer: Duration,
    /// When the whole of its body had come.
    whole: Arc<OnceLock<Instant>>,
    answers: Arc<AtomicBool>,
}

impl Silence {
    /// Of a request whose body may still pause for so long, where some of it is to come. None where one time-out
    /// does for all.
    pub(super) fn of(app: &Upstream, pause: Option<Duration>) -> Option<Silence> {
        let (before_answer, within_answer) = (app.first_byte_timeout, app.stall_timeout);
        let is_one = before_answer == within_answer && pause.is_none_or(|pause| pause < before_answer);
        // Who sends by HTTP/1.1 has been cut off by then; Pingora has no bound for a piece by HTTP/2.
        let within_request = pause.map_or(before_answer, |pause| pause + SOON);
        let (whole, answers) = (Arc::default(), Arc::default());
        (!is_one).then_some(Silence { within_request, before_answer, within_answer, whole, answers })
    }

    /// Has a request's connection made so.
    pub(super) fn bounds(&self, peer: &mut HttpPeer) {
        peer.options.read_timeout =
            peer.options.read_timeout.map(|most| most.max(self.within_request + SOON));
        peer.options.custom_l4 = Some(Arc::new(self.clone()));
        peer.options.idle_timeout = Some(AT_ONCE);
        peer.group_key = APART;
    }

    /// The whole of the request has come.
    pub(super) fn request_is_whole(&self) {
        let _ = self.whole.set(Instant::now());
    }

    /// The head of the answer has come.
    pub(super) fn is_broken(&self) {
        self.answers.store(true, Ordering::Relaxed);
    }

    fn shortest(&self) -> Duration {
        self.within_request.min(self.before_answer).min(self.within_answer)
    }

    /// When it is too long, since then, as far as is known now.
    fn due(&self, since: Instant) -> Instant {
        match (self.whole.get(), self.answers.load(Ordering::Relaxed)) {
            (None, _) => since + self.within_request,
            (Some(whole), false) => since.max(*whole) + self.before_answer,
            (Some(whole), true) => since.max(*whole) + self.within_answer,
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
        let due = this.silence.due(since);
        if due < this.alarm.deadline() {
            this.alarm.as_mut().reset(due);
        }
        // Which of them it is shows when the shortest is over: what has been read may turn out to be the head
        // of the answer after this has been asked for more, and nobody asks again for that.
        loop {
            ready!(this.alarm.as_mut().poll(cx));
            let due = this.silence.due(since);
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

    /// What becomes of a read, if the request becomes whole and the answer begins, or not, after it was asked for.
    async fn read(limits: [Duration; 3], is_whole: bool, answers: bool) -> Option<io::ErrorKind> {
        let [within_request, before_answer, within_answer] = limits;
        let (whole, begun) = (Arc::default(), Arc::default());
        let silence = Silence { within_request, before_answer, within_answer, whole, answers: begun };
        let app = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = SocketAddr::Inet(app.local_addr().expect("its address"));
        let mut stream = silence.connect(&address).await.expect("a connection");
        let accepted = app.accept().await.expect("a connection");
        let reading = tokio::spawn(async move { stream.read_u8().await });
        // This task runs when the other one waits.
        yield_now().await;
        if is_whole {
            silence.request_is_whole();
        }
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
        for (nth, (is_whole, answers)) in
            [(false, false), (true, false), (true, true)].into_iter().enumerate()
        {
            let mut limits = [LONG; 3];
            limits[nth] = SHORT;
            assert_eq!(read(limits, is_whole, answers).await, too_long, "{limits:?}");
            let mut limits = [SHORT; 3];
            limits[nth] = LONG;
            assert_eq!(read(limits, is_whole, answers).await, None, "{limits:?}");
        }
    }
}
