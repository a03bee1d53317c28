//! A bound on the time that a client takes over a request's head. Pingora bounds each read: a client
//! that sends a byte a minute would hold its connection for ever. And the opposite: Pingora drops who
//! has sent no head yet as soon as it accepts no more, and so would lose the last it has accepted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::sync::Notify;
use tokio::time::sleep;

tokio::task_local! {
    /// Told when the head of the request that this task serves has been read.
    static HEAD_READ: Arc<Notify>;
}

/// An HTTP app that gives its clients this long for a head, the pause before it included.
pub(super) struct Patience<A> {
    pub(super) app: Arc<A>,
    pub(super) limit: Duration,
    /// How long heads are still waited for once nothing more is accepted.
    pub(super) last_heads: Duration,
}

/// To be called as soon as a head has been read.
pub(super) fn head_is_read() {
    let _ = HEAD_READ.try_with(|head_read| head_read.notify_one());
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Patience<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let head_read = Arc::new(Notify::new());
        let served = HEAD_READ.scope(head_read.clone(), self.app.process_new_http(session, shutdown));
        tokio::pin!(served);
        tokio::select! {
            biased;
            done = &mut served => return done,
            () = head_read.notified() => {}
            () = sleep(self.limit) => return None,
        }
        served.await
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
        let limit = Duration::from_millis(100);
        let app = Arc::new(Patience { app: Arc::new(Slow), limit, last_heads: Duration::ZERO });
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
