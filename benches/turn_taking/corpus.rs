//! The folder: what its manifest says of each clip, and the audio.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use voxgate::audio::{FRAME_BYTES, Frame, Hint, SAMPLE_RATE, SpeechDecoder};

pub(crate) struct Corpus {
    pub(crate) clips: Vec<Clip>,
}

pub(crate) struct Clip {
    pub(crate) id: String,
    pub(crate) label: Label,
    pub(crate) frames: Vec<Frame>,
    /// What the bot said meanwhile.
    pub(crate) far: Vec<Frame>,
}

#[derive(Deserialize)]
struct Manifest {
    format: u32,
    clips: Vec<Label>,
}

/// Times are in ms from the start of the clip.
#[derive(Deserialize)]
pub(crate) struct Label {
    id: String,
    file: String,
    pub(crate) kind: Kind,
    /// Stretches of the caller's voice.
    #[serde(default)]
    pub(crate) speech: Vec<(u64, u64)>,
    /// Silences for thought inside a turn.
    #[serde(default)]
    pub(crate) pauses: Vec<(u64, u64)>,
    #[serde(default)]
    pub(crate) turn: (u64, u64),
    #[serde(default)]
    pub(crate) level_dbfs: f64,
    #[serde(default)]
    pub(crate) events: Vec<Sound>,
    far: Option<Far>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Turn,
    NoiseOnly,
    BargeIn,
    Backchannel,
    EchoOnly,
}

/// Something that the caller does while the bot speaks, and that is no turn.
#[derive(Deserialize)]
pub(crate) struct Sound {
    #[serde(rename = "type")]
    pub(crate) what: String,
    pub(crate) start_ms: u64,
    pub(crate) end_ms: u64,
}

#[derive(Deserialize)]
struct Far {
    file: String,
}

impl Corpus {
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Corpus> {
        let file = folder.join("manifest.json");
        let shown = file.display();
        let text = std::fs::read(&file).with_context(|| format!("{shown}: cannot be read"))?;
        let manifest: Manifest = serde_json::from_slice(&text).with_context(|| shown.to_string())?;
        if manifest.format != 1 {
            bail!("{shown}: format {}; only 1 is known", manifest.format);
        }
        let clips = manifest.clips.into_iter().map(|label| {
            let far = label.far.as_ref().map(|far| frames(&folder.join(&far.file))).transpose()?;
            let frames = frames(&folder.join(&label.file))?;
            Ok(Clip { id: label.id.clone(), label, frames, far: far.unwrap_or_default() })
        });
        Ok(Corpus { clips: clips.collect::<anyhow::Result<_>>()? })
    }

    pub(crate) fn minutes(&self) -> f64 {
        self.clips.iter().map(Clip::minutes).sum()
    }
}

impl Clip {
    pub(crate) fn minutes(&self) -> f64 {
        self.frames.len() as f64 / 3_000.0
    }
}

fn frames(file: &Path) -> anyhow::Result<Vec<Frame>> {
    let bytes = std::fs::read(file).with_context(|| format!("{}: cannot be read", file.display()))?;
    let mut audio = Vec::new();
    let mut decoder = SpeechDecoder::new(Hint::new(None, SAMPLE_RATE));
    let decoded = decoder.push(&bytes, &mut audio).and_then(|()| decoder.finish(&mut audio));
    decoded.map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))?;
    Ok(audio.as_chunks::<FRAME_BYTES>().0.iter().map(|frame| Frame(*frame)).collect())
}
