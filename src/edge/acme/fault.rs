//! Why there is no certificate: in words that say what to do about it.

use std::io;
use std::path::Path;
use std::time::Duration;

use instant_acme::{Error, Problem};

use crate::upstream::root_cause;

pub(super) struct Fault {
    /// As the metric has it.
    pub(super) result: &'static str,
    pub(super) why: String,
    pub(super) cure: &'static str,
    /// The issuer does not know the account.
    pub(super) account_is_gone: bool,
}

const PORT_80: &str = "the name must lead to this gateway by DNS, and port 80 there to [server.acme] listen: \
                       look at firewalls, and at what else answers on port 80";

/// What a kind of refusal asks for, by the last part of its type.
const CURES: [(&str, &str); 14] = [
    ("rateLimited", "wait; try settings out with the issuer's staging directory"),
    ("connection", PORT_80),
    ("unauthorized", PORT_80),
    ("incorrectResponse", PORT_80),
    ("tls", PORT_80),
    ("dns", "give the name an A or AAAA record that leads to this gateway"),
    ("caa", "have the CAA record of the name allow this issuer"),
    ("rejectedIdentifier", "the issuer does not certify such a name: see [server.acme] names"),
    ("malformed", "see [server.acme] names, or tell us"),
    ("invalidContact", "see [server.acme] email"),
    ("unsupportedContact", "see [server.acme] email"),
    ("userActionRequired", "read and accept the issuer's new terms of service"),
    ("externalAccountRequired", "this issuer wants an account made elsewhere, which voxgate cannot use"),
    ("accountDoesNotExist", "none: a new account is made with the next try"),
];

impl Fault {
    pub(super) fn folder(path: &Path, error: &io::Error) -> Fault {
        let why = format!("{} cannot be written: {error}", path.display());
        Fault::failed(why, "let [server.acme] folder be one that voxgate may write to")
    }

    pub(super) fn root(path: &Path, why: &str) -> Fault {
        let why = format!("[server.acme] root = {path:?}: {why}");
        Fault::failed(why, "give the authority's certificate as PEM")
    }

    pub(super) fn nonsense(why: impl Into<String>) -> Fault {
        Fault::failed(why.into(), "see that [server.acme] directory is that of an ACME server")
    }

    pub(super) fn slow(limit: Duration) -> Fault {
        let why = format!("the issuer was not done within {} s", limit.as_secs());
        Fault::failed(why, "none: it is tried again")
    }

    fn failed(why: String, cure: &'static str) -> Fault {
        Fault { result: "failed", why, cure, account_is_gone: false }
    }

    /// A name that the issuer did not take as proved.
    pub(super) fn of_name(name: &str, problem: &Problem) -> Fault {
        let fault = Fault::from(problem.clone());
        Fault { why: format!("{name}: {}", fault.why), ..fault }
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Fault {
        let kind = problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next()).unwrap_or("unnamed");
        let cure =
            CURES.iter().find(|(known, _)| *known == kind).map_or("see what it says", |(_, cure)| cure);
        let parts = problem.subproblems.iter().map(ToString::to_string);
        let detail: Vec<String> = problem.detail.iter().cloned().chain(parts).collect();
        let why = format!("the issuer refuses ({kind}): {}", detail.join("; "));
        Fault { result: "refused", why, cure, account_is_gone: kind == "accountDoesNotExist" }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        match error {
            Error::Api(problem) => Fault::from(problem),
            Error::Other(error) if error.is::<reqwest::Error>() => {
                let why = root_cause(error.as_ref()).to_string();
                let cure = match why.contains("UnknownIssuer") {
                    true => "an issuer of your own: give its authority as [server.acme] root",
                    false => "see that [server.acme] directory can be reached from here",
                };
                let why = format!("the issuer cannot be asked: {why}");
                Fault { result: "unreachable", why, cure, account_is_gone: false }
            }
            Error::Timeout(_) => Fault::failed(error.to_string(), "none: it is tried again"),
            other => Fault::nonsense(format!("the issuer's answer is of no use: {other}")),
        }
    }
}
