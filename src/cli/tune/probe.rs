//! Makes a picture of a call by running it. What the engine measures for each frame, and what it
//! decides, is gathered here and nowhere else: a detector that knows more gets a series more.

use std::time::Duration;

use super::Figures;
use super::picture::{Kind, Lane, Mark, Picture, Series, Span};
use crate::call::{Event, Output, Settings};
use crate::tape::{Entry, Step};
use crate::time::CallTime;
use crate::turn::{Measured, State, Vad, Why, decibels, level_db};

const FRAME_S: f64 = 0.02;

/// Sees a call go by.
pub(super) struct Probe<'s> {
    settings: &'s Settings,
    figures: Figures,
    heard_until: f64,
    /// What each frame told, and when it began.
    measured: Vec<(f64, Measured)>,
    /// How loud each frame was, where nothing else was measured.
    levels: Vec<(f64, f32)>,
    /// The pauses within utterances, and what would end them.
    pauses: Vec<(f64, f32)>,
    waits: Vec<(f64, f32)>,
    /// What would have ended the utterance at the frame before.
    wait: Duration,
    /// Since when the bot holds its tongue.
    held: Option<f64>,
    /// No hold comes before an interruption.
    never_holds: bool,
    /// When a recogniser said something last.
    words_at: Option<f64>,
    /// The bot's frames, when they are played; and those that a `clear` took back.
    bot: Vec<(f64, f32)>,
    unheard: Vec<(f64, f32)>,
    played_until: f64,
    state: (f64, State),
    picture: Picture,
}

impl<'s> Probe<'s> {
    pub(super) fn new(settings: &'s Settings) -> Probe<'s> {
        Probe {
            settings,
            figures: Figures::default(),
            heard_until: 0.0,
            measured: Vec::new(),
            levels: Vec::new(),
            pauses: Vec::new(),
            waits: Vec::new(),
            wait: settings.endpointing.eou,
            held: None,
            never_holds: false,
            words_at: None,
            bot: Vec::new(),
            unheard: Vec::new(),
            played_until: 0.0,
            state: (0.0, State::Listening),
            picture: Picture::default(),
        }
    }

    /// Of a call that a model conducts.
    pub(super) fn of_a_model(self) -> Probe<'s> {
        Probe { never_holds: true, ..self }
    }

    pub(super) fn note(&mut self, now: CallTime, step: &Step<'_>) {
        self.figures.note(now, step);
        let at = seconds(now);
        match step {
            Step::Told(Entry::Dtmf(_)) => self.mark("key", "#7f7f7f", at, "key pressed".to_owned()),
            Step::Told(_) => {}
            Step::Heard { frame, pause, wait } => {
                let start = self.frame(at);
                self.measured.push((start, *frame));
                self.waits.extend(wait.map(|wait| (start, wait.as_secs_f32())));
                self.pauses.extend(pause.map(|pause| (start, pause.as_secs_f32())));
                self.wait = wait.unwrap_or(self.wait);
            }
            Step::Level { level_db } => {
                let start = self.frame(at);
                self.levels.push((start, *level_db));
            }
            Step::Did(Output::Play { frame, .. }) => {
                let start = self.played_until.max(at);
                self.bot.push((start, level_db(&frame.0)));
                self.played_until = start + FRAME_S;
            }
            Step::Did(Output::Clear) => {
                let heard = self.bot.partition_point(|(start, _)| *start < at);
                self.unheard.extend(self.bot.drain(heard..));
                self.played_until = at;
            }
            Step::Did(Output::Event(event)) => self.event(at, event),
            Step::Did(_) => {}
        }
    }

    /// When a frame began that has come now, when it is over.
    fn frame(&mut self, at: f64) -> f64 {
        let start = (at - FRAME_S).max(self.heard_until);
        self.heard_until = start + FRAME_S;
        start
    }

    fn mark(&mut self, name: &'static str, colour: &'static str, at: f64, text: String) {
        self.picture.marks.push(Mark { name, colour, at, text });
    }

