//! A device in front of a call that notes what goes in and what comes out, and changes nothing.

use std::time::Duration;

use super::Recorder;
use crate::call::{Call, Input, Memory, Output};
use crate::time::CallTime;
use crate::turn::State;

/// A call, with a tape running or without. It is used as the call is.
pub struct Taped {
    call: Call,
    recorder: Option<Recorder>,
}

impl Taped {
    pub fn new(call: Call, recorder: Option<Recorder>) -> Taped {
        Taped { call, recorder }
    }

    pub fn state(&self) -> State {
        self.call.state()
    }

    pub fn memory(&self) -> Memory {
        self.call.memory()
    }

    pub fn has_room(&self) -> bool {
        self.call.has_room()
    }

    pub fn queued(&self) -> Duration {
        self.call.queued()
    }

    pub fn handle(&mut self, input: Input<'_>, now: CallTime) {
        let Some(recorder) = &mut self.recorder else { return self.call.handle(input, now) };
        if let Input::Media { payload, timestamp_ms } = input {
            self.call.handle(input, now);
            return recorder.heard(payload, timestamp_ms, self.call.measured(), now);
        }
        recorder.input(&input, now);
        self.call.handle(input, now);
    }

    pub fn handle_timeout(&mut self, now: CallTime) {
        if let Some(recorder) = &mut self.recorder {
            recorder.tick(now);
        }
        self.call.handle_timeout(now);
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.call.poll_output()?;
        if let Some(recorder) = &mut self.recorder {
            recorder.output(&output);
        }
        Some(output)
    }

    pub fn poll_timeout(&self) -> Option<CallTime> {
        self.call.poll_timeout()
    }
}
