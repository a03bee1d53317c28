//! What a call that comes back with another stream still knows of the ones before. Numbers go on, so
//! that no late answer passes for a new one and no turn for a repeat of an earlier one.

use serde::{Deserialize, Serialize};

use super::{Call, Previous};

/// So many turns a stream of a call has at most, for one that comes after it and does not know of it.
const TURNS_OF_A_STREAM: u64 = 10_000;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    pub(super) turns: u64,
    pub(super) utterances: u64,
    pub(super) segments: u64,
    pub(super) controls: u64,
    pub(super) previous: Previous,
}

impl Memory {
    /// How many turns of the caller there were.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// Of a call that has had so many streams, here or where nobody can be asked any more: a turn's number is
    /// what an app tells repeats by, and must not come again.
    pub fn after(self, streams: u64) -> Memory {
        Memory { turns: self.turns.max(streams * TURNS_OF_A_STREAM), ..self }
    }

    /// The numbers alone: what is kept of many calls is to be small.
    pub fn without_words(self) -> Memory {
        Memory { previous: Previous::default(), ..self }
    }
}

impl Call {
    pub fn memory(&self) -> Memory {
        let Call { turns, utterances, segments, controls, previous, .. } = self;
        let (turns, utterances, segments, controls) = (*turns, *utterances, *segments, *controls);
        Memory { turns, utterances, segments, controls, previous: previous.clone() }
    }
}