    fn event(&mut self, at: f64, event: &Event) {
        let eou = self.settings.endpointing.eou;
        match event {
            Event::State(moved) => {
                self.until(at);
                self.state = (at, moved.to);
                // A hold is a part of SPEAKING; what collided is no barge-in.
                self.hold_ended(at, "HOLD, then CONFIRM", "#ff8787");
                if moved.why == Why::CallerWentOn {
                    self.mark("caller went on", "#e67700", at, "went on: one turn".to_owned());
                }
            }
            Event::UtteranceEnded { endpoint, .. } => {
                let (quiet, wait) = (ms(*endpoint), ms(self.wait));
                let text = if endpoint.is_zero() {
                    format!("end: max_utterance {}", ms(self.settings.endpointing.max_utterance))
                } else if *endpoint < self.wait {
                    format!("end after {quiet}: from the words")
                } else if self.wait == eou {
                    format!("quiet {quiet} ≥ eou {wait}")
                } else {
                    format!("quiet {quiet} ≥ {wait}, adapted from eou {}", ms(eou))
                };
                let from = at - endpoint.as_secs_f64();
                let name = "pause that ended it";
                self.picture.spans.push(Span { name, lane: Lane::Speech, colour: "#c3fae8", from, to: at });
                self.mark("end of utterance", "#2b8a3e", at, text);
            }
            Event::SttPartial { .. } | Event::SttFinal { .. } => self.words_at = Some(at),
            Event::BargeInHeld { reaction } => {
                self.held = Some(at);
                let text = format!("HOLD: voice for {}, {}", ms(*reaction), self.louder_than());
                self.mark("HOLD", "#d9480f", at, text);
            }
            Event::BargeInResumed { after } => {
                self.hold_ended(at, "HOLD, then resumed", "#8ce99a");
                self.mark("resumed", "#2f9e44", at, format!("resumed after {}", ms(*after)));
            }
            Event::BargeInSuppressed { echo } => {
                let text = if *echo { "no HOLD: as loud as its echo" } else { "no HOLD: barge_in = false" };
                self.mark("no HOLD", "#868e96", at, text.to_owned());
            }
            Event::BargeIn { cleared, .. } => {
                let by = match self.held {
                    None if self.never_holds => "voice".to_owned(),
                    None => "a key".to_owned(),
                    Some(_) if self.words_at == Some(at) => "words".to_owned(),
                    Some(held) => format!("voice, {:.0} ms after HOLD", (at - held) * 1e3),
                };
                self.hold_ended(at, "HOLD, then CONFIRM", "#ff8787");
                self.mark("barge-in", "#c92a2a", at, format!("barge-in: {by}; −{}", ms(*cleared)));
            }
            Event::FirstFrame { since_speech_end: Some(took), .. } => {
                self.mark("first frame", "#5f3dc4", at, format!("answer after {}", ms(*took)));
            }
            Event::FirstFrame { .. } => self.mark("first frame", "#5f3dc4", at, "speaks".to_owned()),
            Event::Duplicate { .. } => self.mark("dropped", "#7f7f7f", at, "same words again".to_owned()),
            Event::Underrun => self.mark("fault", "#c92a2a", at, "underrun".to_owned()),
            Event::MediaStalled => self.mark("fault", "#c92a2a", at, "no audio for 2 s".to_owned()),
            Event::UpstreamFailed { service, failure } => {
                let text = format!("{}: {}", service.as_str(), failure.kind.as_str());
                self.mark("fault", "#c92a2a", at, text);
            }
            _ => {}
        }
    }

    /// What a voice has to be louder than, by the configuration.
    fn louder_than(&self) -> String {
        let vad_rms = self.settings.vad_rms;
        match self.settings.vad {
            Vad::Rms => format!("over vad_rms {vad_rms}"),
            Vad::Neural => format!("by the network, over vad_rms {vad_rms}"),
        }
    }

    fn hold_ended(&mut self, to: f64, name: &'static str, colour: &'static str) {
        if let Some(from) = self.held.take() {
            self.picture.spans.push(Span { name, lane: Lane::Hold, colour, from, to });
        }
    }

    /// The present state lasted until now.
    fn until(&mut self, at: f64) {
        let (from, state) = self.state;
        let colour = match state {
            State::Listening => "#d0ebff",
            State::Thinking => "#ffec99",
            State::Speaking => "#d0bfff",
            State::Ended => return,
        };
        if at > from {
            self.picture.spans.push(Span { name: state.as_str(), lane: Lane::State, colour, from, to: at });
        }
    }

    pub(super) fn finish(mut self, lasted: CallTime) -> (Picture, Figures) {
        self.figures.lasted(lasted);
        self.hold_ended(seconds(lasted), "HOLD, then resumed", "#8ce99a");
        self.until(seconds(lasted));
        self.speech();
        let end = self.measured.last().map_or(0.0, |(at, _)| at + FRAME_S);
        let each = |of: fn(&Measured) -> f32| -> Vec<(f64, f32)> {
            self.measured.iter().map(|(at, measured)| (*at, of(measured))).collect()
        };
        let always = |value| vec![(0.0, value), (end, value)];
        let echo = each(|m| m.echo_db).into_iter().filter(|(_, db)| *db > 0.0).collect();
        let series = |name, lane, kind, colour, points| Series { name, lane, kind, colour, points };
        let (floor, mut threshold) = (each(|m| m.floor_db), always(decibels(self.settings.vad_rms)));
        threshold.retain(|_| self.levels.is_empty());
        let levels = each(|m| m.level_db).into_iter().chain(self.levels).collect();
        let mut all = vec![
            series("caller", Lane::Caller, Kind::Area, "#748ffc", levels),
            series("noise floor", Lane::Caller, Kind::Line, "#495057", floor),
            series("echo could be", Lane::Caller, Kind::Line, "#e8590c", echo),
            series("vad_rms", Lane::Caller, Kind::Dashes, "#c92a2a", threshold),
        ];
        if self.settings.vad == Vad::Neural && !self.measured.is_empty() {
            all.push(series("speech, probably", Lane::Probability, Kind::Area, "#20c997", each(|m| m.p)));
        }
        if !self.pauses.is_empty() {
            all.push(series("pause", Lane::Pause, Kind::Area, "#96f2d7", self.pauses));
            all.push(series("ends the utterance", Lane::Pause, Kind::Line, "#2b8a3e", self.waits));
        }
        all.push(series("bot, as heard", Lane::Bot, Kind::Area, "#9775fa", self.bot));
        all.push(series("bot, taken back", Lane::Bot, Kind::Area, "#ffa8a8", self.unheard));
        all.retain(|series| !series.points.is_empty());
        self.picture.series = all;
        self.picture.seconds = seconds(lasted);
        (self.picture, self.figures)
    }

