//! What becomes of the stretches that the detector takes for speech: an answer, or nothing.

use super::labels::{NOISE, SPEECH, TOO_SHORT};
use crate::call::{Event, TurnResult};

#[derive(Default)]
pub(super) struct Segments {
    /// One has begun.
    open: bool,
    /// So many have ended since the last turn did.
    ended: u64,
    /// The recogniser has found words in them.
    words: bool,
}

impl Segments {
    /// What is known once this has happened: an outcome, and of how many.
    pub(super) fn settle(&mut self, event: &Event) -> Option<(&'static str, u64)> {
        if let Event::UtteranceStarted = event {
            // The one before was heard out by nobody: it came while the bot thought or spoke.
            return std::mem::replace(&mut self.open, true).then_some((TOO_SHORT, 1));
        }
        if let Event::UtteranceEnded { .. } = event {
            self.open = false;
            self.ended += 1;
        } else if let Event::SttFinal { text, .. } = event {
            self.words |= !text.trim().is_empty();
        } else if let Event::OwnWords { .. } = event {
            self.words = false;
        } else if let Event::TurnEnded { result, .. } = event {
            let (ended, words) = (std::mem::take(&mut self.ended), std::mem::take(&mut self.words));
            let outcome = if *result == TurnResult::Empty && !words { NOISE } else { SPEECH };
            return (ended > 0).then_some((outcome, ended));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_stretch_has_one_outcome() {
        let none = Duration::ZERO;
        let ended = || Event::UtteranceEnded { speech: none, endpoint: none };
        let text = |text: &str| Event::SttFinal { text: text.into(), took: none };
        let turn = |result| Event::TurnEnded { turn: 1, result };
        let mut segments = Segments::default();
        let mut told = |events: Vec<Event>| -> Vec<_> {
            events.iter().filter_map(|event| segments.settle(event)).collect()
        };
        // Answered; one that was gone on with counts as both.
        assert_eq!(
            told(vec![Event::UtteranceStarted, ended(), text("hello"), turn(TurnResult::Answered)]),
            [(SPEECH, 1)]
        );
        assert_eq!(
            told(vec![
                Event::UtteranceStarted,
                ended(),
                Event::UtteranceStarted,
                ended(),
                turn(TurnResult::Failed)
            ]),
            [(SPEECH, 2)]
        );
        // Nothing was said; or only what the bot had said.
        assert_eq!(
            told(vec![Event::UtteranceStarted, ended(), text(" "), turn(TurnResult::Empty)]),
            [(NOISE, 1)]
        );
        assert_eq!(
            told(vec![
                Event::UtteranceStarted,
                ended(),
                text("hi"),
                Event::OwnWords { text: "hi".into() },
                turn(TurnResult::Empty)
            ]),
            [(NOISE, 1)]
        );
        // Words that nothing came of are no noise.
        assert_eq!(
            told(vec![Event::UtteranceStarted, ended(), text("hi"), turn(TurnResult::Empty)]),
            [(SPEECH, 1)]
        );
        // Never heard out.
        assert_eq!(told(vec![Event::UtteranceStarted, Event::UtteranceStarted]), [(TOO_SHORT, 1)]);
        // A turn that no speech began.
        assert_eq!(
            told(vec![ended(), turn(TurnResult::Answered), turn(TurnResult::Answered)]),
            [(SPEECH, 1)]
        );
    }
}
