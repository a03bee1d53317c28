//! How good turn-taking is, on a folder of labelled telephone speech:
//!
//! ```text
//! cargo bench --bench turn_taking -- DIR [--out OUT]     (or VOXGATE_CORPUS=DIR)
//! ```
//!
//! DIR holds a `manifest.json` (format 1) and its WAV files. Every clip goes through the engine of a
//! call, once with each detector; the table shows the goals beside the figures, and what Silero and
//! WebRTC make of the same clips, where a Python that has them is found (`VOXGATE_PYTHON`, .venv, or
//! the system's; `peers.py` says what is missing). `README.md` here has figures, and what was tried. With `--out`, OUT gets
//! the detector's value of every frame (`DETECTOR.f32`, little-endian, clips in the manifest's order)
//! and every decision with its time (`decisions.jsonl`).
//!
//! `cargo bench --bench turn_taking -- simulate` needs no folder: it holds conversations in virtual
//! time; `SIMULATED.md` has the figures, and what they assume.

mod corpus;
mod decisions;
mod over_the_bot;
mod peers;
mod score;
mod simulate;
mod table;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use corpus::Corpus;
use decisions::{Heard, Ran};
use voxgate::turn::Vad;

const DETECTORS: [(Vad, &str); 2] = [(Vad::Neural, "neural"), (Vad::Rms, "rms")];

const NO_CORPUS: &str = "turn_taking: no corpus given, so nothing was measured.
    cargo bench --bench turn_taking -- DIR     or VOXGATE_CORPUS=DIR
DIR is a folder of labelled 8 kHz speech: manifest.json (\"format\": 1, \"clips\": [...]) and its WAV files.
    cargo bench --bench turn_taking -- simulate     needs none: conversations in virtual time";

fn main() -> ExitCode {
    let mut folder = std::env::var_os("VOXGATE_CORPUS").map(PathBuf::from);
    let mut out = None;
    // cargo adds --bench.
    let mut args = std::env::args_os().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        if arg == "simulate" {
            println!("{}\n{}", simulate::run(), over_the_bot::run());
            return ExitCode::SUCCESS;
        }
        if arg == "--out" {
            out = args.next().map(PathBuf::from);
        } else {
            folder = Some(arg.into());
        }
    }
    let Some(folder) = folder else {
        println!("{NO_CORPUS}");
        return ExitCode::SUCCESS;
    };
    match run(&folder, out.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("turn_taking: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &Path, out: Option<&Path>) -> anyhow::Result<()> {
    let corpus = Corpus::read(folder)?;
    let ran: Vec<Ran> = DETECTORS.iter().map(|(vad, _)| decisions::run(&corpus, *vad)).collect();
    println!("{}: {} clips, {:.1} minutes\n", folder.display(), corpus.clips.len(), corpus.minutes());
    let mut scores: Vec<_> =
        DETECTORS.iter().zip(&ran).map(|((_, name), ran)| (*name, score::score(&corpus, ran))).collect();
    let mut absent = String::new();
    for (script, name) in peers::PEERS {
        match peers::run(&corpus, folder, script) {
            Ok(ran) => scores.push((name, score::score(&corpus, &ran))),
            Err(why) => absent.push_str(&format!("{name}: not measured: {why:#}\n")),
        }
    }
    println!("{}{absent}", table::show(&scores));
    if let Some(out) = out {
        std::fs::create_dir_all(out)?;
        let mut lines = std::io::BufWriter::new(std::fs::File::create(out.join("decisions.jsonl"))?);
        for (ran, (_, name)) in ran.iter().zip(DETECTORS) {
            let frames = ran.clips.iter().flat_map(|clip| &clip.frames);
            let values: Vec<u8> = frames.flat_map(|measured| measured.p.to_le_bytes()).collect();
            std::fs::write(out.join(format!("{name}.f32")), values)?;
            for (clip, heard) in corpus.clips.iter().zip(&ran.clips) {
                write_decisions(&mut lines, name, &clip.id, heard)?;
            }
        }
        lines.flush()?;
    }
    Ok(())
}

fn write_decisions(
    to: &mut impl std::io::Write,
    detector: &str,
    clip: &str,
    heard: &Heard,
) -> std::io::Result<()> {
    let turns = heard.turns.iter().flat_map(|turn| {
        let end = turn.end.map(|ms| ("eou", ms));
        [Some(("turn_start", turn.start)), end].into_iter().flatten()
    });
    let holds = heard.holds.iter().map(|ms| ("hold", *ms));
    let confirms = heard.confirms.iter().map(|ms| ("confirm", *ms));
    let mut all: Vec<_> = turns.chain(holds).chain(confirms).collect();
    all.sort_by_key(|(_, ms)| *ms);
    for (what, ms) in all {
        let line = serde_json::json!({"detector": detector, "clip": clip, "what": what, "ms": ms});
        writeln!(to, "{line}")?;
    }
    Ok(())
}
