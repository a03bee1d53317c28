//! The tokens of calls at the media path: given out with the TwiML that voxgate serves, each good for
//! one handshake. A replica that did not give a token out knows it all the same, where both have the
//! same `auth_token`; that it was used there, it does not know.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tracing::warn;

use super::spelling::Spelling;
use crate::config::{Strictness, Twilio, Twiml};
use crate::observe::Metrics;
use crate::twilio::{Pass, Start, TokenFault, TokenKey};

/// Used tokens that are remembered for the rest of their minute; the oldest go first.
const USED: usize = 20_000;

pub(super) struct Tokens {
    check: Strictness,
    media_path: String,
    key: TokenKey,
    /// Shared with those before a reload, whose tokens are still on their way.
    issued: Arc<Issued>,
    metrics: Arc<Metrics>,
}

struct Issued {
    /// No two tokens have the same number.
    number: AtomicU64,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    known: HashSet<String>,
    /// With when they expire: in the order of their use, which is about the same.
    order: VecDeque<(u64, String)>,
}

impl Tokens {
    pub(super) fn new(twilio: &Twilio, metrics: Arc<Metrics>) -> Tokens {
        let number = AtomicU64::new(RandomState::new().hash_one(std::process::id()));
        let issued = Arc::new(Issued { number, used: Mutex::default() });
        Tokens::with(twilio, key(twilio), issued, metrics)
    }

    fn with(twilio: &Twilio, key: TokenKey, issued: Arc<Issued>, metrics: Arc<Metrics>) -> Tokens {
        let served = twilio.twiml == Twiml::Serve;
        Tokens {
            check: if served { twilio.token } else { Strictness::Off },
            media_path: twilio.path.clone(),
            key,
            issued,
            metrics,
        }
    }

    /// The same under another configuration: who is between webhook and stream gets in, and nobody twice. With
    /// another secret, those that are on their way are good no more.
    pub(super) fn succeeded_by(&self, old: &Twilio, new: &Twilio) -> Tokens {
        let key = match old.auth_token == new.auth_token {
            true => self.key.clone(),
            false => key(new),
        };
        Tokens::with(new, key, self.issued.clone(), self.metrics.clone())
    }

    /// The path of the stream for this call.
    pub(super) fn path_for(&self, call_sid: &str) -> String {
        match self.check {
            Strictness::Off => self.media_path.clone(),
            Strictness::Warn | Strictness::Enforce => {
                let token =
                    self.key.issue(call_sid, self.issued.number.fetch_add(1, Ordering::Relaxed), now());
                format!("{}/{token}", self.media_path.trim_end_matches('/'))
            }
        }
    }

    /// The token in a path, if this is the media path with one.
    pub(super) fn of_path<'p>(&self, path: &'p str) -> Option<&'p str> {
        if self.check == Strictness::Off {
            return None;
        }
        let rest = path.strip_prefix(self.media_path.trim_end_matches('/'))?;
        rest.strip_prefix('/').filter(|token| !token.is_empty() && !token.contains('/'))
    }

    /// Whether a path would be one with a token to a server that does not mind how it is written.
    pub(super) fn are_below(&self, media: &Spelling, spelling: &Spelling) -> bool {
        self.check != Strictness::Off && spelling.is_below(media)
    }

    /// Whether a handshake may go on; with a sound token, for whom.
    pub(super) fn admit(&self, token: Option<&str>) -> Result<Option<Pass>, TokenFault> {
        if self.check == Strictness::Off {
            return Ok(None);
        }
        let now = now();
        let judged = token.ok_or(TokenFault::Missing).and_then(|token| {
            let pass = self.key.verify(token, now)?;
            let mut used = self.issued.used.lock().unwrap_or_else(PoisonError::into_inner);
            if used.take(token, pass.expires, now) { Ok(pass) } else { Err(TokenFault::Used) }
        });
        match judged {
            Ok(pass) => Ok(Some(pass)),
            Err(fault) => self.faulty(fault, None).map(|()| None),
        }
    }

    /// Whether a call that has started is the one that was let in.
    pub(super) fn admit_call(&self, pass: Option<&Pass>, start: &Start) -> Result<(), TokenFault> {
        match pass {
            Some(pass) if pass.call_sid == start.call_sid => {
                self.metrics.stream_token(Ok(()));
                Ok(())
            }
            Some(_) => self.faulty(TokenFault::OtherCall, Some(start)),
            None => Ok(()),
        }
    }

    /// Who it is, nobody has said before `start`.
    fn faulty(&self, fault: TokenFault, start: Option<&Start>) -> Result<(), TokenFault> {
        self.metrics.stream_token(Err(fault));
        if self.check == Strictness::Enforce {
            return Err(fault);
        }
        let call_sid = start.map(Start::known_as);
        let stream_sid = start.map(|start| start.stream_sid.as_str());
        warn!(call_sid, stream_sid, result = fault.as_str(), why = %fault, "STREAM_TOKEN");
        Ok(())
    }
}

