//! A call that a bot of the operator's own conducts, and what that bot may send.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use voxgate::call::{Event, Output, Relay};
use voxgate::time::{CallTime, FRAME};

const MOST_STEPS: usize = 300;
/// Ten minutes of the bot's audio, and what one message adds.
const MOST_QUEUED: Duration = Duration::from_secs(601);
const MEDIA_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Wait { ms: u16 },
    Heard,
    Audio(&'a [u8]),
    Burst { frames: u16, value: u8 },
    Wav(&'a [u8]),
    Mark(&'a str),
    Clear,
    Finish,
}

/// Frames never leave early or exceed the lead; what waits is bounded; each mark comes back once, in its
/// order; after `clear` nothing of before is heard; and in the end all is played and the call given up.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(lead) = u8::arbitrary(&mut input) else { return };
    let lead = Duration::from_millis(u64::from(lead));
    let mut check = Check {
        relay: Relay::new(lead, MEDIA_TIMEOUT),
        lead,
        now: CallTime::ZERO,
        carrier_end: CallTime::ZERO,
        set: Vec::new(),
        given_up: false,
    };
    for step in input.arbitrary_iter::<Step<'_>>().into_iter().flatten().take(MOST_STEPS) {
        let Ok(step) = step else { break };
        check.take(step);
    }
    check.relay.finish(check.now);
    check.drain();
    check.pass(MOST_QUEUED + MEDIA_TIMEOUT);
    assert!(check.given_up, "nobody is heard, and the call goes on");
    assert!(check.relay.is_quiet(check.now) && check.relay.has_been_heard(check.now));
    assert!(check.set.is_empty(), "{:?} never came back", check.set);
}

struct Check {
    relay: Relay,
    lead: Duration,
    now: CallTime,
    carrier_end: CallTime,
    /// Marks that are to come back.
    set: Vec<String>,
    given_up: bool,
}

impl Check {
    fn take(&mut self, step: Step<'_>) {
        match step {
            Step::Wait { ms } => self.pass(Duration::from_millis(u64::from(ms))),
            Step::Heard => self.relay.heard(self.now),
            Step::Audio(audio) => self.relay.audio(audio, self.now),
            Step::Burst { frames, value } => {
                self.relay.audio(&vec![value; usize::from(frames) * 160], self.now);
            }
            Step::Wav(rest) => self.relay.audio(&[b"RIFF", rest].concat(), self.now),
            Step::Mark(name) => {
                if self.relay.mark(name, self.now) {
                    self.set.push(name.to_owned());
                }
            }
            Step::Clear => {
                let unplayed = self.relay.clear(self.now);
                // The carrier gives back those that it has.
                self.drain();
                assert_eq!(unplayed, std::mem::take(&mut self.set));
                assert!(self.relay.is_quiet(self.now), "something is left after `clear`");
            }
            Step::Finish => self.relay.finish(self.now),
        }
        self.drain();
    }

    fn pass(&mut self, wait: Duration) {
        let until = self.now + wait;
        while let Some(at) = self.relay.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.relay.handle_timeout(self.now);
            self.drain();
            let again = self.relay.poll_timeout();
            assert!(again.is_none_or(|next| next > self.now), "a deadline that does not pass: {again:?}");
        }
        self.now = until;
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.relay.poll_output() {
            outputs += 1;
            assert!(outputs < 2_000, "outputs without end");
            match output {
                Output::Play { due, .. } => {
                    assert!(due <= self.now, "a frame leaves early");
                    self.carrier_end = self.carrier_end.max(self.now) + FRAME;
                    assert!(self.carrier_end.since(self.now) <= self.lead.max(FRAME), "too far ahead");
                }
                Output::Mark(name) => {
                    assert!(!self.set.is_empty(), "{name} is too much");
                    assert_eq!(self.set.remove(0), name, "in their order");
                }
                Output::Clear => self.carrier_end = self.now,
                Output::Hangup(_) => {
                    assert!(!self.given_up, "given up twice");
                    self.given_up = true;
                }
                Output::Event(Event::BotUnplayable { why }) => assert!(!why.is_empty()),
                Output::Event(_) => {}
                other => panic!("{other:?} is not a relay's"),
            }
        }
        assert!(self.relay.queued() <= MOST_QUEUED, "{:?} wait", self.relay.queued());
    }
}
