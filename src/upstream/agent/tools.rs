//! The functions that a model may call: what it is told of them, how its calls come together from the
//! pieces of a stream, and what they mean for the call.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{Action, Destination, Keys};
use crate::config::Tool;

/// More calls, or longer arguments, are no calls of ours.
const MOST_CALLS: usize = 8;
const LONGEST_ARGUMENTS: usize = 4096;

/// A call of a function, as the model made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::upstream) struct ToolCall {
    pub(in crate::upstream) id: String,
    pub(in crate::upstream) name: String,
    /// JSON, it is hoped.
    pub(in crate::upstream) arguments: String,
}

/// A piece of a call. The first has its id and name, all have some of its arguments.
#[derive(Debug, Default, Deserialize)]
pub(super) struct CallDelta {
    index: Option<u64>,
    id: Option<String>,
    function: Option<FunctionDelta>,
}

#[derive(Debug, Default, Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<String>,
}

/// Calls as they come in.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<(Option<u64>, ToolCall)>);

impl ToolCall {
    pub(super) fn to_json(&self) -> Value {
        let function = json!({"name": self.name, "arguments": self.arguments});
        json!({"id": self.id, "type": "function", "function": function})
    }

    pub(super) fn bytes(&self) -> usize {
        self.id.len() + self.name.len() + self.arguments.len()
    }

    /// What is to be done, and what the model is told of it; or what is wrong with the call.
    pub(in crate::upstream) fn meaning(&self, offered: &[Tool]) -> Result<(Action, &'static str), String> {
        let Some(tool) = offered.iter().find(|tool| tool.name() == self.name) else {
            return Err("there is no function of that name".to_owned());
        };
        let arguments: Value = match self.arguments.trim() {
            "" => json!({}),
            text => serde_json::from_str(text).map_err(|_| "the arguments are not JSON".to_owned())?,
        };
        let text = |name: &str| match arguments[name].as_str().map(str::trim) {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            Some(_) | None => Err(format!("{name} is missing: a string")),
        };
        Ok(match tool {
            Tool::Hangup => (Action::Hangup, "The call ends once the caller has heard your goodbye."),
            Tool::Transfer => {
                let to = Destination::parse(&text("to")?)?;
                (Action::Transfer { to }, "The caller is put through once you have been heard.")
            }
            Tool::SendDigits => {
                let digits = Keys::parse(&text("digits")?)?;
                (Action::SendDigits { digits }, "The keys are sent once you have been heard.")
            }
        })
    }
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_calls(self) -> impl Iterator<Item = ToolCall> {
        // Some servers give no ids, and an answer must name what it answers.
        self.0.into_iter().enumerate().map(|(n, (_, mut call))| {
            if call.id.is_empty() {
                call.id = format!("call_{n}");
            }
            call
        })
    }

    /// Takes a piece, to whichever call it belongs; false if there is too much of them.
    pub(super) fn push(&mut self, delta: CallDelta) -> bool {
        let CallDelta { index, id, function } = delta;
        let FunctionDelta { name, arguments } = function.unwrap_or_default();
        let id = id.filter(|id| !id.is_empty());
        // By its index, as OpenAI has it; some others give none, or 0 for all, and an id to each.
        let is_same = |(at, call): &(Option<u64>, ToolCall)| {
            let same_id = id.as_ref().is_none_or(|id| call.id.is_empty() || *id == call.id);
            same_id && (index.is_none() || *at == index)
        };
        let place = match self.0.iter().rposition(is_same) {
            Some(place) => place,
            None if self.0.len() == MOST_CALLS => return false,
            None => {
                self.0.push((index, ToolCall::default()));
                self.0.len() - 1
            }
        };
        let call = &mut self.0[place].1;
        if let Some(id) = id {
            call.id = id;
        }
        // It may be said again with every piece.
        if let Some(name) = name.filter(|name| *name != call.name) {
            call.name.push_str(&name);
        }
        call.arguments.push_str(arguments.as_deref().unwrap_or_default());
        call.bytes() <= LONGEST_ARGUMENTS
    }
}

/// As a request offers them.
pub(in crate::upstream) fn offered(tools: &[Tool]) -> Vec<Value> {
    tools.iter().map(|tool| definition(*tool)).collect()
}

