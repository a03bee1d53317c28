//! The carrier's playout, where a replay goes another way than its tape: when would these marks have
//! come back? As late after the audio before them as marks did on the tape, in the middle.

use std::collections::VecDeque;
use std::time::Duration;

use super::Entry;
use crate::time::{CallTime, FRAME};

/// How late marks are where the tape has none: a network's round trip.
const USUAL: Duration = Duration::from_millis(40);

#[derive(Debug)]
pub(super) struct Carrier {
    /// When all that was sent has been played.
    end: CallTime,
    /// Marks on their way, with the time at which the audio before them has been played.
    waiting: VecDeque<(String, CallTime)>,
    /// How much later the mark comes back; `None` of a carrier that sends none.
    delay: Option<Duration>,
}

impl Default for Carrier {
    fn default() -> Carrier {
        Carrier { end: CallTime::ZERO, waiting: VecDeque::new(), delay: Some(USUAL) }
    }
}

impl Carrier {
    /// From here on marks come back as those of this tape did.
    pub(super) fn learn(&mut self, entries: &[(CallTime, Entry<'_>)]) {
        let mut carrier = Carrier::default();
        let (mut late, mut sent) = (Vec::new(), 0);
        for (at, entry) in entries {
            match entry {
                Entry::Play(_) => carrier.play(*at),
                Entry::SentMark(name) => {
                    sent += 1;
                    carrier.mark(name.clone().into_owned(), *at);
                }
                Entry::Cleared => carrier.clear(*at),
                Entry::Mark(name) => late.extend(carrier.returned(name).map(|due| at.since(due))),
                _ => {}
            }
        }
        late.sort();
        let middle = late.get(late.len() / 2).copied();
        self.delay = if sent > 0 { middle } else { Some(USUAL) };
    }

    pub(super) fn play(&mut self, now: CallTime) {
        self.end = self.end.max(now) + FRAME;
    }

    pub(super) fn mark(&mut self, name: String, now: CallTime) {
        self.waiting.push_back((name, self.end.max(now)));
    }

    pub(super) fn clear(&mut self, now: CallTime) {
        self.end = now;
        self.waiting.iter_mut().for_each(|(_, due)| *due = (*due).min(now));
    }

    /// This mark has come back: when the audio before it had been played.
    pub(super) fn returned(&mut self, name: &str) -> Option<CallTime> {
        let at = self.waiting.iter().position(|(waiting, _)| waiting == name)?;
        self.waiting.remove(at).map(|(_, due)| due)
    }

    /// When the next mark comes back.
    pub(super) fn due(&self) -> Option<CallTime> {
        self.waiting.front().and_then(|(_, due)| Some(*due + self.delay?))
    }

    /// The mark that comes back.
    pub(super) fn next(&mut self) -> Option<String> {
        self.waiting.pop_front().map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> CallTime {
        CallTime::from_millis(ms)
    }

    #[test]
    fn marks_come_back_as_late_as_they_did() {
        let mut entries = Vec::new();
        for (start, back) in [(0, 70), (1_000, 1_050), (2_000, 2_060)] {
            entries.push((ms(start), Entry::Play([0x90; 160].as_slice().into())));
            entries.push((ms(start), Entry::SentMark("m".into())));
            entries.push((ms(back), Entry::Mark("m".into())));
        }
        let mut carrier = Carrier::default();
        carrier.learn(&entries);
        carrier.play(ms(100));
        carrier.play(ms(100));
        carrier.mark("a".into(), ms(100));
        assert_eq!(carrier.due(), Some(ms(180)), "40 ms of audio, and 40 ms of network");
        carrier.clear(ms(110));
        assert_eq!((carrier.due(), carrier.next()), (Some(ms(150)), Some("a".into())));
        assert_eq!(carrier.due(), None);
    }

    #[test]
    fn a_carrier_without_marks_stays_one() {
        let mut carrier = Carrier::default();
        carrier.learn(&[(ms(0), Entry::SentMark("m".into()))]);
        carrier.mark("a".into(), ms(0));
        assert_eq!(carrier.due(), None);
    }
}
