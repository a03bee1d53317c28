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

    /// What is kept of many calls, small: the numbers, without the words.
    pub fn counts(&self) -> Counts {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let Memory { turns, utterances, segments, controls, .. } = self;
        Counts([turns, utterances, segments, controls].map(|number| small(*number)))
    }
}

/// How far the numbers of a call have come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts([u32; 4]);

impl From<Counts> for Memory {
    fn from(Counts(counts): Counts) -> Memory {
        let [turns, utterances, segments, controls] = counts.map(u64::from);
        Memory { turns, utterances, segments, controls, previous: Previous::default() }
    }
}

impl Call {
    pub fn memory(&self) -> Memory {
        let Call { turns, utterances, segments, controls, previous, .. } = self;
        let (turns, utterances, segments, controls) = (*turns, *utterances, *segments, *controls);
        Memory { turns, utterances, segments, controls, previous: previous.clone() }
    }
}
