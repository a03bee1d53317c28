//! One connection to a recogniser: what it has been sent and asked, what its messages mean for the
//! call, and when its silence means that it is of no use any more.
//!
//! While a question is open, no audio from behind its place is sent: whatever comes before the answer
//! is about the utterance that was asked for, and nothing of it is said twice.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::super::answer::seconds;
use super::super::quote::quote_without;
use super::listener::{Listener, SLACK};
use super::socket::{Event, Socket};
use super::tape::{MESSAGE, Position};
use super::{Said, Wire};
use crate::audio::BYTES_PER_MS;
use crate::call::{Failure, FailureKind};

/// The longest message, when there is audio to catch up with: 240 ms.
const LONGEST_MESSAGE: u64 = 240 * BYTES_PER_MS as u64;

pub(super) struct Connection {
    pub(super) socket: Socket,
    /// The place in the call's audio that the recogniser counts from.
    base: Position,
    /// The next byte to send.
    cursor: Position,
    /// Where each message of audio ended that has no answer yet, if each has one.
    in_flight: VecDeque<Position>,
    since: Instant,
    /// When the recogniser last said anything.
    heard_at: Option<Instant>,
    /// Since when audio waits for any answer.
    waiting: Option<Instant>,
    sent_at: Instant,
    /// When the first question was put.
    asked: Option<Instant>,
    /// Words about audio before this have been given up.
    given_up: Position,
}

/// Why a connection is left.
#[derive(Debug)]
pub(super) enum Left {
    /// The call is over.
    Over,
    /// It has done its work.
    Done,
    Lost(Failure),
}

impl Connection {
    pub(super) fn new(mut socket: Socket, wire: &Wire, from: Position) -> Self {
        if let Some(opening) = wire.opening() {
            socket.send(opening);
        }
        let now = Instant::now();
        Self {
            socket,
            base: from,
            cursor: from,
            in_flight: VecDeque::new(),
            since: now,
            heard_at: None,
            waiting: None,
            sent_at: now,
            asked: None,
            given_up: 0,
        }
    }

    pub(super) fn has_answered(&self) -> bool {
        self.heard_at.is_some()
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    pub(super) async fn close(self, words: Option<&'static str>, wait: Duration) {
        self.socket.close(words, wait).await;
    }

    /// Sends the next thing that is to be sent, if the last one has left.
    pub(super) fn feed(&mut self, listener: &Listener) {
        if self.socket.unwritten.is_some() || self.asked.is_some() {
            return;
        }
        let wire = &listener.source.wire;
        let now = Instant::now();
        let (start, end) = listener.tape.span();
        if self.cursor < start {
            // Done with before it was sent, or dropped: the recogniser will never count it.
            self.base += start - self.cursor;
            self.cursor = start;
        }
        let question = listener.questions.front().map(|question| question.order.at);
        let ready = question.unwrap_or(end).saturating_sub(self.cursor);
        if ready >= MESSAGE as u64 || question.is_some() && ready > 0 {
            let most = usize::try_from(ready.min(LONGEST_MESSAGE)).unwrap_or(MESSAGE);
            let audio = listener.tape.copy(self.cursor, most);
            self.cursor += audio.len() as u64;
            if wire.answers_each() {
                self.in_flight.push_back(self.cursor);
            }
            self.socket.send(wire.audio(audio));
            self.waiting.get_or_insert(now);
        } else if question.is_some() {
            self.socket.send(Message::text(wire.finalize()));
            self.asked = Some(now);
        } else if let Some(words) = wire.keep_alive()
            && self.sent_at + listener.streaming.patience.keep_alive <= now
        {
            self.socket.send(Message::text(words));
        } else {
            return;
        }
        self.sent_at = now;
    }

    /// When something will have taken too long.
    pub(super) fn due(&self, listener: &Listener) -> Instant {
        let streaming = &listener.streaming;
        let keep_alive =
            listener.source.wire.keep_alive().map(|_| self.sent_at + streaming.patience.keep_alive);
        let keep_alive = keep_alive.filter(|_| self.asked.is_none() && self.socket.unwritten.is_none());
        [keep_alive, self.question_due(listener), Some(self.stalled_at(listener))]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.since)
    }

    fn question_due(&self, listener: &Listener) -> Option<Instant> {
        let patience = &listener.streaming.patience;
        let question = listener.questions.front()?;
        Some(match self.asked {
            Some(asked) => {
                let heard = self.heard_at.map_or(asked, |heard| heard.max(asked));
                (heard + patience.answer).min(asked + patience.longest)
            }
            None => question.since.max(self.since) + patience.longest,
        })
    }

    fn stalled_at(&self, listener: &Listener) -> Instant {
        let target = &listener.source.target;
        let patience = if self.heard_at.is_some() { target.stall() } else { listener.first_answer() };
        let far = Instant::now() + Duration::from_secs(3600);
        let waiting = self.waiting.map_or(far, |since| since + patience);
        waiting.min(self.socket.unwritten.map_or(far, |since| since + target.stall()))
    }

