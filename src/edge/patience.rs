//! A bound on the time that a client takes over a request's head. Pingora bounds each read: a client
//! that sends a byte a minute would hold its connection for ever. The pause before a head is bounded by the
//! same alarm, where Pingora would set another for each request; and so is what HTTP/2 begins with, for
//! which it has no bound at all. And the opposite: Pingora drops who has
//! sent no head yet as soon as it accepts no more, and so would lose the last it has accepted.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::server::ShutdownWatch;
use tokio::time::{Instant, Sleep, sleep};

use super::door::Newcomer;

tokio::task_local! {
    /// The connection that this task serves.
    static CONNECTION: Connection;
}

struct Connection {
    /// There while no request has come yet, as far as one can tell.
    newcomer: Cell<Option<Newcomer>>,
    /// When the head that is awaited must have been read.
    due: Cell<Option<Instant>>,
}

/// How long a head may take.
pub(super) struct Limits {
    pub(super) head: Duration,
    /// The pause before a head that is not the first of its connection.
    pub(super) keepalive: Duration,
}

/// An HTTP app that gives its clients so long for a head.
pub(super) struct Patience<A, L> {
    pub(super) app: Arc<A>,
    /// As they are now.
    pub(super) limits: L,
    pub(super) options: HttpServerOptions,
    /// How long heads are still waited for once nothing more is accepted.
    pub(super) last_heads: Duration,
}

/// To be called as soon as a head has been read.
pub(super) fn head_is_read() {
    // A request of HTTP/2 has a task of its own, and its head from the start.
    let _ = CONNECTION.try_with(|connection| {
        connection.due.set(None);
        // It counts as a request by now.
        drop(connection.newcomer.take());
    });
}

fn head_is_awaited(limits: &Limits) {
    let _ = CONNECTION.try_with(|connection| {
        let newcomer = connection.newcomer.take();
        let pause = if newcomer.is_some() { Duration::ZERO } else { limits.keepalive };
        connection.newcomer.set(newcomer);
        connection.due.set(Some(Instant::now() + pause + limits.head));
    });
}

/// What HTTP/2 begins with counts as a head. Behind it, `h2_idle_timeout` bounds each pause.
fn preface_is_awaited(limits: &Limits) {
    let _ = CONNECTION.try_with(|connection| connection.due.set(Some(Instant::now() + limits.head)));
}

fn preface_is_read() {
    let _ = CONNECTION.try_with(|connection| connection.due.set(None));
}

/// Serves a connection until it ends, or a head has not come in time.
pub(super) async fn patiently<T>(newcomer: Newcomer, served: impl Future<Output = Option<T>>) -> Option<T> {
    let connection = Connection { newcomer: Cell::new(Some(newcomer)), due: Cell::new(None) };
    let in_time = async {
        let mut served = pin!(served);
        let mut alarm = pin!(sleep(Duration::MAX));
        poll_fn(|cx| match served.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => match CONNECTION.with(|connection| connection.due.get()) {
                Some(due) if rings(alarm.as_mut(), due, cx) => Poll::Ready(None),
                Some(_) | None => Poll::Pending,
            },
        })
        .await
    };
    CONNECTION.scope(connection, in_time).await
}

/// Whether it is so late. An alarm that is set for an earlier time is left as it is until it rings: to set
/// it for each request would cost more.
fn rings(mut alarm: Pin<&mut Sleep>, due: Instant, cx: &mut Context<'_>) -> bool {
    if alarm.deadline() > due {
        alarm.as_mut().reset(due);
    }
    while alarm.as_mut().poll(cx).is_ready() {
        if Instant::now() >= due {
            return true;
        }
        alarm.as_mut().reset(due);
    }
    false
}

#[async_trait]
impl<A, L> HttpServerApp for Patience<A, L>
where
    A: HttpServerApp + Send + Sync + 'static,
    L: Fn() -> Limits + Send + Sync + 'static,
{
    // As `async_trait` has it, without a future around the app's.
    fn process_new_http<'s, 'w, 'f>(
        self: &'s Arc<Self>,
        session: ServerSession,
        shutdown: &'w ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'f>>
    where
        's: 'f,
        'w: 'f,
        Self: 'f,
    {
        head_is_awaited(&(self.limits)());
        self.app.process_new_http(session, shutdown)
    }

    // Pingora asks for these right before it reads the preface of HTTP/2, in the connection's own task.
    fn h2_options(&self) -> Option<H2Options> {
        preface_is_awaited(&(self.limits)());
        None
    }

    // And for these once it has read it. Before any head is awaited it asks, too, when nothing is due.
    fn server_options(&self) -> Option<&HttpServerOptions> {
        preface_is_read();
        Some(&self.options)
    }

    async fn http_cleanup(&self) {
        sleep(self.last_heads).await;
        self.app.http_cleanup().await;
    }
}

#[cfg(test)]
mod tests {
    use pingora::protocols::Stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::sync::watch;

    use super::super::door::Newcomers;
    use super::*;

    struct Slow;

    #[async_trait]
    impl HttpServerApp for Slow {
        async fn process_new_http(
            self: &Arc<Self>,
            mut session: ServerSession,
            _: &ShutdownWatch,
        ) -> Option<ReusedHttpStream> {
            session.read_request().await.ok()?;
            head_is_read();
            sleep(Duration::from_millis(300)).await;
            session.respond_error(404).await.ok()?;
            None
        }
    }

    async fn answer_to(head: &[u8]) -> String {
        let (mut client, server) = duplex(4096);
        let limits = || Limits { head: Duration::from_millis(60), keepalive: Duration::from_millis(40) };
        let (app, options) = (Arc::new(Slow), HttpServerOptions::default());
        let app = Arc::new(Patience { app, limits, options, last_heads: Duration::ZERO });
        let (_running, shutdown) = watch::channel(false);
        let stream: Stream = Box::new(server);
        client.write_all(head).await.expect("room");
        let newcomers = Newcomers::default();
        let served = async { app.process_new_http(ServerSession::new_http1(stream), &shutdown).await };
        patiently(newcomers.enter(), served).await;
        assert_eq!(newcomers.count(), 0);
        drop(app);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("text");
        answer
    }

    #[tokio::test]
    async fn only_the_head_must_be_quick() {
        assert!(answer_to(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 404 "));
        assert_eq!(answer_to(b"GET / HTTP/1.1\r\nHost: x\r\n").await, "");
        assert_eq!(answer_to(b"").await, "");
    }
    #[tokio::test]
    async fn an_alarm_that_rings_for_an_earlier_head_cuts_no_later_one() {
        let (first, later) = (Duration::from_millis(100), Duration::from_millis(300));
        let limits = |head| Limits { head, keepalive: Duration::ZERO };
        let start = Instant::now();
        let served = async {
            head_is_awaited(&limits(first));
            sleep(first / 2).await;
            head_is_read();
            head_is_awaited(&limits(later));
            std::future::pending::<Option<()>>().await
        };
        assert_eq!(patiently(Newcomers::default().enter(), served).await, None);
        assert!(start.elapsed() >= first / 2 + later, "{:?}", start.elapsed());
    }
}
