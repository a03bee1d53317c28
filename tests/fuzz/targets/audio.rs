//! What a text-to-speech service returns.

use arbitrary::{Arbitrary, Unstructured};
use voxgate::audio::{Hint, NotSpeech, SpeechDecoder};

/// A kilobyte of the densest compression there is can hold minutes of silence; of an answer of the size
/// that the fuzzer makes, more than this has come from nowhere.
const MOST: usize = 64 << 20;

#[derive(Arbitrary, Debug)]
struct Told {
    content_type: u8,
    pcm_rate: u16,
    /// Lengths of the pieces in which it comes, again and again.
    pieces: [u8; 4],
}

/// What types a service may say, and one that it may not.
const TYPES: [Option<&str>; 16] = [
    None,
    Some("audio/wav"),
    Some("audio/mpeg"),
    Some("audio/ogg; codecs=vorbis"),
    Some("audio/flac"),
    Some("audio/L16; rate=24000"),
    Some("audio/L16; rate=8000; channels=2; endianness=big-endian"),
    Some("audio/pcm;rate=16000"),
    Some("audio/basic"),
    Some("audio/x-mulaw;rate=8000"),
    Some("audio/x-alaw-basic"),
    Some("audio/pcm;encoding=float;rate=44100"),
    Some("application/octet-stream"),
    Some("application/json"),
    Some("text/html; charset=utf-8"),
    Some("audio/L16; rate=192000; channels=65535"),
];

struct Decoded {
    sound: Vec<u8>,
    result: Result<(), NotSpeech>,
    kind: Option<String>,
}

/// However an answer is cut into pieces, the same sound comes out, and the same error; after an error
/// nothing more does.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(told) = Told::arbitrary(&mut input) else { return };
    let bytes = input.take_rest();
    let content_type = TYPES[usize::from(told.content_type) % TYPES.len()];
    let hint = Hint::new(content_type, u32::from(told.pcm_rate));
    let whole = decode(hint.clone(), std::iter::once(bytes));
    assert!(whole.sound.len() < MOST, "{} bytes of {}", whole.sound.len(), bytes.len());
    let cut = decode(hint, cut(bytes, told.pieces));
    assert_eq!(cut.result, whole.result, "{told:?}");
    assert_eq!(cut.kind, whole.kind, "{told:?}");
    assert!(cut.sound == whole.sound, "{} bytes, {} in pieces", whole.sound.len(), cut.sound.len());
}

fn cut(bytes: &[u8], lengths: [u8; 4]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    lengths.into_iter().cycle().map_while(move |length| {
        let (piece, behind) = rest.split_at(rest.len().min(usize::from(length) + 1));
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    })
}

fn decode<'a>(hint: Hint, pieces: impl Iterator<Item = &'a [u8]>) -> Decoded {
    let (mut decoder, mut sound) = (SpeechDecoder::new(hint), Vec::new());
    let mut result = Ok(());
    for piece in pieces {
        result = decoder.push(piece, &mut sound);
        if result.is_err() {
            break;
        }
    }
    if result.is_ok() {
        result = decoder.finish(&mut sound);
    }
    if let Err(error) = &result {
        let length = sound.len();
        assert!(!error.to_string().is_empty());
        let _ = decoder.push(b"RIFF", &mut sound);
        let _ = decoder.finish(&mut sound);
        assert_eq!(sound.len(), length, "sound after {error}");
    }
    Decoded { sound, result, kind: decoder.kind().map(|kind| kind.to_string()) }
}
