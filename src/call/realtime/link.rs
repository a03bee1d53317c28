//! The line to the model: dialled when the call starts, and again when it is lost, and given up when
//! that does not help. What the caller says meanwhile waits; what was said before is told to a new
//! session, which knows nothing of it.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::event::Event;
use super::super::input::{Action, Failure, FailureKind, Service};
use super::Realtime;
use super::model::{Request, Role};
use super::reply::{Reply, Response};
use crate::audio::BYTES_PER_MS;
use crate::time::CallTime;
use crate::turn::{State, Why};

/// Dials in a row that may fail, or be lost before the model has said anything whole.
const MOST_FAILURES: u32 = 2;
/// Between two dials, from the second on.
const PAUSE: Duration = Duration::from_millis(500);
/// Audio of the caller that waits for the line.
const MOST_BACKLOG: usize = 3_000 * BYTES_PER_MS;
/// What a new session is told: so many texts, and so much of each.
const MOST_REMEMBERED: usize = 32;
const LONGEST_REMEMBERED: usize = 1_000;

#[derive(Debug)]
pub(super) enum Link {
    Dialling,
    Pausing(CallTime),
    Up,
    /// Given up.
    Gone,
}

impl Link {
    pub(super) fn is_up(&self) -> bool {
        matches!(self, Link::Up)
    }

    /// When to dial again.
    pub(super) fn due(&self) -> Option<CallTime> {
        match self {
            Link::Pausing(until) => Some(*until),
            Link::Dialling | Link::Up | Link::Gone => None,
        }
    }
}

/// What the model could not be told yet.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    audio: Vec<u8>,
    /// So much of the audio is of utterances that are over.
    committed: Option<usize>,
}

/// What was said, as far as it was heard and understood.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<(Role, String)>);

impl History {
    pub(super) fn push(&mut self, role: Role, text: &str) {
        let text: String = text.trim().chars().take(LONGEST_REMEMBERED).collect();
        if text.is_empty() {
            return;
        }
        if self.0.len() == MOST_REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((role, text));
    }
}

impl Realtime {
    /// Asks something of the model, if there is a line to it.
    pub(super) fn request(&mut self, request: Request) {
        if self.link.is_up() {
            self.requests.push_back(request);
        }
    }

    pub(super) fn hear(&mut self, audio: &[u8]) {
        if self.link.is_up() {
            return self.requests.push_back(Request::Hear(audio.to_vec()));
        }
        let Backlog { audio: kept, committed } = &mut self.backlog;
        let over = (kept.len() + audio.len()).saturating_sub(MOST_BACKLOG).min(kept.len());
        kept.drain(..over);
        *committed = committed.map(|committed| committed.saturating_sub(over));
        kept.extend_from_slice(audio);
    }

    /// The utterance that was heard is over.
    pub(super) fn commit(&mut self) {
        if self.link.is_up() {
            self.requests.push_back(Request::Commit);
        } else {
            self.backlog.committed = Some(self.backlog.audio.len());
        }
    }

    /// The utterance that was heard is of no use; the ones before it are waited for.
    pub(super) fn forget_utterance(&mut self) {
        self.backlog.audio.truncate(self.backlog.committed.unwrap_or(0));
        self.request(Request::Forget);
    }

    pub(super) fn dial(&mut self) {
        self.link = Link::Dialling;
        self.requests.push_back(Request::Dial);
    }

    pub(super) fn linked(&mut self, now: CallTime) {
        if !matches!(self.link, Link::Dialling) {
            return;
        }
        self.link = Link::Up;
        self.ready = false;
        let remembered = self.history.0.iter().cloned();
        self.requests.extend(remembered.map(|(role, text)| Request::Remember { role, text }));
        // What the caller is hearing at the moment.
        let text = self.playback.heard(u64::MAX);
        if !text.is_empty() {
            self.requests.push_back(Request::Remember { role: Role::Model, text });
        }
        let Backlog { mut audio, committed } = std::mem::take(&mut self.backlog);
        // The caller may be in the middle of the next utterance.
        let begun = audio.split_off(committed.unwrap_or(0));
        for (audio, over) in [(audio, committed.is_some()), (begun, false)] {
            if !audio.is_empty() {
                self.requests.push_back(Request::Hear(audio));
                self.requests.extend(over.then_some(Request::Commit));
            }
        }
        self.respond_if_wanted(now);
    }

    pub(super) fn unlinked(&mut self, failure: Failure, now: CallTime) {
        if matches!(self.link, Link::Gone | Link::Pausing(_)) {
            return;
        }
        let lost = self.link.is_up();
        let owes = lost && (self.is_busy() || self.state() == State::Thinking);
        self.failures += 1;
        let hopeless = failure.kind == FailureKind::Http4xx || self.failures > MOST_FAILURES;
        self.tell(Event::UpstreamFailed { service: Service::Agent, failure });
        self.response = Response::None;
        self.unwanted = None;
        self.follows = false;
        for function in std::mem::take(&mut self.functions) {
            self.requests.push_back(Request::DropFunction { call: function.id });
        }
        if lost {
            self.wanted = None;
            self.playback.end_part(&mut self.pacer);
        }
        if hopeless {
            return self.give_up(now);
        }
        if self.failures == 1 {
            self.dial();
        } else {
            self.link = Link::Pausing(now + PAUSE);
        }
        if owes {
            self.apologise(now);
        }
    }

    /// There is no model any more: the caller is told so, and let go.
    pub(super) fn give_up(&mut self, now: CallTime) {
        self.link = Link::Gone;
        if self.state() == State::Listening {
            self.reply = Some(Reply::new(0, None, now));
            let transition = self.machine.think(Why::Unasked);
            self.moved(transition);
        }
        self.apologise(now);
    }

    /// What is to be done once the caller has heard the apology.
    pub(super) fn action_after_failure(&self) -> Action {
        if matches!(self.link, Link::Gone) { Action::Hangup } else { Action::None }
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.link, Link::Gone)
    }
}
