//! A server whose certificate expired in 2020, and the authority that once signed it; both made by
//! `tests/certificates/make.sh`.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::project;

fn file(name: &str) -> PathBuf {
    project().join("tests/certificates").join(name)
}

/// For `SSL_CERT_FILE`.
pub fn authority() -> String {
    file("authority.pem").to_str().unwrap().to_owned()
}

/// Starts one: its port.
pub fn server() -> u16 {
    let certificate = CertificateDer::from_pem_file(file("expired.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("expired.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut tls = rustls::ServerConnection::new(config.clone()).unwrap();
            // The client ends it.
            std::thread::spawn(move || while tls.complete_io(&mut stream).is_ok() && tls.is_handshaking() {});
        }
    });
    port
}
