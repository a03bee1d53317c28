//! From the answer of a text-to-speech service, as it arrives, to what the carrier plays.
//!
//! What is not speech is never turned into sound: an error text played as audio is a burst of noise
//! in the caller's ear. And what is announced is checked against what comes.

use super::encoded::Encoded;
use super::format::{Coding, Format};
use super::hint::Hint;
use super::not_speech::beginning;
use super::raw::{self, Layout, Verdict};
use super::sniff::{self, Content};
use super::sound::Sound;
use super::wav::HeaderReader;
use super::{NotSpeech, SAMPLE_RATE};

/// Decodes one answer. What comes out does not depend on how the bytes were cut into chunks.
pub struct SpeechDecoder {
    hint: Hint,
    stage: Stage,
    kind: Option<Kind>,
}

enum Stage {
    /// Held back until it is clear what they are: `need` bytes at the next look.
    Sniffing {
        held: Vec<u8>,
        need: usize,
    },
    Header(HeaderReader),
    Sound(Box<Sound>),
    Encoded(Box<Encoded>),
    Failed(NotSpeech),
    Finished,
}

/// What is being played, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub container: Container,
    pub rate: u32,
    pub channels: u16,
    /// What was announced, where the bytes proved it wrong.
    pub announced: Option<Coding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    Wav(Coding),
    Raw(Coding),
    Mp3,
    OggVorbis,
    Flac,
}

impl Kind {
    fn plain(container: Container, format: Format, announced: Option<Coding>) -> Kind {
        Kind { container, rate: format.rate, channels: format.channels, announced }
    }

    /// Known when the first frame has been decoded. Whatever coding was announced, it was not this.
    fn encoded(encoded: &Encoded, hint: &Hint) -> Option<Kind> {
        let (rate, channels) = encoded.shape()?;
        Some(Kind { container: encoded.container(), rate, channels, announced: hint.coding })
    }
}

