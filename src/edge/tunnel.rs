//! WebSockets that are the app's own: passed through as bytes. Pingora 0.9.1 tears some of them down
//! (cloudflare/pingora #946: the app's 101 may come before the request's empty body was drained), so
//! the connection is taken over and joined to the app's by hand.
//!
//! Nothing that the client sends reaches the app before the app has answered 101: else a refused
//! upgrade would leave a connection on which requests pass this gateway's dispatch by.

use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use pingora::protocols::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};

use super::gateway::Gateway;

/// The longest head of an answer.
const LONGEST_HEAD: usize = 64 * 1024;
const MOST_HEADERS: usize = 256;

/// The app's answer to an upgrade: its status, and all bytes that came so far.
pub(super) struct Answer {
    pub(super) status: u16,
    bytes: Vec<u8>,
}

/// Puts the upgrade to the app and waits for its answer.
pub(super) async fn ask(app: &mut Stream, request: &[u8]) -> Result<Answer> {
    app.write_all(request).await?;
    app.flush().await?;
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if app.read_buf(&mut bytes).await? == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the app closed the connection"));
        }
        if let Some(status) = status_of(&bytes)? {
            return Ok(Answer { status, bytes });
        }
        if bytes.len() > LONGEST_HEAD {
            return Err(Error::new(ErrorKind::InvalidData, "the head of the answer is too long"));
        }
    }
}

/// The status of a head that is complete.
fn status_of(bytes: &[u8]) -> Result<Option<u16>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    match answer.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => Ok(answer.code),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(Error::new(ErrorKind::InvalidData, format!("the answer is no HTTP: {error}"))),
    }
}

/// The request's head as the app gets it, with the headers that say where it came from.
pub(super) fn head(request: &RequestHeader, forwarded: &[(HeaderName, HeaderValue)]) -> Vec<u8> {
    let mut headers = request.headers.clone();
    for (name, value) in forwarded {
        headers.insert(name.clone(), value.clone());
    }
    let mut head = Vec::with_capacity(1024);
    for part in [request.method.as_str().as_bytes(), b" ", request.raw_path(), b" HTTP/1.1\r\n"] {
        head.extend_from_slice(part);
    }
    for (name, value) in &headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Two connections to be joined, once the app has answered.
pub(super) struct Tunnel {
    pub(super) client: Stream,
    /// What the client sent behind its head.
    pub(super) early: Vec<u8>,
    pub(super) app: Stream,
    pub(super) answer: Answer,
    pub(super) gateway: Arc<Gateway>,
}

impl Tunnel {
    /// Runs until either side ends it. Counted as a request under way.
    pub(super) async fn run(mut self) {
        let gateway = self.gateway.clone();
        gateway.requests.fetch_add(1, Ordering::SeqCst);
        let mut hang_up = gateway.hang_up();
        let ended = tokio::select! {
            ended = self.join() => ended,
            _ = hang_up.wait_for(|told| *told) => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a tunnel to the app broke");
        }
        gateway.requests.fetch_sub(1, Ordering::SeqCst);
    }

    async fn join(&mut self) -> Result<()> {
        self.client.write_all(&self.answer.bytes).await?;
        self.client.flush().await?;
        if self.answer.status == 101 {
            self.app.write_all(&self.early).await?;
            self.app.flush().await?;
            copy_bidirectional(&mut self.client, &mut self.app).await?;
        } else {
            // A refusal: the rest of it, and no word more to the app.
            AsyncWriteExt::shutdown(&mut self.app).await?;
            copy(&mut self.app, &mut self.client).await?;
            AsyncWriteExt::shutdown(&mut self.client).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_known_when_the_head_is_whole() {
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x02hi";
        let whole = head.len() - 4;
        for end in 0..whole {
            assert_eq!(status_of(&head[..end]).unwrap(), None, "{end} bytes");
        }
        assert_eq!(status_of(head).unwrap(), Some(101));
        assert!(status_of(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}
