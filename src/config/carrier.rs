//! Twilio's REST API: where it is, by whose name it is asked, and how a call is put through.

use super::document::Refused;
use super::meant::*;
use super::resolve::secs;
use super::values;
use super::written::Table;

const URL: &str = "a URL such as \"https://api.twilio.com\"";
const CALLBACK: &str = "a URL, or a path below [server] public_url";
const SID: &str = "an id such as \"AC0123456789abcdef0123456789abcdef\"";

/// These keys are in `[twilio]` itself.
pub(super) fn carrier(
    t: &mut Table<'_, '_>,
    default: CarrierApi,
    public_url: Option<&str>,
    token: Option<&Secret>,
) -> CarrierApi {
    let url = t.hidden("api_url", URL, |s| Ok(base(s)?));
    let timeout = t.duration("api_timeout", secs(1, 30)).unwrap_or(default.timeout);
    let account_sid = t.parsed("account_sid", SID, sid);
    let key_sid = t.parsed("api_key_sid", "an id such as \"SK0123456789abcdef0123456789abcdef\"", word);
    let key_secret = t.secret("api_key_secret");
    for (key, other) in [("api_key_sid", "api_key_secret"), ("api_key_secret", "api_key_sid")] {
        if t.has(key) && !t.has(other) {
            let why = format!("`{key}` in [twilio] goes with `{other}`, which is not there");
            t.complain(key, why, "add it, or use auth_token alone".to_owned());
        }
    }
    let credentials = match (key_sid, key_secret) {
        (Some(sid), Some(secret)) => Some(Credentials::ApiKey { sid, secret }),
        _ => token.cloned().map(Credentials::AuthToken),
    };
    let hangups = [("rest", Hangup::Rest), ("close", Hangup::Close)];
    let hangup = t.choice("hangup", &hangups, &[]).unwrap_or(default.hangup);
    let transfer = t.section("transfer", |t| transfer(t, default.transfer, public_url));
    CarrierApi { url: url.unwrap_or(default.url), timeout, account_sid, credentials, hangup, transfer }
}

fn transfer(t: &mut Table<'_, '_>, default: Transfer, public_url: Option<&str>) -> Transfer {
    let mut callback = |key| t.hidden(key, CALLBACK, |s| callback(s, public_url));
    Transfer {
        action: callback("action").or(default.action),
        status_callback: callback("status_callback").or(default.status_callback),
        caller_id: t
            .parsed("caller_id", "a number such as \"+15551234567\", or \"client:…\"", word)
            .or(default.caller_id),
        timeout: t.duration("timeout", secs(5, 600)).unwrap_or(default.timeout),
        apology: t.text("apology").unwrap_or(default.apology),
    }
}