impl Container {
    /// As in a sentence.
    pub(super) fn name(self) -> &'static str {
        match self {
            Container::Wav(_) => "WAV",
            Container::Raw(_) => "raw sound",
            Container::Mp3 => "MP3",
            Container::OggVorbis => "Ogg Vorbis",
            Container::Flac => "FLAC",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.container {
            Container::Wav(coding) => write!(f, "wav {coding}")?,
            Container::Raw(coding) => write!(f, "raw {coding}")?,
            Container::Mp3 => write!(f, "mp3")?,
            Container::OggVorbis => write!(f, "ogg vorbis")?,
            Container::Flac => write!(f, "flac")?,
        }
        write!(f, " {} Hz", self.rate)?;
        if self.channels != 1 {
            write!(f, ", {} channels", self.channels)?;
        }
        match self.announced {
            Some(coding) => write!(f, ", announced as {coding}"),
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for SpeechDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpeechDecoder")
            .field("hint", &self.hint)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl SpeechDecoder {
    pub fn new(hint: Hint) -> SpeechDecoder {
        let stage = Stage::Sniffing { held: Vec::new(), need: sniff::MAGIC };
        SpeechDecoder { hint, stage, kind: None }
    }

    /// What the bytes turned out to be, as soon as it is known.
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// Takes a chunk of the answer and appends what can be played of it: μ-law, 8 kHz, mono. After
    /// an error the rest of the answer has the same error.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), NotSpeech> {
        while !bytes.is_empty() {
            match &mut self.stage {
                Stage::Sniffing { held, need } => {
                    // Looking at these places only, whatever the chunks, keeps the answer the same.
                    let (now, later) = bytes.split_at(bytes.len().min(*need - held.len()));
                    held.extend_from_slice(now);
                    bytes = later;
                    if held.len() == *need {
                        self.look(false, out)?;
                    }
                }
                Stage::Header(reader) => match reader.push(&mut bytes) {
                    Ok(None) => {}
                    Ok(Some(data)) => {
                        let container = Container::Wav(data.format.coding);
                        self.kind = Some(Kind::plain(container, data.format, None));
                        self.stage = Stage::Sound(Box::new(Sound::new(data.format, data.len)));
                    }
                    Err(e) => return self.fail(e),
                },
                Stage::Sound(sound) => {
                    sound.push(bytes, out);
                    break;
                }
                Stage::Encoded(encoded) => {
                    let result = encoded.push(bytes, out);
                    self.kind = Kind::encoded(encoded, &self.hint);
                    return result.or_else(|e| self.fail(e));
                }
                Stage::Failed(e) => return Err(e.clone()),
                Stage::Finished => break,
            }
        }
        Ok(())
    }

    /// The answer is over: appends what was held back.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), NotSpeech> {
        if matches!(self.stage, Stage::Sniffing { .. }) {
            self.look(true, out)?;
        }
        match std::mem::replace(&mut self.stage, Stage::Finished) {
            Stage::Sniffing { .. } => self.fail(NotSpeech::Empty),
            Stage::Header(_) => self.fail(NotSpeech::WavNoAudio),
            Stage::Sound(mut sound) => {
                sound.finish(out);
                match self.kind.map(|k| k.container) {
                    Some(Container::Wav(_)) if !sound.heard() => self.fail(NotSpeech::WavNoAudio),
                    _ if !sound.heard() => self.fail(NotSpeech::Empty),
                    _ => Ok(()),
                }
            }
            Stage::Encoded(mut encoded) => {
                let result = encoded.finish(out);
                self.kind = Kind::encoded(&encoded, &self.hint);
                result.or_else(|e| self.fail(e))
            }
            Stage::Failed(e) => self.fail(e),
            Stage::Finished => Ok(()),
        }
    }

    /// Looks at what is held; goes on to the next stage, or sets how much is needed to tell.
    fn look(&mut self, complete: bool, out: &mut Vec<u8>) -> Result<(), NotSpeech> {
        let Stage::Sniffing { held, need } = &mut self.stage else { return Ok(()) };
        if held.is_empty() {
            return self.fail(NotSpeech::Empty);
        }
        let content = match sniff::sniff(held, complete, self.hint.mp3) {
            Ok(content) => content,
            Err(more) => {
                *need = more.max(held.len() + 1);
                return Ok(());
            }
        };
        let mut skip = 0;
        let stage = match content {
            Content::Wav => Stage::Header(HeaderReader::default()),
            Content::Mp3 => Stage::Encoded(Box::new(Encoded::mp3())),
            Content::Ogg => Stage::Encoded(Box::new(Encoded::ogg())),
            Content::Flac => Stage::Encoded(Box::new(Encoded::flac())),
            Content::Raw => {
                let seen = match raw::look(held, complete, self.hint.patience(), self.hint.coding) {
                    Verdict::Need(more) => {
                        *need = more.max(held.len() + 1);
                        return Ok(());
                    }
                    Verdict::Clear(_) | Verdict::Unclear if self.hint.file && raw::is_noise(held) => {
                        return self.fail(NotSpeech::Noise);
                    }
                    Verdict::Clear(layout) => Some(layout),
                    Verdict::Unclear => None,
                };
                skip = usize::from(seen == Some(Layout::LittleOdd));
                let (format, announced) = self.hint.reconcile(seen);
                self.kind = Some(Kind::plain(Container::Raw(format.coding), format, announced));
                Stage::Sound(Box::new(Sound::new(format, None)))
            }
            Content::Encoded(name) => return self.fail(NotSpeech::Encoded(name)),
            Content::Json => {
                let e = NotSpeech::Json(beginning(held));
                return self.fail(e);
            }
            Content::Markup => {
                let e = NotSpeech::Markup(beginning(held));
                return self.fail(e);
            }
            Content::Text => {
                let e = NotSpeech::Text(beginning(held));
                return self.fail(e);
            }
        };
        let held = std::mem::take(held);
        self.stage = stage;
        self.push(held.get(skip..).unwrap_or_default(), out)
    }

    fn fail(&mut self, e: NotSpeech) -> Result<(), NotSpeech> {
        self.stage = Stage::Failed(e.clone());
        Err(e)
    }
}

impl Hint {
    /// Bytes of sound worth waiting for before the hint decides: 100 ms of what was announced.
    fn patience(&self) -> usize {
        let (bytes, rate) = match self.coding {
            Some(Coding::MuLaw | Coding::ALaw) => (1, self.rate.unwrap_or(SAMPLE_RATE)),
            _ => (2, self.rate.unwrap_or(self.pcm_rate)),
        };
        bytes * (rate / 10) as usize * usize::from(self.channels.min(2))
    }

