//! What keeps the gateway standing: `[limits]`, whose word is believed, and the admin listener.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::document::Refused;
use super::meant::*;
use super::resolve::{ADDRESS, meet, millis, secs};
use super::values;
use super::written::Table;

/// Where the admin listener is, and what it wants of who asks.
pub(super) fn admin_itself(t: &mut Table<'_, '_>, default: Admin) -> Admin {
    let listen = t.parsed("listen", ADDRESS, |s| Ok(values::listen(s)?)).unwrap_or(default.listen);
    Admin { listen, token: t.secret("token").or(default.token) }
}

pub(super) fn admin(t: &mut Table<'_, '_>, default: Admin, server: &Server) -> Admin {
    let admin = admin_itself(t, default);
    let listen = admin.listen;
    let others =
        [("[server]", Some(server.listen)), ("[server.acme]", server.acme.as_ref().map(|a| a.listen))];
    for (section, other) in others {
        if let Some(other) = other.filter(|other| meet(*other, listen)) {
            t.complain(
                "listen",
                format!("`listen` in [admin]: {listen} meets {other}, where {section} listens"),
                "choose another port".to_owned(),
            );
        }
    }
    // One that is written and cannot be had is told by itself.
    if !listen.ip().is_loopback() && !t.has("token") {
        t.complain(
            "listen",
            format!(
                "`listen` in [admin]: whoever reaches {listen} could end this process: there is no `token`"
            ),
            "set token = \"env:VOXGATE_ADMIN_TOKEN\", or listen on 127.0.0.1".to_owned(),
        );
    }
    admin
}

/// `10.0.0.0/8`, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, Refused> {
    let one = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(|_| one()).map_err(|_| Refused::from("is neither a network nor an address"))
}

pub(super) fn megabytes(count: i64) -> u64 {
    count.unsigned_abs().saturating_mul(1_000_000)
}

pub(super) fn limits(t: &mut Table<'_, '_>, default: Limits) -> Limits {
    let max_call = t.duration("max_call", secs(0, 7 * 24 * 3600));
    Limits {
        max_calls: t.count("max_calls", 1..=1_000_000).unwrap_or(default.max_calls),
        max_calls_per_number: t
            .count("max_calls_per_number", 0..=1_000_000)
            .unwrap_or(default.max_calls_per_number),
        max_unstarted: t.count("max_unstarted", 1..=1_000_000).unwrap_or(default.max_unstarted),
        handshakes_per_second: t
            .count("handshakes_per_second", 0..=1_000_000)
            .unwrap_or(default.handshakes_per_second),
        max_call: max_call.map_or(default.max_call, |longest| Some(longest).filter(|it| !it.is_zero())),
        max_call_goodbye: t.text("max_call_goodbye").unwrap_or(default.max_call_goodbye),
        max_memory: t.whole("max_memory_mb", 0..=100_000_000).map_or(default.max_memory, megabytes),
        max_message: t.count("max_message", 4096..=1_048_576).unwrap_or(default.max_message),
        start_timeout: t.duration("start_timeout", millis(10, 300_000)).unwrap_or(default.start_timeout),
        write_timeout: t.duration("write_timeout", millis(10, 300_000)).unwrap_or(default.write_timeout),
        media_timeout: t.duration("media_timeout", millis(10, 3_600_000)).unwrap_or(default.media_timeout),
        http: http(t, default.http),
    }
}

fn http(t: &mut Table<'_, '_>, default: HttpLimits) -> HttpLimits {
    let mut time = |key, default: Duration| t.duration(key, millis(100, 3_600_000)).unwrap_or(default);
    let head_timeout = time("head_timeout", default.head_timeout);
    let body_timeout = time("body_timeout", default.body_timeout);
    HttpLimits {
        max_head: t.count("max_head", 1024..=1_000_000).unwrap_or(default.max_head),
        max_body: t.whole("max_body_mb", 0..=1_000_000).map_or(default.max_body, megabytes),
        head_timeout,
        keepalive: t.duration("keepalive", secs(1, 3600)).unwrap_or(default.keepalive),
        body_timeout,
        min_body_rate: t
            .whole("min_body_rate", 0..=1_000_000)
            .map_or(default.min_body_rate, i64::unsigned_abs),
    }
}

#[cfg(test)]
mod tests {
    use super::super::resolve::tests::check;

    #[test]
    fn an_admin_listener_that_others_reach_wants_a_token() {
        let open = "[admin]\nlisten = \"0.0.0.0:9090\"\n";
        let said = check(open, &[]).unwrap_err();
        assert_eq!(
            said,
            "gateway.toml:2:10: `listen` in [admin]: whoever reaches 0.0.0.0:9090 could end this process: \
             there is no `token`; set token = \"env:VOXGATE_ADMIN_TOKEN\", or listen on 127.0.0.1"
        );
        assert!(check(&format!("{open}token = \"t\""), &[]).is_ok());
        assert!(check("[admin]\nlisten = \"[::1]:9090\"", &[]).is_ok());
    }

    #[test]
    fn a_network_is_written_as_one_writes_it() {
        let server = |list: &str| check(&format!("[server]\ntrusted_proxies = [{list}]"), &[]);
        let read = server("\"10.0.0.0/8\", \"192.0.2.1\", \"fd00::/8\"").unwrap().server.trusted_proxies;
        assert_eq!(format!("{read:?}"), "[10.0.0.0/8, 192.0.2.1/32, fd00::/8]");
        assert_eq!(
            server("\"10.0.0.0/33\"").unwrap_err(),
            "gateway.toml:2:20: `trusted_proxies` in [server]: `\"10.0.0.0/33\"` is neither a network nor an \
             address; write \"10.0.0.0/8\""
        );
    }
}
