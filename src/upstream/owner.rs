//! Whose a failure is to mend: the operator's configuration, the vendor, or the network between. What
//! a vendor says when it refuses is read for that, whichever of the usual shapes it has, and told in
//! one sentence without the key that the vendor may repeat in it.

use std::fmt;
use std::io;

use serde_json::Value;

use super::answer::root_cause;
use super::quote::{code, quote_without, words};
use crate::config::Secret;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// This key of the configuration.
    Config(&'static str),
    /// It did not answer, or not what it promises.
    Vendor,
    /// It understood, and will not: a limit, an account.
    Refusing,
    /// It could not.
    Failing,
    Network,
}

impl Owner {
    /// In front of a sentence. A service of the operator's own is no vendor.
    pub(super) fn named(self, is_vendor: bool) -> String {
        let owner = self.to_string();
        if is_vendor { owner } else { owner.replace("the vendor", "the service") }
    }

    /// Of an answer that was no success, from a service of the operator's own.
    pub(super) fn of_status(status: u16) -> Owner {
        match status {
            401 | 403 => Owner::Config("headers"),
            404 | 405 => Owner::Config("url"),
            500.. => Owner::Failing,
            _ => Owner::Refusing,
        }
    }

    /// Of a connection that did not come about, and why.
    pub(super) fn of_io(error: &io::Error) -> (Owner, String) {
        let cause = root_cause(error);
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return Owner::of_tls(tls);
        }
        if error.kind() == io::ErrorKind::ConnectionRefused {
            return (Owner::Vendor, "connection refused: is it running?".to_owned());
        }
        (Owner::Network, format!("no connection: {cause}"))
    }

    /// Of a connection on which no TLS came about, and why.
    pub(super) fn of_tls(error: &rustls::Error) -> (Owner, String) {
        use rustls::CertificateError as Certificate;
        use rustls::Error::{InvalidCertificate, InvalidMessage};
        let (owner, why) = match error {
            InvalidMessage(_) => {
                (Owner::Config("url"), "what came is not TLS: does the server speak without it there?")
            }
            InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
                (Owner::Vendor, "its TLS certificate has expired")
            }
            InvalidCertificate(Certificate::NotValidYet | Certificate::NotValidYetContext { .. }) => {
                (Owner::Vendor, "its TLS certificate is not valid yet: is the clock here right?")
            }
            InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. }) => {
                (Owner::Config("url"), "its TLS certificate is for another name")
            }
            InvalidCertificate(Certificate::UnknownIssuer) => {
                (Owner::Vendor, "its TLS certificate is signed by nobody whom this machine trusts")
            }
            other => return (Owner::Vendor, format!("no TLS: {other}")),
        };
        (owner, why.to_owned())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Config(key) => write!(f, "your config: {key}"),
            Owner::Vendor => f.write_str("the vendor"),
            Owner::Refusing => f.write_str("the vendor refused"),
            Owner::Failing => f.write_str("the vendor failed"),
            Owner::Network => f.write_str("the network"),
        }
    }
}

/// Who answers, as far as it matters for what went wrong.
pub(super) struct Vendor {
    api_key: Option<Secret>,
    /// What the operator can set of a request.
    keys: &'static [&'static str],
}

/// What a vendor says of an error.
#[derive(Default)]
struct Told {
    message: Option<String>,
    /// A word for programs: `invalid_api_key`.
    code: Option<String>,
    /// Which part of the request it is about.
    param: Option<String>,
}

impl Told {
    /// A 404 that is not about what was asked for: the request went somewhere else.
    fn is_of_the_address(&self) -> bool {
        let message = self.message.as_deref().unwrap_or_default().to_ascii_lowercase();
        matches!(&*message, "" | "not found") || message.contains("invalid url")
    }
}

