//! Takes a connection out of Pingora's hands after its request head was read: the transport, and the
//! bytes that the client has already sent behind the head.
//!
//! Pingora goes on with an in-memory stand-in that was fed the same head and has answered it, so
//! that its later phases (logging, metrics) see an ordinary request. The call then needs none of
//! Pingora's proxy state, most of 57 KiB a connection.

use std::io::Cursor;

use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v1::server::HttpSession;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::websocket::Transport;

/// The transport, which still bounds how long the client may leave unread what it is sent, and what the client
/// sent behind its request head. Only on HTTP/1.1. The status is for Pingora to log: the answer itself is the
/// taker's to write.
pub(super) async fn take_over(session: &mut Session, status: StatusCode) -> Result<(Transport, Vec<u8>)> {
    let head = match session.downstream_session.as_http1() {
        Some(http1) => http1.get_headers_raw_bytes(),
        None => return Error::e_explain(ErrorType::InternalError, "only HTTP/1.1 can be taken over"),
    };
    let stand_in = Box::new(ServerSession::H1(stand_in(&head, status).await?));
    let real = std::mem::replace(&mut session.downstream_session, stand_in);
    let ServerSession::H1(mut http1) = *real else {
        return Error::e_explain(ErrorType::InternalError, "only HTTP/1.1 can be taken over");
    };
    // `reuse` hands out the connection as it would be for a next request on it, which keeps the bytes
    // that were read too far; `into_inner` would drop them.
    http1.set_pipelining_enabled(true);
    http1.set_server_keepalive(Some(0));
    let Some(parts) = http1.reuse().await? else {
        return Error::e_explain(ErrorType::ConnectionClosed, "the client wants the connection closed");
    };
    let (transport, early) = parts.into_parts();
    Ok((transport, early.map(Vec::from).unwrap_or_default()))
}

/// A session over memory that has read the same request and answered it.
async fn stand_in(head: &[u8], status: StatusCode) -> Result<HttpSession> {
    let mut session = HttpSession::new(Box::new(Cursor::new(head.to_vec())));
    session.read_request().await?;
    session.write_response_header(Box::new(ResponseHeader::build(status, Some(0))?)).await?;
    Ok(session)
}
