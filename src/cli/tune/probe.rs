//! Makes a picture of a call by running it. What the engine measures for each frame, and what it
//! decides, is gathered here and nowhere else: a detector that knows more gets a series more.

use std::sync::Arc;
use std::time::Duration;

use super::Figures;
use super::picture::{Kind, Lane, Mark, Picture, Series, Span};
use crate::audio::{Cutter, FRAME_BYTES, level};
use crate::call::{Event, Output, Settings};
use crate::tape::{Entry, Outcome, Step, replay_entries};
use crate::time::{CallTime, FRAME};
use crate::turn::{State, Why};

const FRAME_S: f64 = 0.02;

pub(super) fn probe(
    entries: &[(CallTime, Entry<'_>)],
    recorded: &Settings,
    settings: &Arc<Settings>,
    figures: &mut Figures,
) -> (Picture, Outcome) {
    let mut probe = Probe {
        settings,
        cutter: Cutter::default(),
        heard_until: 0.0,
        level: Vec::new(),
        bot: Vec::new(),
        unheard: Vec::new(),
        played_until: 0.0,
        state: (0.0, State::Listening),
        picture: Picture::default(),
    };
    let outcome = replay_entries(entries, settings.clone(), recorded, |at, step| {
        figures.note(at, &step);
        probe.note(seconds(at), &step);
    });
    figures.lasted(outcome.lasted);
    (probe.finish(seconds(outcome.lasted)), outcome)
}

struct Probe<'s> {
    settings: &'s Settings,
    cutter: Cutter,
    heard_until: f64,
    level: Vec<(f64, f32)>,
    /// The bot's frames, when they are played; and those that a `clear` took back.
    bot: Vec<(f64, f32)>,
    unheard: Vec<(f64, f32)>,
    played_until: f64,
    state: (f64, State),
    picture: Picture,
}

impl Probe<'_> {
    fn note(&mut self, at: f64, step: &Step<'_>) {
        match step {
            Step::Told(Entry::Media { payload, .. }) => {
                // The last of it came now, the rest in the time before.
                let (level, mut frames) = (&mut self.level, 0);
                self.cutter.push(payload, |frame| {
                    frames += 1;
                    level.push((0.0, level::rms(&frame.0)));
                });
                let first = self.level.len() - frames;
                let start = (at - FRAME_S * frames as f64).max(self.heard_until);
                for (n, point) in self.level[first..].iter_mut().enumerate() {
                    point.0 = start + FRAME_S * n as f64;
                }
                self.heard_until = start + FRAME_S * frames as f64;
            }
            Step::Told(Entry::Dtmf(_)) => self.mark("key", "#7f7f7f", at, "key pressed".to_owned()),
            Step::Told(_) => {}
            Step::Did(Output::Play { frame, .. }) => {
                let start = self.played_until.max(at);
                self.bot.push((start, level::rms(&frame.0)));
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

    fn mark(&mut self, name: &'static str, colour: &'static str, at: f64, text: String) {
        self.picture.marks.push(Mark { name, colour, at, text });
    }

    fn event(&mut self, at: f64, event: &Event) {
        let (eou, vad_rms) = (self.settings.endpointing.eou, self.settings.vad_rms);
        match event {
            Event::State(moved) => {
                self.until(at);
                self.state = (at, moved.to);
                if moved.why == Why::CallerWentOn {
                    self.mark("caller went on", "#e67700", at, "went on: one turn".to_owned());
                }
            }
            Event::UtteranceEnded { endpoint, .. } => {
                let text = if *endpoint >= eou {
                    format!("quiet {} ≥ eou {}", ms(*endpoint), ms(eou))
                } else if endpoint.is_zero() {
                    "end: longest utterance".to_owned()
                } else {
                    format!("end after {}: from the words", ms(*endpoint))
                };
                let from = at - endpoint.as_secs_f64();
                let name = "pause that ended it";
                self.picture.spans.push(Span { name, lane: Lane::Speech, colour: "#c3fae8", from, to: at });
                self.mark("end of utterance", "#2b8a3e", at, text);
            }
            Event::BargeIn { reaction, cleared, .. } => {
                let text = format!("barge-in: {} ≥ rms {vad_rms}; −{}", ms(*reaction), ms(*cleared));
                self.mark("barge-in", "#c92a2a", at, text);
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

    fn finish(mut self, lasted: f64) -> Picture {
        self.until(lasted);
        let threshold = self.settings.vad_rms;
        let mut voiced: Option<Span> = None;
        for (at, _) in self.level.iter().filter(|(_, rms)| *rms >= threshold) {
            match &mut voiced {
                Some(span) if at - span.to < FRAME_S / 2.0 => span.to = at + FRAME_S,
                _ => {
                    let (from, to) = (*at, at + FRAME_S);
                    let new =
                        Span { name: "counts as speech", lane: Lane::Speech, colour: "#37b24d", from, to };
                    self.picture.spans.extend(voiced.replace(new));
                }
            }
        }
        self.picture.spans.extend(voiced);
        let end = self.level.last().map_or(0.0, |(at, _)| at + FRAME_S);
        let series = |name, lane, kind, colour, points| Series { name, lane, kind, colour, points };
        self.picture.series = vec![
            series("caller", Lane::Caller, Kind::Area, "#4c6ef5", self.level),
            series(
                "vad_rms",
                Lane::Caller,
                Kind::Dashes,
                "#c92a2a",
                vec![(0.0, threshold), (end, threshold)],
            ),
            series("bot, as heard", Lane::Bot, Kind::Area, "#845ef7", self.bot),
            series("bot, thrown away", Lane::Bot, Kind::Area, "#ffa8a8", self.unheard),
        ];
        self.picture.series.retain(|series| !series.points.is_empty());
        self.picture.seconds = lasted;
        self.picture
    }
}

fn seconds(at: CallTime) -> f64 {
    at.as_micros() as f64 / 1e6
}

fn ms(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

const _: () = assert!(FRAME.as_millis() == 20 && FRAME_BYTES == 160);