    /// The format, from what was seen in the bytes and what was announced; and what was announced
    /// where that was wrong. Where neither says anything it is what the carrier plays as it is.
    fn reconcile(&self, seen: Option<Layout>) -> (Format, Option<Coding>) {
        let coding = match seen {
            Some(Layout::Whole(coding)) => coding,
            Some(Layout::LittleOdd) => Coding::Pcm16Le,
            None => self.coding.unwrap_or(Coding::MuLaw),
        };
        let companded = |c| matches!(c, Coding::MuLaw | Coding::ALaw);
        // A rate belongs to the coding it was announced with.
        let rate = self.rate.filter(|_| self.coding.is_none_or(|c| companded(c) == companded(coding)));
        let usual = if companded(coding) { SAMPLE_RATE } else { self.pcm_rate };
        let format = Format { coding, rate: rate.unwrap_or(usual), channels: self.channels };
        (format, self.coding.filter(|c| *c != coding))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{Frame, level, mulaw, wav};
    use proptest::prelude::*;
    use std::f64::consts::TAU;

    const AT_ONCE: usize = usize::MAX;

    struct Decoded {
        sound: Vec<u8>,
        result: Result<(), NotSpeech>,
        kind: String,
    }

    fn decode(content_type: &str, bytes: &[u8], chunk: usize) -> Decoded {
        let mut decoder = SpeechDecoder::new(Hint::new(Some(content_type), 24_000));
        let mut sound = Vec::new();
        let mut result = bytes.chunks(chunk).try_for_each(|c| decoder.push(c, &mut sound));
        if result.is_ok() {
            result = decoder.finish(&mut sound);
        }
        Decoded { sound, result, kind: decoder.kind().map(|k| k.to_string()).unwrap_or_default() }
    }

    /// For the many tests in which nothing is to be refused.
    fn heard(content_type: &str, bytes: &[u8]) -> (Vec<u8>, String) {
        let d = decode(content_type, bytes, AT_ONCE);
        assert_eq!(d.result, Ok(()), "{}", d.kind);
        (d.sound, d.kind)
    }

    fn refused(content_type: &str, bytes: &[u8]) -> String {
        let d = decode(content_type, bytes, 50);
        assert!(d.sound.is_empty(), "{} bytes of sound", d.sound.len());
        d.result.expect_err("not speech").to_string()
    }

    fn tone(hz: f64, rate: u32, ms: u32) -> Vec<i16> {
        let len = rate * ms / 1_000;
        (0..len).map(|i| (8_000.0 * (TAU * hz * f64::from(i) / f64::from(rate)).sin()) as i16).collect()
    }

    fn le(samples: &[i16]) -> Vec<u8> {
        samples.iter().flat_map(|s| s.to_le_bytes()).collect()
    }

    fn ulaw(samples: &[i16]) -> Vec<u8> {
        samples.iter().map(|s| mulaw::encode(*s)).collect()
    }

    fn wav_of(codec: u16, rate: u32, width: u16, data: &[u8]) -> Vec<u8> {
        let mut file = wav::header(data.len() as u32).to_vec();
        file[20..22].copy_from_slice(&codec.to_le_bytes());
        file[24..28].copy_from_slice(&rate.to_le_bytes());
        file[32..34].copy_from_slice(&width.to_le_bytes());
        file[34..36].copy_from_slice(&(width * 8).to_le_bytes());
        file.extend_from_slice(data);
        file
    }

    /// Strength of a tone in μ-law above all the rest, away from the edges.
    fn snr_db(hz: f64, sound: &[u8]) -> f64 {
        let x: Vec<f64> =
            sound[400..sound.len() - 400].iter().map(|b| f64::from(mulaw::decode(*b))).collect();
        let turn = TAU * hz / 8_000.0;
        let part = |f: fn(f64) -> f64| {
            x.iter().enumerate().map(|(i, v)| v * f(turn * i as f64)).sum::<f64>() * 2.0 / x.len() as f64
        };
        let (s, c) = (part(f64::sin), part(f64::cos));
        let rest: f64 = x
            .iter()
            .enumerate()
            .map(|(i, v)| (v - s * (turn * i as f64).sin() - c * (turn * i as f64).cos()).powi(2))
            .sum();
        10.0 * ((s * s + c * c) / 2.0 * x.len() as f64 / rest).log10()
    }

    #[test]
    fn a_tone_at_any_rate_is_as_pure_as_mu_law_can_be() {
        let best = snr_db(1_010.0, &ulaw(&tone(1_010.0, 8_000, 1_000)));
        for rate in [11_025, 16_000, 22_050, 24_000, 44_100, 48_000] {
            let pcm = le(&tone(1_010.0, rate, 1_000));
            for (bytes, how) in [(pcm.clone(), "raw"), (wav_of(1, rate, 2, &pcm), "wav")] {
                let d = decode(&format!("audio/pcm;rate={rate}"), &bytes, 333);
                assert_eq!((d.result, d.kind), (Ok(()), format!("{how} pcm16 {rate} Hz")));
                assert_eq!(d.sound.len(), 8_000);
                let snr = snr_db(1_010.0, &d.sound);
                assert!(snr > 30.0 && snr > best - 2.0, "{rate} {how}: {snr:.1} dB of {best:.1} dB");
                // Not a step between samples that the tone itself does not have: no click anywhere.
                let steps = d.sound.windows(2).map(|w| {
                    (i32::from(mulaw::decode(w[0])) - i32::from(mulaw::decode(w[1]))).unsigned_abs()
                });
                assert!(steps.max() < Some(7_000), "{rate} {how}");
            }
        }
    }

    #[test]
    fn a_file_that_is_none_is_not_played_as_noise() {
        // Each byte once in an order without an order: 167 is prime to 256.
        let scrambled: Vec<u8> = (0..2_000u32).map(|i| ((i * i / 2 * 167 + i * 89) >> 3) as u8).collect();
        assert!(refused("audio/wav", &scrambled).starts_with("noise: "));
        assert!(refused("audio/x-wav; rate=8000", &scrambled).starts_with("noise: "));
        assert!(decode("audio/basic", &scrambled, 50).result.is_ok(), "headerless sound may be anything");
        assert!(decode("audio/wav", crate::audio::APOLOGY, 50).result.is_ok(), "a wrong type is no crime");
    }

    #[test]
    fn mu_law_passes_untouched() {
        let mut sound = ulaw(&tone(700.0, 8_000, 400));
        sound[0] = 0x7F;
        sound.extend([0x7F; 33]);
        assert_eq!(heard("audio/basic", &sound), (sound.clone(), "raw μ-law 8000 Hz".into()));
        assert_eq!(heard("audio/wav", &wav_of(7, 8_000, 1, &sound)), (sound, "wav μ-law 8000 Hz".into()));
        let silence = [0xFF; 777];
        assert_eq!(heard("application/octet-stream", &silence).0, silence);
    }

    #[test]
    fn the_bytes_overrule_what_was_announced() {
        let pcm = tone(440.0, 24_000, 300);
        let (sound, kind) = heard("audio/x-mulaw;rate=8000", &le(&pcm));
        assert_eq!((sound.len(), &*kind), (2_400, "raw pcm16 24000 Hz, announced as μ-law"));
        let u = ulaw(&tone(440.0, 8_000, 300));
        let (sound, kind) = heard("audio/pcm;rate=24000", &u);
        assert_eq!((sound, &*kind), (u, "raw μ-law 8000 Hz, announced as pcm16"));
        let be: Vec<u8> = pcm.iter().flat_map(|s| s.to_be_bytes()).collect();
        let (_, kind) = heard("audio/L16;rate=24000", &be);
        assert_eq!(kind, "raw pcm16 big-endian 24000 Hz, announced as pcm16");
        let (_, kind) = heard("audio/mpeg", &wav_of(1, 24_000, 2, &le(&pcm)));
        assert_eq!(kind, "wav pcm16 24000 Hz");
    }

    #[test]
    fn where_the_bytes_do_not_tell_the_announcement_does() {
        assert_eq!(heard("audio/pcm;rate=16000", &[1, 0, 2, 0]).1, "raw pcm16 16000 Hz");
        assert_eq!(heard("audio/basic", &[1, 0, 2, 0]).1, "raw μ-law 8000 Hz");
        assert_eq!(heard("", &[1, 0, 2, 0]).1, "raw μ-law 8000 Hz");
    }

    #[test]
    fn what_is_not_speech_is_named_and_never_played() {
        let json = br#"{"error":{"message":"Incorrect API key provided","type":"invalid_request_error"}}"#;
        assert_eq!(refused("audio/basic", json), "JSON instead of audio");
        let html = format!("<html>\n<head><title>502 Bad Gateway</title>{}", "<p>x</p>".repeat(200));
        assert_eq!(refused("audio/wav", html.as_bytes()), "HTML or XML instead of audio");
        assert_eq!(refused("audio/pcm", b"Quota exceeded"), "text instead of audio");
        let said = decode("audio/basic", json, AT_ONCE).result.unwrap_err();
        assert_eq!(said.said(), Some(&json[..]));
        assert_eq!(refused("audio/basic", b"ID3\x04\0\0\0\0\0\x23TSSE"), "MP3 without any sound");
        assert_eq!(refused("", b"OggS\0\x02\0\0\0\0\0\0\0\0"), "Ogg Vorbis without any sound");
        assert_eq!(refused("", b"fLaC\0\0\0\x22\x10\0\x10\0"), "FLAC without any sound");
        assert!(refused("", b"\x1A\x45\xDF\xA3\xA3\x42\x86\x81\x01\x42\xF7\x81").starts_with("WebM, which"));
        assert_eq!(refused("audio/basic", b""), "an empty answer");
        assert_eq!(refused("audio/pcm", &[7]), "an empty answer");
        assert_eq!(refused("", &wav::header(0)), "a WAV header and no audio");
        assert_eq!(refused("", &wav::header(0)[..30]), "a WAV header and no audio");
        assert!(refused("", &wav_of(17, 8_000, 1, &[0; 99])).starts_with("WAV with codec 17 (IMA ADPCM)"));
    }

    #[test]
    fn a_decoder_may_move_between_threads_with_its_call() {
        fn moves<T: Send + 'static>(_: &T) {}
        moves(&SpeechDecoder::new(Hint::new(None, 24_000)));
    }

    #[test]
    fn the_shipped_apology_would_pass_for_what_it_is() {
        let (sound, kind) = heard("application/octet-stream", crate::audio::APOLOGY);
        assert_eq!((&sound[..], &*kind), (crate::audio::APOLOGY, "raw μ-law 8000 Hz"));
    }

    #[test]
    fn an_error_stays_one() {
        let mut decoder = SpeechDecoder::new(Hint::new(None, 8_000));
        let mut out = Vec::new();
        let first = decoder.push(b"\x1A\x45\xDF\xA3\xA3\x42\x86\x81\x01\x42\xF7\x81", &mut out);
        assert_eq!(first, Err(NotSpeech::Encoded("WebM")));
        assert_eq!(decoder.push(&[0xFF; 4_000], &mut out), first);
        assert_eq!(decoder.finish(&mut out), first);
        assert!(out.is_empty());
    }

    #[test]
    fn a_wav_is_read_to_the_end_of_its_data_and_no_further() {
        let pcm = le(&tone(300.0, 16_000, 200));
        let mut file = wav_of(1, 16_000, 2, &pcm);
        file.extend_from_slice(b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf60.16.100\0");
        assert_eq!(heard("audio/wav", &file).0.len(), 1_600);
        for len in [0, u32::MAX, 0x7FFF_FF00] {
            let mut streamed = wav_of(1, 16_000, 2, &pcm);
            streamed[40..44].copy_from_slice(&len.to_le_bytes());
            assert_eq!(heard("audio/wav", &streamed).0, heard("audio/wav", &file).0, "{len}");
        }
    }

    #[test]
    fn raw_sound_is_held_back_for_20_ms_when_it_is_clear() {
        let u = ulaw(&tone(440.0, 8_000, 40));
        let mut decoder = SpeechDecoder::new(Hint::new(Some("audio/basic"), 24_000));
        let mut out = Vec::new();
        assert_eq!(decoder.push(&u[..Frame::SILENT.0.len() + 2], &mut out), Ok(()));
        assert_eq!(out, u[..162]);
    }

    #[test]
    fn a_quiet_beginning_is_not_lost() {
        let mut pcm = vec![0i16; 24_000];
        pcm.extend(tone(440.0, 24_000, 500));
        let (sound, _) = heard("audio/pcm", &le(&pcm));
        assert_eq!(sound.len(), 12_000);
        assert_eq!(level::rms(&sound[..7_900]), 0.0);
        assert!(level::rms(&sound[8_000..]) > 5_000.0);
    }

    fn beginnings() -> impl Strategy<Value = Vec<u8>> {
        let pcm = le(&tone(500.0, 22_050, 120));
        prop::sample::select(vec![
            Vec::new(),
            vec![0; 900],
            vec![0xFF; 900],
            pcm.clone(),
            pcm[1..].to_vec(),
            wav_of(1, 22_050, 2, &pcm),
            wav_of(1, 44_100, 3, &pcm),
            wav_of(3, 48_000, 4, &pcm),
            wav_of(6, 8_000, 1, &pcm),
            ulaw(&tone(500.0, 8_000, 120)),
            b"{\"error\": \"".to_vec(),
            b"<html>".to_vec(),
            vec![0xFF, 0xFB, 0x90, 0x44],
            vec![0xFF, 0xF3, 0x64, 0xC4],
        ])
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter_and_nothing_panics(
            mut bytes in beginnings(),
            tail in prop::collection::vec(any::<u8>(), 0..1_500),
            cut in 0usize..1_000,
            chunk in 1usize..700,
            kind in prop::sample::select(vec!["audio/basic", "audio/L16", "audio/mpeg", "audio/pcma", ""]),
        ) {
            bytes.truncate(bytes.len().saturating_sub(cut / 2));
            bytes.extend(tail);
            let whole = decode(kind, &bytes, AT_ONCE);
            for chunk in [1, chunk] {
                let cut = decode(kind, &bytes, chunk);
                prop_assert_eq!(&cut.result, &whole.result);
                prop_assert_eq!(&cut.sound, &whole.sound);
                prop_assert_eq!(&cut.kind, &whole.kind);
            }
        }
    }
}
