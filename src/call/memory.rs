//! What a call that comes back with another stream still knows of the ones before. Numbers go on, so
//! that no late answer passes for a new one and no turn for a repeat of an earlier one.

use serde::{Deserialize, Serialize};

use super::{Call, Previous};

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
