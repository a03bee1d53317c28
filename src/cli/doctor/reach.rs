//! Can Twilio reach the server at all: its name, its port, its certificate.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::report::{Fault, Report};
use super::target::Target;
use crate::cli::call::connect::{BROKEN, is_broken};

const TO_CONNECT: Duration = Duration::from_secs(5);

/// Notes the rows `name`, `tcp` and `tls`; false where nothing else is worth a try.
pub(super) async fn reach(target: &Target, report: &mut Report) -> bool {
    let host = target.host.trim_matches(['[', ']']).to_owned();
    let looked_up = tokio::net::lookup_host((host.as_str(), target.port)).await;
    let addresses: Vec<SocketAddr> = match looked_up.map(Iterator::collect) {
        Ok(found) => found,
        Err(error) => {
            let fault =
                Fault::new("the name is not known", "check its spelling and its DNS record").code(31904);
            report.fail("name", format!("{host}: {error}"), fault);
            return false;
        }
    };
    let Some(first) = addresses.first() else {
        let fault = Fault::new("the name has no address", "check its DNS record").code(31904);
        report.fail("name", host, fault);
        return false;
    };
    let near = addresses.iter().all(|address| is_near(address.ip()));
    let which = if near { ", near by: Twilio comes another way" } else { "" };
    report.pass("name", format!("{}{which}", first.ip()));

    let begun = Instant::now();
    let connected = connect(&addresses).await;
    let stream = match connected {
        Ok(stream) => stream,
        Err(error) => {
            let fault = match error.kind() {
                kind if is_broken(kind) => broken(),
                std::io::ErrorKind::ConnectionRefused => {
                    Fault::new("nothing listens on the port", "start the server, or correct the port")
                        .code(31902)
                }
                std::io::ErrorKind::TimedOut => {
                    Fault::new("no answer from there", "check firewall, address and tunnel").code(31901)
                }
                _ => Fault::new("the host cannot be reached", "check address and routes").code(31904),
            };
            report.fail("tcp", format!("port {}: {error}", target.port), fault);
            return false;
        }
    };
    report.pass("tcp", format!("port {}, connected in {} ms", target.port, begun.elapsed().as_millis()));
    if !target.tls {
        let seen = "plain HTTP";
        if near {
            report.skip("tls", format!("{seen}: something in front has to speak it, Twilio wants wss://"));
        } else {
            let fault =
                Fault::new("Twilio streams to wss:// only", "terminate TLS, and give https://").code(31922);
            report.fail("tls", seen, fault);
        }
        return true;
    }
    match tokio::task::spawn_blocking(move || handshake(stream, &host)).await {
        Ok(Ok((seen, not_after))) => {
            report.pass("tls", seen);
            expiry(not_after, SystemTime::now(), report);
            true
        }
        Ok(Err((seen, fault))) => {
            report.fail("tls", seen, fault);
            false
        }
        Err(error) => {
            report.fail(
                "tls",
                error.to_string(),
                Fault::new("the check itself failed", "report it").code(31910),
            );
            false
        }
    }
}

fn broken() -> Fault {
    let (code, cause, cure) = BROKEN;
    Fault::new(cause, cure).code(code)
}

fn no_tls() -> Fault {
    Fault::new("what answers speaks no TLS", "correct the port, or terminate TLS there").code(31910)
}

fn unsound(cause: &'static str) -> Fault {
    let cure = "install a certificate of a public authority for this name, with its intermediates";
    Fault::new(cause, cure).code(31910)
}

const FAILS: &str = "the TLS handshake fails";

/// The first address that answers.
async fn connect(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in addresses {
        match tokio::time::timeout(TO_CONNECT, tokio::net::TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return stream.into_std(),
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within 5 s"),
        }
    }
    Err(last)
}

/// A certificate that nobody has renewed two weeks before its end will not be renewed by itself.
const SOON_OVER: i64 = 14;

