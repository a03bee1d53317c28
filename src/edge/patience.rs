//! A bound on the time that a client takes over a request's head. Pingora bounds each read: a client
//! that sends a byte a minute would hold its connection for ever. And the opposite: Pingora drops who
//! has sent no head yet as soon as it accepts no more, and so would lose the last it has accepted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::door::first;

tokio::task_local! {
    /// Told when the head of the request that this task serves has been read.
    static HEAD_READ: Arc<Notify>;
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
    let _ = HEAD_READ.try_with(|head_read| head_read.notify_one());
}

#[async_trait]
impl<A, L> HttpServerApp for Patience<A, L>
where
    A: HttpServerApp + Send + Sync + 'static,
    L: Fn() -> Limits + Send + Sync + 'static,
{
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let limits = (self.limits)();
        let newcomer = first();
        let limit = if newcomer.is_some() { limits.head } else { limits.keepalive + limits.head };
        let head_read = Arc::new(Notify::new());
        let served = HEAD_READ.scope(head_read.clone(), self.app.process_new_http(session, shutdown));
        tokio::pin!(served);
        tokio::select! {
            biased;
            done = &mut served => return done,
            // It counts as a request by now.
            () = head_read.notified() => drop(newcomer),
            () = sleep(limit) => return None,
        }
        served.await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
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
        app.process_new_http(ServerSession::new_http1(stream), &shutdown).await;
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
}