impl Vendor {
    pub(super) fn new(api_key: Option<Secret>, keys: &'static [&'static str]) -> Self {
        Self { api_key, keys }
    }

    pub(super) fn api_key(&self) -> Option<&str> {
        self.api_key.as_ref().map(|key| key.0.as_str())
    }

    /// What it said, fit for a log: without the key, which it may repeat.
    pub(super) fn quote(&self, said: &[u8]) -> String {
        quote_without(self.api_key(), said)
    }

    /// Whose an answer is that was no success, and what it says.
    pub(super) fn refusal(&self, status: u16, retry_after: &str, body: &[u8]) -> (Owner, String) {
        let told = serde_json::from_slice(body).map(|said| told(&said)).unwrap_or_default();
        let mut said = match &told.message {
            Some(message) => self.quote(message.as_bytes()),
            None => self.quote(body),
        };
        match (&told.message, &told.code) {
            (Some(message), Some(word)) if message != word => said += &format!(" ({})", code(word)),
            _ if said.is_empty() => "(no body)".clone_into(&mut said),
            _ => {}
        }
        if !retry_after.is_empty() {
            let wait = words(retry_after.as_bytes());
            let is_seconds = wait.bytes().all(|b| b.is_ascii_digit());
            said += &if is_seconds {
                format!("; it asks to wait {wait} s")
            } else {
                format!("; it asks to wait until {wait}")
            };
        }
        (self.owner(status, &told), said)
    }

    fn owner(&self, status: u16, told: &Told) -> Owner {
        let is_about = |words: &[&str]| {
            let code = told.code.as_deref().unwrap_or_default().to_ascii_lowercase();
            words.iter().any(|word| code.contains(word))
        };
        match status {
            500.. => Owner::Failing,
            // An account without credit is told of as one without rights.
            401 | 403 if is_about(&["quota", "limit", "credit", "payment", "billing", "unusual"]) => {
                Owner::Refusing
            }
            401 | 403 => Owner::Config("api_key"),
            400 | 404 | 422 => match self.blamed(told) {
                Some(key) => Owner::Config(key),
                None if status == 404 && told.is_of_the_address() => Owner::Config("url"),
                None => Owner::Refusing,
            },
            405 => Owner::Config("url"),
            _ => Owner::Refusing,
        }
    }

    /// The key of the configuration that is meant: by name, by the word for programs, or in words.
    fn blamed(&self, told: &Told) -> Option<&'static str> {
        let names = |text: &Option<String>, key: &str| {
            let joined: String = text.iter().flat_map(|text| text.chars()).map(word_or_gap).collect();
            format!("_{joined}_").contains(&format!("_{}_", key.trim_end_matches("_id")))
        };
        let find = |is_meant: &dyn Fn(&str) -> bool| self.keys.iter().copied().find(|key| is_meant(key));
        find(&|key| told.param.as_deref() == Some(key))
            .or_else(|| find(&|key| names(&told.code, key)))
            .or_else(|| find(&|key| names(&told.message, key)))
    }
}

/// `Output format` and `output_format` are the same key.
fn word_or_gap(c: char) -> char {
    if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }
}

/// OpenAI: `{"error": {"message", "type", "param", "code"}}`. ElevenLabs and whatever is built on
/// FastAPI: `{"detail": …}`, an object, a text, or a list of what does not fit. Deepgram:
/// `{"err_code", "err_msg"}` or `{"category", "message", "details"}`.
fn told(said: &Value) -> Told {
    let text = |of: &Value, names: &[&str]| {
        let found = names.iter().find_map(|name| of[*name].as_str());
        found.map(str::to_owned)
    };
    let inner = match (&said["error"], &said["detail"]) {
        (error @ Value::Object(_), _) => error,
        (Value::String(message), _) | (_, Value::String(message)) => {
            return Told { message: Some(message.clone()), ..Told::default() };
        }
        (_, detail @ Value::Object(_)) => detail,
        (_, Value::Array(misfits)) => return misfit(misfits),
        _ => said,
    };
    Told {
        message: text(inner, &["message", "err_msg", "details"]),
        code: text(inner, &["code", "status", "err_code", "category", "type"]),
        param: text(inner, &["param"]),
    }
}

