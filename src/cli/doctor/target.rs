//! Where a deployment is, from the URL on the command line.

use anyhow::{Result, bail};

use super::DoctorArgs;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Target {
    pub(super) fn parse(args: &DoctorArgs) -> Result<Target> {
        Target::of(&args.url)
    }

    fn of(url: &str) -> Result<Target> {
        let wrong = || {
            anyhow::anyhow!(
                "{url:?} says not where the deployment is; write https://HOST or http://HOST:PORT"
            )
        };
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(wrong());
        }
        if !matches!(uri.path(), "" | "/") {
            bail!("{url:?} has a path; write the host only, and the paths as --media and --incoming-call");
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Target { tls, host: authority.host().to_owned(), port })
    }

    /// Host and port as in a URL, without a port that goes without saying.
    pub(super) fn authority(&self) -> String {
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    pub(super) fn http(&self, path: &str) -> String {
        format!("http{}://{}{path}", if self.tls { "s" } else { "" }, self.authority())
    }

    pub(super) fn ws(&self, path: &str) -> String {
        format!("ws{}://{}{path}", if self.tls { "s" } else { "" }, self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where() {
        let target = |tls, host: &str, port| Target { tls, host: host.to_owned(), port };
        for (url, wanted) in [
            ("https://bot.example.com", target(true, "bot.example.com", 443)),
            ("https://bot.example.com/", target(true, "bot.example.com", 443)),
            ("wss://bot.example.com:8443", target(true, "bot.example.com", 8443)),
            ("http://127.0.0.1:8080", target(false, "127.0.0.1", 8080)),
            ("http://[::1]", target(false, "[::1]", 80)),
        ] {
            assert_eq!(Target::of(url).unwrap(), wanted);
        }
        for wrong in ["bot.example.com", "ftp://h", "http://me:pw@h", "https://h/ws/twilio-media", ""] {
            assert!(Target::of(wrong).is_err(), "{wrong}");
        }
        let local = target(false, "127.0.0.1", 8080);
        assert_eq!(
            (local.ws("/a"), local.http("/b")),
            ("ws://127.0.0.1:8080/a".into(), "http://127.0.0.1:8080/b".into())
        );
    }
}
