//! TLS at voxgate itself: both protocols, a call over wss, and certificates that change under way.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use reqwest::{Certificate, Client, Version};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::world::{Gateway, SOON, TcpApp, block_on, header, run, until, voxgate};

/// A folder with `cert.pem` and `key.pem` for 127.0.0.1, that goes with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("voxgate-tls-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    /// A pair in a folder of its own in this one, with the year that it expires in.
    pub fn pair(&self, name: &str, year: i32) -> PathBuf {
        let folder = self.0.join(name);
        fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::new(vec!["bot.example.com".into(), "127.0.0.1".into()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        fs::write(folder.join("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn table(folder: &Path) -> String {
    format!("[server.tls]\ncert = \"{0}/cert.pem\"\nkey = \"{0}/key.pem\"\n", folder.display())
}

/// A client that trusts this certificate and no other.
fn client(folder: &Path, http1: bool) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let root = Certificate::from_pem(&fs::read(folder.join("cert.pem")).unwrap()).unwrap();
    let client = Client::builder().tls_certs_only([root]);
    if http1 { client.http1_only() } else { client }.build().unwrap()
}

pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// TLS over a connection, on which something may have been said before.
pub fn over(tcp: TcpStream, folder: &Path, protocol: &[u8]) -> Tls {
    tcp.set_read_timeout(Some(SOON)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from("127.0.0.1").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp)
}

fn get(client: &Client, gateway: &Gateway, path: &str) -> Result<(u16, Version, String), reqwest::Error> {
    let url = format!("https://127.0.0.1:{}{path}", gateway.port);
    block_on(async {
        let answer = client.get(url).send().await?;
        let (status, version) = (answer.status().as_u16(), answer.version());
        Ok((status, version, answer.text().await?))
    })
}

#[test]
fn both_protocols_and_the_app_is_told_https() {
    let folder = Folder::new("protocols");
    let pair = folder.pair("v1", 2100);
    let app = TcpApp::polite();
    let upstream = format!("[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n", app.port);
    let gateway = Gateway::start(&format!("{}{upstream}", table(&pair)));
    for (http1, version) in [(true, Version::HTTP_11), (false, Version::HTTP_2)] {
        let client = client(&pair, http1);
        let (status, spoken, body) = get(&client, &gateway, "/page").unwrap();
        assert_eq!((status, spoken, body.as_str()), (200, version, "from the app"));
        // Without an upgrade, which HTTP/2 does not have, the media path says what it is.
        let (status, _, body) = get(&client, &gateway, "/ws/twilio-media").unwrap();
        assert_eq!(status, 426);
        assert!(body.contains("wss://"), "{body}");
    }
    assert_eq!(app.heads().len(), 2);
    for head in app.heads() {
        assert_eq!(header(&head, "x-forwarded-proto"), Some("https"), "{head}");
    }
    assert_eq!(gateway.metric(&series("bot.example.com")), 4_102_444_800.0, "2100-01-01");
    assert_eq!(gateway.noise(), Vec::<String>::new());
}

/// HTTP/2 has other ways to write what gunicorn knows by two headers of HTTP/1.1.
#[test]
fn by_http2_the_app_gets_the_host_and_all_cookies_in_one_header() {
    let folder = Folder::new("cookies");
    let pair = folder.pair("v1", 2100);
    let app = TcpApp::polite();
    let upstream = format!("[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n", app.port);
    let gateway = Gateway::start(&format!("{}{upstream}", table(&pair)));
    let url = format!("https://127.0.0.1:{}/page", gateway.port);
    let version = block_on(async {
        let asked = client(&pair, false).get(url).header("Cookie", "session=1").header("Cookie", "csrf=2");
        asked.send().await.unwrap().version()
    });
    assert_eq!(version, Version::HTTP_2);
    let head = app.heads().pop().unwrap();
    let host = format!("127.0.0.1:{}", gateway.port);
    for (name, value) in [("Cookie", "session=1; csrf=2"), ("Host", &host), ("X-Forwarded-Host", &host)] {
        assert_eq!(header(&head, name), Some(value), "{head}");
    }
    assert_eq!(head.to_lowercase().matches("\ncookie:").count(), 1, "{head}");
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A connection by HTTP/2 so far as TLS goes.
fn http2(gateway: &Gateway, pair: &Path) -> Tls {
    over(TcpStream::connect(("127.0.0.1", gateway.port)).unwrap(), pair, b"h2")
}

/// The kinds of all frames up to the end of the connection; it must end.
fn frames(client: &mut Tls) -> Vec<u8> {
    let mut kinds = Vec::new();
    let mut next = [0; 9];
    let end = loop {
        if let Err(end) = client.read_exact(&mut next) {
            break end;
        }
        kinds.push(next[3]);
        let length = u32::from_be_bytes([0, next[0], next[1], next[2]]) as usize;
        client.read_exact(&mut vec![0; length]).unwrap();
    };
    assert!(!matches!(end.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "it is still there: {end}");
    kinds
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
// In the table's own words or plain, of https and 127.0.0.1.
const GET_HEALTHZ: &[u8] = b"\x82\x87\x04\x08/healthz\x01\x09127.0.0.1";
const POST_UPLOAD: &[u8] = b"\x83\x87\x04\x07/upload\x01\x09127.0.0.1";
const POST_STATUS: &[u8] = b"\x83\x87\x04\x16/webhook/stream_status\x01\x09127.0.0.1";

/// A client that has had its answer and asks for nothing more does not keep its connection for ever.
#[test]
fn an_idle_http2_connection_is_closed() {
    let folder = Folder::new("idle");
    let pair = folder.pair("v1", 2100);
    let gateway = Gateway::start(&format!("[limits]\nkeepalive = \"1s\"\n{}", table(&pair)));
    let mut client = http2(&gateway, &pair);
    let hello = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, b""), frame(HEADERS, 5, 1, GET_HEALTHZ)];
    client.write_all(&hello.concat()).unwrap();
    let kinds = frames(&mut client);
    assert!(kinds.contains(&HEADERS), "it was answered: {kinds:?}");
}

/// Neither does one that never says what HTTP/2 begins with; one that has said it may take its time.
#[test]
fn an_http2_connection_that_does_not_begin_is_closed() {
    let folder = Folder::new("silent");
    let pair = folder.pair("v1", 2100);
    let gateway = Gateway::start(&format!("[limits]\nhead_timeout = \"500ms\"\n{}", table(&pair)));
    for said in [b"".as_slice(), &PREFACE[..20]] {
        let mut client = http2(&gateway, &pair);
        client.write_all(said).unwrap();
        assert!(!frames(&mut client).contains(&HEADERS));
    }
    let mut client = http2(&gateway, &pair);
    client.write_all(&[PREFACE.to_vec(), frame(SETTINGS, 0, 0, b"")].concat()).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    client.write_all(&frame(HEADERS, 5, 1, GET_HEALTHZ)).unwrap();
    let mut next = [0; 9];
    while next[3] != HEADERS {
        client.read_exact(&mut next).unwrap();
        client.read_exact(&mut vec![0; usize::from(next[2])]).unwrap();
    }
}

/// HTTP/2 has its own ways to keep a request from its end: no room for the answer, and no end of the body.
#[test]
fn an_http2_request_that_is_not_brought_to_its_end_is_not_waited_for() {
    let folder = Folder::new("endless");
    let pair = folder.pair("v1", 2100);
    let limits = "[limits]\nbody_timeout = \"500ms\"\nmin_body_rate = 1000000\n";
    let gateway = Gateway::start(&format!("{limits}{}", table(&pair)));
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    for (nth, (flags, head, status)) in [(5, GET_HEALTHZ, 200), (4, POST_STATUS, 204)].into_iter().enumerate()
    {
        let mut client = http2(&gateway, &pair);
        client.write_all(&[PREFACE, &no_window, &frame(HEADERS, flags, 1, head)].concat()).unwrap();
        assert_eq!(gateway.event("HTTP", nth)["status"], status);
        until("the request to be over", || (gateway.metric("voxgate_http_inflight") == 0.0).then_some(()));
    }
    assert_eq!(gateway.events("APP_FAILED").len(), 0, "the app has nothing to do with it");
}

/// A client that does not go on with its body is not the app's failure, and Pingora waits for it over HTTP/2.
#[test]
fn an_http2_body_that_pauses_is_the_clients() {
    let folder = Folder::new("pauses");
    let pair = folder.pair("v1", 2100);
    let app = TcpApp::start(|_, wire| drop(wire.rest()));
    let upstream =
        format!("[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\nstall_timeout = \"1m1s\"\n", app.port);
    let gateway = Gateway::start(&format!("[limits]\nbody_timeout = \"100ms\"\n{}{upstream}", table(&pair)));
    let mut client = http2(&gateway, &pair);
    client
        .write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b""), &frame(HEADERS, 4, 1, POST_UPLOAD)].concat())
        .unwrap();
    let failed = gateway.event("APP_FAILED", 0);
    assert_eq!((&failed["status"], &failed["why"]), (&408.into(), &"the body comes too slowly".into()));
    assert_eq!(gateway.event("HTTP", 0)["status"], 408);
}

fn series(name: &str) -> String {
    format!("voxgate_tls_certificate_not_after_timestamp_seconds{{name=\"{name}\"}}")
}

#[test]
fn a_call_over_wss() {
    let folder = Folder::new("wss");
    let pair = folder.pair("v1", 2100);
    let gateway = Gateway::start(&table(&pair));
    let url = format!("wss://127.0.0.1:{}/ws/twilio-media", gateway.port);
    let done = voxgate()
        .args(["call", &url])
        .env("SSL_CERT_FILE", pair.join("cert.pem"))
        .current_dir(&folder.0)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}");
    gateway.event("WS_STOP", 0);
}

