//! The containers against files from their usual encoders (tests/audio/make.sh), which hold what can
//! be computed here: a sweep, or the shipped apology.

use super::*;
use crate::audio::{APOLOGY, Hint, Resampler, SpeechDecoder, mulaw};
use proptest::prelude::*;
use std::f64::consts::TAU;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/audio/", $name)).as_slice()
    };
}

const MP3_8K: &[u8] = fixture!("sweep-8k-mono-24.mp3");
const MP3_16K: &[u8] = fixture!("sweep-16k-mono-32.mp3");
const MP3_24K: &[u8] = fixture!("sweep-24k-mono-64.mp3");
const MP3_VBR: &[u8] = fixture!("sweep-44k-mono-vbr.mp3");
const MP3_JOINT: &[u8] = fixture!("sweep-44k-joint-128.mp3");
const MP3_SPEECH: &[u8] = fixture!("speech-24k-mono-64.mp3");
const OGG_24K: &[u8] = fixture!("sweep-24k-mono.ogg");
const OGG_STEREO: &[u8] = fixture!("sweep-44k-stereo.ogg");
const FLAC_16K: &[u8] = fixture!("sweep-16k-mono.flac");
const FLAC_STEREO: &[u8] = fixture!("sweep-44k-stereo.flac");

const ALL: [&[u8]; 10] =
    [MP3_8K, MP3_16K, MP3_24K, MP3_VBR, MP3_JOINT, MP3_SPEECH, OGG_24K, OGG_STEREO, FLAC_16K, FLAC_STEREO];

#[derive(Debug, PartialEq)]
struct Decoded {
    sound: Vec<u8>,
    result: Result<(), NotSpeech>,
    kind: String,
}

fn decode(bytes: &[u8], chunk: usize) -> Decoded {
    let mut decoder = SpeechDecoder::new(Hint::new(Some("audio/mpeg"), 24_000));
    let mut sound = Vec::new();
    let mut result = bytes.chunks(chunk).try_for_each(|c| decoder.push(c, &mut sound));
    if result.is_ok() {
        result = decoder.finish(&mut sound);
    }
    Decoded { sound, result, kind: decoder.kind().map(|k| k.to_string()).unwrap_or_default() }
}

fn heard(bytes: &[u8]) -> Vec<u8> {
    let d = decode(bytes, 1_400);
    assert_eq!(d.result, Ok(()), "{}", d.kind);
    d.sound
}

fn refused(bytes: &[u8]) -> String {
    decode(bytes, 1_400).result.expect_err("refused").to_string()
}

/// What the files hold, at 8 kHz.
fn sweep(rate: u32, ms: u32, loudness: f64) -> Vec<f32> {
    let sample = |i: u32| {
        let t = f64::from(i) / f64::from(rate);
        (8_000.0 * loudness * (TAU * (200.0 * t + 3_000.0 / 1.2 * t * t)).sin()) as f32
    };
    let mut resampler = Resampler::new(rate);
    let mut out = Vec::new();
    resampler.push(&(0..rate * ms / 1_000).map(sample).collect::<Vec<_>>(), &mut out);
    resampler.finish(&mut out);
    out
}

fn snr_db(sound: &[u8], want: &[f32]) -> f64 {
    assert_eq!(sound.len(), want.len());
    let power = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let wrong = sound.iter().zip(want).map(|(b, x)| f32::from(mulaw::decode(*b)) - x);
    10.0 * (power(&mut want.iter().copied()) / power(&mut { wrong })).log10()
}

/// The largest step from one sample to the next.
fn step(sound: &[u8]) -> u32 {
    let step = |w: &[u8]| (i32::from(mulaw::decode(w[0])) - i32::from(mulaw::decode(w[1]))).unsigned_abs();
    sound.windows(2).map(step).max().unwrap_or(0)
}

