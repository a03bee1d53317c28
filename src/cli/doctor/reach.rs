//! Can Twilio reach the server at all: its name, its port, its certificate.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::report::{Fault, Report};
use super::target::Target;

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
        Ok(Ok(seen)) => {
            report.pass("tls", seen);
            true
        }
        Ok(Err((seen, cause))) => {
            let cure = match cause {
                NO_TLS => "correct the port, or terminate TLS there",
                _ => "install a certificate of a public authority for this name, with its intermediates",
            };
            report.fail("tls", seen, Fault::new(cause, cure).code(31910));
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

const NO_TLS: &str = "what answers speaks no TLS";

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

/// What was agreed on; or what was seen, and the cause.
fn handshake(stream: TcpStream, host: &str) -> Result<String, (String, &'static str)> {
    let other = |seen: String| (seen, "the TLS handshake fails");
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
            let cause = match tls {
                Some(rustls::Error::InvalidCertificate(why)) => certificate(why),
                // Plain HTTP answers with a complaint, hangs up, or waits for the end of a line.
                Some(rustls::Error::InvalidMessage(_)) | None => NO_TLS,
                Some(_) => "the TLS handshake fails",
            };
            return Err((error.to_string(), cause));
        }
    }
    let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
    let seen = format!("{}, the certificate is good for {host}", version.replace('_', "."));
    // A polite end; nobody waits for its answer.
    session.send_close_notify();
    _ = session.complete_io(&mut transport);
    _ = transport.flush();
    _ = transport.set_read_timeout(Some(Duration::from_millis(1)));
    _ = transport.read(&mut [0]);
    Ok(seen)
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
