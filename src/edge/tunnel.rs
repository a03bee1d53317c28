//! WebSockets that are the app's own: passed through as bytes. Pingora 0.9.1 tears some of them down
//! (cloudflare/pingora #946: the app's 101 may come before the request's empty body was drained), so
//! the connection is taken over and joined to the app's by hand.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use pingora::protocols::Stream;
use tokio::io::{AsyncWriteExt, copy_bidirectional};

use super::gateway::Gateway;

/// The request's head as the app gets it, with the headers that say where it came from.
pub(super) fn head(request: &RequestHeader, forwarded: &[(HeaderName, HeaderValue)]) -> Vec<u8> {
    let mut head = Vec::with_capacity(1024);
    head.extend_from_slice(request.method.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(request.raw_path());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    let mut headers: HeaderMap = request.headers.clone();
    for (name, value) in forwarded {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A tunnel under way; counted as a request until it ends.
pub(super) struct Tunnel {
    pub(super) client: Stream,
    /// What the client sent behind its head.
    pub(super) early: Vec<u8>,
    pub(super) app: Stream,
    pub(super) head: Vec<u8>,
    pub(super) gateway: Arc<Gateway>,
}

impl Tunnel {
    pub(super) async fn run(mut self) {
        self.gateway.requests.fetch_add(1, Ordering::SeqCst);
        let mut hang_up = self.gateway.hang_up();
        let joined = async {
            self.app.write_all(&self.head).await?;
            self.app.write_all(&self.early).await?;
            self.app.flush().await?;
            copy_bidirectional(&mut self.client, &mut self.app).await
        };
        let ended = tokio::select! {
            ended = joined => ended,
            _ = hang_up.wait_for(|told| *told) => Ok((0, 0)),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a tunnel to the app broke");
        }
        self.gateway.requests.fetch_sub(1, Ordering::SeqCst);
    }
}
