//! The answer of a service as it comes in: its status judged, its body in pieces, each of them
//! awaited only so long. Whatever is wrong becomes a sentence that says what came instead.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::owner::{Owner, Vendor};
use super::quote::{QUOTED, quote, words};
use crate::call::{Failure, FailureKind};
use crate::config::Upstream;

/// How much of an error is read. What matters of a vendor's may stand at the end of its JSON.
const ERROR_READ: usize = 4 * QUOTED;
const VENDORS_ERROR_READ: usize = 16 * 1024;

/// How long, and for how many bytes, an answer is read on once all that matters has come.
const TAIL_TIME: Duration = Duration::from_millis(200);
const TAIL_BYTES: usize = 16 * 1024;

pub(super) struct Answer {
    response: Response,
    upstream: String,
    /// "POST URL".
    request: Arc<str>,
    stall: Duration,
    /// Bytes of the body so far.
    received: usize,
    /// Who answers, where failures are told with their owner.
    vendor: Option<Arc<Vendor>>,
    /// Held until the answer is done with: a stream counts as under way for as long as it flows.
    _slot: OwnedSemaphorePermit,
}

impl Answer {
    pub(super) fn new(
        response: Response,
        limits: &Upstream,
        request: Arc<str>,
        slot: OwnedSemaphorePermit,
        vendor: Option<Arc<Vendor>>,
    ) -> Self {
        let (upstream, stall) = (limits.name.clone(), limits.stall_timeout);
        Self { response, upstream, request, stall, received: 0, vendor, _slot: slot }
    }

    /// One that nobody was asked for: its body, in the pieces in which it comes.
    pub(super) fn canned(content_type: &str, pieces: Vec<Bytes>) -> Result<Self, Box<dyn Error>> {
        let pieces = futures_util::stream::iter(pieces.into_iter().map(Ok::<_, io::Error>));
        let head = http::Response::builder().header(CONTENT_TYPE, content_type);
        Ok(Self {
            response: Response::from(head.body(reqwest::Body::wrap_stream(pieces))?),
            upstream: "canned".to_owned(),
            request: "POST canned".into(),
            stall: Duration::from_secs(1),
            received: 0,
            vendor: None,
            _slot: Arc::new(Semaphore::new(1)).try_acquire_owned()?,
        })
    }

    /// This answer, if it says that all is well.
    pub(super) async fn success(mut self) -> Result<Self, Failure> {
        let status = self.response.status();
        if status.is_redirection() {
            let to = self.header(LOCATION.as_str());
            return Err(
                self.wrong(format!("a redirect to {}, which is not followed", self.quote(to.as_bytes())))
            );
        }
        if !status.is_success() {
            let kind = match status.as_u16() {
                400..=499 => FailureKind::Http4xx,
                500..=599 => FailureKind::Http5xx,
                _ => FailureKind::Protocol,
            };
            let mut said = Vec::new();
            let most = if self.vendor.is_some() { VENDORS_ERROR_READ } else { ERROR_READ };
            self.read_up_to(most, &mut said).await;
            let (owner, said) = match &self.vendor {
                Some(vendor) => vendor.refusal(status.as_u16(), &self.header(RETRY_AFTER.as_str()), &said),
                None if said.is_empty() => (Owner::of_status(status.as_u16()), "(no body)".to_owned()),
                None => (Owner::of_status(status.as_u16()), quote(&said)),
            };
            return Err(self.failure(kind, owner, format!("answered {}: {said}", status.as_u16())));
        }
        // None was asked for, and a compressed body would pass for text or sound.
        let encoding = self.header(CONTENT_ENCODING.as_str());
        if !matches!(&*encoding, "" | "identity") {
            return Err(self.wrong(format!("a compressed body ({})", words(encoding.as_bytes()))));
        }
        Ok(self)
    }

    /// The service says by the status that it has nothing to say.
    pub(super) fn has_no_content(&self) -> bool {
        matches!(self.response.status(), StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT)
    }

    /// `text/html` of `Text/HTML; charset=utf-8`; empty where there is none.
    pub(super) fn media_type(&self) -> String {
        self.content_type().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    pub(super) fn content_type(&self) -> String {
        self.header(CONTENT_TYPE.as_str())
    }

    fn header(&self, name: &str) -> String {
        let value = self.response.headers().get(name);
        value.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).unwrap_or_default()
    }

