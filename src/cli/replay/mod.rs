//! `voxgate replay`: recorded calls once more, in virtual time. With the settings of the tape it shows
//! what happened; with a configuration it shows what would have been different.
//!
//! | file | what it is for |
//! |---|---|
//! | `tapes` | from paths to tapes, several at once |
//! | `figures` | a call in numbers: turns, cut-offs, barge-ins, latency |
//! | `changed` | which settings are not as they were |
//! | `show` | the answer, as text |
//!
//! # `--json`
//!
//! One object: `tapes`, `recorded` and with a configuration `now`, the figures of all together. A tape
//! has `tape`, `call_sid`, `started`, `mode`, `missing` (a sentence, or null), `differs_from_ms` (null:
//! this version makes the same call of it), `measured` (`tape`, or `anew` from the audio), `recorded`
//! (figures), and `timeline` (lines), or with a configuration in its place `changed` (setting, from, to),
//! `measured_now`, `forked_ms` (null: nothing was different), `answers` (`same`, `moved`, `made_up`: see
//! `tape::answers`) and `now` (figures). What a model or a bot would have said nobody knows: of calls that
//! one of them conducts there is `not_compared` (why) in the place of `answers` and `now`, of a
//! bot's in the place of all, and they do not count in the sums.

mod changed;
mod figures;
mod show;
mod tapes;

use std::io::{self, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};

use clap::Args;
use serde::{Serialize, Serializer};

pub(super) use changed::{Change, changes, named};
pub(super) use figures::Figures;
pub(super) use tapes::{each_tape, find, under};

use super::ConfigArgs;
use crate::call::{Mode, Output, Settings};
use crate::config::Config;
use crate::edge;
use crate::observe::{CallLabels, Metrics, Timeline};
use crate::tape::{Conductor, Entry, Origins, Outcome, Step, Tape, replay};
use crate::time::CallTime;

pub(super) const EXAMPLE: &str = "With a configuration, a call is an estimate from its first difference on: the \
caller says what was said then, when it was said, and services answer with what they answered then, moved to the \
new questions; speech that was never made is a hum of its length.

Example: voxgate replay tapes/ --config new.toml";

#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    /// Tapes that `[recording]` made, or folders of them
    #[arg(required = true, value_name = "TAPE")]
    tapes: Vec<PathBuf>,
    /// Run them with this configuration too, and show what would have been different
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Measure the callers' audio anew, as this version would, in place of what the tape says of it
    #[arg(long)]
    anew: bool,
    /// Show what was said
    #[arg(long)]
    transcripts: bool,
    /// The answer as JSON
    #[arg(long)]
    json: bool,
}

/// What one tape came to.
#[derive(Debug, Serialize)]
struct Replayed {
    tape: String,
    call_sid: String,
    started: String,
    mode: &'static str,
    missing: Option<String>,
    /// The call of the tape itself was another than this version makes of it.
    differs_from_ms: Option<u64>,
    measured: Measured,
    recorded: Figures,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "lines")]
    timeline: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    otherwise: Option<Otherwise>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_compared: Option<&'static str>,
}

const OF_A_MODEL: &str = "what the model would have said to anything else is not on the tape";
const OF_A_BOT: &str = "a bot of its own conducts this call: nothing in it is ours to decide";

/// The same call with another configuration.
#[derive(Debug, Serialize)]
struct Otherwise {
    changed: Vec<Change>,
    #[serde(rename = "measured_now")]
    measured: Measured,
    forked_ms: Option<u64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    estimate: Option<Estimate>,
}

/// What would have come of the call, as far as it can be known.
#[derive(Debug, Serialize)]
struct Estimate {
    answers: Answers,
    now: Figures,
}

/// Where the measure of the caller's frames came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Measured {
    Tape,
    Anew,
}

impl Measured {
    fn of(outcome: &Outcome) -> Measured {
        if outcome.measured_anew { Measured::Anew } else { Measured::Tape }
    }
}

#[derive(Debug, Serialize)]
struct Answers {
    same: usize,
    moved: usize,
    made_up: usize,
}

impl From<Origins> for Answers {
    fn from(Origins { same, moved, made_up }: Origins) -> Answers {
        Answers { same, moved, made_up }
    }
}

/// All tapes together.
#[derive(Debug, Serialize)]
struct All {
    tapes: Vec<Replayed>,
    recorded: Figures,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Figures>,
}