fn definition(tool: Tool) -> Value {
    let (description, parameter) = match tool {
        Tool::Hangup => ("End the phone call. Say goodbye first, in the same reply.", None),
        Tool::Transfer => (
            "Put the caller through to another phone number. Tell the caller first, in the same reply.",
            Some(("to", "The phone number with its country, such as +15551234567, or a sip: address.")),
        ),
        Tool::SendDigits => (
            "Press keys on the phone, as in the menu of another telephone system.",
            Some(("digits", "The keys: 0-9, *, #, and w to pause for half a second.")),
        ),
    };
    let mut properties = json!({});
    let mut required = Vec::new();
    if let Some((name, description)) = parameter {
        properties[name] = json!({"type": "string", "description": description});
        required.push(name);
    }
    json!({"type": "function", "function": {
        "name": tool.name(),
        "description": description,
        "parameters": {
            "type": "object", "properties": properties, "required": required, "additionalProperties": false,
        },
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Tool; 3] = [Tool::Hangup, Tool::Transfer, Tool::SendDigits];

    /// The calls of these pieces, as name and arguments.
    fn calls(pieces: &[Value]) -> Vec<(String, String, String)> {
        let mut calls = Calls::default();
        for piece in pieces {
            assert!(calls.push(serde_json::from_value(piece.clone()).unwrap()));
        }
        calls.into_calls().map(|call| (call.id, call.name, call.arguments)).collect()
    }

    fn call(id: &str, name: &str, arguments: &str) -> (String, String, String) {
        (id.to_owned(), name.to_owned(), arguments.to_owned())
    }

    #[test]
    fn arguments_may_be_cut_anywhere() {
        let arguments = r#"{"to":"+1555 \u00fc"}"#;
        for cut in 0..=arguments.len() {
            let (one, two) = arguments.split_at(cut);
            let got = calls(&[
                json!({"index": 0, "id": "a", "type": "function", "function": {"name": "transfer", "arguments": ""}}),
                json!({"index": 0, "function": {"arguments": one}}),
                json!({"index": 1, "id": "b", "function": {"name": "hangup", "arguments": "{"}}),
                json!({"index": 0, "function": {"arguments": two}}),
                json!({"index": 1, "function": {"arguments": "}"}}),
            ]);
            assert_eq!(got, [call("a", "transfer", arguments), call("b", "hangup", "{}")], "cut at {cut}");
        }
    }

    #[test]
    fn servers_that_number_in_their_own_way_are_understood() {
        let whole = |id: &str, name: &str| json!({"id": id, "function": {"name": name, "arguments": "{}"}});
        let both = [call("a", "hangup", "{}"), call("b", "hangup", "{}")];
        assert_eq!(calls(&[whole("a", "hangup"), whole("b", "hangup")]), both, "no index");
        let mut zero = [whole("a", "hangup"), whole("b", "hangup")];
        zero.iter_mut().for_each(|call| call["index"] = 0.into());
        assert_eq!(calls(&zero), both, "the same index");
        let again = json!({"index": 0, "id": "a", "function": {"name": "hangup", "arguments": "}"}});
        let first = json!({"index": 0, "id": "a", "function": {"name": "hangup", "arguments": "{"}});
        assert_eq!(calls(&[first, again]), [call("a", "hangup", "{}")], "id and name with every piece");
        assert_eq!(calls(&[json!({"function": {"name": "hangup"}})]), [call("call_0", "hangup", "")]);
    }

    #[test]
    fn calls_have_a_bound() {
        let mut many = Calls::default();
        let piece = |n: usize| CallDelta { index: Some(n as u64), ..CallDelta::default() };
        assert!((0..MOST_CALLS).all(|n| many.push(piece(n))));
        assert!(!many.push(piece(MOST_CALLS)));
        let mut long = Calls::default();
        let arguments = Some("x".repeat(LONGEST_ARGUMENTS + 1));
        let function = Some(FunctionDelta { name: None, arguments });
        assert!(!long.push(CallDelta { index: Some(0), id: None, function }));
    }

    #[test]
    fn a_call_means_an_action_or_is_told_what_is_wrong() {
        let meaning = |name: &str, arguments: &str| {
            let call = ToolCall { id: "a".into(), name: name.into(), arguments: arguments.into() };
            call.meaning(&ALL).map(|(action, _)| action)
        };
        assert_eq!(meaning("hangup", ""), Ok(Action::Hangup));
        assert_eq!(meaning("hangup", "{\"why\":1}"), Ok(Action::Hangup));
        let to = Destination::Number("+15550100".to_owned());
        assert_eq!(meaning("transfer", r#"{"to":" +1 555-0100 "}"#), Ok(Action::Transfer { to }));
        let digits = Action::SendDigits { digits: Keys::parse("1w#").unwrap() };
        assert_eq!(meaning("send_digits", r#"{"digits":"1w#"}"#), Ok(digits));
        for (name, arguments, why) in [
            ("dance", "{}", "there is no function of that name"),
            ("transfer", "{}", "to is missing: a string"),
            ("transfer", r#"{"to":7}"#, "to is missing: a string"),
            ("transfer", r#"{"to":"#, "the arguments are not JSON"),
            (
                "transfer",
                r#"{"to":"5550100"}"#,
                "\"to\" must be a number with its country, such as +15551234567, or begin with sip: or client:",
            ),
            (
                "send_digits",
                r#"{"digits":"one"}"#,
                "\"digits\" may be 0-9, *, #, A-D, and w for a pause of half a second",
            ),
        ] {
            assert_eq!(meaning(name, arguments), Err(why.to_owned()));
        }
        let hangup = ToolCall { name: "hangup".into(), ..ToolCall::default() };
        assert_eq!(hangup.meaning(&[]), Err("there is no function of that name".to_owned()), "not offered");
    }
}
