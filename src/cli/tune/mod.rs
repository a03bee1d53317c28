//! `voxgate tune`: a call as a picture, with every decision beside what made it; and, for a folder of
//! tapes, which values would have done better.
//!
//! | file | what it is for |
//! |---|---|
//! | `picture` | what there is to see: named series, spans and marks; nothing of how it looks |
//! | `probe` | runs a tape and makes a picture of it: the place for what another detector knows |
//! | `svg`, `row` | draws a picture: the page, and one stretch of time |
//! | `suggest` | tries a grid of values on many tapes |

mod picture;
mod probe;
mod row;
mod suggest;
mod svg;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;

use super::ConfigArgs;
use super::replay::{Figures, changes, named, under};
use crate::audio::{FRAME_BYTES, Hint, SAMPLE_RATE, SpeechDecoder};
use crate::call::realtime::{Ears, Manner};
use crate::call::{Hearing, Mode, Phrase, Settings};
use crate::config::Config;
use crate::edge;
use crate::tape::{Conductor, Entry, Tape, replay, simulate};
use crate::time::{CallTime, FRAME};
use probe::Probe;

pub(super) const EXAMPLE: &str = "\
A WAV file is what a caller says; the gateway echoes it.

Examples: voxgate tune tapes/2026-11-26T10-43-42.123Z_CA12.tape --out call.svg
          voxgate tune --suggest tapes/";

#[derive(Args, Debug)]
pub(super) struct TuneArgs {
    /// A tape that `[recording]` made, or a WAV file
    #[arg(value_name = "TAPE_OR_WAV", required_unless_present = "suggest")]
    call: Option<PathBuf>,
    /// Draw the call with this configuration; else a tape with its own, a WAV file with what `run` would use
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the picture goes; else beside you, under the name of the call
    #[arg(long, short, value_name = "FILE.svg")]
    out: Option<PathBuf>,
    /// Try other values of [turn] on all tapes of a folder, and show what each would have changed
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["call", "out"])]
    suggest: Option<PathBuf>,
}

pub(super) fn run(args: &TuneArgs) -> anyhow::Result<ExitCode> {
    let config = match &args.config {
        Some(_) => Some(super::load(&ConfigArgs { config: args.config.clone() })?.0),
        None => None,
    };
    if let Some(folder) = &args.suggest {
        print!("{}", suggest::suggest(folder, config.as_ref())?);
        return Ok(ExitCode::SUCCESS);
    }
    let Some(path) = &args.call else { bail!("name a tape or a WAV file") };
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let picture = draw(path, &bytes, config.as_ref()).with_context(|| path.display().to_string())?;
    let out = args.out.clone().unwrap_or_else(|| {
        let mut name = path.file_stem().unwrap_or_default().to_owned();
        name.push(".svg");
        name.into()
    });
    std::fs::write(&out, picture).with_context(|| out.display().to_string())?;
    println!("{}", out.display());
    Ok(ExitCode::SUCCESS)
}

fn draw(path: &Path, bytes: &[u8], config: Option<&Config>) -> anyhow::Result<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if bytes.starts_with(b"RIFF") {
        let settings = match config {
            Some(config) => edge::settings(config),
            None => edge::settings(&super::load(&ConfigArgs::default())?.0),
        };
        return wav(&name, bytes, settings);
    }
    let tape = Tape::read(bytes)?;
    let recorded = under(&tape, None)?;
    // What a bot of its own does does not follow from any configuration.
    let settings = under(&tape, config.filter(|_| tape.header.conductor != Conductor::Bot))?;
    let (call_sid, started) = (&tape.header.call_sid, &tape.header.started);
    let mut title = vec![format!("{name} · {call_sid} · {started}")];
    title.extend(tape.missing().map(|missing| format!("The tape: {missing}.")));
    title.extend(decides(&tape.header.conductor).map(str::to_owned));
    let settings = Arc::new(settings);
    let mut probe = match tape.header.conductor {
        Conductor::Model(_) => Probe::new(&settings).of_a_model(),
        Conductor::Ours | Conductor::Bot => Probe::new(&settings),
    };
    let outcome = replay(&tape, settings.clone(), &recorded, |at, step| probe.note(at, &step));
    let changed: Vec<String> = changes(&recorded, &settings)
        .iter()
        .map(|change| format!("{} {} → {}", change.setting, change.from, change.to))
        .collect();
    if !changed.is_empty() {
        title.push(format!("Not as recorded: {}.", changed.join(", ")));
    }
    if let Some(forked) = outcome.forked {
        let at = forked.as_millis() as f64 / 1e3;
        title.push(format!("From {at:.3} s on the call goes another way than it did."));
    }
    Ok(page(title, probe, outcome.lasted, &settings))
}