/// Where the API begins, without a slash at its end.
fn base(text: &str) -> Result<String, values::Refusal> {
    let url = values::url(text)?;
    if url.path_and_query.contains('?') || text.contains('#') {
        return Err("has a query or a fragment");
    }
    if url.path_and_query.contains("2010-04-01") {
        return Err("goes on too long: /2010-04-01 and what follows is added to it");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn callback(text: &str, public_url: Option<&str>) -> Result<String, Refused> {
    if !text.starts_with('/') {
        return Ok(values::url(text).map(|_| text.to_owned())?);
    }
    values::path_and_query(text)?;
    let help = || "set it, or write a whole URL".to_owned();
    let base = public_url
        .ok_or_else(|| Refused::because("is a path, and [server] public_url is not set", help()))?;
    Ok(format!("{base}{text}"))
}

fn sid(text: &str) -> Result<String, Refused> {
    if text.starts_with("SK") {
        let help = "the account's begins with AC; an API key goes into api_key_sid".to_owned();
        return Err(Refused::because("is the id of an API key", help));
    }
    word(text)
}

fn word(text: &str) -> Result<String, Refused> {
    let sound = !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-:_.@".contains(&b));
    sound.then(|| text.to_owned()).ok_or(Refused::from("is not one word of letters and digits"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::resolve::tests::check;
    use super::*;

    fn api(keys: &str) -> Result<CarrierApi, String> {
        let vars = [("TWILIO_AUTH_TOKEN", "t0ken"), ("SECRET", "s3cret")];
        check(&format!("[twilio]\n{keys}"), &vars).map(|config| config.twilio.api)
    }

    fn secret(text: &str) -> Secret {
        Secret(text.to_owned())
    }

    #[test]
    fn who_asks_is_an_account_or_a_key() {
        let token = Some(Credentials::AuthToken(secret("t0ken")));
        assert_eq!(api("").unwrap().credentials, token, "the environment alone is enough");
        assert_eq!(api("auth_token = \"env:TWILIO_AUTH_TOKEN\"").unwrap().credentials, token);
        let written = check("[twilio]\nauth_token = \"w\"", &[]).unwrap().twilio.api.credentials;
        assert_eq!(written, Some(Credentials::AuthToken(secret("w"))));
        for other in ["w", "env:UNSET", "file:missing"] {
            assert_eq!(api(&format!("auth_token = \"{other}\"")).unwrap().credentials, token, "{other}");
        }
        for unset in [&[][..], &[("TWILIO_AUTH_TOKEN", "")]] {
            for text in ["", "[twilio]\nauth_token = \"env:TWILIO_AUTH_TOKEN\""] {
                assert_eq!(check(text, unset).unwrap().twilio.api.credentials, None, "{text}");
            }
        }
        let key =
            api("api_key_sid = \"SK1\"\napi_key_secret = \"env:SECRET\"\naccount_sid = \"AC1\"").unwrap();
        let expected = Credentials::ApiKey { sid: "SK1".to_owned(), secret: secret("s3cret") };
        assert_eq!((key.credentials, key.account_sid.as_deref()), (Some(expected), Some("AC1")));
        assert!(
            !format!("{:?}", api("api_key_sid = \"SK1\"\napi_key_secret = \"env:SECRET\""))
                .contains("s3cret")
        );
    }

    #[test]
    fn where_it_is_and_how_calls_are_put_through() {
        let least = api("").unwrap();
        assert_eq!((&*least.url, least.timeout), ("https://api.twilio.com", Duration::from_secs(5)));
        let all = check(
            "[server]\npublic_url = \"https://bot.example.com\"\n[twilio]\napi_timeout = \"2s\"\n\
             api_url = \"https://acme.signalwire.com/api/laml/\"\n[twilio.transfer]\ncaller_id = \"+15550123\"\n\
             timeout = \"20s\"\naction = \"/dialled?a=1\"\nstatus_callback = \"https://app.example.com/leg\"\n\
             apology = \"\"",
            &[],
        );
        let all = all.unwrap().twilio.api;
        assert_eq!(
            (&*all.url, all.timeout),
            ("https://acme.signalwire.com/api/laml", Duration::from_secs(2))
        );
        let expected = Transfer {
            caller_id: Some("+15550123".to_owned()),
            timeout: Duration::from_secs(20),
            action: Some("https://bot.example.com/dialled?a=1".to_owned()),
            status_callback: Some("https://app.example.com/leg".to_owned()),
            apology: String::new(),
        };
        assert_eq!(all.transfer, expected);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for (keys, said) in [
            (
                "api_url = \"api.twilio.com\"",
                "2:11: `api_url` in [twilio]: the value does not start with http:// or https://; \
                 write a URL such as \"https://api.twilio.com\"",
            ),
            (
                "api_url = \"https://api.twilio.com/2010-04-01\"",
                "2:11: `api_url` in [twilio]: the value goes on too long: /2010-04-01 and what follows is added \
                 to it; write a URL such as \"https://api.twilio.com\"",
            ),
            (
                "api_timeout = \"1m\"",
                "2:15: `api_timeout` in [twilio]: `\"1m\"` is too large; write a duration from \"1s\" to \"30s\"",
            ),
            (
                "account_sid = \"SK1\"",
                "2:15: `account_sid` in [twilio]: `\"SK1\"` is the id of an API key; \
                 the account's begins with AC; an API key goes into api_key_sid",
            ),
            (
                "account_sid = \"AC1/x\"",
                "2:15: `account_sid` in [twilio]: `\"AC1/x\"` is not one word of letters and digits; \
                 write an id such as \"AC0123456789abcdef0123456789abcdef\"",
            ),
            (
                "api_key_sid = \"SK1\"",
                "2:15: `api_key_sid` in [twilio] goes with `api_key_secret`, which is not there; \
                 add it, or use auth_token alone",
            ),
            (
                "api_key_secret = \"s\"",
                "2:18: `api_key_secret` in [twilio] goes with `api_key_sid`, which is not there; \
                 add it, or use auth_token alone",
            ),
            (
                "auth_token = \"env:TOKEN\"",
                "2:14: `auth_token` in [twilio]: `\"env:TOKEN\"` needs TOKEN, which is not set; set TOKEN",
            ),
            (
                "[twilio.transfer]\naction = \"/dialled\"",
                "3:10: `action` in [twilio.transfer]: the value is a path, and [server] public_url is not set; \
                 set it, or write a whole URL",
            ),
            (
                "[twilio.transfer]\nstatus_callback = \"ftp://x\"",
                "3:19: `status_callback` in [twilio.transfer]: the value does not start with http:// or https://; \
                 write a URL, or a path below [server] public_url",
            ),
            (
                "[twilio.transfer]\ntimeout = \"1s\"",
                "3:11: `timeout` in [twilio.transfer]: `\"1s\"` is too small; write a duration from \"5s\" to \"10m\"",
            ),
            (
                "[twilio.transfer]\ncaller_id = \"+1 555\"",
                "3:13: `caller_id` in [twilio.transfer]: `\"+1 555\"` is not one word of letters and digits; \
                 write a number such as \"+15551234567\", or \"client:…\"",
            ),
        ] {
            let text = format!("[twilio]\n{keys}");
            assert_eq!(check(&text, &[]).map(drop), Err(format!("gateway.toml:{said}")), "{keys}");
        }
    }
}
