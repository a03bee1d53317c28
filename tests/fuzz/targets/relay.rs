//! A call that a bot of the operator's own conducts, and what that bot may send.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use voxgate::call::{Event, Output, Relay};

use super::carrier::Carrier;

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
        carrier: Carrier::new(lead),
        set: Vec::new(),
        given_up: false,
    };
    for step in input.arbitrary_iter::<Step<'_>>().into_iter().flatten().take(MOST_STEPS) {
        let Ok(step) = step else { break };
        check.take(step);
    }
    check.relay.finish(check.carrier.now);
    check.drain();
    check.pass(MOST_QUEUED + MEDIA_TIMEOUT);
    assert!(check.given_up, "nobody is heard, and the call goes on");
    assert!(check.relay.is_quiet(check.carrier.now) && check.relay.has_been_heard(check.carrier.now));
    assert!(check.set.is_empty(), "{:?} never came back", check.set);
}

struct Check {
    relay: Relay,
    carrier: Carrier,
    /// Marks that are to come back.
    set: Vec<String>,
    given_up: bool,
}

impl Check {
    fn take(&mut self, step: Step<'_>) {
        match step {
            Step::Wait { ms } => self.pass(Duration::from_millis(u64::from(ms))),
            Step::Heard => self.relay.heard(self.carrier.now),
            Step::Audio(audio) => self.relay.audio(audio, self.carrier.now),
            Step::Burst { frames, value } => {
                self.relay.audio(&vec![value; usize::from(frames) * 160], self.carrier.now);
            }
            Step::Wav(rest) => self.relay.audio(&[b"RIFF", rest].concat(), self.carrier.now),
            Step::Mark(name) => {
                if self.relay.mark(name, self.carrier.now) {
                    self.set.push(name.to_owned());
                }
            }
            Step::Clear => {
                let unplayed = self.relay.clear(self.carrier.now);
                // The carrier gives back those that it has.
                self.drain();
                assert_eq!(unplayed, std::mem::take(&mut self.set));
                assert!(self.relay.is_quiet(self.carrier.now), "something is left after `clear`");
            }
            Step::Finish => self.relay.finish(self.carrier.now),
        }
        self.drain();
    }

    fn pass(&mut self, wait: Duration) {
        let until = self.carrier.now + wait;
        while self.carrier.waits(self.relay.poll_timeout(), until) {
            self.relay.handle_timeout(self.carrier.now);
            self.drain();
            self.carrier.waited(self.relay.poll_timeout());
        }
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.relay.poll_output() {
            outputs += 1;
            assert!(outputs < 2_000, "outputs without end");
            match output {
                Output::Play { due, .. } => {
                    self.carrier.plays(due);
                }
                Output::Mark(name) => {
                    assert!(!self.set.is_empty(), "{name} is too much");
                    assert_eq!(self.set.remove(0), name, "in their order");
                }
                Output::Clear => self.carrier.clears(),
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