    /// Time has passed: perhaps too much.
    pub(super) fn overdue(&mut self, listener: &mut Listener) -> Option<Left> {
        let now = Instant::now();
        let target = &listener.source.target;
        if self.stalled_at(listener) <= now {
            let failure = match (self.socket.unwritten, self.heard_at) {
                (Some(_), _) => {
                    let why = format!("took no audio for {}", seconds(target.stall()));
                    target.failure(&self.socket.shown, FailureKind::Timeout, "the network", &why)
                }
                (None, Some(_)) => {
                    let why = format!("said nothing for {}", seconds(target.stall()));
                    target.failure(&self.socket.shown, FailureKind::Timeout, "the vendor", &why)
                }
                (None, None) => {
                    let why = format!(
                        "said nothing within {} of the first audio",
                        seconds(listener.first_answer())
                    );
                    target.failure(&self.socket.shown, FailureKind::Timeout, "the vendor", &why)
                }
            };
            return Some(Left::Lost(failure));
        }
        if self.question_due(listener).is_none_or(|due| now < due) {
            return None;
        }
        let patience = listener.streaming.patience;
        let why = format!("no transcript within {}", seconds(patience.answer));
        let failure = target.failure(&self.socket.shown, FailureKind::Timeout, "the vendor", &why);
        let alive = self.heard_at.is_some_and(|heard| now < heard + patience.alive);
        let forgets = listener.questions.front().is_some_and(|question| question.order.utterance.is_none());
        if !listener.words.is_empty() || forgets {
            // Words without their confirmation. It may come yet, and must not be taken for new words.
            listener.answer();
            return Some(Left::Lost(failure));
        }
        if alive && self.asked.is_some() && !listener.source.wire.answers_each() {
            // Nothing was said, and there is nothing to say of it.
            self.given_up = self.cursor;
            self.asked = None;
            listener.answer();
            return None;
        }
        if !listener.pass_on() {
            listener.fail(failure.clone());
        }
        Some(Left::Lost(failure))
    }

    /// What the socket told.
    pub(super) fn happened(&mut self, event: Event, listener: &mut Listener) -> Option<Left> {
        let target = &listener.source.target;
        let text = match event {
            Event::Written => return None,
            Event::Closed(code, why) => {
                let owner = match code {
                    // Ours: the wrong audio, a wrong query.
                    Some(1003 | 1007 | 1008) => "your config",
                    Some(_) => "the vendor",
                    None => "the network",
                };
                return Some(Left::Lost(target.failure(
                    &self.socket.shown,
                    FailureKind::Protocol,
                    owner,
                    &why,
                )));
            }
            Event::Text(text) => text,
        };
        self.heard_at = Some(Instant::now());
        self.waiting = None;
        let place = self.in_flight.pop_front();
        if !self.in_flight.is_empty() {
            self.waiting = self.heard_at;
        }
        match listener.source.wire.understand(&text) {
            Ok(Said::Nothing) => None,
            Ok(Said::Ended) => {
                listener.tell_end();
                None
            }
            Ok(Said::Words { text, is_final, ended, settles, from, until }) => {
                let last = listener.source.wire.answers_each() && place.is_none();
                let until = place.or(until.map(|until| (self.base + until).min(self.cursor)));
                let from = from.map(|from| self.base + from);
                let words = Heard { text, is_final, ended, settles: settles || last, from, until };
                self.words(&words, listener)
            }
            Ok(Said::Fault(why)) => {
                let why = format!(
                    "said that something is wrong: {}",
                    quote_without(target.secret(), why.as_bytes())
                );
                Some(Left::Lost(target.failure(
                    &self.socket.shown,
                    FailureKind::Protocol,
                    "the vendor",
                    &why,
                )))
            }
            Err(_) => {
                let why =
                    format!("sent what is no result: {}", quote_without(target.secret(), text.as_bytes()));
                Some(Left::Lost(target.failure(
                    &self.socket.shown,
                    FailureKind::Protocol,
                    "the vendor",
                    &why,
                )))
            }
        }
    }

    fn words(&mut self, heard: &Heard, listener: &mut Listener) -> Option<Left> {
        let given_up = heard.from.is_some_and(|from| from + SLACK < self.given_up);
        if !given_up {
            if heard.is_final {
                listener.words.settle(&heard.text);
            } else {
                listener.words.guess(&heard.text);
            }
            listener.tell_partial();
        }
        if heard.is_final
            && let Some(until) = heard.until
        {
            listener.tape.forget(until);
        }
        let place = listener.questions.front().map(|question| question.order.at);
        let covers =
            heard.is_final && heard.until.zip(place).is_some_and(|(until, place)| until + SLACK >= place);
        if self.asked.is_some()
            && !given_up
            && (heard.settles || covers && !listener.source.wire.answers_each())
        {
            self.asked = None;
            listener.answer();
            return listener.source.wire.answers_each().then_some(Left::Done);
        }
        if heard.is_final && heard.ended {
            listener.tell_end();
        }
        None
    }
}

/// Words of the recogniser, placed in the call's audio.
struct Heard {
    text: String,
    is_final: bool,
    ended: bool,
    settles: bool,
    from: Option<Position>,
    until: Option<Position>,
}
