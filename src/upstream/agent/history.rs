//! What was said in a call, as a model is told of it: the caller's words as they were recognised, and
//! the bot's as far as they were heard. Nothing here depends on how far a request got that was given
//! up: what was heard is told by the call.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::tools::ToolCall;
use crate::call::{Question, ReplyHeard};

/// The most text kept, in bytes: what is older is forgotten. Hours of a call, and the context of a
/// small model.
const MOST_BYTES: usize = 64 * 1024;

/// Stands behind words that the caller cut off.
const CUT_OFF: &str = "… [interrupted by the caller]";

/// The history of one call, shared by its requests.
#[derive(Clone)]
pub(in crate::upstream) struct SharedHistory(Arc<Mutex<History>>);

impl SharedHistory {
    /// That keeps as many turns before the present one.
    pub(super) fn new(turns: usize) -> Self {
        Self(Arc::new(Mutex::new(History { turns, exchanges: VecDeque::new() })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, History> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct History {
    turns: usize,
    exchanges: VecDeque<Exchange>,
}

/// A question and its answer; only an answer where nobody asked.
#[derive(Default)]
struct Exchange {
    turn: u64,
    asked: Option<String>,
    calls: Vec<(ToolCall, String)>,
    /// Of the reply under way: what was written so far.
    written: String,
    /// Of a reply that is over: what was heard of it.
    heard: Option<String>,
}

impl Exchange {
    fn bytes(&self) -> usize {
        let calls = self.calls.iter().map(|(call, result)| call.bytes() + result.len());
        let texts = [self.asked.as_ref(), self.heard.as_ref()].into_iter().flatten().map(String::len);
        self.written.len() + calls.chain(texts).sum::<usize>()
    }

    fn messages(&self, to: &mut Vec<Value>) {
        if let Some(text) = &self.asked {
            to.push(json!({"role": "user", "content": text}));
        }
        let said = self.heard.as_ref().unwrap_or(&self.written);
        let content = (!said.is_empty()).then_some(said);
        if !self.calls.is_empty() {
            let calls: Vec<_> = self.calls.iter().map(|(call, _)| call.to_json()).collect();
            to.push(json!({"role": "assistant", "content": content, "tool_calls": calls}));
            for (call, result) in &self.calls {
                to.push(json!({"role": "tool", "tool_call_id": call.id, "content": result}));
            }
        } else if let Some(content) = content {
            to.push(json!({"role": "assistant", "content": content}));
        }
    }
}

impl History {
    pub(super) fn asked(&mut self, question: &Question) {
        for exchange in &mut self.exchanges {
            // Nothing was heard of a reply that is not told of by now.
            exchange.written.clear();
        }
        let text = match &question.dtmf {
            Some(keys) if keys.is_empty() => "[The caller pressed no keys]".to_owned(),
            Some(keys) => format!("[The caller pressed: {keys}]"),
            None => question.text.clone(),
        };
        let text = match question.action_failed {
            Some(action) => format!("[Your {action} could not be done; the caller is still here]\n{text}"),
            None => text,
        };
        self.push(Exchange { turn: question.turn, asked: Some(text), ..Exchange::default() });
    }

    /// The model has written this piece of its reply.
    pub(super) fn written(&mut self, turn: u64, text: &str) {
        if let Some(exchange) = self.at(turn)
            && exchange.heard.is_none()
        {
            exchange.written.push_str(text);
        }
    }

    /// The model has called a function, which answered this.
    pub(super) fn called(&mut self, turn: u64, mut call: ToolCall, result: String) {
        if let Some(exchange) = self.at(turn) {
            // Of an earlier round, from a server that gives no ids of its own.
            if exchange.calls.iter().any(|(other, _)| other.id == call.id) {
                call.id += &format!("_{}", exchange.calls.len());
            }
            exchange.calls.push((call, result));
        }
    }

    pub(super) fn heard(&mut self, reply: ReplyHeard) {
        let ReplyHeard { turn, text, interrupted, asked_again, .. } = reply;
        let heard = if interrupted && !text.is_empty() { text + CUT_OFF } else { text };
        match self.at(turn) {
            // Each is something else that the bot has said of itself.
            _ if turn == 0 && heard.is_empty() => {}
            _ if turn == 0 => self.push(Exchange { heard: Some(heard), ..Exchange::default() }),
            Some(_) if asked_again => {
                self.exchanges.retain(|exchange| exchange.turn != turn);
            }
            Some(exchange) => {
                exchange.written.clear();
                exchange.heard = Some(heard);
            }
            None if asked_again => {}
            None => self.push(Exchange { turn, heard: Some(heard), ..Exchange::default() }),
        }
    }

    /// All messages, the system's first.
    pub(super) fn messages(&self, instructions: Option<&str>) -> Vec<Value> {
        let mut messages = Vec::new();
        messages.extend(instructions.map(|text| json!({"role": "system", "content": text})));
        for exchange in &self.exchanges {
            exchange.messages(&mut messages);
        }
        messages
    }

    fn at(&mut self, turn: u64) -> Option<&mut Exchange> {
        self.exchanges.iter_mut().rev().find(|exchange| exchange.turn == turn)
    }

    fn push(&mut self, exchange: Exchange) {
        self.exchanges.push_back(exchange);
        let mut bytes: usize = self.exchanges.iter().map(Exchange::bytes).sum();
        while self.exchanges.len() > self.turns + 1 || bytes > MOST_BYTES && self.exchanges.len() > 1 {
            bytes -= self.exchanges.pop_front().map_or(0, |exchange| exchange.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(turns: usize) -> History {
        History { turns, exchanges: VecDeque::new() }
    }

    fn ask(history: &mut History, turn: u64, text: &str, dtmf: Option<&str>) {
        history.asked(&Question {
            turn,
            text: text.to_owned(),
            dtmf: dtmf.map(str::to_owned),
            interrupted: false,
            heard: String::new(),
            action_failed: None,
            deadline_ms: 1,
        });
    }

    fn hear(history: &mut History, turn: u64, text: &str, interrupted: bool) {
        history.heard(ReplyHeard { turn, text: text.to_owned(), interrupted, ..ReplyHeard::default() });
    }

    /// The caller goes on with this turn.
    fn ask_again(history: &mut History, turn: u64) {
        history.heard(ReplyHeard { turn, interrupted: true, asked_again: true, ..ReplyHeard::default() });
    }

    /// As `role: content`.
    fn told(history: &History) -> Vec<String> {
        let line = |m: &Value| format!("{}: {}", m["role"].as_str().unwrap(), m["content"].as_str().unwrap());
        history.messages(None).iter().map(line).collect()
    }

    #[test]
    fn what_was_heard_is_what_was_said() {
        let mut history = history(9);
        hear(&mut history, 0, "Welcome.", false);
        ask(&mut history, 1, "hi", None);
        history.written(1, "One. Two. Three.");
        hear(&mut history, 1, "One. Two", true);
        // A request that was given up may still have had this in hand.
        history.written(1, " Four.");
        ask(&mut history, 2, "wait", None);
        let cut = format!("assistant: One. Two{CUT_OFF}");
        assert_eq!(told(&history), ["assistant: Welcome.", "user: hi", &cut, "user: wait"]);
    }

    #[test]
    fn of_what_nobody_heard_only_the_question_stays() {
        let mut history = history(9);
        ask(&mut history, 1, "hi", None);
        history.written(1, "...");
        ask(&mut history, 2, "hello", None);
        assert_eq!(told(&history), ["user: hi", "user: hello"]);
    }

    #[test]
    fn a_question_that_the_caller_goes_on_with_is_asked_once() {
        let mut history = history(9);
        ask(&mut history, 1, "book a table", None);
        ask_again(&mut history, 1);
        ask(&mut history, 2, "book a table for two", None);
        assert_eq!(told(&history), ["user: book a table for two"]);
    }

    #[test]
    fn keys_stand_once_whether_they_are_asked_again_or_not() {
        let mut history = history(9);
        ask(&mut history, 1, "12#", Some("12#"));
        hear(&mut history, 1, "", true);
        ask(&mut history, 2, "hello", None);
        assert_eq!(told(&history), ["user: [The caller pressed: 12#]", "user: hello"]);
        ask(&mut history, 3, "7", Some("7"));
        hear(&mut history, 3, "", true);
        ask_again(&mut history, 3);
        ask(&mut history, 4, "7", Some("7"));
        let expected = ["user: [The caller pressed: 12#]", "user: hello", "user: [The caller pressed: 7]"];
        assert_eq!(told(&history), expected);
    }

    #[test]
    fn who_cuts_the_first_word_off_has_asked_all_the_same() {
        let mut history = history(9);
        ask(&mut history, 1, "when are you open", None);
        history.written(1, "We are open.");
        hear(&mut history, 1, "", true);
        ask(&mut history, 2, "and on Monday", None);
        assert_eq!(told(&history), ["user: when are you open", "user: and on Monday"]);
    }

    #[test]
    fn what_the_bot_says_of_itself_stands_where_it_was_said() {
        let mut history = history(9);
        hear(&mut history, 0, "Welcome.", false);
        ask(&mut history, 1, "hi", None);
        hear(&mut history, 1, "Hello.", false);
        hear(&mut history, 0, "Are you there?", false);
        hear(&mut history, 0, "", true);
        ask(&mut history, 2, "yes", None);
        let expected = [
            "assistant: Welcome.",
            "user: hi",
            "assistant: Hello.",
            "assistant: Are you there?",
            "user: yes",
        ];
        assert_eq!(told(&history), expected);
    }

    #[test]
    fn a_transfer_that_failed_is_told_with_the_next_question() {
        let mut history = history(9);
        history.asked(&Question {
            turn: 1,
            text: String::new(),
            dtmf: Some(String::new()),
            interrupted: false,
            heard: String::new(),
            action_failed: Some("transfer"),
            deadline_ms: 1,
        });
        let failed = "[Your transfer could not be done; the caller is still here]";
        assert_eq!(told(&history), [format!("user: {failed}\n[The caller pressed no keys]")]);
    }

    #[test]
    fn an_apology_for_a_question_that_was_not_understood_is_known() {
        let mut history = history(9);
        hear(&mut history, 1, "Sorry.", false);
        assert_eq!(told(&history), ["assistant: Sorry."]);
    }

    #[test]
    fn turns_have_a_bound() {
        for turns in [0, 1, 3] {
            let mut history = history(turns);
            for turn in 1..=9 {
                ask(&mut history, turn, &turn.to_string(), None);
            }
            let expected: Vec<String> = (9 - turns..=9).map(|turn| format!("user: {turn}")).collect();
            assert_eq!(told(&history), expected);
        }
    }

    #[test]
    fn bytes_have_a_bound_and_the_question_is_always_there() {
        let mut history = history(1000);
        for turn in 1..=40 {
            ask(&mut history, turn, &"x".repeat(MOST_BYTES / 10), None);
        }
        assert_eq!(told(&history).len(), 10);
        ask(&mut history, 41, &"x".repeat(2 * MOST_BYTES), None);
        assert_eq!(told(&history).len(), 1);
    }
}
