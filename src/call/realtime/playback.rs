//! What a model has said of one reply, on the pacer's ruler: which item lies where, what of it the
//! caller has heard, and what the model must be told that the caller has not.

use std::time::Duration;

use super::super::pacer::{Mark, Pacer};
use super::super::reply::begun;
use crate::audio::{BYTES_PER_MS, Hint, NotSpeech, SpeechDecoder};

/// Items of one reply; a model that says more in one has lost its way.
const MOST_PARTS: usize = 64;
/// Text of one item that is kept.
const MOST_TEXT: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(super) struct Playback {
    parts: Vec<Part>,
    decoded: Vec<u8>,
}

#[derive(Debug)]
struct Part {
    response: String,
    /// Empty for what did not come from the model.
    item: String,
    content: u64,
    text: String,
    /// Reads the audio as it comes.
    voice: Option<SpeechDecoder>,
    /// There is audio of it, perhaps too little yet to tell what it is.
    begun: bool,
    /// Nothing more will come.
    ended: bool,
    /// In the pacer's positions; `to` grows as audio comes.
    from: u64,
    to: u64,
    /// The carrier says that it was played to its end.
    heard: bool,
}

/// How much of an item was heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) item: String,
    pub(super) content: u64,
    pub(super) heard: Duration,
}

impl Playback {
    /// Queues audio of an item. `hint` is what the model said that it would be.
    pub(super) fn push(
        &mut self,
        place: (&str, &str, u64),
        audio: &[u8],
        hint: &Hint,
        pacer: &mut Pacer,
    ) -> Result<(), NotSpeech> {
        let mut decoded = std::mem::take(&mut self.decoded);
        let Some(part) = self.part(place, true, pacer) else { return Ok(()) };
        if !std::mem::replace(&mut part.begun, true) {
            part.voice = Some(SpeechDecoder::new(hint.clone()));
        }
        let Some(voice) = &mut part.voice else { return Ok(()) };
        decoded.clear();
        let result = voice.push(audio, &mut decoded);
        pacer.push(&decoded);
        part.to = pacer.pushed();
        if result.is_err() {
            // Told once; what follows is no better.
            part.voice = None;
        }
        self.decoded = decoded;
        result
    }

    /// The words of an item, as they come.
    pub(super) fn words(&mut self, place: (&str, &str, u64), text: &str, pacer: &mut Pacer) {
        if let Some(part) = self.part(place, false, pacer)
            && part.text.len() + text.len() <= MOST_TEXT
        {
            part.text.push_str(text);
        }
    }

    /// The part for this place, a new one where there is none; `None` if there are too many. Audio goes
    /// to the last one only; words may come behind the audio that they are about, and behind its end.
    fn part(&mut self, place: (&str, &str, u64), audio: bool, pacer: &mut Pacer) -> Option<&mut Part> {
        let (response, item, content) = place;
        let is_it = |part: &Part| part.item == item && part.content == content && part.response == response;
        let last = self.parts.len().saturating_sub(1);
        if let Some(known) = self.parts.iter().rposition(is_it)
            && (!audio || known == last && !self.parts[known].ended)
        {
            return self.parts.get_mut(known);
        }
        self.end_part(pacer);
        if self.parts.len() >= MOST_PARTS {
            return None;
        }
        self.begin(place, pacer);
        self.parts.last_mut()
    }

    /// Queues audio that is no item of the model's.
    pub(super) fn push_ours(&mut self, text: &str, mulaw: &[u8], pacer: &mut Pacer) {
        self.end_part(pacer);
        self.begin(("", "", 0), pacer);
        pacer.push(mulaw);
        if let Some(part) = self.parts.last_mut() {
            part.to = pacer.pushed();
            text.clone_into(&mut part.text);
        }
        self.end_part(pacer);
    }

