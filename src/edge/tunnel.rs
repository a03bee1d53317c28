//! WebSockets that are the app's own: passed through as bytes. Pingora 0.9.1 tears some of them down
//! (cloudflare/pingora #946: the app's 101 may come before the request's empty body was drained), so
//! the connection is taken over and joined to the app's by hand.
//!
//! Only an app that has answered 101 gets the client's bytes. Behind any other answer they would be
//! the next request, and it would have gone around the dispatch.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora::http::RequestHeader;
use pingora::protocols::{Stream, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional, sink, split};
use tokio::time::timeout;

use super::gateway::Gateway;
use super::origin::AtApp;

/// The longest head of an app's answer, and the most headers in it.
const LONGEST_HEAD: usize = 64 * 1024;
const MOST_HEADERS: usize = 128;
/// What is read at once of an answer that is no upgrade.
const PIECE: usize = 16 * 1024;

/// Asks whether the other end is still there, where a connection may be silent for hours: one that has gone
/// without a word is known of within two minutes.
pub(super) fn keepalive() -> TcpKeepalive {
    TcpKeepalive {
        idle: Duration::from_secs(60),
        interval: Duration::from_secs(15),
        count: 4,
        // The system's own: it would hold for a peer as well that is there and does not read.
        user_timeout: Duration::ZERO,
    }
}

/// The request's head as the app gets it: without what is forged, with the headers that say where it
/// came from.
pub(super) fn head(
    request: &RequestHeader,
    forged: &[HeaderName],
    told: impl Iterator<Item = (&'static str, HeaderValue)>,
) -> Vec<u8> {
    let mut head = Vec::with_capacity(1024);
    head.extend_from_slice(request.method.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(request.raw_path());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    let mut headers: HeaderMap = request.headers.clone();
    for name in forged {
        headers.remove(name);
    }
    for (name, value) in told {
        headers.insert(name, value);
    }
    for (name, value) in &headers {
        push_header(&mut head, name.as_str(), value.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn push_header(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

/// What the app answered to an upgrade.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Its head, as the client gets it, and what has come of its body.
    bytes: Vec<u8>,
    /// What is still to come of it, where it said so.
    left: Option<u64>,
}

/// Asks the app for the upgrade.
pub(super) async fn ask(app: &mut Stream, head: &[u8]) -> std::io::Result<Answer> {
    app.write_all(head).await?;
    app.flush().await?;
    let mut read = Vec::with_capacity(1024);
    loop {
        if app.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        while let Some((answer, interim)) = parse(&read)? {
            match interim {
                // Another answer follows this one.
                Some(end) => drop(read.drain(..end)),
                None => return Ok(answer),
            }
        }
        if read.len() > LONGEST_HEAD {
            return Err(std::io::Error::other("its answer's head is too long"));
        }
    }
}

/// The answer, if its head is whole; and where it ends, if it is an interim one.
fn parse(read: &[u8]) -> std::io::Result<Option<(Answer, Option<usize>)>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let end = match response.parse(read).map_err(std::io::Error::other)? {
        httparse::Status::Complete(end) => end,
        httparse::Status::Partial => return Ok(None),
    };
    let status = StatusCode::from_u16(response.code.unwrap_or(0)).map_err(std::io::Error::other)?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Some((Answer { status, bytes: read.to_vec(), left: None }, None)));
    }
    let mut bytes =
        format!("HTTP/1.1 {} {}\r\n", status.as_u16(), response.reason.unwrap_or("")).into_bytes();
    let mut length = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED).then_some(0);
    let mut chunked = false;
    for header in response.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            length = length.or(std::str::from_utf8(header.value).ok().and_then(|value| value.parse().ok()));
        }
        chunked |= is("transfer-encoding");
        if !is("connection") && !is("keep-alive") {
            push_header(&mut bytes, header.name, header.value);
        }
    }
    bytes.extend_from_slice(b"Connection: close\r\n\r\n");
    let body = &read[end..];
    bytes.extend_from_slice(body);
    let left = length.filter(|_| !chunked).map(|length: u64| length.saturating_sub(body.len() as u64));
    Ok(Some((Answer { status, bytes, left }, status.is_informational().then_some(end))))
}

/// The app's answer on its way to the client, and the tunnel behind it; counted as a request until it ends.
pub(super) struct Tunnel {
    pub(super) client: Stream,
    /// What the client sent behind its head.
    pub(super) early: Vec<u8>,
    pub(super) app: Stream,
    pub(super) answer: Answer,
    pub(super) gateway: Arc<Gateway>,
    /// A WebSocket that has been answered takes no place any more: it may be there for hours.
    pub(super) at_app: Option<AtApp>,
}

impl Tunnel {
    pub(super) fn start(self) {
        self.gateway.requests.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(self.run());
    }

    async fn run(mut self) {
        let mut hang_up = self.gateway.hang_up();
        let stall = self.gateway.config.app.stall_timeout;
        let ended = tokio::select! {
            ended = join(&mut self.client, &mut self.app, &self.answer, &self.early, stall) => ended,
            _ = hang_up.wait_for(|told| *told) => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a tunnel to the app broke");
        }
        drop(self.at_app);
        self.gateway.requests.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A client that reads nothing of what waits for it ends both, as the client's side of them sees to itself.
async fn join(
    client: &mut Stream,
    app: &mut Stream,
    answer: &Answer,
    early: &[u8],
    stall: Duration,
) -> std::io::Result<()> {
    client.write_all(&answer.bytes).await?;
    client.flush().await?;
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        app.write_all(early).await?;
        app.flush().await?;
        copy_bidirectional(client, app).await?;
        return Ok(());
    }
    let mut rest: Box<dyn AsyncRead + Send + Unpin> = match answer.left {
        Some(left) => Box::new(app.take(left)),
        None => Box::new(app),
    };
    let ((mut from, mut to), mut nowhere) = (split(client), sink());
    let answering = async {
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            piece.clear();
            if timeout(stall, rest.read_buf(&mut piece)).await?? == 0 {
                break;
            }
            to.write_all(&piece).await?;
            to.flush().await?;
        }
        to.shutdown().await
    };
    // What the client says now goes nowhere; that it hangs up is worth knowing.
    tokio::select! {
        answered = answering => answered,
        gone = copy(&mut from, &mut nowhere) => gone.map(drop),
    }
}
