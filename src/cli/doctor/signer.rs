//! Signs requests as Twilio does, so that a deployment that lets in nobody else can be judged.

use super::DoctorArgs;
use super::report::Report;
use super::target::Target;
use crate::twilio::signature::sign;

const TOKEN: &str = "TWILIO_AUTH_TOKEN";
const HEADER: &str = "X-Twilio-Signature";

#[derive(Clone)]
pub(super) struct Signer {
    /// From the environment only: a command line is for everybody to read.
    token: Option<String>,
    /// `https://HOST`, as Twilio was told it.
    public_url: String,
}

impl Signer {
    pub(super) fn of(args: &DoctorArgs, target: &Target) -> Signer {
        let token = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
        let public_url = args.public_url.clone().unwrap_or_else(|| target.http(""));
        Signer { token, public_url: public_url.trim_end_matches('/').to_owned() }
    }

    pub(super) fn tell(&self, report: &mut Report) {
        match self.token {
            Some(_) => report.pass("signature", format!("requests are signed, as for {}", self.public_url)),
            None => report.skip("signature", format!("nothing is signed: {TOKEN} is not set")),
        }
    }

    pub(super) fn request(&self, path: &str, form: Option<&str>) -> Option<(String, String)> {
        self.header(&format!("{}{path}", self.public_url), form)
    }

    /// Of a stream, whose URL has the scheme of WebSockets.
    pub(super) fn handshake(&self, path: &str) -> Option<(String, String)> {
        let (scheme, rest) = self.public_url.split_once("://")?;
        let scheme = if matches!(scheme, "http" | "ws") { "ws" } else { "wss" };
        self.header(&format!("{scheme}://{rest}{path}"), None)
    }

    fn header(&self, url: &str, form: Option<&str>) -> Option<(String, String)> {
        let signature = sign(self.token.as_ref()?.as_bytes(), url, form.map(str::as_bytes))?;
        Some((HEADER.to_owned(), signature))
    }
}