    fn begin(&mut self, (response, item, content): (&str, &str, u64), pacer: &Pacer) {
        self.parts.push(Part {
            response: response.to_owned(),
            item: item.to_owned(),
            content,
            text: String::new(),
            voice: None,
            begun: false,
            ended: false,
            from: pacer.pushed(),
            to: pacer.pushed(),
            heard: false,
        });
    }

    /// Nothing more will come of the last item.
    pub(super) fn end_part(&mut self, pacer: &mut Pacer) {
        let number = self.parts.len() as u64;
        let Some(part) = self.parts.last_mut().filter(|part| !part.ended) else { return };
        part.ended = true;
        if let Some(voice) = &mut part.voice {
            self.decoded.clear();
            // What is no sound was told when it came; that there was none is seen at the end of the response.
            let _ = voice.finish(&mut self.decoded);
            pacer.push(&self.decoded);
            part.to = pacer.pushed();
        }
        if part.to > part.from {
            pacer.pad();
            pacer.mark(Mark::Segment(number));
        }
    }

    pub(super) fn is_last(&self, response: &str, item: &str) -> bool {
        self.parts.last().is_some_and(|part| part.response == response && part.item == item)
    }

    /// What the present audio turned out to be, where it was said to be something else.
    #[cfg(test)]
    fn surprise(&self) -> Option<String> {
        let kind = self.parts.last()?.voice.as_ref()?.kind()?;
        kind.announced.map(|_| kind.to_string())
    }

    /// There is nothing to be heard.
    pub(super) fn is_silent(&self) -> bool {
        self.parts.iter().all(|part| part.to == part.from)
    }

    /// There was audio in this response that could be read, be it without a sound.
    pub(super) fn has_audio_of(&self, response: &str) -> bool {
        self.parts.iter().any(|part| part.response == response && part.voice.is_some())
    }

    pub(super) fn bytes_of(&self, response: &str) -> u64 {
        self.parts.iter().filter(|part| part.response == response).map(|part| part.to - part.from).sum()
    }

    /// An item begins at this position: a gap before it is a pause, not a hole.
    pub(super) fn begins_at(&self, position: u64) -> bool {
        self.parts.iter().any(|part| part.from == position)
    }

    /// The carrier has played the part of this number.
    pub(super) fn part_heard(&mut self, number: u64) {
        let part = usize::try_from(number).ok().and_then(|n| self.parts.get_mut(n.wrapping_sub(1)));
        if let Some(part) = part {
            part.heard = true;
        }
    }

    /// The words that the caller has heard, if the carrier has played up to `position`.
    pub(super) fn heard(&self, position: u64) -> String {
        let text = |part: &Part| {
            let whole = part.heard || part.to <= position;
            let heard = position.saturating_sub(part.from);
            if whole { part.text.trim().to_owned() } else { begun(&part.text, heard, part.to - part.from) }
        };
        let mut heard: Vec<String> = self.parts.iter().map(text).collect();
        heard.retain(|text| !text.is_empty());
        heard.join(" ")
    }

    /// The items of which the caller has not heard all, if the carrier has played up to `position`.
    pub(super) fn cuts(&self, position: u64) -> Vec<Cut> {
        let mut cuts: Vec<(Cut, bool)> = Vec::new();
        for part in self.parts.iter().filter(|part| part.begun && !part.item.is_empty()) {
            let unheard = !(part.heard || part.ended && part.to <= position);
            let upto = if part.heard { part.to } else { position.clamp(part.from, part.to) };
            let heard = Duration::from_millis((upto - part.from) / BYTES_PER_MS as u64);
            let same = |(cut, _): &&mut (Cut, bool)| cut.item == part.item && cut.content == part.content;
            // An item may go on after it was said to have ended.
            match cuts.iter_mut().find(same) {
                Some((cut, cut_short)) => {
                    cut.heard += heard;
                    *cut_short |= unheard;
                }
                None => {
                    cuts.push((Cut { item: part.item.clone(), content: part.content, heard }, unheard));
                }
            }
        }
        cuts.retain(|(_, cut_short)| *cut_short);
        cuts.into_iter().map(|(cut, _)| cut).collect()
    }

