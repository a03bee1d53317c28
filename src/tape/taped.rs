//! Devices in front of a call, whoever conducts it, that note what goes in and what comes out, and
//! change nothing.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Entry, Recorder};
use crate::call::realtime::{self, Realtime, Request};
use crate::call::{Call, Failure, Input, Memory, Output, Relay, StopReason};
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

/// A call that a model conducts, with a tape running or without.
///
/// What the call wants is taken from it at once, where a tape runs: so it stands on the tape behind what
/// made it, whenever its loop comes to do it.
pub struct TapedRealtime {
    call: Realtime,
    outputs: VecDeque<Output>,
    requests: VecDeque<Request>,
    recorder: Option<Recorder>,
}

impl TapedRealtime {
    pub fn new(call: Realtime, recorder: Option<Recorder>) -> TapedRealtime {
        let mut taped = TapedRealtime { call, outputs: VecDeque::new(), requests: VecDeque::new(), recorder };
        taped.take();
        taped
    }

    pub fn queued(&self) -> Duration {
        self.call.queued()
    }

    pub fn handle(&mut self, input: realtime::Input<'_>, now: CallTime) {
        let Some(recorder) = &mut self.recorder else { return self.call.handle(input, now) };
        match input {
            realtime::Input::Media { payload, timestamp_ms } => {
                self.call.handle(input, now);
                match self.call.measured() {
                    [] => {
                        let payload = payload.into();
                        recorder.told(&Entry::Media { payload, timestamp_ms }, now);
                    }
                    measured => recorder.heard(payload, timestamp_ms, measured, now),
                }
            }
            input => {
                recorder.told(&Entry::of_model_input(&input), now);
                self.call.handle(input, now);
            }
        }
        self.take();
    }

    pub fn handle_timeout(&mut self, now: CallTime) {
        if let Some(recorder) = &mut self.recorder {
            recorder.tick(now);
        }
        self.call.handle_timeout(now);
        self.take();
    }

    fn take(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        while let Some(output) = self.call.poll_output() {
            recorder.output(&output);
            self.outputs.push_back(output);
        }
        while let Some(request) = self.call.poll_request() {
            recorder.request(&request);
            self.requests.push_back(request);
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front().or_else(|| self.call.poll_output())
    }

    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front().or_else(|| self.call.poll_request())
    }

    pub fn poll_timeout(&self) -> Option<CallTime> {
        self.call.poll_timeout()
    }
}

/// A call that a bot of the operator's own conducts, with a tape running or without.
pub struct TapedRelay {
    relay: Relay,
    outputs: VecDeque<Output>,
    recorder: Option<Recorder>,
}

impl TapedRelay {
    pub fn new(relay: Relay, recorder: Option<Recorder>) -> TapedRelay {
        TapedRelay { relay, outputs: VecDeque::new(), recorder }
    }

    /// What the bot and the carrier tell each other, of which nothing follows here.
    pub fn told(&mut self, entry: &Entry<'_>, now: CallTime) {
        if let Some(recorder) = &mut self.recorder {
            recorder.told(entry, now);
        }
    }

    /// Audio of the caller came.
    pub fn heard(&mut self, payload: &[u8], timestamp_ms: Option<u64>, now: CallTime) {
        self.told(&Entry::Media { payload: payload.into(), timestamp_ms }, now);
        self.relay.heard(now);
        self.take();
    }

    /// The bot is there. The caller was not listened to up to now.
    pub fn linked(&mut self, now: CallTime) {
        self.told(&Entry::Linked, now);
        self.relay.heard(now);
        self.take();
    }

    pub fn audio(&mut self, payload: &[u8], now: CallTime) {
        self.told(&Entry::BotAudio(payload.into()), now);
        self.relay.audio(payload, now);
        self.take();
    }

    #[must_use]
    pub fn mark(&mut self, name: &str, now: CallTime) -> bool {
        self.told(&Entry::BotMark(name.into()), now);
        let fits = self.relay.mark(name, now);
        self.take();
        fits
    }

    pub fn clear(&mut self, now: CallTime) -> Vec<String> {
        self.told(&Entry::BotClear, now);
        let marks = self.relay.clear(now);
        self.take();
        marks
    }

    pub fn finish(&mut self, now: CallTime) {
        self.told(&Entry::BotFinished, now);
        self.relay.finish(now);
        self.take();
    }

    pub fn leave(&mut self, linger: Duration, now: CallTime) {
        self.told(&Entry::BotFinished, now);
        self.relay.leave(linger, now);
        self.take();
    }

    /// There is no bot, or no more.
    pub fn failed(&mut self, failure: &Failure, now: CallTime) {
        self.told(&Entry::Unlinked(Box::new(failure.into())), now);
    }

    /// The call is over.
    pub fn stop(&mut self, reason: StopReason, now: CallTime) {
        self.told(&Entry::Stop(reason.as_str().into()), now);
        self.relay.end();
        self.take();
    }

    pub fn handle_timeout(&mut self, now: CallTime) {
        self.told(&Entry::Tick, now);
        self.relay.handle_timeout(now);
        self.take();
    }

    fn take(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        while let Some(output) = self.relay.poll_output() {
            recorder.output(&output);
            self.outputs.push_back(output);
        }
    }

    pub fn is_quiet(&self, now: CallTime) -> bool {
        self.relay.is_quiet(now)
    }

    pub fn is_over(&self, now: CallTime) -> bool {
        self.relay.is_over(now)
    }

    pub fn queued(&self) -> Duration {
        self.relay.queued()
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front().or_else(|| self.relay.poll_output())
    }

    pub fn poll_timeout(&self) -> Option<CallTime> {
        self.relay.poll_timeout()
    }
}
