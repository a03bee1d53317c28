//! The handshake as Twilio does it, and what a failed one means in plain words.

use super::CallOptions;
use anyhow::{Context as _, Result, bail};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError, SubProtocolError};
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::http::header::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

pub(in crate::cli) struct Connected {
    pub(in crate::cli) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(super) took: Duration,
    pub(in crate::cli) subprotocol: Option<String>,
}

/// Why no stream came about, in the words of the decision tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url}: {seen} (Twilio: {code}): {cause}; {cure}")]
pub(in crate::cli) struct Refusal {
    pub(in crate::cli) url: String,
    pub(in crate::cli) seen: String,
    /// What Twilio would raise: one code, or a range of them.
    pub(in crate::cli) code: &'static str,
    pub(in crate::cli) cause: &'static str,
    pub(in crate::cli) cure: &'static str,
}

pub(in crate::cli) async fn connect(options: &CallOptions) -> Result<Connected> {
    let url = &options.url;
    let request = request(options)?;
    // Small buffers: a crowd has many sockets with little on each. A message goes out when written.
    let config = WebSocketConfig::default().read_buffer_size(4 * 1024).write_buffer_size(0);
    let begun = Instant::now();
    let connecting = connect_async_with_config(request, Some(config), true);
    let (socket, response) = match tokio::time::timeout(options.connect_timeout, connecting).await {
        Ok(connected) => connected.map_err(|error| refused(url, error))?,
        Err(_) => {
            let seen = format!("no answer within {} s", options.connect_timeout.as_secs_f32());
            let (cause, cure) = ("nothing answers there", "is something listening, and reachable?");
            return Err(Refusal { url: url.clone(), seen, code: "31901", cause, cure }.into());
        }
    };
    let took = begun.elapsed();
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    if let Some(extension) = header("sec-websocket-extensions") {
        let seen = format!("101 with extension {extension:?}, which was not offered");
        let (cause, cure) =
            ("frames would come in a form that Twilio does not read", "never send an extension");
        return Err(Refusal { url: url.clone(), seen, code: "31924", cause, cure }.into());
    }
    Ok(Connected { took, subprotocol: header("sec-websocket-protocol").map(str::to_owned), socket })
}

fn request(options: &CallOptions) -> Result<Request> {
    let url = options.url.as_str();
    if !url.starts_with("ws://") && !url.starts_with("wss://") {
        bail!("{url:?} is no media URL (Twilio: 31922): write ws://HOST:PORT/PATH or wss://HOST/PATH")
    }
    let mut request = url
        .into_client_request()
        .with_context(|| format!("{url:?} is no media URL (Twilio: 31923): correct it"))?;
    let headers = request.headers_mut();
    headers.insert("user-agent", HeaderValue::from_static("Twilio.TmeWs/1.0"));
    let subprotocol = options.subprotocol.iter().map(|p| ("sec-websocket-protocol", p.as_str()));
    let headers_given = options.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in subprotocol.chain(headers_given) {
        let parsed_name: HeaderName = name.parse().with_context(|| format!("{name:?} is no header name"))?;
        let parsed_value = value.parse().with_context(|| format!("{value:?} is no value for {name}"))?;
        headers.insert(parsed_name, parsed_value);
    }
    Ok(request)
}

/// What Twilio would raise for a connection that is broken off, the cause and the cure.
pub(in crate::cli) const BROKEN: (&str, &str, &str) = (
    "31903",
    "the connection was broken off",
    "see the proxy or load balancer in front, and the server's log",
);

/// Whether a connection was there, and was torn down. Its plain end is none of these.
pub(in crate::cli) fn is_broken(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(kind, Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe)
}

/// Says what went wrong, with what Twilio would raise and what to look at.
fn refused(url: &str, error: Error) -> Refusal {
    let of = |seen: String, code, cause, cure| Refusal { url: url.to_owned(), seen, code, cause, cure };
    match error {
        Error::Http(response) => not_101(url, &response),
        Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => of(
            "connection refused".into(),
            "31902",
            "nothing listens there",
            "start the gateway or correct the port",
        ),
        Error::Io(e) if is_broken(e.kind()) => {
            let (code, cause, cure) = BROKEN;
            of(e.to_string(), code, cause, cure)
        }
        Error::Io(e) if e.raw_os_error() == Some(24) => of(
            e.to_string(),
            "-",
            "this machine has too many files open",
            "raise the limit with `ulimit -n` or make fewer --calls",
        ),
        // How the TLS library's own errors arrive here.
        Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => of(
            format!("TLS failed: {e}"),
            "31910",
            "the port speaks no TLS, or its certificate is not sound",
            "check port and certificate",
        ),
        Error::Io(e) => {
            of(e.to_string(), "31901-31904", "the server cannot be reached", "check name and port")
        }
        Error::Protocol(ProtocolError::WrongHttpVersion) => of(
            "an HTTP/1.0 answer instead of 101".into(),
            "31920",
            "the request fell through to an app server that knows no WebSockets",
            "check the media path",
        ),
        Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(SubProtocolError::NoSubProtocol)) => of(
            "101, but the offered subprotocol was not selected".into(),
            "31924",
            "the server does not know the subprotocol, or a proxy drops its header",
            "let the server select it when it is offered",
        ),
        Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => of(
            "101, but a subprotocol that was not offered was selected".into(),
            "31924",
            "Twilio offers none, and drops such a connection",
            "select a subprotocol only when it is offered",
        ),
        e => of(
            format!("the answer to the upgrade is not sound: {e}"),
            "31920",
            "what answers is no WebSocket server, or a proxy changes its answer",
            "check the media path and the proxies in front",
        ),
    }
}

