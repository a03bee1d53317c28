//! Marks: places in a reply that the carrier reports once the caller has heard them. A name says which turn
//! and which place, and how many times the carrier had been told to forget before.

use super::pacer::Mark;
use super::{Call, Event, Output};
use crate::time::CallTime;
use crate::turn::State;

impl Mark {
    /// How its name says which place it is.
    pub(super) fn place(self) -> String {
        match self {
            Mark::First => "first".to_owned(),
            Mark::Segment(number) => format!("s{number}"),
            Mark::End | Mark::Named => "end".to_owned(),
        }
    }
}

impl Call {
    pub(super) fn send_mark(&mut self, mark: Mark) {
        let turn = self.reply.as_ref().map_or(self.turns, |reply| reply.turn);
        let place = mark.place();
        self.outputs.push_back(Output::Mark(format!("t{turn}.e{}.{place}", self.epoch)));
    }

    pub(super) fn mark_returned(&mut self, name: &str, now: CallTime) {
        let (Some(reply), State::Speaking) = (&mut self.reply, self.machine.state()) else { return };
        let current = format!("t{}.e{}.", reply.turn, self.epoch);
        let Some(place) = name.strip_prefix(&current) else { return };
        match place {
            "first" => {
                if let Some(sent) = self.first_mark_sent.take() {
                    self.tell(Event::FirstFrameHeard { took: now.since(sent) });
                }
            }
            "end" if reply.end_sent => {
                self.marks_lost = false;
                self.played(now);
            }
            _ => {
                if let Some(id) = place.strip_prefix('s').and_then(|id| id.parse().ok()) {
                    reply.segment_heard(id);
                }
            }
        }
    }
}
