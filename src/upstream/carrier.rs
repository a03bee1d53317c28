//! The carrier's REST API: ends a call, puts it through to somebody else, or sends keys down the line.
//! One request, asked once: a transfer that is asked for twice would ring twice. It has a time-out as
//! a whole, and what comes back is read to a bound.

use std::sync::Arc;

use reqwest::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, redirect};
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

use super::answer::{root_cause, seconds};
use super::http::{Unusable, no_connection};
use super::observed::{Notice, Tell, Watch};
use super::owner::Owner;
use super::quote::quote;
use super::{CallIds, tell};
use crate::call::{Control, Destination, Failure, FailureKind, Input, Job, Posted, Service};
use crate::config::{CarrierApi, Config, Credentials, Upstream};
use crate::twilio::rest::{Change, Refused, is_call, path_of_call};
use crate::twilio::twiml::{Dial, LONGEST, Party, SendDigits};
use crate::twilio::{RESUMED, resumed};

const API_URL: Owner = Owner::Config("api_url");

/// An answer is a page of JSON; what comes on top is not looked at.
const MOST_READ: usize = 16 * 1024;

pub struct Carrier {
    client: Client,
    api: CarrierApi,
    back: Option<Back>,
    connecting: Upstream,
    tell: Tell,
}

/// How streams come back.
struct Back {
    /// Where to, up to their path.
    base: String,
    status_callback: String,
    /// Asked when one has ended, where a call whose stream breaks is taken up again.
    ended: Option<String>,
}

impl Carrier {
    /// What it is called in the log and the metrics.
    pub const NAME: &str = "twilio";