#[test]
fn a_sweep_comes_out_in_time_and_as_clean_as_it_was_encoded() {
    let both = 0.75;
    for (file, kind, rate, ms, loudness, least) in [
        (MP3_8K, "mp3 8000 Hz", 8_000, 600, 1.0, 24.0),
        (MP3_24K, "mp3 24000 Hz", 24_000, 600, 1.0, 25.0),
        (MP3_VBR, "mp3 44100 Hz", 44_100, 600, 1.0, 34.0),
        (MP3_JOINT, "mp3 44100 Hz, 2 channels", 44_100, 600, both, 24.0),
        (OGG_24K, "ogg vorbis 24000 Hz", 24_000, 600, 1.0, 24.0),
        (OGG_STEREO, "ogg vorbis 44100 Hz, 2 channels", 44_100, 600, both, 25.0),
        (FLAC_16K, "flac 16000 Hz", 16_000, 600, 1.0, 39.0),
        (FLAC_STEREO, "flac 44100 Hz, 2 channels", 44_100, 200, both, 36.0),
    ] {
        let d = decode(file, 1_400);
        assert_eq!((d.result, &*d.kind), (Ok(()), kind));
        let want = sweep(rate, ms, loudness);
        // As much as the encoder has left; a decoder in a hurry, or late by a sample, loses 10 dB of it.
        let snr = snr_db(&d.sound, &want);
        assert!(snr > least, "{kind}: {snr:.1} dB");
        // 3,200 Hz at full strength moves by this much; a click would be more.
        assert!(step(&d.sound) < 17_000, "{kind}: {}", step(&d.sound));
    }
}

#[test]
fn speech_is_the_speech_that_was_encoded() {
    let want: Vec<f32> = APOLOGY[..8_000].iter().map(|b| f32::from(mulaw::decode(*b))).collect();
    let snr = snr_db(&heard(MP3_SPEECH), &want);
    assert!(snr > 23.0, "{snr:.1} dB");
}

#[test]
fn chunks_make_no_difference() {
    let tag = [&b"TAG"[..], &[b'O'; 125]].concat();
    let tagged = ALL.map(|file| [file, &tag, &id3v2(300), file, &tag].concat());
    for file in ALL.into_iter().chain(tagged.iter().map(|file| &file[..])) {
        let whole = decode(file, usize::MAX);
        for chunk in [1, 7, 191, 1_400, 5_000] {
            assert_eq!(decode(file, chunk), whole, "{chunk}");
        }
    }
}

#[test]
fn the_first_sound_comes_as_soon_as_the_codec_allows() {
    // MP3: the frame with the file's length, the two that hold the encoder's delay, and one more.
    // Ogg: 3,300 bytes of headers. FLAC: one frame, and the header of the next.
    for (file, most) in
        [(MP3_24K, 4 * 192), (MP3_JOINT, 4 * 418), (MP3_16K, 4 * 144), (OGG_24K, 3_600), (FLAC_STEREO, 900)]
    {
        let mut decoder = SpeechDecoder::new(Hint::new(Some("audio/mpeg"), 24_000));
        let mut out = Vec::new();
        let first = file.iter().position(|b| {
            assert_eq!(decoder.push(&[*b], &mut out), Ok(()));
            !out.is_empty()
        });
        assert!(first.is_some_and(|at| at < most), "{first:?} of {most}");
    }
}

#[test]
fn a_file_cut_short_is_heard_up_to_there() {
    for file in ALL {
        let whole = heard(file);
        let cut = heard(&file[..file.len() - 400]);
        assert!(cut.len() < whole.len() && cut.len() > 900, "{} of {}", cut.len(), whole.len());
        // The end of what there is has been through the filter without what is missing.
        let same = cut.len() - 320;
        assert_eq!(cut[..same], whole[..same]);
    }
}

