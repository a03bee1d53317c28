//! What a caller hears of a speech service's audio, against a reference that shares no code with it: sox
//! decodes the same file (libmad, libvorbis, libFLAC) and brings it to 8 kHz by its own best filter. The
//! bound is what μ-law itself costs on that reference; both are compared in the telephone's band, since no
//! two filters agree on what happens between 3.4 and 4 kHz.

use std::f64::consts::PI;
use std::path::{Path, PathBuf};

use voxgate::audio::{Hint, SpeechDecoder, mulaw};

use crate::world::run;

const RATES: [u32; 6] = [8_000, 16_000, 22_050, 24_000, 44_100, 48_000];

/// What a file is called, and what sox is told to write it.
const KINDS: [(&str, &[&str]); 4] =
    [("wav", &["-b", "16"]), ("flac", &["-b", "16"]), ("ogg", &["-C", "5"]), ("mp3", &["-C", "64"])];

/// The most by which our filter may be late against the reference, in samples: 31 µs, a matter of where
/// an odd block has its middle, and nothing that can be heard.
const MOST_DELAY: f64 = 0.25;

struct Folder(PathBuf);

impl Folder {
    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn sox(&self, args: &[&str]) {
        let done = run("sox", &[&["-D", "-V1"], args].concat());
        assert!(done.status.success(), "sox {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// What of a file's sound is in the telephone's band: 8 kHz, 16 bits.
    fn in_band(&self, file: &str) -> Vec<f64> {
        let out = self.file("band.raw");
        self.sox(&[file, "-t", "raw", "-e", "signed", "-b", "16", "-c", "1", &out, "sinc", "200-3400"]);
        let bytes = std::fs::read(&out).unwrap();
        bytes.chunks_exact(2).map(|two| f64::from(i16::from_le_bytes([two[0], two[1]]))).collect()
    }

    fn mulaw_in_band(&self, sound: &[u8]) -> Vec<f64> {
        let file = self.file("heard.wav");
        let pcm: Vec<u8> = sound.iter().flat_map(|byte| mulaw::decode(*byte).to_le_bytes()).collect();
        let raw = self.file("heard.raw");
        std::fs::write(&raw, pcm).unwrap();
        self.sox(&["-t", "raw", "-e", "signed", "-b", "16", "-r", "8000", "-c", "1", &raw, &file]);
        self.in_band(&file)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn decoded(bytes: &[u8], chunk: usize) -> Vec<u8> {
    let mut decoder = SpeechDecoder::new(Hint::new(None, 24_000));
    let mut out = Vec::new();
    bytes.chunks(chunk).for_each(|piece| decoder.push(piece, &mut out).unwrap());
    decoder.finish(&mut out).unwrap();
    out
}

/// How far a sound is above its difference from the reference, without the edges.
fn snr_db(sound: &[f64], reference: &[f64]) -> f64 {
    let inner = 400..sound.len().min(reference.len()) - 400;
    let power = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
    let wrong = sound[inner.clone()].iter().zip(&reference[inner.clone()]).map(|(a, b)| a - b);
    10.0 * (power(&mut reference[inner].iter().copied()) / power(&mut { wrong })).log10()
}

/// The same sound, later by a part of a sample.
fn delayed(sound: &[f64], by: f64) -> Vec<f64> {
    const REACH: i32 = 24;
    let tap = |n: i32| {
        let x = f64::from(n) - by;
        let window = 0.5 + 0.5 * (PI * x / f64::from(REACH + 1)).cos();
        window * if x.abs() < 1e-9 { 1.0 } else { (PI * x).sin() / (PI * x) }
    };
    let taps: Vec<f64> = (-REACH..=REACH).map(tap).collect();
    let padded = [vec![0.0; REACH as usize], sound.to_vec(), vec![0.0; REACH as usize]].concat();
    padded
        .windows(taps.len())
        .map(|near| near.iter().zip(taps.iter().rev()).map(|(a, b)| a * b).sum())
        .collect()
}

/// By how much a sound is later than the reference, to a thousandth of a sample.
fn delay(sound: &[f64], reference: &[f64]) -> f64 {
    let (sound, reference) = (&sound[..6_000], &reference[..6_000]);
    let (mut low, mut high) = (-MOST_DELAY, MOST_DELAY);
    while high - low > 0.001 {
        let third = (high - low) / 3.0;
        let snr = |by: f64| snr_db(sound, &delayed(reference, by));
        if snr(low + third) < snr(high - third) { low += third } else { high -= third }
    }
    low.midpoint(high)
}

/// Judges a sound in each rate and kind of file.
fn judge(folder: &Folder, name: &str, master: &str) {
    for rate in RATES {
        let hz = rate.to_string();
        let mut row = format!("{name:<6} {rate:>5} Hz:");
        let mut late = None;
        for (kind, options) in KINDS {
            let file = folder.file(&format!("{name}-{rate}.{kind}"));
            folder.sox(&[&[master, "-r", &hz, "-c", "1"], options, &[&file]].concat());
            let reference_file = folder.file("reference.wav");
            folder.sox(&[&file, "-b", "16", &reference_file, "rate", "-v", "8000"]);
            let reference = folder.in_band(&reference_file);

            let bytes = std::fs::read(&file).unwrap();
            let sound = decoded(&bytes, 1_400);
            let heard = folder.mulaw_in_band(&sound);
            let late = *late.get_or_insert_with(|| delay(&heard, &reference));
            let snr = snr_db(&heard, &delayed(&reference, late));
            // What the line does to the reference itself.
            let line = folder.mulaw_in_band(&decoded(&std::fs::read(&reference_file).unwrap(), usize::MAX));
            let bound = snr_db(&line, &reference);
            row += &format!(" {kind} {snr:.1} of {bound:.1} dB,");
            assert!(snr > bound - 1.0, "{row} which is less than μ-law allows");
            for chunk in [1, 7, 100, 1_000] {
                assert!(decoded(&bytes, chunk) == sound, "{kind} at {rate} Hz in chunks of {chunk}");
            }
        }
        println!("{row} {:.0} µs late", late.unwrap() * 125.0);
    }
}

fn folder(name: &str) -> Folder {
    let folder = std::env::temp_dir().join(format!("voxgate-quality-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    Folder(folder)
}

#[test]
fn speech_is_as_good_as_the_line_allows() {
    let folder = folder("speech");
    let (spoken, master) = (folder.file("spoken.wav"), folder.file("master.wav"));
    let text = "She sells sea shells by the window.";
    assert!(run(Path::new("espeak-ng"), &["-w", &spoken, text]).status.success());
    folder.sox(&[&spoken, "-r", "48000", "-b", "24", &master, "rate", "-v", "gain", "-n", "-6"]);
    judge(&folder, "speech", &master);
}

#[test]
fn a_sweep_is_as_good_as_the_line_allows() {
    let folder = folder("sweep");
    let master = folder.file("master.wav");
    folder.sox(&[
        "-n", "-r", "48000", "-b", "24", "-c", "1", &master, "synth", "1", "sine", "250:3300", "gain", "-6",
    ]);
    judge(&folder, "sweep", &master);
}
