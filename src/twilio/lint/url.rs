//! The url of a `<Stream>`: what is wrong with it, and how it reads when that is mended.

use super::Rule;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) rules: Vec<Rule>,
    /// Without what can be mended.
    pub(super) mended: String,
    /// Of the mended one.
    pub(super) path: String,
}

pub(super) fn judge(url: &str) -> Judged {
    let mut rules = Vec::new();
    let whole = url.trim();
    let (before_query, has_query) = match whole.find(['?', '#']) {
        Some(at) => (whole[..at].trim_end(), true),
        None => (whole, false),
    };
    let (authority, path) = match before_query.split_once("://") {
        Some((scheme, rest)) => {
            if scheme != "wss" {
                rules.push(Rule::Scheme);
            }
            let at = rest.find('/').unwrap_or(rest.len());
            (Some(&rest[..at]), &rest[at..])
        }
        // Relative to the URL of the webhook.
        None => (None, before_query),
    };
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || "{}<>$\\\"^`|[]".contains(c);
    let bad_host = authority.is_some_and(|host| host.is_empty() || host.starts_with(':'));
    let bad_start = authority.is_none() && !path.starts_with('/');
    let brackets = |host: &str| host.starts_with('[');
    let odd = |text: &str| text.contains(is_odd) && !brackets(text);
    if bad_host || bad_start || authority.is_some_and(odd) || path.contains(is_odd) {
        rules.push(Rule::BadUrl);
    }
    if has_query {
        rules.push(Rule::Query);
    }
    let mut path = path.to_owned();
    if path.contains("//") {
        rules.push(Rule::DoubleSlash);
        while path.contains("//") {
            path = path.replace("//", "/");
        }
    }
    let mended = match authority {
        Some(authority) => format!("wss://{authority}{path}"),
        None => path.clone(),
    };
    Judged { rules, mended, path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Rule::{BadUrl, DoubleSlash, Query, Scheme};

    #[test]
    fn a_url_is_judged_and_mended() {
        for (url, rules, mended) in [
            ("wss://bot.example.com/ws/twilio-media", vec![], "wss://bot.example.com/ws/twilio-media"),
            ("/ws/twilio-media", vec![], "/ws/twilio-media"),
            ("wss://[::1]:8443/ws", vec![], "wss://[::1]:8443/ws"),
            ("wss://bot/ws?token=1&x=//", vec![Query], "wss://bot/ws"),
            ("wss://bot/ws#x", vec![Query], "wss://bot/ws"),
            (" wss://bot/ws ?x", vec![Query], "wss://bot/ws"),
            ("https://bot//ws///x?y", vec![Scheme, Query, DoubleSlash], "wss://bot/ws/x"),
            ("ws://bot/ws", vec![Scheme], "wss://bot/ws"),
            ("WSS://bot/ws", vec![Scheme], "wss://bot/ws"),
            ("wss://{{ host }}/ws", vec![BadUrl], "wss://{{ host }}/ws"),
            ("wss:///ws", vec![BadUrl], "wss:///ws"),
            ("wss://:8080/ws", vec![BadUrl], "wss://:8080/ws"),
            ("bot.example.com/ws", vec![BadUrl], "bot.example.com/ws"),
            ("", vec![BadUrl], ""),
            ("wss://bot/ws/${id}", vec![BadUrl], "wss://bot/ws/${id}"),
        ] {
            let judged = judge(url);
            assert_eq!((judged.rules, judged.mended.as_str()), (rules, mended), "{url}");
        }
    }
}
