//! What an app may want done once its reply has been heard, as it says so in JSON: `action`, and
//! beside it what the action needs.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::call::{Action, Destination, FinishOn, Gather, Keys, MOST_DIGITS};

/// Beside `action`. `gather`'s names and units are those of Twilio's `<Gather>`, as its libraries for
/// Python and as TwiML itself write them.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Details {
    to: Option<Value>,
    digits: Option<Value>,
    #[serde(alias = "numDigits")]
    num_digits: Option<Value>,
    #[serde(alias = "finishOnKey")]
    finish_on_key: Option<Value>,
    timeout: Option<Value>,
}

/// The action that is meant, if any; or what is wrong with it.
pub(super) fn planned(action: &Value, details: &Details) -> Result<Option<Action>, &'static str> {
    let text = |value: &Option<Value>| match value {
        Some(Value::String(text)) => Some(text.clone()),
        // Who writes digits may well write a number.
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    Ok(Some(match (action, action.as_str()) {
        (Value::Null, _) | (_, Some("" | "none")) => return Ok(None),
        (_, Some("hangup")) => Action::Hangup,
        (_, Some("transfer")) => {
            let to = text(&details.to).filter(|to| !to.trim().is_empty()).ok_or("a transfer needs \"to\"")?;
            Action::Transfer { to: Destination::parse(&to)? }
        }
        (_, Some("send_digits")) => {
            let digits = text(&details.digits).ok_or("send_digits needs \"digits\"")?;
            Action::SendDigits { digits: Keys::parse(&digits)? }
        }
        (_, Some("gather")) => Action::Gather(gather(details)?),
        _ => return Err("expected hangup, transfer, send_digits, gather or none"),
    }))
}

fn gather(details: &Details) -> Result<Gather, &'static str> {
    let number = |value: &Option<Value>, most: f64, wrong| match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
            number.filter(|number| (1.0..=most).contains(number)).map(Some).ok_or(wrong)
        }
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 1 to 64")]
    let num_digits =
        number(&details.num_digits, MOST_DIGITS as f64, "\"num_digits\" is 1 to 64")?.map(|n| n as usize);
    let timeout =
        number(&details.timeout, 120.0, "\"timeout\" is 1 to 120 seconds")?.map(Duration::from_secs_f64);
    let finish_on = match &details.finish_on_key {
        None | Some(Value::Null) => None,
        Some(key) => {
            let wrong = "\"finish_on_key\" is one of 0-9, *, # and A-D, or empty for none";
            let mut keys = key.as_str().ok_or(wrong)?.chars();
            match (keys.next(), keys.next()) {
                (None, _) => Some(FinishOn::Nothing),
                (Some(key), None) if key.is_ascii_digit() || "*#ABCD".contains(key) => {
                    Some(FinishOn::Key(key))
                }
                _ => return Err(wrong),
            }
        }
    };
    Ok(Gather { num_digits, finish_on, timeout })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(said: Value) -> Result<Option<Action>, &'static str> {
        planned(&said["action"], &serde_json::from_value(said.clone()).unwrap())
    }

    #[test]
    fn an_action_comes_with_what_it_needs() {
        for nothing in
            [json!({}), json!({"action": null}), json!({"action": "none", "to": 7}), json!({"action": ""})]
        {
            assert_eq!(said(nothing), Ok(None));
        }
        assert_eq!(said(json!({"action": "hangup"})), Ok(Some(Action::Hangup)));
        let to = Destination::Number("+15550100".to_owned());
        let transfer = Ok(Some(Action::Transfer { to }));
        assert_eq!(said(json!({"action": "transfer", "to": "+1 555 0100"})), transfer);
        let digits = |digits: &str| Ok(Some(Action::SendDigits { digits: Keys::parse(digits).unwrap() }));
        assert_eq!(said(json!({"action": "send_digits", "digits": "1w2#"})), digits("1w2#"));
        assert_eq!(said(json!({"action": "send_digits", "digits": 42})), digits("42"));
    }

    #[test]
    fn digits_are_asked_for_in_the_words_of_twilio() {
        let gather = |details: Value| match said(details) {
            Ok(Some(Action::Gather(gather))) => gather,
            other => panic!("{other:?}"),
        };
        assert_eq!(gather(json!({"action": "gather"})), Gather::default());
        let all = Gather {
            num_digits: Some(4),
            finish_on: Some(FinishOn::Key('*')),
            timeout: Some(Duration::from_millis(2500)),
        };
        let snake = json!({"action": "gather", "num_digits": 4, "finish_on_key": "*", "timeout": 2.5});
        let camel = json!({"action": "gather", "numDigits": "4", "finishOnKey": "*", "timeout": "2.5"});
        assert_eq!((gather(snake), gather(camel)), (all, all));
        let endless = gather(json!({"action": "gather", "finish_on_key": "", "num_digits": null}));
        assert_eq!(endless, Gather { finish_on: Some(FinishOn::Nothing), ..Gather::default() });
    }

    #[test]
    fn an_action_that_makes_no_sense_is_none() {
        for wrong in [
            json!({"action": "dance"}),
            json!({"action": 7}),
            json!({"action": "transfer"}),
            json!({"action": "transfer", "to": " "}),
            json!({"action": "transfer", "to": ["+15550100"]}),
            json!({"action": "transfer", "to": "5550100"}),
            json!({"action": "send_digits"}),
            json!({"action": "send_digits", "digits": "one"}),
            json!({"action": "gather", "num_digits": 0}),
            json!({"action": "gather", "num_digits": 65}),
            json!({"action": "gather", "num_digits": true}),
            json!({"action": "gather", "timeout": "auto"}),
            json!({"action": "gather", "timeout": 1e9}),
            json!({"action": "gather", "finish_on_key": "##"}),
            json!({"action": "gather", "finish_on_key": 1}),
        ] {
            assert!(said(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
