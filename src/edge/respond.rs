//! Answers a request from here, without the app.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode, header};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use tokio::time::timeout;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const XML: &str = "text/xml; charset=utf-8";

/// The longest webhook whose signature is checked: what Pingora keeps of a body to send it on.
const LONGEST_SIGNED: usize = 60 * 1024;
/// How long a webhook may take to come.
const FOR_A_BODY: Duration = Duration::from_secs(10);
/// A form of Twilio's is a few hundred bytes.
const LONGEST_FORM: usize = 16 * 1024;

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
    session.write_response_header(Box::new(response), head_only).await?;
    if !head_only {
        session.write_response_body(Some(Bytes::from(body)), true).await?;
    }
    Ok(())
}

/// A method that the path does not know.
pub(super) async fn not_allowed(session: &mut Session, allowed: &str) -> Result<()> {
    let allow = [(header::ALLOW, allowed)];
    let why = format!("this path takes {allowed}\n");
    respond(session, StatusCode::METHOD_NOT_ALLOWED, TEXT, why, &allow).await
}

/// The whole body of a webhook, which can be forwarded all the same; `None` where it is longer than any
/// of Twilio's, or does not come.
pub(super) async fn whole_body(session: &mut Session) -> Result<Option<Bytes>> {
    let says = session.req_header().headers.get(header::CONTENT_LENGTH);
    let length = says.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > LONGEST_SIGNED) {
        return Ok(None);
    }
    session.as_mut().enable_retry_buffering();
    let reading = async {
        let mut read = 0;
        while let Some(piece) = session.read_request_body().await? {
            read += piece.len();
            if read > LONGEST_SIGNED {
                return Ok(false);
            }
        }
        Ok(true)
    };
    match timeout(FOR_A_BODY, reading).await {
        Ok(Ok(true)) => Ok(Some(session.as_ref().get_retry_buffer().unwrap_or_default())),
        Ok(Ok(false)) | Err(_) => Ok(None),
        Ok(Err(error)) => Err(error),
    }
}

/// What a webhook was sent, in the query or in the body; cut where it is too long to be Twilio's.
pub(super) async fn read_form(session: &mut Session) -> Result<Vec<u8>> {
    let mut form = session.req_header().uri.query().unwrap_or_default().as_bytes().to_vec();
    if session.req_header().method != Method::GET {
        form.push(b'&');
        // Where its signature was checked, it has been read.
        form.extend_from_slice(&session.as_ref().get_retry_buffer().unwrap_or_default());
        while let Some(chunk) = session.read_request_body().await? {
            let room = LONGEST_FORM.saturating_sub(form.len());
            form.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
    }
    Ok(form)
}
