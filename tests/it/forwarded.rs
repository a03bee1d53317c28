//! Where a request came from: believed from `[server] trusted_proxies` only, by header or by the PROXY
//! protocol; whatever a stranger claims does not reach the app.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::tls;
use crate::world::{Gateway, TcpApp, Wire, header};

fn gateway(app: &TcpApp, server_keys: &str) -> Gateway {
    let config = format!("[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n", app.port);
    Gateway::start_with(&config, server_keys, &[])
}

const TRUSTED: &str = "trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]";

#[test]
fn from_a_stranger_no_header_is_believed() {
    let app = TcpApp::polite();
    let gateway = gateway(&app, "trusted_proxies = [\"192.0.2.0/24\"]");
    for upgrade in ["", "Upgrade: websocket\r\nConnection: Upgrade\r\n"] {
        Wire::ask(
            gateway.port,
            &format!(
                "GET / HTTP/1.1\r\nHost: bot.example.com\r\n{upgrade}X-Forwarded-For: 192.0.2.7\r\n\
                 X-Forwarded-For: 192.0.2.8\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                 X-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /evil\r\nForwarded: for=192.0.2.9\r\n\
                 X-Real-IP: 192.0.2.10\r\nX_Forwarded_For: 192.0.2.11\r\nX-Forwarded_Proto: https\r\n\
                 SCRIPT_NAME: /evil\r\nX-Original-URL: /evil\r\n\
                 X_Request_Other: kept\r\n\r\n"
            ),
        );
        let asked = app.heads().pop().unwrap();
        for (name, value) in [
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Host", "bot.example.com"),
            ("X_Request_Other", "kept"),
        ] {
            assert_eq!(header(&asked, name), Some(value), "{asked}");
        }
        for forged in ["192.0.2.", "evil", "forwarded-port", "https"] {
            assert!(!asked.to_lowercase().contains(forged), "{forged}: {asked}");
        }
    }
}

#[test]
fn what_a_trusted_proxy_says_counts_from_the_client_on() {
    let app = TcpApp::polite();
    let gateway = gateway(&app, TRUSTED);
    Wire::ask(
        gateway.port,
        "GET / HTTP/1.1\r\nHost: inside\r\nX-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.1.1.1\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: bot.example.com\r\nX-Real-IP: 203.0.113.9\r\n\
         X_Forwarded_For: 6.6.6.6\r\nScript-Name: /6.6.6.6\r\nX-Rewrite-URL: /6.6.6.6\r\n\r\n",
    );
    let asked = app.heads().pop().unwrap();
    for (name, value) in [
        ("X-Forwarded-For", "203.0.113.9, 10.1.1.1, 127.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "bot.example.com"),
        ("X-Real-IP", "203.0.113.9"),
    ] {
        assert_eq!(header(&asked, name), Some(value), "{asked}");
    }
    assert!(!asked.contains("6.6.6.6"), "{asked}");
}

#[test]
fn the_proxy_protocol_tells_whose_connection_it_is() {
    let app = TcpApp::polite();
    let gateway = gateway(&app, &format!("{TRUSTED}\nproxy_protocol = true"));
    let request = "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x08\x0a\0\0\x01\0\x01\0\x02";
    for (told, client) in [
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n".as_slice(), "203.0.113.7"),
        (v2, "203.0.113.8"),
        (b"PROXY TCP6 2001:db8::1 fd00::1 1 2\r\n", "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n", "6.6.6.6, 127.0.0.1"),
    ] {
        let mut wire = Wire::to(gateway.port);
        wire.send([told, request.as_bytes()].concat());
        assert_eq!(wire.answer().text(), "from the app");
        assert_eq!(header(&app.heads().pop().unwrap(), "X-Forwarded-For"), Some(client));
    }
    let asked = app.heads().len();
    let mut wire = Wire::to(gateway.port);
    wire.send(request);
    assert_eq!(wire.rest(), b"", "one of the proxies that does not speak it");
    gateway.event("CONNECTION_REFUSED", 0);
    assert_eq!(app.heads().len(), asked);
}

/// The header comes before the handshake, and is not encrypted.
#[test]
fn the_proxy_protocol_under_tls() {
    let folder = tls::Folder::new("proxied");
    let pair = folder.pair("v1", 2100);
    let app = TcpApp::polite();
    let config = format!("{}[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n", tls::table(&pair), app.port);
    let gateway = Gateway::start_with(&config, &format!("{TRUSTED}\nproxy_protocol = true"), &[]);
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n";
    for (told, client) in [
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n".as_slice(), "203.0.113.7"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x08\x0a\0\0\x01\0\x01\0\x02", "203.0.113.8"),
    ] {
        let mut tcp = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
        tcp.write_all(told).unwrap();
        let mut wire = tls::over(tcp, &pair, b"http/1.1");
        wire.write_all(request).unwrap();
        let mut answer = String::new();
        // The app closes first, and not every server says goodbye in TLS.
        let _ = wire.read_to_string(&mut answer);
        assert!(answer.ends_with("from the app"), "{answer}");
        let asked = app.heads().pop().unwrap();
        assert_eq!(header(&asked, "X-Forwarded-For"), Some(client), "{asked}");
        assert_eq!(header(&asked, "X-Forwarded-Proto"), Some("https"), "{asked}");
    }
    // Without it, there is no handshake with a proxy that ought to speak it.
    let mut wire = tls::over(TcpStream::connect(("127.0.0.1", gateway.port)).unwrap(), &pair, b"http/1.1");
    assert!(wire.write_all(request).is_err() || wire.read(&mut [0; 16]).map_or(true, |read| read == 0));
    assert_eq!(app.heads().len(), 2);
}

#[test]
fn a_stranger_does_not_speak_the_proxy_protocol() {
    let app = TcpApp::polite();
    let gateway = gateway(&app, "trusted_proxies = [\"192.0.2.0/24\"]\nproxy_protocol = true");
    let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(Wire::ask(gateway.port, request).text(), "from the app");
    let mut wire = Wire::to(gateway.port);
    wire.send(format!("PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n{request}"));
    let head = wire.head();
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(app.heads().len(), 1);
}
