//! What Twilio and the operator ask by HTTP: version, health, the voice webhook and its TwiML, the
//! status callback.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::PATIENCE;
use super::report::{Fault, Report};
use super::signer::Signer;
use super::target::Target;
use crate::twilio::lint::{self, Site, lint};

/// More than this of an answer says nothing new.
const LONGEST: usize = 256 * 1024;

pub(super) struct Client {
    client: reqwest::Client,
    target: Target,
    signer: Signer,
}

/// Where the next call is to go.
#[derive(Clone, Debug)]
pub(super) struct Media {
    /// With the query that the TwiML has; Twilio would drop it.
    pub(super) path: String,
    pub(super) call_sid: String,
    pub(super) parameters: Vec<(String, String)>,
    /// The path is another one for each call.
    pub(super) once: bool,
}

struct Answer {
    status: u16,
    kind: String,
    deploy_id: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    /// `200 text/html "<html>"`
    fn seen(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line: String =
            text.lines().find(|line| !line.trim().is_empty()).unwrap_or("").trim().chars().take(60).collect();
        let line = if line.is_empty() { "empty".to_owned() } else { format!("{line:?}") };
        format!("{} {} {line}", self.status, self.kind).replace("  ", " ")
    }

    /// It is said to be what Twilio takes TwiML from.
    fn is_twiml(&self) -> bool {
        let kind = self.kind.split(';').next().unwrap_or_default().trim();
        ["text/xml", "application/xml", "text/html"].iter().any(|twiml| kind.eq_ignore_ascii_case(twiml))
    }

    fn is_html(&self) -> bool {
        self.kind.contains("html") || self.body.trim_ascii_start().starts_with(b"<")
    }

    /// Why it is not the one that was wanted.
    fn fault(&self, path: &str) -> Fault {
        let route = format!("let {path} be answered; this gateway does so itself");
        match self.status {
            401 | 403 => Fault::new(
                "refused: a signature or a login is asked for",
                "set TWILIO_AUTH_TOKEN to the account's, and --public-url to the URL that Twilio was given; or \
                 give a --header that lets the check in",
            ),
            404 | 405 => Fault::new("nothing serves this path with this method", route),
            502..=504 => {
                Fault::new("the app behind the server is down", "start it, and see the server's log")
            }
            500..=599 => Fault::new("the server fails", "see its log"),
            300..=399 => Fault::new("the request is sent elsewhere", "give the URL that it is sent to"),
            _ if self.is_html() => Fault::new("HTML: the request fell through to the app", route),
            _ => Fault::new("something else answers there", route),
        }
    }
}

impl Client {
    pub(super) fn new(target: &Target, headers: &[(String, String)], signer: &Signer) -> Result<Client> {
        let mut all = reqwest::header::HeaderMap::new();
        for (name, value) in headers {
            let name: reqwest::header::HeaderName =
                name.parse().with_context(|| format!("{name:?} is no header name"))?;
            all.insert(name, value.parse().with_context(|| format!("{value:?} is no value of a header"))?);
        }
        let client = reqwest::Client::builder()
            .user_agent("TwilioProxy/1.1")
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .no_proxy()
            .default_headers(all)
            .build()?;
        Ok(Client { client, target: target.clone(), signer: signer.clone() })
    }

    async fn ask(&self, path: &str, form: Option<String>) -> Result<Answer, String> {
        let url = self.target.http(path);
        let signature = self.signer.request(path, form.as_deref());
        let request = match form {
            Some(form) => {
                let kind = "application/x-www-form-urlencoded; charset=UTF-8";
                self.client.post(url).header("content-type", kind).body(form)
            }
            None => self.client.get(url),
        };
        let request =
            signature.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let told = |error: reqwest::Error| match error.is_timeout() {
            true => format!("no answer within {} s", PATIENCE.as_secs()),
            false => format!("{:#}", anyhow::Error::new(error.without_url())),
        };
        let mut answer = request.send().await.map_err(told)?;
        let header =
            |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (status, kind, deploy_id) =
            (answer.status().as_u16(), header("content-type").unwrap_or_default(), header("x-deploy-id"));
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(told)? {
            body.extend_from_slice(&piece);
            if body.len() > LONGEST {
                break;
            }
        }
        Ok(Answer { status, kind, deploy_id, body })
    }

    /// The answer, unless there is none: then that is the row.
    async fn asked(
        &self,
        check: &str,
        path: &str,
        form: Option<String>,
        report: &mut Report,
    ) -> Option<Answer> {
        match self.ask(path, form).await {
            Ok(answer) => Some(answer),
            Err(seen) => {
                let fault = Fault::new("the server does not answer", "see its log: is a worker blocked?");
                report.fail(check, seen, fault);
                None
            }
        }
    }