/// Without a secret to share, the key is made up: tokens are then good for this process only.
fn key(twilio: &Twilio) -> TokenKey {
    if let Some(secret) = &twilio.auth_token {
        return TokenKey::new(secret.0.as_bytes());
    }
    let mut random = vec![0; 32];
    let provider = rustls::crypto::ring::default_provider();
    if provider.secure_random.fill(&mut random).is_err() {
        random = RandomState::new().hash_one(0).to_be_bytes().to_vec();
    }
    TokenKey::new(&random)
}

impl Used {
    /// False if it was taken before.
    fn take(&mut self, token: &str, expires: u64, now: u64) -> bool {
        while self.order.front().is_some_and(|(expires, _)| *expires <= now || self.order.len() >= USED) {
            if let Some((_, oldest)) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        let fresh = self.known.insert(token.to_owned());
        if fresh {
            self.order.push_back((expires, token.to_owned()));
        }
        fresh
    }
}

/// Unix time.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Secret};

    fn tokens(check: Strictness) -> Tokens {
        let twilio = Twilio {
            twiml: Twiml::Serve,
            token: check,
            auth_token: Some(Secret("secret".to_owned())),
            ..Config::default().twilio
        };
        Tokens::new(&twilio, Arc::new(Metrics::new().unwrap()))
    }

    #[test]
    fn a_token_is_good_for_one_handshake_of_one_call() {
        let tokens = tokens(Strictness::Enforce);
        let path = tokens.path_for("CA1");
        let token = tokens.of_path(&path);
        let pass = tokens.admit(token).unwrap();
        let start = |call_sid: &str| Start { call_sid: call_sid.to_owned(), ..Start::default() };
        assert_eq!(tokens.admit_call(pass.as_ref(), &start("CA1")), Ok(()));
        assert_eq!(tokens.admit_call(pass.as_ref(), &start("CA2")), Err(TokenFault::OtherCall));
        assert_eq!(tokens.admit(token), Err(TokenFault::Used));
        assert_eq!(tokens.admit(None), Err(TokenFault::Missing));
        assert_eq!(tokens.admit(Some("x")), Err(TokenFault::Forged));
        let other = self::tokens(Strictness::Enforce);
        let path = other.path_for("CA3");
        assert!(tokens.admit(tokens.of_path(&path)).is_ok(), "another replica with the same secret");
    }

    #[test]
    fn a_reload_forgets_neither_who_is_on_the_way_nor_who_has_come() {
        for secret in [None, Some("secret")] {
            let twilio = Twilio {
                twiml: Twiml::Serve,
                token: Strictness::Enforce,
                auth_token: secret.map(|secret: &str| Secret(secret.to_owned())),
                ..Config::default().twilio
            };
            let before = Tokens::new(&twilio, Arc::new(Metrics::new().unwrap()));
            let (used, waiting) = (before.path_for("CA1"), before.path_for("CA2"));
            assert!(before.admit(before.of_path(&used)).is_ok());
            let changed = Twilio { twiml_fix: !twilio.twiml_fix, ..twilio.clone() };
            let after = before.succeeded_by(&twilio, &changed);
            assert_eq!(after.admit(after.of_path(&used)), Err(TokenFault::Used));
            assert!(after.admit(after.of_path(&waiting)).is_ok(), "{secret:?}");
            // A request of before may still be under way.
            assert_eq!(before.admit(before.of_path(&waiting)), Err(TokenFault::Used));
            let other = Twilio { auth_token: Some(Secret("other".to_owned())), ..twilio.clone() };
            let path = after.path_for("CA3");
            let rotated = after.succeeded_by(&changed, &other);
            assert_eq!(rotated.admit(rotated.of_path(&path)), Err(TokenFault::Forged));
        }
    }

    #[test]
    fn a_warning_lets_everybody_in_and_off_looks_at_nothing() {
        let warn = tokens(Strictness::Warn);
        assert_eq!((warn.admit(None), warn.admit(Some("x"))), (Ok(None), Ok(None)));
        assert!(warn.metrics.text().contains("voxgate_stream_tokens_total{result=\"missing\"} 1"));
        let off = tokens(Strictness::Off);
        assert_eq!((off.path_for("CA1").as_str(), off.admit(None)), ("/ws/twilio-media", Ok(None)));
        assert_eq!(off.of_path("/ws/twilio-media/x"), None, "a path of the app's");
        let none = Tokens::new(&Config::default().twilio, off.metrics.clone());
        assert_eq!(none.of_path("/ws/twilio-media/x"), None, "the app's TwiML bears none");
    }

    #[test]
    fn only_one_segment_behind_the_path_is_a_token() {
        let tokens = tokens(Strictness::Warn);
        assert_eq!(tokens.of_path("/ws/twilio-media/abc"), Some("abc"));
        for other in
            ["/ws/twilio-media", "/ws/twilio-media/", "/ws/twilio-media/a/b", "/ws/twilio-mediaa/b", "/x"]
        {
            assert_eq!(tokens.of_path(other), None, "{other}");
        }
    }

    #[test]
    fn the_memory_of_used_tokens_is_bounded_and_forgets_what_has_expired() {
        let mut used = Used::default();
        (0..2 * USED).for_each(|n| assert!(used.take(&n.to_string(), 100, 50)));
        assert!(used.known.len() <= USED && used.order.len() <= USED);
        assert!(used.take("new", 200, 100));
        assert_eq!(used.known.len(), 1);
    }
}
