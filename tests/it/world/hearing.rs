//! What the caller heard, compared with what was to be heard.

use std::time::Duration;

use voxgate::audio::{FRAME_BYTES, level};
use voxgate::cli::call::CallReport;
use voxgate::cli::call::carrier::AUDIBLE_RMS;
use voxgate::cli::call::report::What;

/// Bytes of μ-law in a millisecond.
pub const MS: usize = 8;

/// What was heard from one moment of the call to another, less the gaps that the caller noted where
/// audio came late: on a busy machine that is as often this caller's fault as the gateway's.
pub fn heard(call: &CallReport, from: Duration, to: Duration) -> Vec<u8> {
    let at = |time: Duration| (time.as_micros() as usize / 125).min(call.heard.len());
    let (mut heard, mut from) = (Vec::new(), at(from));
    let gaps = call.timeline.iter().filter_map(|moment| match moment.what {
        What::Underrun { gap } => Some((Duration::from_millis(moment.ms), gap)),
        _ => None,
    });
    for (end, gap) in gaps.filter(|(end, _)| (from..at(to)).contains(&at(*end))).collect::<Vec<_>>() {
        heard.extend_from_slice(&call.heard[from..at(end.saturating_sub(gap)).max(from)]);
        from = at(end);
    }
    heard.extend_from_slice(&call.heard[from..at(to)]);
    heard
}

/// What was heard of the reply to the `turn`th utterance (from 0), without the silence around it: up
/// to the next utterance, or to the end of the call.
pub fn reply(call: &CallReport, turn: usize) -> Vec<u8> {
    let from = call.turns[turn].reply_at.unwrap_or_else(|| panic!("no reply to utterance {turn}"));
    let to = call.turns.get(turn + 1).map_or(call.duration, |next| next.said_at);
    sound(&heard(call, from, to)).to_vec()
}

/// Without the silence before and after.
pub fn sound(audio: &[u8]) -> &[u8] {
    let is_loud = |frame: &[u8]| level::rms(frame) > AUDIBLE_RMS;
    let first = audio.chunks(FRAME_BYTES).position(is_loud).unwrap_or(0) * FRAME_BYTES;
    let last = audio.chunks(FRAME_BYTES).rposition(is_loud).map_or(0, |last| last + 1) * FRAME_BYTES;
    &audio[first..last.min(audio.len()).max(first)]
}

/// How alike two sounds are, from 0 to 1: the correlation of their level over time, in steps of 10 ms
/// and wherever it is best within 60 ms. Another sentence of the same voice has about 0.3.
pub fn likeness(a: &[u8], b: &[u8]) -> f32 {
    let b = levels(b);
    let shifted = |shift: usize| correlation(&levels(&a[shift.min(a.len())..]), &b);
    let late = |shift: usize| correlation(&levels(a), &b[shift.min(b.len())..]);
    let early = (0..60 * MS).step_by(2 * MS).map(shifted);
    early.chain((0..6).map(late)).fold(0.0, f32::max)
}

/// Asserts that these are the same words in the same voice: as long, and alike.
#[track_caller]
pub fn assert_alike(heard: &[u8], expected: &[u8], what: &str) {
    let (heard, expected) = (sound(heard), sound(expected));
    let (is, ought) = (heard.len() / MS, expected.len() / MS);
    assert!(is.abs_diff(ought) <= 60 + ought / 50, "{what}: {is} ms were heard of {ought} ms");
    let alike = likeness(heard, expected);
    assert!(alike > 0.9, "{what}: only {alike:.2} alike");
}

/// Where this audio was heard, byte for byte.
pub fn find(heard: &[u8], audio: &[u8]) -> Option<usize> {
    heard.windows(audio.len()).position(|window| window == audio)
}

/// Asserts that nothing was to be heard but these pieces of audio, byte for byte and in this order.
#[track_caller]
pub fn assert_only(heard: &[u8], pieces: &[&[u8]], what: &str) {
    let mut rest = heard;
    let quiet = |audio: &[u8]| {
        let ms = sound(audio).len() / MS;
        assert!(ms == 0, "{what}: {ms} ms were heard that should not be");
    };
    for (number, piece) in pieces.iter().enumerate() {
        let at = find(rest, piece).unwrap_or_else(|| panic!("{what}: piece {number} was not heard"));
        quiet(&rest[..at]);
        rest = &rest[at + piece.len()..];
    }
    quiet(rest);
}

/// The level of 20 ms, every 10 ms.
fn levels(audio: &[u8]) -> Vec<f32> {
    audio.windows(FRAME_BYTES).step_by(FRAME_BYTES / 2).map(level::rms).collect()
}

fn correlation(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len().min(b.len());
    let mean = |x: &[f32]| x[..n].iter().sum::<f32>() / n.max(1) as f32;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    ab / (aa * bb).sqrt().max(f32::MIN_POSITIVE)
}
