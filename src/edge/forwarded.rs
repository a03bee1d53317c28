//! Where a request came from: what counts for us, and what the app is told. A header can be written by
//! anybody: it counts only from `[server] trusted_proxies`, and what is forged does not reach the app. One
//! that says another path than the request's own does not either, whoever wrote it.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::gateway::Gateway;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The address at the other end of the connection, or whose it is by the PROXY protocol.
pub(super) fn peer(session: &Session) -> Option<IpAddr> {
    session.client_addr().and_then(|addr| addr.as_inet()).map(|addr| addr.ip().to_canonical())
}

/// Who asks: the last address on the way that is not one of ours.
pub(super) fn client(session: &Session, gateway: &Gateway) -> Option<IpAddr> {
    let way = way(peer(session)?, &session.req_header().headers, &gateway.config.server.trusted_proxies);
    way.first().copied()
}

/// From the client to the peer. What stands before the client is its own word, and left out.
pub fn way(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Vec<IpAddr> {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut way = vec![peer];
    let values = headers.get_all(&FORWARDED_FOR).iter().rev();
    // A value that is no text ends the way: `split` of nothing is one empty address.
    let mut told = values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
    while way.last().is_some_and(is_trusted)
        && let Some(address) = told.next().and_then(address)
    {
        way.push(address);
    }
    way.reverse();
    way
}

/// An address as proxies write it: with a port, too, and IPv6 in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| Some(text.parse::<std::net::SocketAddr>().ok()?.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

/// What the app is told instead of what the client said.
pub(super) fn forwarded(
    session: &Session,
    gateway: &Gateway,
) -> impl Iterator<Item = (&'static str, HeaderValue)> {
    let (head, server) = (session.req_header(), &gateway.config.server);
    let request = &head.headers;
    let peer = peer(session);
    let believed = believes(peer, gateway);
    let told = |name: HeaderName| if believed { request.get(name) } else { None };
    let way = peer.map(|peer| way(peer, request, &server.trusted_proxies)).unwrap_or_default();
    let is_tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
    let proto = match server.public_url.as_deref().and_then(|url| url.split_once("://")) {
        // Where TLS ends here, what came without it did come without it.
        _ if server.tls.is_some() => Some(HeaderValue::from_static(if is_tls { "https" } else { "http" })),
        Some((scheme, _)) => HeaderValue::from_str(scheme).ok(),
        None => told(FORWARDED_PROTO).cloned(),
    };
    let host = told(FORWARDED_HOST).cloned().or_else(|| host(head));
    let pairs = [
        ("x-forwarded-for", HeaderValue::from_maybe_shared(Bytes::from(written(&way))).ok()),
        ("x-forwarded-proto", Some(proto.unwrap_or(HeaderValue::from_static("http")))),
        ("x-forwarded-host", host),
    ];
    pairs.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)))
}

/// The host that is asked, as the app gets it: what HTTP/2 has a field of its own for counts before `Host`, which
/// need not be there then.
fn host(head: &RequestHeader) -> Option<HeaderValue> {
    let authority = head.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    authority.or_else(|| head.headers.get(header::HOST).cloned())
}

/// All cookies in one field, where there are several: HTTP/2 lets a client send each by itself (RFC 9113, section
/// 8.2.3), and WSGI would join them by commas, which an app takes for a part of the first.
pub(super) fn cookies(headers: &HeaderMap) -> Option<HeaderValue> {
    let fields: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if fields.len() < 2 {
        return None;
    }
    HeaderValue::from_bytes(&fields.join(b"; ".as_slice())).ok()
}

fn written(way: &[IpAddr]) -> String {
    let mut text = String::with_capacity(40);
    for (nth, address) in way.iter().enumerate() {
        if nth > 0 {
            text.push_str(", ");
        }
        match address {
            // Each request has one: a third of what `Display` costs.
            IpAddr::V4(address) => {
                for (nth, octet) in address.octets().into_iter().enumerate() {
                    if nth > 0 {
                        text.push('.');
                    }
                    text.push_str(itoa::Buffer::new().format(octet));
                }
            }
            IpAddr::V6(address) => text.push_str(&address.to_string()),
        }
    }
    text
}

/// The headers of a request that the app must not see: other ways to say where it came from, unless
/// one of our proxies says it; those that an app takes for one of ours, WSGI for instance, where
/// `X_Forwarded_For` and `X-Forwarded-For` are the same; and, whoever says it, another path.
pub(super) fn forged(session: &Session, gateway: &Gateway) -> Vec<HeaderName> {
    let believed = believes(peer(session), gateway);
    let is_forged = |name: &&HeaderName| {
        let name = name.as_str();
        says_which_path(name) || (says_where_from(name) && (!believed || name.contains('_')))
    };
    session.req_header().headers.keys().filter(is_forged).cloned().collect()
}