#[test]
fn a_certificate_changes_under_way_and_a_broken_one_changes_nothing() {
    let folder = Folder::new("changes");
    let (first, second) = (folder.pair("v1", 2100), folder.pair("v2", 2101));
    let current = folder.0.join("current");
    std::os::unix::fs::symlink(&first, &current).unwrap();
    let gateway = Gateway::start(&table(&current));
    assert!(get(&client(&first, true), &gateway, "/healthz").is_ok());
    assert!(get(&client(&second, true), &gateway, "/healthz").is_err());

    // As Kubernetes and certbot do it.
    std::os::unix::fs::symlink(&second, folder.0.join("next")).unwrap();
    fs::rename(folder.0.join("next"), &current).unwrap();
    gateway.event("TLS_RELOADED", 0);
    assert!(get(&client(&second, true), &gateway, "/healthz").is_ok());
    assert!(get(&client(&first, true), &gateway, "/healthz").is_err());
    assert_eq!(gateway.metric(&series("bot.example.com")), 4_133_980_800.0, "2101-01-01");

    let good = client(&second, true);
    let key = fs::read(second.join("key.pem")).unwrap();
    fs::copy(first.join("key.pem"), second.join("key.pem")).unwrap();
    let told = gateway.event("TLS_NOT_RELOADED", 0);
    let why = told["why"].as_str().unwrap();
    assert!(why.contains("is not the key of the first certificate in"), "{why}");
    assert!(get(&good, &gateway, "/healthz").is_ok());
    // Mended: what was in use all the time is taken again, and nothing more is complained of.
    fs::write(second.join("key.pem"), key).unwrap();
    gateway.event("TLS_RELOADED", 1);
    assert_eq!(gateway.events("TLS_NOT_RELOADED").len(), 1);
}

