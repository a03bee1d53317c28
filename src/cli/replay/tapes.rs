//! From paths to tapes, and through all of them with as many threads as there are cores.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};

use super::usual;
use crate::call::{Settings, Silence};
use crate::config::Config;
use crate::edge;
use crate::tape::{Header, Room, Tape};

/// The tapes that are meant: files as they are, of folders all that end in `.tape`, by name.
pub(in crate::cli) fn find(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
        let mut tapes: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        tapes.retain(|path| path.extension().is_some_and(|ending| ending == "tape"));
        if tapes.is_empty() {
            bail!("{}: no tapes (*.tape) in this folder", path.display());
        }
        tapes.sort();
        found.extend(tapes);
    }
    Ok(found)
}

/// Does something with each tape, and gives back what it came to in the order of the paths.
pub(in crate::cli) fn each_tape<T: Send>(
    paths: &[PathBuf],
    work: impl Fn(&str, &mut Tape<'_>) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let one = |path: &Path, bytes: &mut Vec<u8>, room: &mut Room| {
        let name = path.display().to_string();
        bytes.clear();
        File::open(path).and_then(|mut file| file.read_to_end(bytes)).with_context(|| name.clone())?;
        let mut tape = Tape::read_in(room, bytes).with_context(|| name.clone())?;
        let result = work(&name, &mut tape).with_context(|| name.clone());
        tape.leave(room);
        result
    };
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, anyhow::Result<T>)>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(paths.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let (mut bytes, mut room) = (Vec::new(), Room::default());
                while let Some((index, path)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    paths.get(index).map(|path| (index, path))
                } {
                    let result = one(path, &mut bytes, &mut room);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The settings of a tape, or those of a configuration for its call: what it was asked to do, and the
/// phrases that have a voice, stay the tape's.
pub(in crate::cli) fn under(tape: &Tape<'_>, config: Option<&Config>) -> Result<Settings, serde_json::Error> {
    let recorded = recorded(&tape.header)?;
    Ok(match config {
        None => recorded,
        Some(config) => {
            let Settings {
                mode,
                hearing,
                greeting,
                apology,
                transfer_apology,
                filler,
                silence,
                control,
                memory,
                ..
            } = recorded;
            let asked = edge::settings(config);
            let silence = Silence { prompt: silence.prompt, goodbye: silence.goodbye, ..asked.silence };
            let voices = Settings { greeting, apology, transfer_apology, filler, silence, ..asked };
            Settings { mode, hearing, control, memory, ..voices }
        }
    })
}

/// What a tape says of its settings. Those of one gateway's calls are mostly the same, and worth keeping: they
/// are long, with sound in them.
fn recorded(header: &Header) -> Result<Settings, serde_json::Error> {
    thread_local! {
        static LATEST: RefCell<Option<(Header, Settings)>> = const { RefCell::new(None) };
    }
    LATEST.with_borrow_mut(|latest| match latest {
        Some((other, settings)) if other.has_settings_of(header) => Ok(settings.clone()),
        _ => {
            let settings = header.settings(usual())?;
            *latest = Some((header.clone(), settings.clone()));
            Ok(settings)
        }
    })
}