fn not_101(url: &str, response: &Response) -> Refusal {
    let status = response.status();
    let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
    let body = String::from_utf8_lossy(response.body().as_deref().unwrap_or(&[])).into_owned();
    let line: String =
        body.lines().find(|l| !l.trim().is_empty()).unwrap_or("").trim().chars().take(120).collect();
    let html = kind.contains("html") || line.starts_with('<');
    let media_path = "check the media path, and that nothing in front takes it";
    let (cause, cure) = match status.as_u16() {
        401 | 403 => ("refused on purpose", "check the signature (--header), the token and the limits"),
        426 => ("the upgrade was lost on the way", "let the proxy in front pass Connection and Upgrade on"),
        503 | 429 => ("the server is full or draining", "see its limits and its log"),
        502 | 504 => ("the upgrade was forwarded to an app that is down", media_path),
        _ if html => ("HTML instead of 101: the request fell through to the app", media_path),
        404 => ("nothing serves this path", media_path),
        _ => ("what answers is no WebSocket server", media_path),
    };
    let body = if line.is_empty() { String::new() } else { format!(" {line:?}") };
    Refusal {
        url: url.to_owned(),
        seen: format!("{status} instead of 101{body}"),
        code: "31920",
        cause,
        cure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// What a call to a server that answers so reports.
    async fn said_of(answer: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 2_048];
            _ = socket.read(&mut request).await.unwrap();
            socket.write_all(answer.as_bytes()).await.unwrap();
        });
        connect(&CallOptions::new(url)).await.err().map(|e| format!("{e:#}")).unwrap_or_default()
    }

    #[tokio::test]
    async fn a_refused_upgrade_is_explained() {
        let html =
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n<html>\n</html>\n";
        for (answer, parts) in [
            (html, ["200 OK instead of 101 \"<html>\"", "HTML instead of 101: the request fell through"]),
            ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", ["403", "signature"]),
            ("HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\ndraining\n", ["503", "\"draining\""]),
            ("HTTP/1.0 200 OK\r\n\r\n", ["HTTP/1.0", "fell through to an app server"]),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", ["404", "nothing serves this path"]),
        ] {
            let said = said_of(answer).await;
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }

    /// The outcome of a handshake with a sound server that sends this header with its 101.
    async fn offered(offer: Option<&str>, header: Option<(&'static str, &'static str)>) -> Result<Connected> {
        use tokio_tungstenite::tungstenite::handshake::server;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
            let select = |request: &server::Request, mut response: server::Response| {
                assert!(!request.headers().contains_key("sec-websocket-extensions"));
                if let Some((name, value)) = header {
                    response.headers_mut().insert(name, HeaderValue::from_static(value));
                }
                Ok(response)
            };
            _ = tokio_tungstenite::accept_hdr_async(socket, select).await;
        });
        connect(&CallOptions { subprotocol: offer.map(str::to_owned), ..CallOptions::new(url) }).await
    }

    #[tokio::test]
    async fn the_subprotocol_is_selected_exactly_when_it_is_offered() {
        const NAME: &str = "audio.twilio.com";
        let selects = Some(("Sec-WebSocket-Protocol", NAME));
        assert_eq!(offered(None, None).await.unwrap().subprotocol, None);
        assert_eq!(offered(Some(NAME), selects).await.unwrap().subprotocol.as_deref(), Some(NAME));
        let unasked = offered(None, selects).await.err().unwrap().to_string();
        assert!(unasked.contains("not offered was selected"), "{unasked}");
        let ignored = offered(Some(NAME), None).await.err().unwrap().to_string();
        assert!(ignored.contains("the offered subprotocol was not selected"), "{ignored}");
        let deflate = Some(("Sec-WebSocket-Extensions", "permessage-deflate"));
        let extended = offered(None, deflate).await.err().unwrap().to_string();
        assert!(extended.contains("\"permessage-deflate\", which was not offered"), "{extended}");
    }

    #[tokio::test]
    async fn nothing_listening_is_explained() {
        let options = CallOptions::new("ws://127.0.0.1:1/ws");
        let said = connect(&options).await.err().unwrap().to_string();
        assert!(said.contains("connection refused (Twilio: 31902)"), "{said}");
    }

    #[tokio::test]
    async fn a_connection_that_is_reset_is_told_from_one_that_ends() {
        for (resets, code) in [(true, "31903"), (false, "31920")] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let options = CallOptions::new(format!("ws://{}/ws", listener.local_addr().unwrap()));
            tokio::spawn(async move {
                let (mut socket, _) = listener.accept().await.unwrap();
                // What lies there unread when a socket is closed turns its FIN into a RST.
                let mut request = [0; 2_048];
                let seen =
                    if resets { socket.peek(&mut request).await } else { socket.read(&mut request).await };
                assert!(seen.unwrap() > 0);
            });
            let said = connect(&options).await.err().unwrap().to_string();
            assert!(said.contains(&format!("(Twilio: {code})")), "{said}");
        }
    }

    #[tokio::test]
    async fn a_wrong_url_is_told_apart_from_a_wrong_server() {
        for (url, code) in [("http://h/p", "31922"), ("h:80", "31922"), ("ws://a b/p", "31923")] {
            let said = connect(&CallOptions::new(url)).await.err().unwrap().to_string();
            assert!(said.contains(code), "{url}: {said}");
        }
    }
}