fn says_where_from(name: &str) -> bool {
    begins(name, "x-forwarded-") || is(name, "forwarded") || is(name, "x-real-ip")
}

/// What an app may take for its path, or cut off its front: gunicorn does with `SCRIPT_NAME`, from loopback
/// as it comes, and so do well-known snippets for Flask with `X-Script-Name`. The path was judged here, so
/// that it must be the one in the request, even where one of our proxies says otherwise.
fn says_which_path(name: &str) -> bool {
    ["script-name", "path-info", "x-script-name", "x-original-url", "x-rewrite-url"]
        .into_iter()
        .any(|other| is(name, other))
}

fn is(name: &str, other: &str) -> bool {
    name.len() == other.len() && begins(name, other)
}

/// With `-` and `_` taken for the same; a name is in small letters by now.
fn begins(name: &str, with: &str) -> bool {
    let same = |(a, b): (u8, u8)| a == b || (a == b'_' && b == b'-');
    name.len() >= with.len() && name.bytes().zip(with.bytes()).all(same)
}

fn believes(peer: Option<IpAddr>, gateway: &Gateway) -> bool {
    peer.is_some_and(|peer| gateway.trusts(peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(values: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        way("10.0.0.1".parse().unwrap(), &headers, &trusted).iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_ours() {
        assert_eq!(told(&[]), ["10.0.0.1"]);
        assert_eq!(told(&["203.0.113.9"]), ["203.0.113.9", "10.0.0.1"]);
        assert_eq!(told(&["6.6.6.6, 203.0.113.9"]), ["203.0.113.9", "10.0.0.1"], "its own word");
        assert_eq!(told(&["6.6.6.6", "203.0.113.9,10.1.1.1"]), ["203.0.113.9", "10.1.1.1", "10.0.0.1"]);
        assert_eq!(told(&["10.2.2.2, 10.1.1.1"]), ["10.2.2.2", "10.1.1.1", "10.0.0.1"], "all are ours");
        assert_eq!(told(&["203.0.113.9, junk, 10.1.1.1"]), ["10.1.1.1", "10.0.0.1"]);
        assert_eq!(told(&["203.0.113.9", ""]), ["10.0.0.1"]);
        assert_eq!(told(&["203.0.113.9:4711"]), ["203.0.113.9", "10.0.0.1"]);
        assert_eq!(told(&["[2001:db8::1]:4711, [fd00::1]"]), ["2001:db8::1", "fd00::1", "10.0.0.1"]);
    }

    #[test]
    fn a_header_that_an_app_takes_for_another_says_where_from_as_well() {
        for name in
            ["x-forwarded-for", "x_forwarded-port", "x_forwarded_x", "forwarded", "x-real-ip", "x_real_ip"]
        {
            assert!(says_where_from(name), "{name}");
        }
        for name in ["x-forwarded", "forwarded-by", "x-real-ips", "x-real", "host", "xxforwarded-for", ""] {
            assert!(!says_where_from(name), "{name}");
        }
    }

    #[test]
    fn a_header_that_an_app_takes_for_its_path_says_which_path() {
        for name in
            ["script_name", "script-name", "path_info", "path-info", "x_script-name", "x-original-url"]
        {
            assert!(says_which_path(name), "{name}");
        }
        for name in ["script", "script-names", "x-path", "path", "x-forwarded-prefix", "info", ""] {
            assert!(!says_which_path(name), "{name}");
        }
    }

    #[test]
    fn cookies_that_came_apart_are_one_field() {
        let joined = |fields: &[&str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(header::COOKIE, field.parse().unwrap());
            }
            cookies(&headers).map(|cookies| cookies.to_str().unwrap().to_owned())
        };
        assert_eq!(joined(&["a=1", "b=2; c=3", "d=4"]).as_deref(), Some("a=1; b=2; c=3; d=4"));
        assert_eq!((joined(&["a=1; b=2"]), joined(&[])), (None, None), "as it is");
    }

    #[test]
    fn a_way_is_written_as_addresses_are() {
        let way = ["203.0.113.9", "255.10.0.1", "2001:db8::1"].map(|it| it.parse::<IpAddr>().unwrap());
        assert_eq!(written(&way), "203.0.113.9, 255.10.0.1, 2001:db8::1");
        assert_eq!(written(&[]), "");
    }

    #[test]
    fn from_a_stranger_nothing_counts() {
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_FOR, "10.0.0.1, 6.6.6.6".parse().unwrap());
        let stranger: IpAddr = "203.0.113.9".parse().unwrap();
        assert_eq!(way(stranger, &headers, &["10.0.0.0/8".parse().unwrap()]), [stranger]);
    }
}
