//! Heads of requests that nobody answers: too long, or with two lengths for one body.

use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use crate::config::HttpLimits;

/// A request that nobody answers, and why.
pub(super) fn refused(session: &Session, limits: &HttpLimits) -> Option<(StatusCode, String)> {
    let request = session.req_header();
    if head_bytes(request) > limits.max_head {
        let why = format!("the request's head is longer than {} bytes\n", limits.max_head);
        return Some((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why));
    }
    // Pingora has taken the length out of the head, as RFC 9112 allows: who sends both means harm.
    let both = request.headers.contains_key(header::TRANSFER_ENCODING)
        && session.as_http1().is_some_and(|http1| says_length(&http1.get_headers_raw_bytes()));
    if both {
        return Some((StatusCode::BAD_REQUEST, "a body has one length\n".to_owned()));
    }
    let mut length = 0;
    for (nth, value) in request.headers.get_all(header::CONTENT_LENGTH).iter().enumerate() {
        match value.to_str().ok().and_then(|value| value.parse::<u64>().ok()) {
            Some(said) if nth == 0 => length = said,
            Some(_) | None => return Some((StatusCode::BAD_REQUEST, "a body has one length\n".to_owned())),
        }
    }
    if limits.max_body > 0 && length > limits.max_body {
        let why = format!("the body is longer than {} bytes\n", limits.max_body);
        return Some((StatusCode::PAYLOAD_TOO_LARGE, why));
    }
    None
}

fn says_length(head: &[u8]) -> bool {
    let name = b"content-length";
    head.split(|byte| *byte == b'\n')
        .any(|line| line.get(..name.len()).is_some_and(|it| it.eq_ignore_ascii_case(name)))
}

fn head_bytes(request: &RequestHeader) -> usize {
    let header = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    request.raw_path().len() + request.headers.iter().map(header).sum::<usize>()
}