    pub(super) fn forget(&mut self) {
        self.parts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::mulaw;

    /// Something like a voice: what it is coded as can be told.
    fn hum(rate: usize, ms: usize) -> Vec<i16> {
        let sample =
            |i: usize| (6_000.0 * (i as f32 * 180.0 * std::f32::consts::TAU / rate as f32).sin()) as i16;
        (0..rate * ms / 1_000).map(sample).collect()
    }

    fn mulaw_hint() -> Hint {
        Hint::new(Some("audio/pcmu"), 24_000)
    }

    fn ms(bytes: u64) -> u64 {
        bytes / BYTES_PER_MS as u64
    }

    #[test]
    fn what_was_heard_of_two_items() {
        let mut pacer = Pacer::new(Duration::ZERO);
        let mut playback = Playback::default();
        let audio: Vec<u8> = hum(8_000, 1_000).into_iter().map(mulaw::encode).collect();
        for item in ["a", "b"] {
            for piece in audio.chunks(700) {
                playback.push(("r", item, 0), piece, &mulaw_hint(), &mut pacer).unwrap();
            }
        }
        for (item, text) in [("a", "one two three "), ("a", "four"), ("b", "five six")] {
            playback.words(("r", item, 0), text, &mut pacer);
        }
        assert!(playback.begins_at(0) && playback.begins_at(8_000) && !playback.begins_at(160));
        let cut = |item: &str, ms| Cut { item: item.into(), content: 0, heard: Duration::from_millis(ms) };
        for (position, heard, cuts) in [
            (0, "", vec![cut("a", 0), cut("b", 0)]),
            (4_000, "one two", vec![cut("a", 500), cut("b", 0)]),
            (8_000, "one two three four", vec![cut("b", 0)]),
            (12_000, "one two three four five", vec![cut("b", 500)]),
            // More of it may come.
            (16_000, "one two three four five six", vec![cut("b", 1_000)]),
        ] {
            assert_eq!(
                (playback.heard(position).as_str(), playback.cuts(position)),
                (heard, cuts),
                "{position}"
            );
        }
        playback.end_part(&mut pacer);
        assert_eq!(playback.cuts(16_000), []);
        playback.part_heard(1);
        assert_eq!(playback.cuts(4_000), [cut("b", 0)], "the carrier knows better than the clock");
    }

    #[test]
    fn audio_that_is_not_what_was_asked_for_is_played_as_what_it_is() {
        let pcm: Vec<u8> = hum(24_000, 1_000).into_iter().flat_map(i16::to_le_bytes).collect();
        for size in [7, 4_800, usize::MAX] {
            let mut pacer = Pacer::new(Duration::ZERO);
            let mut playback = Playback::default();
            for piece in pcm.chunks(size) {
                playback.push(("r", "a", 0), piece, &mulaw_hint(), &mut pacer).unwrap();
            }
            assert_eq!(
                playback.surprise().as_deref(),
                Some("raw pcm16 24000 Hz, announced as μ-law"),
                "{size}"
            );
            playback.end_part(&mut pacer);
            assert_eq!(ms(playback.bytes_of("r")), 1_000, "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_sound_is_refused_once_and_never_played() {
        let mut pacer = Pacer::new(Duration::ZERO);
        let mut playback = Playback::default();
        let page = b"<html><body>502 Bad Gateway</body></html>".repeat(40);
        assert!(playback.push(("r", "a", 0), &page, &mulaw_hint(), &mut pacer).is_err());
        assert!(playback.push(("r", "a", 0), &page, &mulaw_hint(), &mut pacer).is_ok());
        playback.end_part(&mut pacer);
        assert_eq!((pacer.pushed(), playback.is_silent()), (0, true));
    }
}