/// The first of FastAPI's `[{"loc": ["body", "voice_settings", "speed"], "msg", "type"}]`.
fn misfit(misfits: &[Value]) -> Told {
    let Some(first) = misfits.first() else { return Told::default() };
    let place: Vec<&str> = first["loc"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let message = first["msg"].as_str().unwrap_or_default();
    Told {
        message: Some(format!("{}: {message}", place.join("."))),
        code: first["type"].as_str().map(str::to_owned),
        param: place.get(1).map(|part| (*part).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, failed, heard, openai_stt, openai_tts};
    use super::super::tests::ids;
    use super::*;
    use crate::call::FailureKind;
    use crate::config::{Endpoint, Stt};

    const KEYS: &[&str] = &["voice_id", "model", "output_format", "voice_settings"];

    #[test]
    fn a_refusal_has_an_owner_and_says_why() {
        let vendor = Vendor::new(Some(Secret("sk-1".to_owned())), KEYS);
        for (status, body, told) in [
            // OpenAI.
            (
                401,
                r#"{"error":{"message":"Incorrect API key provided: sk-1.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#,
                "your config: api_key: Incorrect API key provided: ***. (invalid_api_key)",
            ),
            (
                404,
                r#"{"error":{"message":"No such thing","type":"invalid_request_error","param":"model","code":"not_found"}}"#,
                "your config: model: No such thing (not_found)",
            ),
            (
                400,
                r#"{"error":{"message":"Audio file is too short.","type":"invalid_request_error","param":"file","code":"audio_too_short"}}"#,
                "the vendor refused: Audio file is too short. (audio_too_short)",
            ),
            (
                429,
                r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
                "the vendor refused: You exceeded your current quota (insufficient_quota)",
            ),
            (500, r#"{"error":{"message":"Oops"}}"#, "the vendor failed: Oops"),
            (503, "<h1>Busy</h1>", "the vendor failed: <h1>Busy</h1>"),
            // Who speaks its API in words of their own.
            (404, r#"{"detail":"Not Found"}"#, "your config: url: Not Found"),
            (
                404,
                r#"{"error":{"message":"Invalid URL (POST /v1/v1)"}}"#,
                "your config: url: Invalid URL (POST /v1/v1)",
            ),
            (404, r#"{"detail":"Nobody of that name"}"#, "the vendor refused: Nobody of that name"),
            (404, "<h1>Not Found</h1>", "your config: url: <h1>Not Found</h1>"),
            (405, "", "your config: url: (no body)"),
            (
                400,
                r#"{"object":"error","message":"The model `x` does not exist.","code":404}"#,
                "your config: model: The model `x` does not exist.",
            ),
            // ElevenLabs.
            (
                404,
                r#"{"detail":{"status":"voice_not_found","message":"A voice with ID x was not found."}}"#,
                "your config: voice_id: A voice with ID x was not found. (voice_not_found)",
            ),
            (
                401,
                r#"{"detail":{"status":"quota_exceeded","message":"You have 3 credits remaining."}}"#,
                "the vendor refused: You have 3 credits remaining. (quota_exceeded)",
            ),
            (
                403,
                r#"{"detail":{"status":"output_format_not_allowed","message":"Upgrade."}}"#,
                "your config: api_key: Upgrade. (output_format_not_allowed)",
            ),
            (
                422,
                r#"{"detail":[{"loc":["body","voice_settings","speed"],"msg":"Input should be less","type":"less_than_equal"}]}"#,
                "your config: voice_settings: body.voice_settings.speed: Input should be less (less_than_equal)",
            ),
            // Deepgram.
            (
                401,
                r#"{"err_code":"INVALID_AUTH","err_msg":"Invalid credentials.","request_id":"1"}"#,
                "your config: api_key: Invalid credentials. (INVALID_AUTH)",
            ),
            (
                400,
                r#"{"err_code":"Bad Request","err_msg":"No such model/version combination found.","request_id":"1"}"#,
                "your config: model: No such model/version combination found. (Bad Request)",
            ),
            (
                400,
                r#"{"category":"INVALID_JSON","message":"Invalid JSON submitted.","details":"line 7","request_id":"1"}"#,
                "the vendor refused: Invalid JSON submitted. (INVALID_JSON)",
            ),
            (402, "{}", "the vendor refused: {}"),
        ] {
            let (owner, said) = vendor.refusal(status, "", body.as_bytes());
            assert_eq!(format!("{owner}: {said}"), told, "{status} {body}");
        }
    }

    #[test]
    fn the_time_to_wait_is_passed_on() {
        let vendor = Vendor::new(None, &[]);
        let wait = |retry_after| vendor.refusal(429, retry_after, b"slow").1;
        assert_eq!(wait("20"), "slow; it asks to wait 20 s");
        assert_eq!(
            wait("Wed, 21 Oct 2026 07:28:00 GMT"),
            "slow; it asks to wait until Wed, 21 Oct 2026 07:28:00 GMT"
        );
        assert_eq!(wait(""), "slow");
    }

    /// How a transcription fails at this server.
    async fn failure(fake: &mut Fake, change: impl Fn(&mut Endpoint)) -> (FailureKind, String) {
        let server = fake.server();
        let stt = |mut endpoint: Endpoint| {
            change(&mut endpoint);
            let stt: Stt = openai_stt(endpoint);
            stt
        };
        let services = fake.services_as(stt, openai_tts);
        let failure = failed(&heard(|to| services.for_call(ids(), to).transcribe(7, vec![0xff; 160])).await);
        (failure.kind, failure.why.replace(&server, "IT"))
    }

    const SOON: std::time::Duration = std::time::Duration::from_millis(80);

    #[tokio::test]
    async fn what_is_no_answer_has_an_owner_too() {
        let mut silent = Fake::serving(|_, mut peer| async move {
            peer.request().await;
            peer.closed().await;
        })
        .await;
        let told = failure(&mut silent, |endpoint| endpoint.upstream.first_byte_timeout = SOON).await;
        let path = "POST http://IT/v1/audio/transcriptions";
        assert_eq!(told, (FailureKind::Timeout, format!("the vendor: {path}: no answer within 80 ms")));

        let mut broken = Fake::serving(|_, mut peer| async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
                .await;
        })
        .await;
        let (kind, why) = failure(&mut broken, |_| {}).await;
        assert_eq!(kind, FailureKind::Protocol);
        let told = format!("the network: {path} answered 200 with 1 byte and broke off: ");
        assert!(why.starts_with(&told), "{why}");

        let mut wrong =
            Fake::answering("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi")
                .await;
        let (kind, why) = failure(&mut wrong, |_| {}).await;
        assert_eq!(kind, FailureKind::Protocol);
        assert!(why.starts_with(&format!("the vendor: {path} answered 200 with text/html: hi")), "{why}");

        let mut plain = Fake::answering("HTTP/1.1 200 OK\r\n\r\n").await;
        let (kind, why) =
            failure(&mut plain, |endpoint| endpoint.upstream.servers = vec!["vendor.invalid:80".to_owned()])
                .await;
        assert_eq!(kind, FailureKind::Connect);
        let told =
            "the network: POST http://vendor.invalid:80/v1/audio/transcriptions: the name of the server";
        assert!(why.starts_with(told), "{why}");
    }

    #[tokio::test]
    async fn a_long_error_is_read_to_the_end_of_its_json() {
        let error =
            format!(r#"{{"error":{{"junk":"{}","message":"Too much","code":"m"}}}}"#, "x".repeat(12_000));
        let answer = format!("HTTP/1.1 400 Bad\r\nContent-Length: {}\r\n\r\n{error}", error.len());
        let (kind, why) = failure(&mut Fake::answering(answer).await, |_| {}).await;
        assert_eq!(kind, FailureKind::Http4xx);
        let told = "the vendor refused: POST http://IT/v1/audio/transcriptions answered 400: Too much (m)";
        assert_eq!(why, told);
    }
}
