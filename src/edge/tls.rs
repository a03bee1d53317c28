//! TLS at the public listener: the certificate, and its change under way. The two files are looked at
//! again and again rather than watched: that sees the swap of a symbolic link, an editor's rename and a
//! network's file system alike. What cannot be used changes nothing. With ACME the files are those that
//! `acme` writes; until the first is there, handshakes are refused: a certificate that nobody trusts
//! would fail too, and look like an attack.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use pingora::listeners::ALPN;
use pingora::listeners::tls::TlsSettings;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use tracing::{info, warn};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::Tls;
use crate::observe::Metrics;

/// How often the files are looked at. A change counts when two looks have seen the same.
const LOOK: Duration = Duration::from_secs(1);

/// A certificate with its key, and what an operator wants to know of it.
#[derive(Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    /// The first name that it is for.
    pub name: String,
    /// All names that it is for.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    /// The same, for people.
    pub until: String,
}

impl Certificate {
    /// Reads the two files; the problem names the key of the configuration.
    pub fn load(tls: &Tls) -> Result<Certificate, String> {
        Files::read(tls).and_then(|files| files.certificate(tls))
    }

    /// Its time is over.
    pub fn is_expired(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        u64::try_from(self.not_after).is_ok_and(|end| end <= now) || self.not_after < 0
    }
}

/// The two files as they are.
#[derive(Clone, PartialEq)]
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(tls: &Tls) -> Result<Files, String> {
        let read = |key: &str, path: &Path| {
            std::fs::read(path).map_err(|error| format!("{}: cannot be read: {error}", named(tls, key)))
        };
        Ok(Files { cert: read("cert", &tls.cert)?, key: read("key", &tls.key)? })
    }

    fn certificate(&self, tls: &Tls) -> Result<Certificate, String> {
        let cert = named(tls, "cert");
        let key = named(tls, "key");
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = chain.map_err(|error| format!("{cert}: is not PEM: {error}"))?;
        let Some(first) = chain.first() else {
            return Err(format!("{cert}: holds no certificate (-----BEGIN CERTIFICATE-----)"));
        };
        let told = told_of(first).map_err(|why| format!("{cert}: {why}"))?;
        let private = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| format!("{key}: holds no private key (-----BEGIN PRIVATE KEY-----)"))?;
        let provider = rustls::crypto::ring::default_provider();
        let pair = CertifiedKey::from_der(chain, private, &provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                format!("{key}: is not the key of the first certificate in {}", tls.cert.display())
            }
            Error::InvalidCertificate(why) => format!("{cert}: cannot be used: {why:?}"),
            other => format!("{key}: cannot be used: {other}"),
        })?;
        let Told { name, names, not_before, not_after, until } = told;
        Ok(Certificate { key: Arc::new(pair), name, names, not_before, not_after, until })
    }
}

fn named(tls: &Tls, key: &str) -> String {
    // Nobody has written a path of this file.
    if tls.cert == tls.key {
        return format!("[server.acme] {:?}", tls.cert);
    }
    format!("[server.tls] {key} = {:?}", if key == "cert" { &tls.cert } else { &tls.key })
}

/// What a certificate says of itself.
struct Told {
    name: String,
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
    until: String,
}

fn told_of(der: &CertificateDer<'_>) -> Result<Told, String> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|_| "is no X.509 certificate".to_owned())?;
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let names = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    let names: Vec<String> = names.collect();
    let subject =
        || parsed.subject().iter_common_name().find_map(|name| name.as_str().ok().map(str::to_owned));
    let name = names.first().cloned().or_else(subject).unwrap_or_else(|| "unnamed".to_owned());
    let (start, end) = (parsed.validity().not_before, parsed.validity().not_after);
    let (not_before, not_after) = (start.timestamp(), end.timestamp());
    Ok(Told { name, names, not_before, not_after, until: end.to_string() })
}

/// The certificate that counts, for every handshake from now on.
#[derive(Debug)]
struct Current(ArcSwapOption<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// The settings of a listener: HTTP/2 and HTTP/1.1, TLS 1.2 and later; and what keeps its certificate
/// up to date. One that is `awaited` may come later.
pub(super) fn listen(
    tls: &Tls,
    awaited: bool,
    metrics: Arc<Metrics>,
) -> Result<(TlsSettings, Renewal), String> {
    let files = Files::read(tls);
    let certificate = files.as_ref().map_err(String::clone).and_then(|files| files.certificate(tls));
    let key = match certificate {
        Ok(certificate) => {
            tell(&certificate, &metrics, "TLS_CERTIFICATE");
            Some(certificate.key)
        }
        Err(_) if awaited => {
            warn!(detail = "handshakes are refused until the first certificate is there", "TLS_AWAITED");
            None
        }
        Err(why) => return Err(why),
    };
    let current = Arc::new(Current(ArcSwapOption::new(key)));
    let mut settings = TlsSettings::intermediate("", "").map_err(|error| error.to_string())?;
    settings.set_cert_resolver(current.clone());
    settings.set_alpn(ALPN::H2H1);
    Ok((settings, Renewal { tls: tls.clone(), files, current, metrics }))
}

fn tell(certificate: &Certificate, metrics: &Metrics, event: &str) {
    let Certificate { name, until, not_after, .. } = certificate;
    metrics.certificate(name, *not_after);
    if certificate.is_expired() {
        warn!(name, until, why = "it has expired: no client will accept it", "{event}");
    } else {
        info!(name, until, "{event}");
    }
}

/// Looks at the files, and takes what has changed in them.
pub(super) struct Renewal {
    tls: Tls,
    files: Result<Files, String>,
    current: Arc<Current>,
    metrics: Arc<Metrics>,
}

#[async_trait]
impl BackgroundService for Renewal {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut known = self.files.clone();
        let mut last = known.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = shutdown.changed() => return,
            }
            let tls = self.tls.clone();
            let seen = tokio::task::spawn_blocking(move || Files::read(&tls)).await;
            let Ok(seen) = seen else { continue };
            // Two files are not written at once.
            let settled = seen == last;
            last = seen;
            if last == known || !settled {
                continue;
            }
            known = last.clone();
            match known.as_ref().map_err(String::clone).and_then(|files| files.certificate(&self.tls)) {
                Ok(certificate) => {
                    self.current.0.store(Some(certificate.key.clone()));
                    tell(&certificate, &self.metrics, "TLS_RELOADED");
                }
                Err(why) => warn!(why, "TLS_NOT_RELOADED"),
            }
        }
    }
}