    /// None where no credentials are configured. Connects nowhere yet.
    pub fn new(
        config: &Config,
        tell: impl Fn(&Notice) + Send + Sync + 'static,
    ) -> Result<Option<Carrier>, Unusable> {
        let api = config.twilio.api.clone();
        if api.credentials.is_none() {
            return Ok(None);
        }
        // Fails if the program has chosen before: just as well.
        rustls::crypto::ring::default_provider().install_default().ok();
        let connecting = Upstream::new(Carrier::NAME, Vec::new());
        let mut client = Client::builder()
            .user_agent(concat!("voxgate/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .referer(false)
            .redirect(redirect::Policy::none())
            .connect_timeout(connecting.connect_timeout)
            // Requests are rare, and one that met a connection just closed could not be repeated.
            .pool_max_idle_per_host(0);
        if api.url.starts_with("http:") {
            // Plain HTTP must also work on a machine without any CA certificates.
            client = client.tls_certs_only([]);
        }
        let client = client.build().map_err(|error| Unusable {
            upstream: Carrier::NAME.to_owned(),
            why: root_cause(&error).to_string(),
        })?;
        let twilio = &config.twilio;
        let back = config.server.public_url.as_ref().map(|url| Back {
            // `http` becomes `ws`, and so `https` becomes `wss`.
            base: url.replacen("http", "ws", 1),
            status_callback: format!("{url}{}", twilio.stream_status),
            ended: twilio.resume.then(|| format!("{url}{}", twilio.stream_ended)),
        });
        Ok(Some(Carrier { client, api, back, connecting, tell: Arc::new(tell) }))
    }

    /// Has this done to a call: one `Controlled`, or `Failed`.
    /// `back` is the path by which a stream may come back.
    pub async fn control(
        &self,
        ids: &CallIds,
        number: u64,
        control: &Control,
        back: &str,
        to: &Sender<Posted>,
    ) {
        let mut watch = Watch::new(&self.tell, Carrier::NAME, Service::Carrier, self.api.timeout);
        let done = match self.request(ids, control, back) {
            Ok(request) => {
                let asked = timeout(self.api.timeout, self.ask(&request, control, &mut watch)).await;
                asked.unwrap_or_else(|_| {
                    let why = format!("no answer within {}", seconds(self.api.timeout));
                    Err(request.failure(FailureKind::Timeout, Owner::Vendor, &why))
                })
            }
            Err(failure) => Err(failure),
        };
        let input = match done {
            Ok(()) => {
                watch.ok();
                Input::Controlled { number }
            }
            Err(failure) => {
                watch.failed(&failure);
                Input::Failed { job: Job::Control { number }, failure }
            }
        };
        drop(watch);
        let _ = tell(to, input).await;
    }

    fn request(&self, ids: &CallIds, control: &Control, back: &str) -> Result<Request, Failure> {
        let cannot = |owner: Owner, why: &str| Failure {
            upstream: Carrier::NAME.to_owned(),
            kind: FailureKind::Protocol,
            why: format!("{owner}: {why}"),
        };
        let named = Some(ids.account_sid.as_str()).filter(|sid| !sid.is_empty());
        let account = named.or(self.api.account_sid.as_deref()).unwrap_or_default();
        let Some(path) = path_of_call(account, &ids.call_sid) else {
            let why = "the stream names no call and account that Twilio's API could know";
            return Err(cannot(Owner::Vendor, why));
        };
        let twiml = match control {
            Control::Hangup => None,
            Control::Transfer { to } => Some(self.dial(to)),
            Control::SendDigits { digits } => {
                let Some(Back { base, status_callback, ended }) = &self.back else {
                    let why = "not set, and so the call could not come back once the keys are sent";
                    return Err(cannot(Owner::Config("[server] public_url"), why));
                };
                let streams = resumed(&ids.parameters) + 1;
                let then = ended.as_ref().map(|ended| format!("{ended}?{RESUMED}={streams}"));
                let digits = SendDigits {
                    digits: digits.as_str(),
                    stream: &format!("{base}{back}"),
                    status_callback,
                    parameters: &ids.parameters,
                    then: then.as_deref(),
                };
                Some(digits.to_xml())
            }
        };
        if twiml.as_ref().is_some_and(|xml| xml.chars().count() > LONGEST) {
            let why = format!(
                "more than {LONGEST} characters of TwiML (32018): the stream has too many parameters"
            );
            return Err(cannot(Owner::Refusing, &why));
        }
        Ok(Request {
            url: format!("{}{path}", self.api.url),
            form: twiml.as_deref().map_or(Change::Complete, Change::Twiml).form(),
            user: self.api.account_sid.clone().unwrap_or_else(|| account.to_owned()),
        })
    }

    fn dial(&self, to: &Destination) -> String {
        let transfer = &self.api.transfer;
        let dial = Dial {
            to: match to {
                Destination::Number(number) => Party::Number(number),
                Destination::Sip(address) => Party::Sip(address),
                Destination::Client(identity) => Party::Client(identity),
            },
            caller_id: transfer.caller_id.as_deref(),
            timeout: Some(transfer.timeout.as_secs()),
            action: transfer.action.as_deref(),
            status_callback: transfer.status_callback.as_deref(),
        };
        dial.to_xml()
    }

    async fn ask(&self, request: &Request, control: &Control, watch: &mut Watch) -> Result<(), Failure> {
        let (user, password) = match &self.api.credentials {
            Some(Credentials::ApiKey { sid, secret }) => (sid, Some(&secret.0)),
            Some(Credentials::AuthToken(token)) => (&request.user, Some(&token.0)),
            None => (&request.user, None),
        };
        let post = self
            .client
            .post(&request.url)
            .basic_auth(user, password)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(request.form.clone());
        let mut response = post.send().await.map_err(|error| {
            if error.is_connect() {
                let (owner, why) = no_connection(&error, &self.connecting);
                // There the key is called by another name.
                let owner = if owner == Owner::Config("url") { API_URL } else { owner };
                request.failure(FailureKind::Connect, owner, &why)
            } else {
                let why = format!("no HTTP answer: {}", root_cause(&error));
                request.failure(FailureKind::Protocol, Owner::Network, &why)
            }
        })?;
        watch.first_byte();
        let mut body = Vec::new();
        while body.len() < MOST_READ {
            match response.chunk().await {
                Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                Ok(None) => break,
                Err(error) => {
                    let why = format!(
                        "answered {} and broke off: {}",
                        response.status().as_u16(),
                        root_cause(&error)
                    );
                    return Err(request.failure(FailureKind::Protocol, Owner::Network, &why));
                }
            }
        }
        self.judge(request, control, &response, &body)
    }

    fn judge(
        &self,
        request: &Request,
        control: &Control,
        response: &Response,
        body: &[u8],
    ) -> Result<(), Failure> {
        let header = |name| response.headers().get(name).map(|v| quote(v.as_bytes())).unwrap_or_default();
        let refused = Refused::read(body);
        let is_over = refused.as_ref().is_some_and(Refused::is_over);
        let text = match &refused {
            Some(Refused { code, message }) => format!("{} ({code})", quote(message.as_bytes())),
            None if body.is_empty() => "(no body)".to_owned(),
            None => quote(body),
        };
        let status = response.status().as_u16();
        let (kind, owner, why) = match status {
            200..=299 if is_call(body) => return Ok(()),
            400 | 404 if is_over && *control == Control::Hangup => return Ok(()),
            200..=299 => (FailureKind::Protocol, API_URL, format!("where a call was expected: {text}")),
            300..=399 => {
                let why = format!("a redirect to {}, which is not followed", header(LOCATION));
                (FailureKind::Protocol, API_URL, why)
            }
            401 | 403 => (FailureKind::Http4xx, Owner::Config(self.credentials()), text),
            400 | 404 if is_over => {
                let why = format!("{text}; the call is over, or of another account_sid or region (api_url)");
                (FailureKind::Http4xx, Owner::Refusing, why)
            }
            404 | 405 if refused.is_none() => (FailureKind::Http4xx, API_URL, text),
            400..=499 => match header(RETRY_AFTER) {
                wait if wait.is_empty() => (FailureKind::Http4xx, Owner::Refusing, text),
                wait => (FailureKind::Http4xx, Owner::Refusing, format!("{text}; it asks to wait {wait} s")),
            },
            500..=599 => (FailureKind::Http5xx, Owner::Failing, text),
            _ => (FailureKind::Protocol, Owner::Vendor, text),
        };
        Err(request.failure(kind, owner, &format!("answered {status}: {why}")))
    }

    /// The key by which the operator can mend it.
    fn credentials(&self) -> &'static str {
        match self.api.credentials {
            Some(Credentials::ApiKey { .. }) => "api_key_sid and api_key_secret",
            Some(Credentials::AuthToken(_)) | None => "auth_token",
        }
    }
}

/// A request as it is about to be made.
struct Request {
    url: String,
    form: String,
    /// Whose auth token it is that goes with it.
    user: String,
}

impl Request {
    fn failure(&self, kind: FailureKind, owner: Owner, why: &str) -> Failure {
        Failure { upstream: Carrier::NAME.to_owned(), kind, why: format!("{owner}: POST {} {why}", self.url) }
    }
}

#[cfg(test)]
mod tests;