/// Who decides, where this side does not, and what there is to see.
fn decides(conductor: &Conductor) -> Option<&'static str> {
    match conductor {
        Conductor::Ours => None,
        Conductor::Model(Manner { ears: Ears::Models, .. }) => {
            Some("By the model's ear, which is not here: how loud the caller is, and what the bot says.")
        }
        Conductor::Model(Manner { ears: Ears::Ours, .. }) => Some(
            "By this side's ear, and what a model makes of it: what it would have said otherwise nobody knows.",
        ),
        Conductor::Bot => Some(
            "A bot of its own conducts this call: how loud the caller is, what the bot says, and when it takes that back.",
        ),
    }
}

/// What a caller says, echoed.
fn wav(name: &str, bytes: &[u8], settings: Settings) -> anyhow::Result<String> {
    let mut decoder = SpeechDecoder::new(Hint::new(Some("audio/wav"), SAMPLE_RATE));
    let mut audio = Vec::new();
    decoder.push(bytes, &mut audio)?;
    decoder.finish(&mut audio)?;
    let frames = audio.chunks(FRAME_BYTES).zip(0u32..);
    let entries: Vec<(CallTime, Entry<'_>)> = frames
        .map(|(frame, n)| {
            (CallTime::ZERO + FRAME * n, Entry::Media { payload: frame.into(), timestamp_ms: None })
        })
        .collect();
    let settings = Arc::new(Settings {
        mode: Mode::Echo,
        hearing: Hearing::Utterances,
        greeting: None,
        apology: Phrase::default(),
        filler: Phrase::default(),
        ..settings
    });
    let mut probe = Probe::new(&settings);
    let outcome = simulate(&entries, settings.clone(), |at, step| probe.note(at, &step));
    Ok(page(vec![format!("{name} · echoed")], probe, outcome.lasted, &settings))
}

fn page(mut title: Vec<String>, probe: Probe<'_>, lasted: CallTime, settings: &Settings) -> String {
    let (picture, figures) = probe.finish(lasted);
    // What decides when; the rest does not show.
    let shown =
        ["vad", "eou", "adaptive_eou", "early_agent", "barge_in", "max_utterance", "lead", "mode", "hearing"];
    let all = named(settings);
    let values = all.iter().filter(|(name, _)| {
        let last = name.rsplit('.').next().unwrap_or_default();
        shown.iter().any(|part| last.starts_with(part))
    });
    let values = values.map(|(name, value)| {
        let name = name.rsplit('.').next().unwrap_or_default();
        format!("{name} {value}")
    });
    let values: Vec<String> = values.collect();
    title.push(values.join(" · "));
    title.push(format!(
        "{} turns, {} cut-offs, {} collisions, {} held of which {} resumed, {} barge-ins, first frame p50 {} ms",
        figures.turns,
        figures.cut_offs,
        figures.collisions,
        figures.held,
        figures.resumed,
        figures.barge_ins,
        figures.first_frame_ms(50).map_or_else(|| "-".to_owned(), |ms| ms.to_string())
    ));
    svg::page(&title, &picture)
}