pub(super) fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let other = match &args.config {
        Some(_) => Some(super::load(&ConfigArgs { config: args.config.clone() })?.0),
        None => None,
    };
    let metrics = Arc::new(Metrics::new()?);
    let tapes = each_tape(&find(&args.tapes)?, |path, tape| {
        if args.anew {
            tape.forget_measured();
        }
        Ok(one(path, tape, other.as_ref(), &metrics, args.transcripts)?)
    })?;
    let mut recorded = Figures::default();
    let mut now = other.is_some().then(Figures::default);
    for tape in &tapes {
        let estimate = tape.otherwise.as_ref().and_then(|otherwise| otherwise.estimate.as_ref());
        match (&mut now, estimate) {
            (None, _) => recorded.add(&tape.recorded),
            (Some(now), Some(estimate)) => {
                recorded.add(&tape.recorded);
                now.add(&estimate.now);
            }
            (Some(_), None) => {}
        }
    }
    let all = All { tapes, recorded, now };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        show::text(&all, &mut BufWriter::with_capacity(256 * 1024, io::stdout().lock()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn lines<S: Serializer>(text: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(text.iter().flat_map(|text| text.lines()))
}

fn one(
    path: &str,
    tape: &Tape<'_>,
    other: Option<&Config>,
    metrics: &Arc<Metrics>,
    transcripts: bool,
) -> Result<Replayed, serde_json::Error> {
    let recorded = under(tape, None)?;
    let header = &tape.header;
    let (mode, not_compared) = match (&header.conductor, recorded.mode) {
        (Conductor::Ours, Mode::Echo) => ("echo", None),
        (Conductor::Ours, Mode::Dialogue) => ("dialogue", None),
        (Conductor::Model(_), _) => ("realtime", Some(OF_A_MODEL)),
        (Conductor::Bot, _) => ("relay", Some(OF_A_BOT)),
    };
    let mut figures = Figures::default();
    let settings = Arc::new(recorded.clone());
    // Where two calls are compared, neither is told: that takes longer than all the rest.
    let (outcome, timeline) = if other.is_some() {
        (replay(tape, settings, &recorded, |at, step| figures.note(at, &step)), None)
    } else {
        let labels = CallLabels { call_sid: header.call_sid.clone(), stream_sid: header.stream_sid.clone() };
        let mut timeline = Timeline::new(metrics.clone(), labels, transcripts);
        timeline.at(CallTime::ZERO, |observer| observer.started(None, &header.account_sid, mode));
        let outcome = replay(tape, settings, &recorded, |at, step| {
            figures.note(at, &step);
            match step {
                Step::Told(entry) => {
                    if let Some((audio, _)) = entry.audio() {
                        timeline.heard(audio.len());
                    }
                    match entry {
                        Entry::BotMark(name) => timeline.passed(at, "BOT_MARK", Some(name.as_ref())),
                        Entry::BotClear => timeline.passed(at, "BOT_CLEAR", None),
                        Entry::BotGone(code) => timeline.at(at, |observer| observer.bot_gone(*code)),
                        Entry::Mark(name) if header.conductor == Conductor::Bot => {
                            timeline.passed(at, "MARK_PLAYED", Some(name.as_ref()));
                        }
                        _ => {}
                    }
                }
                Step::Did(Output::Play { .. }) => timeline.sent(),
                Step::Did(Output::Event(event)) => timeline.at(at, |observer| observer.event(event.clone())),
                Step::Heard { .. } | Step::Level { .. } | Step::Did(_) => {}
            }
        });
        let timeline = timeline.end(outcome.lasted);
        (outcome, Some(timeline))
    };
    figures.lasted(outcome.lasted);
    let otherwise = match other {
        Some(config) if header.conductor != Conductor::Bot => {
            Some(otherwise(tape, &recorded, under(tape, Some(config))?))
        }
        Some(_) | None => None,
    };
    Ok(Replayed {
        tape: path.to_owned(),
        call_sid: header.call_sid.clone(),
        started: header.started.clone(),
        mode,
        missing: tape.missing(),
        differs_from_ms: outcome.forked.map(CallTime::as_millis),
        measured: Measured::of(&outcome),
        recorded: figures,
        timeline,
        otherwise,
        not_compared: not_compared.filter(|_| other.is_some()),
    })
}

fn otherwise(tape: &Tape<'_>, recorded: &Settings, settings: Settings) -> Otherwise {
    let changed = changes(recorded, &settings);
    let (now, outcome) = measured(tape, recorded, settings);
    Otherwise {
        changed,
        measured: Measured::of(&outcome),
        forked_ms: outcome.forked.map(CallTime::as_millis),
        estimate: (tape.header.conductor == Conductor::Ours)
            .then(|| Estimate { answers: outcome.origins.into(), now }),
    }
}

/// The figures of a tape under these settings.
pub(super) fn measured(tape: &Tape<'_>, recorded: &Settings, settings: Settings) -> (Figures, Outcome) {
    let mut figures = Figures::default();
    let outcome = replay(tape, Arc::new(settings), recorded, |at, step| figures.note(at, &step));
    figures.lasted(outcome.lasted);
    (figures, outcome)
}

/// What a configuration that says nothing means to a call: for what a tape does not say.
pub(super) fn usual() -> &'static Settings {
    static USUAL: LazyLock<Settings> = LazyLock::new(|| edge::settings(&Config::default()));
    &USUAL
}