    /// The next bytes of the body, never none; `None` once it is complete.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match timeout(self.stall, self.response.chunk()).await {
                Ok(Ok(Some(bytes))) if bytes.is_empty() => {}
                Ok(Ok(Some(bytes))) => {
                    self.received += bytes.len();
                    return Ok(Some(bytes));
                }
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => {
                    let status = self.response.status().as_u16();
                    let (came, why) = (self.so_far(), root_cause(&error));
                    let why = format!("answered {status} with {came} and broke off: {why}");
                    return Err(self.failure(FailureKind::Protocol, Owner::Network, why));
                }
                Err(_) => {
                    let why = format!(
                        "answered {} with {}, then nothing more within {}",
                        self.response.status().as_u16(),
                        self.so_far(),
                        seconds(self.stall)
                    );
                    return Err(self.failure(FailureKind::Timeout, Owner::Vendor, why));
                }
            }
        }
    }

    /// The whole body, of which some was read before, and which has at most this many bytes.
    pub(super) async fn whole(&mut self, mut body: Vec<u8>, most: usize) -> Result<Vec<u8>, Failure> {
        while let Some(bytes) = self.next().await? {
            body.extend_from_slice(&bytes);
            if body.len() > most {
                return Err(self.wrong(format!("more than {most} bytes")));
            }
        }
        Ok(body)
    }

    /// Bytes of the body so far.
    pub(super) fn received(&self) -> usize {
        self.received
    }

    /// All that matters has come. Reads on for a moment, so that a connection whose answer was
    /// complete but for its end can be kept for the next turn.
    pub(super) async fn let_end(mut self) {
        let mut left = TAIL_BYTES;
        let tail = async {
            while let Ok(Some(bytes)) = self.response.chunk().await {
                left = left.saturating_sub(bytes.len());
                if left == 0 {
                    break;
                }
            }
        };
        // Late or broken: the connection is closed, and nothing is lost.
        let _ = timeout(TAIL_TIME, tail).await;
    }

    /// Words of this answer, fit for a log.
    pub(super) fn quote(&self, said: &[u8]) -> String {
        self.vendor.as_ref().map_or_else(|| quote(said), |vendor| vendor.quote(said))
    }

    /// The answer is not what was asked for; `what` completes "answered 200 with …".
    pub(super) fn wrong(&self, what: impl AsRef<str>) -> Failure {
        let status = self.response.status().as_u16();
        let why = format!("answered {status} with {}", what.as_ref());
        self.failure(FailureKind::Protocol, Owner::Vendor, why)
    }

    /// The same, where it is the operator who can mend it, by this key.
    pub(super) fn misconfigured(&self, key: &'static str, what: impl AsRef<str>) -> Failure {
        let status = self.response.status().as_u16();
        let why = format!("answered {status} with {}", what.as_ref());
        self.failure(FailureKind::Protocol, Owner::Config(key), why)
    }

    fn failure(&self, kind: FailureKind, owner: Owner, why: String) -> Failure {
        let owner = owner.named(self.vendor.is_some());
        Failure { upstream: self.upstream.clone(), kind, why: format!("{owner}: {} {why}", self.request) }
    }

    fn so_far(&self) -> String {
        match self.received {
            0 => "no body".to_owned(),
            1 => "1 byte".to_owned(),
            n => format!("{n} bytes"),
        }
    }

    /// Appends as much to the beginning of an unexpected body as is quoted, if it comes in time; however
    /// it comes, it is the same that is quoted.
    pub(super) async fn read_to_quote(&mut self, body: &mut Vec<u8>) {
        self.read_up_to(ERROR_READ, body).await;
        body.truncate(ERROR_READ);
    }

    async fn read_up_to(&mut self, most: usize, body: &mut Vec<u8>) {
        let read = async {
            while body.len() <= most
                && let Ok(Some(bytes)) = self.response.chunk().await
            {
                body.extend_from_slice(&bytes);
            }
        };
        let _ = timeout(self.stall, read).await;
    }
}

/// "5 s" or "150 ms".
pub(super) fn seconds(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}

/// Libraries wrap errors in layers that say only where they passed; the innermost says what it is.
pub(crate) fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    loop {
        // An I/O error passes over what it wraps when asked for its source.
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match wrapped {
            Some(wrapped) => wrapped,
            None => match cause.source() {
                Some(source) => source,
                None => return cause,
            },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_as_an_operator_wrote_them() {
        assert_eq!(seconds(Duration::from_secs(5)), "5 s");
        assert_eq!(seconds(Duration::from_millis(1500)), "1500 ms");
    }
}