    pub(super) async fn version(&self, expected: Option<&str>, report: &mut Report) {
        let Some(answer) = self.asked("version", "/version", None, report).await else { return };
        if answer.status != 200 || answer.is_html() {
            return report.fail("version", answer.seen(), answer.fault("/version"));
        }
        let json: Option<Value> = serde_json::from_slice(&answer.body).ok();
        let in_json = json.and_then(|json| json["deploy_id"].as_str().map(str::to_owned));
        let text = String::from_utf8_lossy(&answer.body).trim().to_owned();
        let id = in_json.or(answer.deploy_id).unwrap_or(text);
        match expected {
            Some(expected) if id != expected => {
                let cause = format!("another build answers: {expected:?} was expected");
                let cure = "wait for the deployment, or look for the old process; is DEPLOY_ID set?";
                report.fail("version", format!("deploy id {id:?}"), Fault::new(cause, cure));
            }
            Some(_) | None => report.pass("version", format!("200, deploy id {id:?}")),
        }
    }

    pub(super) async fn healthz(&self, report: &mut Report) {
        let Some(answer) = self.asked("healthz", "/healthz", None, report).await else { return };
        if answer.status == 200 && answer.body.trim_ascii().eq_ignore_ascii_case(b"ok") {
            report.pass("healthz", "200 ok");
        } else {
            report.fail("healthz", answer.seen(), answer.fault("/healthz"));
        }
    }

    pub(super) async fn stream_status(&self, path: &str, report: &mut Report) {
        let form = "AccountSid=AC00000000000000000000000000000000&CallSid=CA00000000000000000000000000000000\
                    &StreamSid=MZ00000000000000000000000000000000&StreamName=doctor&StreamEvent=stream-started\
                    &Timestamp=2026-01-02T03%3A04%3A05.678Z";
        let Some(answer) = self.asked("stream_status", path, Some(form.to_owned()), report).await else {
            return;
        };
        match answer.status {
            204 => report.pass("stream_status", "204"),
            _ => report.fail("stream_status", answer.seen(), answer.fault(path)),
        }
    }

    /// A call comes in: what the voice webhook answers, or where the call would go without.
    pub(super) async fn incoming_call(
        &self,
        path: &str,
        media_path: &str,
        stream_status: &str,
        report: &mut Report,
    ) -> Media {
        let call_sid = call_sid();
        let elsewhere = Media {
            path: media_path.to_owned(),
            call_sid: call_sid.clone(),
            parameters: Vec::new(),
            once: false,
        };
        let form = format!(
            "AccountSid=AC00000000000000000000000000000000&CallSid={call_sid}&From=%2B15005550006&To=%2B15005550001\
             &CallStatus=ringing&Direction=inbound&ApiVersion=2010-04-01"
        );
        let Some(answer) = self.asked("incoming_call", path, Some(form), report).await else {
            return elsewhere;
        };
        let site = Site { public_url: None, media_path, stream_status };
        let linted = lint(&answer.body, &site);
        let unreadable = linted.findings.iter().any(|finding| finding.rule == lint::Rule::NotXml);
        if answer.status != 200 || (unreadable && !answer.kind.contains("xml")) {
            report.fail("incoming_call", answer.seen(), answer.fault(path).code(11200));
            return elsewhere;
        }
        if answer.is_twiml() {
            report.pass("incoming_call", format!("200 {}", answer.kind));
        } else {
            let rule = lint::Rule::ContentType;
            report.fail("incoming_call", answer.seen(), Fault::new(rule.why(), rule.cure()).code(12300));
        }
        for finding in &linted.findings {
            let rule = finding.rule;
            let fault = Fault::new(rule.why(), rule.cure());
            let fault = match rule.code() {
                Some(code) => fault.code(code),
                None => fault,
            };
            report.fail(format!("twiml {}", rule.as_str()), finding.seen.as_str(), fault);
        }
        let Some(stream) = linted.streams.into_iter().next() else {
            if linted.findings.is_empty() {
                let fault = Fault::new(
                    "the call is not connected to a stream",
                    "answer with <Connect><Stream url=\"wss://…\"/>",
                );
                report.fail("twiml stream", "no <Connect><Stream>", fault);
            }
            return elsewhere;
        };
        let (host, path) = match stream.url.split_once("://") {
            Some((_, rest)) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", stream.url.as_str()),
        };
        let other = host != self.target.authority() && host != self.target.host;
        let note = if other && !host.is_empty() {
            format!(", at {host}: asked of {} here", self.target.authority())
        } else {
            String::new()
        };
        let known = path.split(['?', '#']).next().unwrap_or_default();
        // A token stands behind the path, and is nobody's business.
        let once = known.starts_with(&format!("{media_path}/"));
        let shown = if once { format!("{media_path}/…") } else { known.to_owned() };
        if linted.findings.is_empty() {
            report.pass("twiml", format!("<Connect><Stream> to {shown}{note}"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Media { path, call_sid, parameters: stream.parameters, once }
    }
}

/// A CallSid that no other call has.
fn call_sid() -> String {
    use std::hash::{BuildHasher, RandomState};
    let random = || RandomState::new().hash_one(0u8);
    format!("CA{:016x}{:016x}", random(), random())
}