#[test]
fn check_reads_the_files() {
    let folder = Folder::new("check");
    let (good, old) = (folder.pair("good", 2100), folder.pair("old", 2021));
    let other = folder.pair("other", 2100);
    let check = |cert: &Path, key: &Path| {
        let file = folder.0.join("gateway.toml");
        fs::write(&file, format!("[server.tls]\ncert = {cert:?}\nkey = {key:?}\n")).unwrap();
        let done = run(env!("CARGO_BIN_EXE_voxgate"), &["check", "--config", file.to_str().unwrap()]);
        let said = if done.status.success() { done.stdout } else { done.stderr };
        (done.status.success(), String::from_utf8(said).unwrap())
    };
    let (ok, said) = check(&good.join("cert.pem"), &good.join("key.pem"));
    assert!(ok && said.contains("cert.pem: for bot.example.com until Jan  1 00:00:00 2100"), "{said}");
    fs::write(folder.0.join("page.html"), "<html>").unwrap();
    for (cert, key, why) in [
        (good.join("none.pem"), good.join("key.pem"), "none.pem\": cannot be read: No such file"),
        (good.join("cert.pem"), good.join("none.pem"), "none.pem\": cannot be read: No such file"),
        (folder.0.join("page.html"), good.join("key.pem"), "holds no certificate (-----BEGIN"),
        (good.join("key.pem"), good.join("key.pem"), "holds no certificate (-----BEGIN"),
        (good.join("cert.pem"), good.join("cert.pem"), "holds no private key (-----BEGIN"),
        (good.join("cert.pem"), other.join("key.pem"), "is not the key of the first certificate"),
        (old.join("cert.pem"), old.join("key.pem"), "expired on Jan  1 00:00:00 2021"),
    ] {
        let (ok, said) = check(&cert, &key);
        assert!(!ok && said.contains("[server.tls] ") && said.contains(why), "{why}: {said}");
    }
}

#[test]
fn what_cannot_be_used_is_not_started_with() {
    let folder = Folder::new("start");
    let pair = folder.pair("v1", 2100);
    fs::write(pair.join("key.pem"), "").unwrap();
    let file = folder.0.join("gateway.toml");
    fs::write(
        &file,
        format!("[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{}", table(&pair)),
    )
    .unwrap();
    let done = run(env!("CARGO_BIN_EXE_voxgate"), &["run", "--config", file.to_str().unwrap()]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("voxgate: cannot start: [server.tls] key = "), "{said}");
    assert_eq!(done.status.code(), Some(1));
}
