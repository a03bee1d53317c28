//! The voice webhooks: answered here with TwiML that connects the call to this gateway, or forwarded
//! and looked at on their way back. Twilio plays "an application error has occurred" to the caller
//! wherever it gets anything but TwiML: here it always gets some.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use tracing::{info, warn};

use super::gateway::{Gateway, Paths};
use super::respond::{Cut, XML, cut_off, not_allowed, read_form, respond, whole_body};
use super::spelling::Spelling;
use crate::config::{Config, Twiml};
use crate::observe::{Busy, TwimlFallback};
use crate::twilio::lint::{Finding, LONGEST_TWIML, Linted, Rule, Site, lint};
use crate::twilio::{ConnectStream, HANG_UP, MOST_RESUMED, RESUMED, Then, VoiceRequest, codes};

/// Where nothing is configured, a caller that cannot be taken hears the busy signal.
const REJECT: &str = "<Response><Reject reason=\"busy\"/></Response>";

/// Whether a path is one of the two voice webhooks, however it is written: what is true of them, that they
/// must be signed for instance, must not depend on that.
pub(super) fn is_voice(paths: &Paths, spelling: &Spelling) -> bool {
    spelling.means(&paths.incoming_call) || spelling.means(&paths.stream_ended)
}

/// Answers a voice webhook, where that is voxgate's to do.
pub(super) async fn answer(session: &mut Session, gateway: &Gateway) -> Result<bool> {
    let twilio = &gateway.config.twilio;
    let spelling = Spelling::of(session.req_header().uri.path());
    let ended = spelling.means(&gateway.paths.stream_ended);
    if twilio.twiml == Twiml::Forward {
        // So much was read of it for its signature that it cannot be sent on.
        if session.as_ref().retry_buffer_truncated() {
            return cut_off(session, Cut::TooLong).await.map(|()| true);
        }
        // Where both are one path, it may be a call that ends well.
        return match ended || twilio.busy_twiml.is_empty() {
            true => Ok(false),
            false => turn_away(session, gateway).await,
        };
    }
    if !matches!(session.req_header().method, Method::GET | Method::HEAD | Method::POST) {
        return not_allowed(session, "GET, HEAD, POST").await.map(|()| true);
    }
    let asked = match read_form(session, gateway).await?.whole() {
        Ok(form) => VoiceRequest::read(&form),
        Err(cut) => return cut_off(session, cut).await.map(|()| true),
    };
    let twiml = if ended {
        info!(call_sid = asked.call_sid, call_status = asked.call_status, "STREAM_ENDED");
        match comes_back(&asked, gateway) {
            true => busy(&asked, gateway).unwrap_or_else(|| connect(&asked, asked.resumed, gateway)),
            false => HANG_UP.to_owned(),
        }
    } else if let Some(twiml) = busy(&asked, gateway) {
        twiml
    } else {
        info!(call_sid = asked.call_sid, "INCOMING_CALL");
        connect(&asked, 0, gateway)
    };
    respond(session, StatusCode::OK, XML, twiml, &[]).await?;
    Ok(true)
}

/// Answers a webhook of the app's, where the call that comes of it could not be taken.
async fn turn_away(session: &mut Session, gateway: &Gateway) -> Result<bool> {
    let mut asked = VoiceRequest::default();
    // Else the app's webhook is not looked at.
    if gateway.config.limits.max_calls_per_number > 0 {
        // Where its signature was checked, it has been read; where that is only warned about, perhaps not all.
        if let Err(cut) = whole_body(session, gateway).await? {
            return cut_off(session, cut).await.map(|()| true);
        }
        asked = VoiceRequest::read(&read_form(session, gateway).await?.text);
    }
    match busy(&asked, gateway) {
        Some(twiml) => respond(session, StatusCode::OK, XML, twiml, &[]).await.map(|()| true),
        None => Ok(false),
    }
}

/// What the caller hears where no more calls are taken.
fn busy(asked: &VoiceRequest, gateway: &Gateway) -> Option<String> {
    let (limits, call_sid) = (&gateway.config.limits, asked.call_sid.as_str());
    let most = limits.max_calls_per_number;
    let enough = |number: &str| most > 0 && !gateway.numbers.expect(call_sid, number, most, Instant::now());
    let busy = gateway.busy().or_else(|| asked.caller().is_some_and(enough).then_some(Busy::Number))?;
    warn!(call_sid, reason = busy.as_str(), why = busy.why(), "CALL_TURNED_AWAY");
    gateway.metrics.twiml_fallback(TwimlFallback::Busy(busy));
    let said = Some(&gateway.config.twilio.busy_twiml).filter(|text| !text.is_empty());
    Some(said.cloned().unwrap_or_else(|| REJECT.to_owned()))
}

/// Whether a call whose stream has ended is to go on with another: it asks because the TwiML that it was served
/// says so. What another process has ended on purpose, this one does not know, but that was by Twilio's REST API.
fn comes_back(asked: &VoiceRequest, gateway: &Gateway) -> bool {
    let is_up = ["", "in-progress"].contains(&asked.call_status.as_str());
    let may = gateway.config.twilio.resume && is_up && (1..=MOST_RESUMED).contains(&asked.resumed);
    may && !gateway.calls.is_over(&asked.call_sid)
}

