//! Where a request comes from and what it asks for: the PROXY protocol, `X-Forwarded-For`, and the other
//! ways to write a path.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use voxgate::edge::{Spelling, read_header, way as way_of};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const OURS: &str = "/ws/twilio-media";

/// A header of the PROXY protocol ends where it ends. Whoever is said to ask is the last who is not one of
/// our proxies, whatever stands before. A path means the same however often it is cleaned up.
pub fn run(data: &[u8]) {
    proxied(data);
    let nets: [IpNet; 2] = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a network"));
    for peer in ["10.0.0.1", "203.0.113.9"] {
        asked(peer.parse().expect("an address"), data, &nets);
    }
    if let Ok(path) = std::str::from_utf8(data) {
        spelt(path);
    }
}

/// What follows is the request, and is not read. The same is read from a header that comes byte by byte.
fn proxied(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut rest = data;
    let read = runtime.block_on(read_header(&mut rest));
    let length = data.len() - rest.len();
    assert!(length <= 2_048 + 16, "a header of {length} bytes");
    match read {
        Ok(source) => {
            let mut only = &data[..length];
            assert_eq!(runtime.block_on(read_header(&mut only)), Ok(source));
            assert!(only.is_empty());
            let mut cut = &data[..length - 1];
            assert!(runtime.block_on(read_header(&mut cut)).is_err(), "half a header is enough");
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

fn asked(peer: IpAddr, data: &[u8], trusted: &[IpNet]) {
    let mut headers = HeaderMap::new();
    for value in data.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(FORWARDED_FOR, value);
    }
    let is_ours = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let way = way_of(peer, &headers, trusted);
    let (client, ours) = way.split_first().expect("somebody");
    assert!(ours.iter().all(is_ours), "{way:?}");
    assert_eq!(way.last(), Some(&peer));
    if !is_ours(&peer) {
        assert_eq!((client, ours.len()), (&peer, 0), "a stranger is believed");
    }
    // What the client itself wrote, before all that our proxies did, counts for nothing.
    if way.len() > 1 && !is_ours(client) {
        let mut forged = HeaderMap::new();
        forged.append(FORWARDED_FOR, HeaderValue::from_static("10.9.9.9, 192.0.2.66"));
        for value in headers.get_all(&FORWARDED_FOR) {
            forged.append(FORWARDED_FOR, value.clone());
        }
        assert_eq!(way_of(peer, &forged, trusted), way);
    }
}

fn spelt(path: &str) {
    let (spelling, ours) = (Spelling::of(path), Spelling::kept(OURS));
    assert!(spelling.means(&Spelling::kept(path)));
    if spelling.means(&ours) {
        let other = format!("/.//x/../{path}/");
        assert!(Spelling::of(&other).means(&ours), "{other}");
    }
    assert!(!(spelling.means(&ours) && spelling.is_below(&ours)), "{path}");
    if spelling.is_below(&ours) {
        assert!(!Spelling::of(&format!("{path}/..")).is_below(&ours), "{path}");
    }
    let upper: String = path.chars().map(|c| c.to_ascii_uppercase()).collect();
    assert_eq!(Spelling::of(&upper).means(&ours), spelling.means(&ours), "{path}: its case");
}
