//! The state machine of a call. Every verb is one `match`; a verb that makes no sense in a state
//! changes nothing and returns `None`.

/// What the bot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Waiting for the caller, or hearing the caller. The only state without a deadline.
    Listening,
    /// The caller has finished; nothing of the reply has been sent yet.
    Thinking,
    /// Audio is outstanding at the carrier, or more of the reply is to come.
    Speaking,
    /// The call is over.
    Ended,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Listening => "LISTENING",
            State::Thinking => "THINKING",
            State::Speaking => "SPEAKING",
            State::Ended => "ENDED",
        }
    }
}

/// Why the machine moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The greeting is to be spoken.
    Greeting,
    /// The agent has something to say that nobody asked for.
    Unasked,
    /// The caller has said nothing for long.
    Idle,
    /// The caller has finished an utterance.
    EndOfUtterance,
    /// The caller has finished keying digits.
    Digits,
    /// The caller went on speaking before anything was heard of the reply.
    CallerWentOn,
    /// The first frame of the reply went out.
    FirstFrame,
    /// The carrier has played everything.
    Played,
    /// The caller interrupted.
    BargeIn,
    /// Nothing was understood, or the text repeats the last one.
    NothingSaid,
    /// The agent had nothing to say.
    EmptyReply,
    /// What the agent wanted done could not be done.
    ActionFailed,
    /// The reply was cut at the longest time allowed, or could not be finished.
    Failed,
    /// The call is over.
    Stopped,
}

impl Why {
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Greeting => "greeting",
            Why::Unasked => "unasked",
            Why::Idle => "idle",
            Why::EndOfUtterance => "end_of_utterance",
            Why::Digits => "digits",
            Why::CallerWentOn => "caller_went_on",
            Why::FirstFrame => "first_frame",
            Why::Played => "played",
            Why::BargeIn => "barge_in",
            Why::NothingSaid => "nothing_said",
            Why::EmptyReply => "empty_reply",
            Why::ActionFailed => "action_failed",
            Why::Failed => "failed",
            Why::Stopped => "stopped",
        }
    }
}

/// A move of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: State,
    pub to: State,
    pub why: Why,
}

#[derive(Clone, Debug)]
pub struct Machine {
    state: State,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine { state: State::Listening }
    }
}

impl Machine {
    pub fn state(&self) -> State {
        self.state
    }

    /// There is something to answer: an utterance, digits, or a call to greet.
    pub fn think(&mut self, why: Why) -> Option<Transition> {
        match self.state {
            State::Listening => Some(self.go(State::Thinking, why)),
            State::Thinking | State::Speaking | State::Ended => None,
        }
    }

    /// The first frame of a reply goes out.
    pub fn speak(&mut self) -> Option<Transition> {
        match self.state {
            State::Thinking => Some(self.go(State::Speaking, Why::FirstFrame)),
            State::Listening | State::Speaking | State::Ended => None,
        }
    }

    /// The caller has the floor again.
    pub fn listen(&mut self, why: Why) -> Option<Transition> {
        match self.state {
            State::Thinking | State::Speaking => Some(self.go(State::Listening, why)),
            State::Listening | State::Ended => None,
        }
    }

    pub fn end(&mut self) -> Option<Transition> {
        match self.state {
            State::Listening | State::Thinking | State::Speaking => Some(self.go(State::Ended, Why::Stopped)),
            State::Ended => None,
        }
    }

    fn go(&mut self, to: State, why: Why) -> Transition {
        let from = std::mem::replace(&mut self.state, to);
        Transition { from, to, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::*;

    #[test]
    fn what_each_verb_does_in_each_state() {
        type Verb = fn(&mut Machine) -> Option<Transition>;
        let verbs: [(&str, Verb); 4] = [
            ("think", |m| m.think(Why::EndOfUtterance)),
            ("speak", |m| m.speak()),
            ("listen", |m| m.listen(Why::Played)),
            ("end", |m| m.end()),
        ];
        let moves = [
            (Listening, [Some(Thinking), None, None, Some(Ended)]),
            (Thinking, [None, Some(Speaking), Some(Listening), Some(Ended)]),
            (Speaking, [None, None, Some(Listening), Some(Ended)]),
            (Ended, [None, None, None, None]),
        ];
        for (from, to) in moves {
            for ((name, verb), to) in verbs.iter().zip(to) {
                let mut machine = Machine { state: from };
                let moved = verb(&mut machine);
                assert_eq!(moved.map(|t| (t.from, t.to)), to.map(|to| (from, to)), "{name} in {from:?}");
                assert_eq!(machine.state(), to.unwrap_or(from), "{name} in {from:?}");
            }
        }
    }
}