#[test]
fn two_files_joined_are_heard_one_after_the_other() {
    for (file, rate, loudness) in [
        (MP3_24K, 24_000, 1.0),
        (MP3_JOINT, 44_100, 0.75),
        (OGG_24K, 24_000, 1.0),
        (OGG_STEREO, 44_100, 0.75),
        (FLAC_16K, 16_000, 1.0),
    ] {
        let want = sweep(rate, 600, loudness).repeat(2);
        let sound = heard(&file.repeat(2));
        let snr = snr_db(&sound, &want);
        assert!(snr > 24.0, "{rate}: {snr:.1} dB");
        assert!(step(&sound) < 17_000, "{rate}: {}", step(&sound));
    }
    for (a, b) in [(MP3_24K, MP3_JOINT), (MP3_JOINT, MP3_8K), (OGG_24K, OGG_STEREO), (FLAC_16K, FLAC_STEREO)]
    {
        assert_eq!(heard(&[a, b].concat()), [heard(a), heard(b)].concat());
    }
}

fn id3v2(len: usize) -> Vec<u8> {
    let mut tag = b"ID3\x04\0\0".to_vec();
    tag.extend([21, 14, 7, 0].map(|shift| (len >> shift & 0x7F) as u8));
    // A picture, with what looks like frames in it.
    tag.extend(MP3_JOINT.iter().cycle().take(len));
    tag
}

#[test]
fn tags_are_passed_over_and_not_held() {
    let sound = heard(MP3_24K);
    let id3v1 = [&b"TAG"[..], &[b' '; 125]].concat();
    let ape = [&b"APETAGEX\xD0\x07\0\0\x40\0\0\0\x01\0\0\0\0\0\0\0"[..], &[0; 8], &[b'x'; 32]].concat();
    assert_eq!(heard(&[&id3v2(300_000), MP3_24K, &ape, &id3v1].concat()), sound);
    let joined = [&id3v2(700), MP3_24K, &id3v1, &id3v2(90_000), MP3_24K, &id3v1].concat();
    assert_eq!(heard(&joined), heard(&MP3_24K.repeat(2)));
    assert_eq!(heard(&[FLAC_16K, &id3v1].concat()), heard(FLAC_16K));
    assert_eq!(heard(&[OGG_24K, &id3v1].concat()), heard(OGG_24K));
    let mut encoded = Encoded::mp3();
    let mut out = Vec::new();
    for chunk in id3v2(300_000).chunks(1_000) {
        assert_eq!(encoded.push(chunk, &mut out), Ok(()));
        assert!(encoded.held.len() <= 10);
    }
}

#[test]
fn a_length_that_is_wrong_cuts_nothing_off() {
    // The frame that says so says 27 frames.
    let at = MP3_24K.windows(4).position(|w| w == b"Info").expect("a frame with the length") + 8;
    assert_eq!(MP3_24K[at..at + 4], [0, 0, 0, 27]);
    let mut file = MP3_24K.to_vec();
    file[at + 3] = 9;
    // Then it does not say either where the padding begins.
    let sound = heard(&file);
    assert_eq!(sound.len(), 4_800 + (576 - 529) / 3 + 1);
    assert_eq!(sound[..4_400], heard(MP3_24K)[..4_400]);
}

#[test]
fn a_packet_may_end_with_nothing() {
    let mut pages = Vec::new();
    let mut rest = OGG_24K;
    while !rest.is_empty() {
        let (head, body) = rest.split_at(27 + usize::from(rest[26]));
        let len = head[27..].iter().map(|n| usize::from(*n)).sum::<usize>();
        pages.push((head, &body[..len]));
        rest = &body[len..];
    }
    let (last, body) = pages.pop().expect("pages");
    // Padded to 255 bytes, which Vorbis does not mind, the last packet ends in a segment of none.
    let mut head = last.to_vec();
    let end = head.len() - 1;
    let short = 255 - usize::from(head[end]);
    head[end] = 255;
    head.push(0);
    head[26] += 1;
    let file: Vec<u8> = pages.iter().flat_map(|(head, body)| [*head, *body].concat()).collect();
    for chunk in [1, 300, usize::MAX] {
        let d = decode(&[&file, &head, body, &vec![0; short]].concat(), chunk);
        assert_eq!((d.result, d.sound.len()), (Ok(()), 4_800));
    }
}

