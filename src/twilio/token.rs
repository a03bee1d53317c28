//! The token of a call: it stands behind the media path in the TwiML that voxgate serves, and lets
//! one call in, once, for a minute. A signature on the WebSocket proves that Twilio calls this URL,
//! and is the same on every call; this proves which call it is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// From the answer to the webhook to the handshake: Twilio connects at once.
pub const TOKEN_SECONDS: u64 = 60;

/// The MAC is cut to this; nobody has more than a minute to guess it.
const MAC: usize = 16;
/// When it expires, and a number that no other token has.
const EXPIRY: usize = 8;
const NUMBER: usize = 8;
/// A CallSid has 34 letters; other carriers have UUIDs.
const LONGEST_CALL_SID: usize = 100;

/// A key that signs tokens.
#[derive(Clone)]
pub struct TokenKey(Hmac<Sha256>);

/// Whom a sound token lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    pub call_sid: String,
    /// Unix time.
    pub expires: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    #[error("there is none")]
    Missing,
    #[error("it is not one of ours")]
    Forged,
    #[error("it has expired")]
    Expired,
    #[error("it was used before")]
    Used,
    #[error("it belongs to another call")]
    OtherCall,
}

impl TokenFault {
    pub const ALL: [TokenFault; 5] =
        [Self::Missing, Self::Forged, Self::Expired, Self::Used, Self::OtherCall];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Forged => "forged",
            Self::Expired => "expired",
            Self::Used => "used",
            Self::OtherCall => "other_call",
        }
    }
}

impl TokenKey {
    pub fn new(secret: &[u8]) -> TokenKey {
        // HMAC takes a key of any length.
        TokenKey(Hmac::new_from_slice(secret).unwrap_or_else(|_| unreachable!("any length will do")))
    }

    /// A token for this call, as a segment of a path. A CallSid of an absurd length is cut, and so
    /// lets nobody in.
    pub fn issue(&self, call_sid: &str, number: u64, now: u64) -> String {
        let (expires, number) = ((now + TOKEN_SECONDS).to_be_bytes(), number.to_be_bytes());
        let call_sid = &call_sid.as_bytes()[..call_sid.len().min(LONGEST_CALL_SID)];
        let said = [&expires, &number, call_sid].concat();
        let mac = self.mac(&said).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([&mac[..MAC], &said].concat())
    }

    pub fn verify(&self, token: &str, now: u64) -> Result<Pass, TokenFault> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| TokenFault::Forged)?;
        let (mac, said) = bytes.split_at_checked(MAC).ok_or(TokenFault::Forged)?;
        self.mac(said).verify_truncated_left(mac).map_err(|_| TokenFault::Forged)?;
        let (expires, rest) = said.split_first_chunk::<EXPIRY>().ok_or(TokenFault::Forged)?;
        let call_sid = rest.get(NUMBER..).ok_or(TokenFault::Forged)?;
        let expires = u64::from_be_bytes(*expires);
        if expires <= now {
            return Err(TokenFault::Expired);
        }
        Ok(Pass { call_sid: String::from_utf8_lossy(call_sid).into_owned(), expires })
    }

    fn mac(&self, said: &[u8]) -> Hmac<Sha256> {
        self.0.clone().chain_update(b"voxgate stream token").chain_update(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lets_its_call_in_for_a_minute() {
        let key = TokenKey::new(b"secret");
        let token = key.issue("CA1", 1, 1_000);
        assert_eq!(key.verify(&token, 1_059), Ok(Pass { call_sid: "CA1".into(), expires: 1_060 }));
        assert_eq!(key.verify(&token, 1_060), Err(TokenFault::Expired));
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{token}");
        assert_eq!(TokenKey::new(b"other").verify(&token, 1_000), Err(TokenFault::Forged));
        assert_ne!(key.issue("CA1", 2, 1_000), token, "a webhook that is asked again");
        assert!(key.issue(&"é".repeat(1_000), 1, 0).len() < 200);
    }

    #[test]
    fn a_changed_letter_is_seen() {
        let key = TokenKey::new(b"secret");
        let token = key.issue("CA12", 1, 1_000);
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(bytes).unwrap();
            assert_eq!(key.verify(&other, 1_000), Err(TokenFault::Forged), "{other}");
        }
        for nonsense in ["", "x", "%%%", &token[..20]] {
            assert_eq!(key.verify(nonsense, 0), Err(TokenFault::Forged));
        }
    }
}
