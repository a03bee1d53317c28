//! Other detectors of speech, for comparison, where they are installed: a script prints what they say
//! of each frame, and the same rules as ours decide on it. They know nothing of the bot's echo.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use voxgate::turn::{Ear, Heard as Ears, Measured, level_db};

use crate::corpus::{Clip, Corpus, Kind};
use crate::decisions::{Heard, Ran, Turn, endpointing, interruptions};

/// The name that the script knows it by, and the one in the table.
pub(crate) const PEERS: [(&str, &str); 2] = [("silero", "Silero .5"), ("webrtc", "WebRTC mode 3")];

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/turn_taking/peers.py");
/// What the tests install is found without being asked for.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.venv/bin/python");

/// Runs a peer; an error says how to install it.
pub(crate) fn run(corpus: &Corpus, folder: &Path, name: &str) -> anyhow::Result<Ran> {
    let ours = Path::new(PYTHON).exists().then(|| PYTHON.into());
    let python = std::env::var_os("VOXGATE_PYTHON").or(ours).unwrap_or_else(|| "python3".into());
    let told = Command::new(&python).arg(SCRIPT).arg(name).arg(folder).output();
    let told = told.with_context(|| format!("{}", Path::new(&python).display()))?;
    if !told.status.success() {
        let why = String::from_utf8_lossy(&told.stderr);
        bail!("{}", why.lines().last().unwrap_or("failed"));
    }
    let mut values = told.stdout.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let cost = values.next().unwrap_or(0.0);
    let clips = corpus.clips.iter().map(|clip| {
        let frames = clip.frames.iter().map(|frame| Some(heard(level_db(&frame.0), values.next()?)));
        let frames: Option<Vec<Measured>> = frames.collect();
        Ok(decide(clip, frames.context("it says too little")?))
    });
    Ok(Ran { clips: clips.collect::<anyhow::Result<_>>()?, cost: Duration::from_secs_f32(cost / 1e6) })
}

fn heard(level_db: f32, p: f32) -> Measured {
    let against_bot = if p >= 0.5 { 0.0 } else { f32::MIN };
    Measured { level_db, p, holds_turn: p >= 0.5, against_bot, ..Measured::default() }
}

fn decide(clip: &Clip, frames: Vec<Measured>) -> Heard {
    let mut heard = Heard { frames, ..Heard::default() };
    // Whatever it hears may interrupt, however soft.
    interruptions(&mut heard, 0.0);
    if clip.label.kind == Kind::Turn {
        let mut ear = Ear::new(endpointing(Duration::ZERO));
        for (n, measured) in heard.frames.iter().enumerate() {
            let ms = (n as u64 + 1) * 20;
            match ear.hear(measured.is_turn()) {
                Ears::Same => {}
                Ears::Started { .. } => heard.turns.push(Turn { start: ms, end: None }),
                Ears::Ended(_) => heard.turns.last_mut().into_iter().for_each(|turn| turn.end = Some(ms)),
            }
        }
    }
    heard
}
