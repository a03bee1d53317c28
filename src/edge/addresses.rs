//! How many handshakes an address has made in this second. Bounded: what a second cannot hold is let by.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv6Net};

/// So many addresses are told apart.
const MOST: usize = 20_000;
const WINDOW: Duration = Duration::from_secs(1);
/// Who has one IPv6 address has such a network of them.
const ONE_SITE: u8 = 64;

#[derive(Default)]
pub(super) struct Addresses(Mutex<Window>);

#[derive(Default)]
struct Window {
    since: Option<Instant>,
    seen: HashMap<IpNet, usize>,
}

impl Addresses {
    /// Whether this handshake is within so many a second; 0 for any.
    pub(super) fn admit(&self, address: IpAddr, most: usize, now: Instant) -> bool {
        if most == 0 {
            return true;
        }
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            window.since = Some(now);
            window.seen.clear();
        }
        let site = site(address);
        if window.seen.len() >= MOST && !window.seen.contains_key(&site) {
            return true;
        }
        let seen = window.seen.entry(site).or_default();
        *seen += 1;
        *seen <= most
    }
}

fn site(address: IpAddr) -> IpNet {
    match address.to_canonical() {
        IpAddr::V4(address) => IpNet::from(IpAddr::V4(address)),
        IpAddr::V6(address) => Ipv6Net::new(address, ONE_SITE)
            .map_or(IpNet::from(IpAddr::V6(address)), |net| IpNet::V6(net.trunc())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_share_of_each_second() {
        let (addresses, start) = (Addresses::default(), Instant::now());
        let admit = |address: &str, after| {
            addresses.admit(address.parse().unwrap(), 2, start + Duration::from_millis(after))
        };
        assert_eq!([0, 1, 2].map(|at| admit("192.0.2.1", at)), [true, true, false]);
        assert!(!admit("::ffff:192.0.2.1", 3), "the same, as IPv6 writes it");
        assert!(admit("192.0.2.2", 3));
        assert!(admit("192.0.2.1", 1_000));
        assert_eq!([0, 1, 2].map(|n| admit(&format!("2001:db8::{n}"), 1_001)), [true, true, false]);
        assert!(admit("2001:db8:0:1::1", 1_002));
        assert!((0..9).all(|_| addresses.admit("192.0.2.1".parse().unwrap(), 0, start)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (addresses, now) = (Addresses::default(), Instant::now());
        for n in 0..2 * MOST as u32 {
            assert!(addresses.admit(IpAddr::from(n.to_be_bytes()), 1, now));
        }
        assert!(addresses.0.lock().unwrap().seen.len() <= MOST);
    }
}