#[test]
fn what_is_not_played_is_refused_by_name() {
    assert!(refused(fixture!("tiny.opus")).starts_with("Ogg Opus, which this version does not play"));
    assert!(refused(fixture!("tiny.mp2")).starts_with("MPEG layer II, which"));
    let free = [&[0xFF, 0xFB, 0x00, 0xC4][..], &[0x55; 400]].concat();
    assert!(refused(&free).starts_with("free-format MP3, which"));
    assert!(refused(&[&id3v2(50), &free[..]].concat()).starts_with("free-format MP3, which"));
    let mut deep = FLAC_16K.to_vec();
    deep[20] |= 1;
    deep[21] |= 0xF0;
    assert!(refused(&deep).starts_with("FLAC beyond the streamable subset"));
    assert_eq!(refused(&[&id3v2(9), &[b'x'; 99][..]].concat()), "MP3 without any sound");
}

#[test]
fn what_never_completes_is_refused_and_not_held_for_long() {
    let endless = |start: &[u8], rest: &[u8]| -> (String, usize) {
        let mut encoded = match start[0] {
            b'O' => Encoded::ogg(),
            b'f' => Encoded::flac(),
            _ => Encoded::mp3(),
        };
        let (mut out, mut most) = (Vec::new(), 0);
        let mut result = encoded.push(start, &mut out);
        for _ in 0..400 {
            result = result.and_then(|()| encoded.push(&rest.repeat(1.max(4_096 / rest.len())), &mut out));
            most = most.max(encoded.held.len());
        }
        (result.expect_err("refused").to_string(), most)
    };
    let (why, most) = endless(b"\xFF\xFB", &[0x11]);
    assert_eq!(why, "a broken MP3: 64 KiB without a frame");
    assert!(most < 32 * 1024, "{most}");
    let (why, most) = endless(&id3v2(20), &[0xFF, 0xFB, 0x90, 0x44, 0xFF, 0xFF]);
    assert_eq!(why, "a broken MP3: 64 KiB without a frame");
    assert!(most < 32 * 1024, "{most}");
    let page = [&OGG_24K[..26], &[255], &[255; 255], &[1; 255 * 255]].concat();
    let mut next = page.clone();
    next[5] = 1;
    let (why, most) = endless(&page, &next);
    assert_eq!(why, "a broken Ogg Vorbis: a packet of more than 64 KiB");
    assert!(most < 32 * 1024, "{most}");
    let (why, most) = endless(&OGG_24K[..58], &next);
    assert_eq!(why, "a broken Ogg Vorbis: comments of more than 16 MiB");
    assert!(most < 32 * 1024, "{most}");
    let (why, most) = endless(&FLAC_16K[..900], &[0x55]);
    assert_eq!(why, "a broken FLAC: a frame of more than 256 KiB");
    assert!(most < 300 * 1024, "{most}");
    let block = [&FLAC_16K[..4], &[0x00], &FLAC_16K[5..42]].concat();
    assert_eq!(endless(&block, &[4, 0xFF, 0xFF, 0xFF]).0, "a broken FLAC: more than 16 MiB before the sound");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn broken_files_do_no_harm_and_chunks_make_no_difference_to_them(
        file in prop::sample::select(ALL.to_vec()),
        front in prop::collection::vec((0usize..400, any::<u8>()), 0..4),
        anywhere in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        (from, len) in (any::<prop::sample::Index>(), 0usize..600),
        chunk in 1usize..3_000,
    ) {
        let mut bytes = [file, &[b'T'; 40]].concat();
        front.iter().for_each(|(at, b)| bytes[*at] = *b);
        anywhere.iter().for_each(|(at, b)| bytes[at.index(file.len())] = *b);
        let from = from.index(file.len());
        bytes.drain(from..(from + len).min(file.len()));
        let whole = decode(&bytes, usize::MAX);
        for chunk in [13, chunk] {
            let cut = decode(&bytes, chunk);
            prop_assert_eq!(&cut.result, &whole.result);
            prop_assert_eq!(&cut.kind, &whole.kind);
            prop_assert!(cut.sound == whole.sound, "{} and {} bytes", cut.sound.len(), whole.sound.len());
        }
    }
}
