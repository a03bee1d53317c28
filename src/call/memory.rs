//! What a call that comes back with another stream still knows of the one before. Numbers go on, so
//! that no late answer passes for a new one and no turn for a repeat of an earlier one.

use std::sync::Arc;

use super::{Call, Previous, Settings};
use crate::time::CallTime;

#[derive(Clone, Debug, Default)]
pub struct Memory {
    turns: u64,
    utterances: u64,
    segments: u64,
    controls: u64,
    previous: Previous,
}

impl Memory {
    /// How many turns of the caller there were.
    pub fn turns(&self) -> u64 {
        self.turns
    }
}

impl Call {
    pub fn memory(&self) -> Memory {
        let Call { turns, utterances, segments, controls, previous, .. } = self;
        let (turns, utterances, segments, controls) = (*turns, *utterances, *segments, *controls);
        Memory { turns, utterances, segments, controls, previous: previous.clone() }
    }

    /// A call that has been here before.
    pub fn resume(settings: Arc<Settings>, memory: Memory, now: CallTime) -> Call {
        let mut call = Call::new(settings, now);
        call.turns = memory.turns;
        call.utterances = memory.utterances;
        call.segments += memory.segments;
        call.controls = memory.controls;
        call.previous = memory.previous;
        call
    }
}