/// Connects a call that has had so many streams.
fn connect(asked: &VoiceRequest, streams: u64, gateway: &Gateway) -> String {
    let Config { twilio, server, .. } = &gateway.config;
    let call_sid = asked.call_sid.as_str();
    // The configuration has made sure that it is there, and https.
    let public = server.public_url.as_deref().unwrap_or_default();
    let host = public.trim_start_matches("https://");
    let ended = format!("{public}{}", twilio.stream_ended);
    let again = format!("{ended}?{RESUMED}={}", streams + 1);
    // One that is empty is left out.
    let before = if streams > 0 { streams.to_string() } else { String::new() };
    let parameters =
        [("call_sid", call_sid), ("From", &asked.from), ("To", &asked.to), (RESUMED, before.as_str())];
    ConnectStream {
        url: &format!("wss://{host}{}", gateway.tokens.path_for(call_sid)),
        then: if twilio.resume { Then::AskLater(&again) } else { Then::Ask(&ended) },
        status_callback: &format!("{public}{}", twilio.stream_status),
        parameters: &parameters,
    }
    .twiml()
}

/// An answer of the app's, on its way to Twilio.
pub(super) struct Passing {
    read: BytesMut,
    /// Held back until it has been mended.
    held: bool,
    /// Its type, where Twilio takes no TwiML of it.
    other_kind: Option<String>,
}

impl Passing {
    /// Looks at the head of an answer: whether it may be TwiML, and whether it will be mended.
    pub(super) fn of(
        gateway: &Gateway,
        request: &RequestHeader,
        response: &mut ResponseHeader,
    ) -> Result<Option<Passing>> {
        let has = |name| response.headers.get(name).and_then(|value| value.to_str().ok());
        let kind = has(header::CONTENT_TYPE).unwrap_or("text/xml").to_ascii_lowercase();
        let packed = has(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
        if !response.status.is_success() || request.method == Method::HEAD || packed {
            return Ok(None);
        }
        // Twilio plays audio.
        if kind.starts_with("audio/") {
            return Ok(None);
        }
        if !kind.contains("xml") && !kind.contains("html") {
            return Ok(Some(Passing { read: BytesMut::new(), held: false, other_kind: Some(kind) }));
        }
        let size = has(header::CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
        let held = gateway.config.twilio.twiml_fix
            && request.version == http::Version::HTTP_11
            && size.is_none_or(|size| (1..=LONGEST_TWIML).contains(&size));
        if held && size.is_some() {
            // How long it will be is known when it has been read, and its head has gone by then.
            response.remove_header(&header::CONTENT_LENGTH);
            response.insert_header(header::TRANSFER_ENCODING, "chunked")?;
        }
        Ok(Some(Passing { read: BytesMut::new(), held, other_kind: None }))
    }

    /// Looks at a piece of the answer. What is too long for Twilio goes by as it is.
    pub(super) fn piece(
        &mut self,
        piece: &mut Option<Bytes>,
        last: bool,
        gateway: &Gateway,
        request_id: &str,
    ) {
        let too_long = self.read.len() > LONGEST_TWIML;
        if let Some(bytes) = piece.as_ref().filter(|_| !too_long) {
            let room = LONGEST_TWIML + 1 - self.read.len();
            self.read.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if self.read.len() <= LONGEST_TWIML {
                if self.held && !last {
                    *piece = None;
                }
            } else if self.held {
                let before = self.read.len() - bytes.len().min(room);
                let mut all = BytesMut::from(&self.read[..before]);
                all.extend_from_slice(bytes);
                *piece = Some(all.freeze());
            }
        }
        if last {
            let mended = self.look(gateway, request_id);
            if self.held && self.read.len() <= LONGEST_TWIML {
                *piece = Some(mended.map_or_else(|| self.read.split().freeze(), Bytes::from));
            }
        }
    }

    /// Says what is wrong, and answers with what would not be.
    fn look(&self, gateway: &Gateway, request_id: &str) -> Option<String> {
        let Config { twilio, server, .. } = &gateway.config;
        let site = Site {
            public_url: server.public_url.as_deref(),
            media_path: &twilio.path,
            stream_status: &twilio.stream_status,
        };
        let linted = match &self.other_kind {
            Some(kind) => of_another_kind(kind, &self.read),
            None => lint(&self.read, &site),
        };
        for Finding { rule, seen, mended } in &linted.findings {
            gateway.metrics.twiml_finding(*rule);
            let (name, why, cure) = (rule.as_str(), rule.why(), rule.cure());
            let mended = *mended && self.held;
            match rule.code() {
                Some(code) => {
                    let meaning = codes::explain(code).map_or("", |known| known.meaning);
                    warn!(rule = name, seen, code, meaning, why, cure, mended, request_id, "TWIML_FINDING");
                }
                None => info!(rule = name, seen, why, cure, mended, request_id, "TWIML_FINDING"),
            }
        }
        linted.mended
    }
}

/// Of plain text, only TwiML is at fault: Twilio reads out what is none, and that may be meant.
fn of_another_kind(kind: &str, answer: &[u8]) -> Linted {
    let is_meant = kind.starts_with("text/plain") && !answer.trim_ascii_start().starts_with(b"<");
    let finding = Finding { rule: Rule::ContentType, seen: kind.to_owned(), mended: false };
    Linted { findings: if is_meant { Vec::new() } else { vec![finding] }, ..Linted::default() }
}