    /// Where frames count as speech.
    fn speech(&mut self) {
        let mut voiced: Option<Span> = None;
        for (at, _) in self.measured.iter().filter(|(_, measured)| measured.is_speech()) {
            match &mut voiced {
                Some(span) if at - span.to < FRAME_S / 2.0 => span.to = at + FRAME_S,
                _ => {
                    let (name, from, to) = ("counts as speech", *at, at + FRAME_S);
                    let span = Span { name, lane: Lane::Speech, colour: "#37b24d", from, to };
                    self.picture.spans.extend(voiced.replace(span));
                }
            }
        }
        self.picture.spans.extend(voiced);
    }
}

fn seconds(at: CallTime) -> f64 {
    at.as_micros() as f64 / 1e6
}

fn ms(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(events: &[(u64, Event)]) -> Picture {
        let settings = super::super::super::replay::usual();
        let mut probe = Probe::new(settings);
        for (at, event) in events {
            probe.note(CallTime::from_millis(*at), &Step::Did(&Output::Event(event.clone())));
        }
        probe.finish(CallTime::from_millis(9_000)).0
    }

    #[test]
    fn a_hold_is_drawn_to_its_end_with_what_became_of_it() {
        let ms = Duration::from_millis;
        let words = || Event::SttPartial { text: String::new() };
        let held = || Event::BargeInHeld { reaction: ms(120) };
        let barge_in = || Event::BargeIn { reaction: ms(120), cleared: ms(900), heard: String::new() };
        let picture = drawn(&[
            (1_000, held()),
            (1_500, Event::BargeInResumed { after: ms(500) }),
            (2_000, held()),
            (2_280, barge_in()),
            (3_000, words()),
            (4_000, held()),
            (4_200, words()),
            (4_200, barge_in()),
            (5_000, barge_in()),
            (6_000, Event::BargeInSuppressed { echo: true }),
        ]);
        let spans: Vec<_> = picture.spans.iter().filter(|span| span.lane == Lane::Hold).collect();
        let spans: Vec<_> = spans.iter().map(|span| (span.name, span.from, span.to)).collect();
        let (resumed, confirmed) = ("HOLD, then resumed", "HOLD, then CONFIRM");
        assert_eq!(spans, [(resumed, 1.0, 1.5), (confirmed, 2.0, 2.28), (confirmed, 4.0, 4.2)]);
        let texts: Vec<&str> = picture.marks.iter().map(|mark| mark.text.as_str()).collect();
        let hold = "HOLD: voice for 120 ms, by the network, over vad_rms 210";
        assert_eq!(
            texts,
            [
                hold,
                "resumed after 500 ms",
                hold,
                "barge-in: voice, 280 ms after HOLD; −900 ms",
                hold,
                "barge-in: words; −900 ms",
                "barge-in: a key; −900 ms",
                "no HOLD: as loud as its echo"
            ]
        );
    }

    #[test]
    fn the_end_of_an_utterance_names_the_wait_that_it_met() {
        let ms = Duration::from_millis;
        for (wait, endpoint, text) in [
            (450, 460, "quiet 460 ms ≥ eou 450 ms"),
            (607, 620, "quiet 620 ms ≥ 607 ms, adapted from eou 450 ms"),
            (450, 200, "end after 200 ms: from the words"),
            (450, 0, "end: max_utterance 30000 ms"),
        ] {
            let settings = super::super::super::replay::usual();
            let mut probe = Probe::new(settings);
            let frame = Measured::default();
            probe.note(CallTime::from_millis(20), &Step::Heard { frame, pause: None, wait: Some(ms(wait)) });
            let ended = Event::UtteranceEnded { speech: ms(900), endpoint: ms(endpoint) };
            probe.note(CallTime::from_millis(40), &Step::Did(&Output::Event(ended)));
            let picture = probe.finish(CallTime::from_millis(60)).0;
            assert_eq!(picture.marks[0].text, text);
        }
    }
}