/// Notes how long the certificate is good for; seconds since 1970.
fn expiry(not_after: Option<i64>, now: SystemTime, report: &mut Report) {
    let Some(not_after) = not_after else { return report.skip("certificate", "its dates cannot be read") };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let days = not_after.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX)).div_euclid(24 * 60 * 60);
    let until = ASN1Time::from_timestamp(not_after).map(|time| time.to_string()).unwrap_or_default();
    let seen = format!("{days} days left, until {until}");
    let cure = "renew it: is the ACME client running, and is the server given what it fetches?";
    if days < 0 {
        report.fail("certificate", seen, Fault::new("the certificate has expired", cure).code(31910));
    } else if days < SOON_OVER {
        report.warn("certificate", seen, Fault::new("the certificate expires soon", cure));
    } else {
        report.pass("certificate", seen);
    }
}

/// What was agreed on, and when the certificate expires; or what was seen, and what that means.
fn handshake(stream: TcpStream, host: &str) -> Result<(String, Option<i64>), (String, Fault)> {
    let other = |seen: String| (seen, unsound(FAILS));
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name =
        rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(|error| other(error.to_string()))?;
    let mut session =
        rustls::ClientConnection::new(Arc::new(config), name).map_err(|error| other(error.to_string()))?;
    let prepared = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(Some(TO_CONNECT)))
        .and_then(|()| stream.set_write_timeout(Some(TO_CONNECT)));
    prepared.map_err(|error| other(error.to_string()))?;
    let mut transport = stream;
    while session.is_handshaking() {
        if let Err(error) = session.complete_io(&mut transport) {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let fault = match tls {
                Some(rustls::Error::InvalidCertificate(why)) => unsound(certificate(why)),
                None if is_broken(error.kind()) => broken(),
                // Plain HTTP answers with a complaint, hangs up, or waits for the end of a line.
                Some(rustls::Error::InvalidMessage(_)) | None => no_tls(),
                Some(_) => unsound(FAILS),
            };
            return Err((error.to_string(), fault));
        }
    }
    let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
    let first = session.peer_certificates().and_then(|chain| chain.first());
    let parsed = first.and_then(|first| X509Certificate::from_der(first).ok());
    let not_after = parsed.map(|(_, certificate)| certificate.validity().not_after.timestamp());
    let seen = format!("{}, the certificate is good for {host}", version.replace('_', "."));
    // A polite end; nobody waits for its answer.
    session.send_close_notify();
    _ = session.complete_io(&mut transport);
    _ = transport.flush();
    _ = transport.set_read_timeout(Some(Duration::from_millis(1)));
    _ = transport.read(&mut [0]);
    Ok((seen, not_after))
}

fn certificate(why: &rustls::CertificateError) -> &'static str {
    use rustls::CertificateError as Error;
    match why {
        Error::Expired | Error::ExpiredContext { .. } => "the certificate has expired",
        Error::NotValidYet | Error::NotValidYetContext { .. } => "the certificate is not valid yet",
        Error::NotValidForName | Error::NotValidForNameContext { .. } => {
            "the certificate is for another name"
        }
        Error::UnknownIssuer => "the certificate is self-signed, or its intermediate is missing",
        _ => "the certificate is not sound",
    }
}

/// Not an address that Twilio could reach.
fn is_near(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_renewed_in_time_is_told() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let mut report = Report::new("u");
        for days in [90, 14, 13, 0, -1] {
            expiry(Some(1_800_000_000 + days * 86_400), now, &mut report);
        }
        expiry(None, now, &mut report);
        let told = report.to_json("u");
        let results: Vec<_> = told["checks"].as_array().unwrap().iter().map(|row| &row["result"]).collect();
        assert_eq!(results, ["pass", "pass", "warn", "warn", "fail", "skip"]);
        assert_eq!(told["checks"][2]["seen"], "13 days left, until Jan 28 08:00:00 2027 +00:00");
    }
}
