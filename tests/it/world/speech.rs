//! The caller's voice: real speech, as μ-law.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use voxgate::cli::call::sound;

/// A sentence spoken by the voice that the recogniser knows best. Spoken once, then remembered.
pub fn say(text: &str) -> Arc<[u8]> {
    static SPOKEN: Mutex<Option<HashMap<String, Arc<[u8]>>>> = Mutex::new(None);
    let mut spoken = SPOKEN.lock().unwrap();
    let spoken = spoken.get_or_insert_with(HashMap::new);
    spoken.entry(text.to_owned()).or_insert_with(|| speak(text)).clone()
}

fn speak(text: &str) -> Arc<[u8]> {
    let name = format!("voxgate-say-{}-{}.wav", std::process::id(), text.len());
    let file = std::env::temp_dir().join(name);
    let done = super::run("tests/services/speak.sh", &[text, file.to_str().unwrap()]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let audio = sound::read_wav(&file).unwrap();
    let _ = std::fs::remove_file(&file);
    audio.into()
}

/// Something loud that is no speech: 300 Hz for `ms` milliseconds.
pub fn tone(ms: usize) -> Arc<[u8]> {
    let sample = |i: usize| (8_000.0 * (i as f32 * 300.0 * std::f32::consts::TAU / 8_000.0).sin()) as i16;
    (0..ms * 8).map(|i| voxgate::audio::mulaw::encode(sample(i))).collect()
}
