//! Answers a request from here, without the app.

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode, header};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const XML: &str = "text/xml; charset=utf-8";

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

/// What a webhook was sent, in the query or in the body; cut where it is too long to be Twilio's.
pub(super) async fn read_form(session: &mut Session) -> Result<Vec<u8>> {
    let mut form = session.req_header().uri.query().unwrap_or_default().as_bytes().to_vec();
    if session.req_header().method != Method::GET {
        form.push(b'&');
        while let Some(chunk) = session.read_request_body().await? {
            let room = LONGEST_FORM.saturating_sub(form.len());
            form.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
    }
    Ok(form)
}
