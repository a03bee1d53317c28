//! Where the certificate of the public listener comes from: two files, or an authority that is asked by
//! ACME.

use std::net::SocketAddr;
use std::time::Duration;

use super::document::Refused;
use super::meant::{Acme, Tls};
use super::resolve::{meet, secs};
use super::values;
use super::written::Table;

pub(super) const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Where an issuer looks for the proof.
const PROOF: (std::net::Ipv4Addr, u16) = (std::net::Ipv4Addr::UNSPECIFIED, 80);

pub(super) fn files(t: &mut Table<'_, '_>) -> Option<Tls> {
    let (cert, key) = (t.place("cert"), t.place("key"));
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if t.has(one) && !t.has(other) {
            let why = format!("`{one}` in [server.tls] needs `{other}` beside it");
            t.complain(
                one,
                why,
                format!("give the file of the {}", if one == "key" { "certificate" } else { "private key" }),
            );
        }
    }
    cert.zip(key).map(|(cert, key)| Tls { cert, key })
}

/// `None` where no names are given: it is off. `public` is where [server] listens.
pub(super) fn acme(t: &mut Table<'_, '_>, public: SocketAddr, has_files: bool) -> Option<Acme> {
    let wanted = "a host name such as \"bot.example.com\"";
    let names = t.list("names", wanted, |s| Ok(values::certified_name(s)?));
    let email = t.parsed("email", "an address such as \"ops@example.com\"", |s| match s.split_once('@') {
        _ if s.is_empty() => Ok(String::new()),
        Some((name, host)) if !name.is_empty() && host.contains('.') && !s.contains([' ', ',']) => {
            Ok(s.to_owned())
        }
        _ => Err(Refused::from("is not an e-mail address")),
    });
    let accept_terms = t.flag("accept_terms");
    let address = "an address such as \"0.0.0.0:80\"";
    let listen = t.parsed("listen", address, |s| Ok(values::listen(s)?)).unwrap_or(PROOF.into());
    let folder = t.parsed("folder", "the path of a folder", |s| match s {
        "" => Err(Refused::from("is empty")),
        _ => Ok(s.to_owned()),
    });
    let folder = t.in_folder(folder.as_deref().unwrap_or("acme"));
    let directory = t.parsed("directory", "a URL such as \"https://acme.example.com/directory\"", |s| {
        if values::url(s)?.tls {
            Ok(s.to_owned())
        } else {
            Err(Refused::from("does not start with https://"))
        }
    });
    let root = t.place("root");
    let retry = t.duration("retry", secs(1, 6 * 3600)).unwrap_or(Duration::from_mins(5));
    // A name that is refused has had its complaint.
    let names = if t.has("names") { names? } else { Vec::new() };
    if names.is_empty() {
        if email.is_some_and(|email| !email.is_empty()) || accept_terms == Some(true) {
            let why = "`names` in [server.acme] is empty: no certificate is asked for".to_owned();
            t.complain("names", why, "write names = [\"bot.example.com\"]".to_owned());
        }
        return None;
    }
    if has_files {
        let why = "`names` in [server.acme] asks for a certificate, and [server.tls] gives one".to_owned();
        t.complain("names", why, "keep one of the two".to_owned());
    }
    if email.as_deref() == Some("") || !t.has("email") {
        let why = "`email` in [server.acme] is empty: the issuer wants to know whom to write to".to_owned();
        t.complain("email", why, "write email = \"ops@example.com\"".to_owned());
    }
    if accept_terms == Some(false) || !t.has("accept_terms") {
        let why = "`accept_terms` in [server.acme] is not true: nobody issues without it".to_owned();
        t.complain("accept_terms", why, "read the issuer's terms, and write accept_terms = true".to_owned());
    }
    if meet(listen, public) {
        let why = format!(
            "`listen` in [server.acme]: {listen} meets {public}, where [server] listens, which speaks TLS then"
        );
        let help = "have [server] listen on port 443, and this on port 80, where the issuer asks";
        t.complain("listen", why, help.to_owned());
    }
    Some(Acme {
        names,
        email: email.unwrap_or_default(),
        listen,
        folder,
        directory: directory.unwrap_or_else(|| DIRECTORY.to_owned()),
        root,
        retry,
    })
}
