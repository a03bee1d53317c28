//! Answers a request from here, without the app; and reads the bodies that are read for that.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use tokio::time::timeout;

use super::gateway::Gateway;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const XML: &str = "text/xml; charset=utf-8";

/// The longest webhook that is read: what Pingora keeps of a body to send it on. Twilio's are a few hundred
/// bytes.
const LONGEST: usize = 60 * 1024;
/// So much of a longer one is read and dropped, where it is answered all the same: Pingora closes a connection
/// whose request was not read to its end.
const MOST_DROPPED: usize = 4 << 20;
/// How long the whole of its body may take to come, where `[limits] body_timeout` is not shorter.
const FOR_A_BODY: Duration = Duration::from_secs(10);

/// Why the body of a webhook is read no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    TooLong,
    TooSlow,
}

impl Cut {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Cut::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Cut::TooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }

    pub(super) fn why(self) -> &'static str {
        match self {
            Cut::TooLong => "longer than a webhook of Twilio's is",
            Cut::TooSlow => "slower than a webhook of Twilio's is",
        }
    }
}

pub(super) async fn respond(
    session: &mut Session,
    status: StatusCode,
    content_type: &str,
    body: String,
    headers: &[(HeaderName, &str)],
) -> Result<()> {
    let mut response = ResponseHeader::build(status, Some(headers.len() + 2))?;
    response.insert_header(header::CONTENT_TYPE, content_type)?;
    response.insert_header(header::CONTENT_LENGTH, body.len())?;
    for (name, value) in headers {
        response.insert_header(name.clone(), *value)?;
    }
    let head_only = session.req_header().method == Method::HEAD;
    // Who does not read it is to blame, and not the app.
    session.write_response_header(Box::new(response), head_only).await.map_err(Error::into_down)?;
    if !head_only {
        session.write_response_body(Some(Bytes::from(body)), true).await.map_err(Error::into_down)?;
    }
    Ok(())
}

/// A method that the path does not know.
pub(super) async fn not_allowed(session: &mut Session, allowed: &str) -> Result<()> {
    let allow = [(header::ALLOW, allowed)];
    let why = format!("this path takes {allowed}\n");
    respond(session, StatusCode::METHOD_NOT_ALLOWED, TEXT, why, &allow).await
}

/// A webhook that was read no further.
pub(super) async fn cut_off(session: &mut Session, cut: Cut) -> Result<()> {
    respond(session, cut.status(), TEXT, format!("{}\n", cut.why()), &[]).await
}

/// The whole body of a webhook, which can be forwarded all the same.
pub(super) async fn whole_body(
    session: &mut Session,
    gateway: &Gateway,
) -> Result<std::result::Result<Bytes, Cut>> {
    let says = session.req_header().headers.get(header::CONTENT_LENGTH);
    let length = says.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > LONGEST) {
        return Ok(Err(Cut::TooLong));
    }
    session.as_mut().enable_retry_buffering();
    let cut = read_on(session, gateway, LONGEST, |_| ()).await?;
    Ok(cut.map_or_else(|| Ok(session.as_ref().get_retry_buffer().unwrap_or_default()), Err))
}

/// What a webhook was sent, in the query or in the body.
pub(super) struct Form {
    pub(super) text: Vec<u8>,
    /// Why that is not all.
    pub(super) cut: Option<Cut>,
}

impl Form {
    pub(super) fn whole(self) -> std::result::Result<Vec<u8>, Cut> {
        self.cut.map_or(Ok(self.text), Err)
    }
}

pub(super) async fn read_form(session: &mut Session, gateway: &Gateway) -> Result<Form> {
    let mut text = session.req_header().uri.query().unwrap_or_default().as_bytes().to_vec();
    let mut cut = None;
    if session.req_header().method != Method::GET {
        text.push(b'&');
        // Where its signature was checked, it has been read, or the beginning of it.
        text.extend_from_slice(&session.as_ref().get_retry_buffer().unwrap_or_default());
        let lost = session.as_ref().retry_buffer_truncated().then_some(Cut::TooLong);
        let more = read_on(session, gateway, MOST_DROPPED, |piece| text.extend_from_slice(piece)).await?;
        cut = lost.or(more);
    }
    Ok(Form { text, cut })
}

/// Reads what is left of a webhook's body, up to so much, and tells what is not too long.
async fn read_on(
    session: &mut Session,
    gateway: &Gateway,
    most: usize,
    mut told: impl FnMut(&[u8]),
) -> Result<Option<Cut>> {
    let reading = async {
        let mut read = 0;
        while read <= most
            && let Some(piece) = session.read_request_body().await?
        {
            read += piece.len();
            if read <= LONGEST {
                told(&piece);
            }
        }
        Ok::<_, Box<Error>>((read > LONGEST).then_some(Cut::TooLong))
    };
    // HTTP/2 has no bound for one piece either.
    let limit = gateway.config.limits.http.body_timeout.min(FOR_A_BODY);
    match timeout(limit, reading).await {
        Ok(Err(error)) if *error.etype() != ErrorType::ReadTimedout => Err(error.into_down()),
        Ok(Ok(cut)) => Ok(cut),
        Ok(Err(_)) | Err(_) => Ok(Some(Cut::TooSlow)),
    }
}
