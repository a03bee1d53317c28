//! The one place where `symphonia` is called: a packet in, one channel of samples out.
//!
//! `symphonia` has no unsafe code, but it indexes, divides and adds by what a stream tells it: made-up
//! Vorbis headers make it divide by zero or look up a code of 33 bits, and made-up frames of FLAC
//! overflow its sums where overflow is checked. Mutated files showed all three. A stream that does so
//! is refused; the call, which has an apology to play, goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use symphonia::core::codecs::audio::well_known::{CODEC_ID_FLAC, CODEC_ID_MP3, CODEC_ID_VORBIS};
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Result as Decoded;
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};
use symphonia::default::codecs::{FlacDecoder, MpaDecoder, VorbisDecoder};

use crate::audio::format::{RATES, full_scale};

/// A decoder for one stream.
pub(super) struct Codec {
    decoder: Box<dyn AudioDecoder>,
    samples: Vec<f32>,
    mono: Vec<f32>,
}

/// Why there are no samples.
pub(super) enum Fault {
    /// This packet is broken; the next may not be.
    Packet,
    /// The decoder is of no use any more.
    Decoder,
}

/// What one packet holds.
pub(super) struct Sound<'a> {
    pub(super) rate: u32,
    pub(super) channels: u16,
    /// The mean of all channels, on the 16-bit scale.
    pub(super) mono: &'a [f32],
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec").finish_non_exhaustive()
    }
}

impl Codec {
    pub(super) fn mp3() -> Option<Codec> {
        Codec::new(CODEC_ID_MP3, None, |p, o| Ok(Box::new(MpaDecoder::try_new(p, o)?)))
    }

    /// `headers`: the identification and the setup packet.
    pub(super) fn vorbis(headers: &[u8]) -> Option<Codec> {
        Codec::new(CODEC_ID_VORBIS, Some(headers), |p, o| Ok(Box::new(VorbisDecoder::try_new(p, o)?)))
    }

    pub(super) fn flac(stream_info: &[u8]) -> Option<Codec> {
        Codec::new(CODEC_ID_FLAC, Some(stream_info), |p, o| Ok(Box::new(FlacDecoder::try_new(p, o)?)))
    }

    fn new(
        id: AudioCodecId,
        headers: Option<&[u8]>,
        make: fn(&AudioCodecParameters, &AudioDecoderOptions) -> Decoded<Box<dyn AudioDecoder>>,
    ) -> Option<Codec> {
        let mut params = AudioCodecParameters::new();
        params.for_codec(id);
        if let Some(headers) = headers {
            params.with_extra_data(headers.into());
        }
        // Nothing survives a panic in here, so nothing can be left half done.
        let made = catch_unwind(AssertUnwindSafe(|| make(&params, &AudioDecoderOptions::default())));
        let decoder = made.ok()?.ok()?;
        Some(Codec { decoder, samples: Vec::new(), mono: Vec::new() })
    }

    /// Decodes one packet. After [`Fault::Decoder`] this must not be called again.
    pub(super) fn decode(&mut self, packet: &[u8]) -> Result<Sound<'_>, Fault> {
        let Codec { decoder, samples, mono } = self;
        samples.clear();
        mono.clear();
        let packet = PacketRef::new(0, Timestamp::new(0), Duration::new(0), packet);
        // Whoever asks drops the decoder after a panic, so what it left half done is not seen.
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            let buffer = decoder.decode_ref(&packet).ok()?;
            buffer.copy_to_vec_interleaved(&mut *samples);
            Some((buffer.spec().rate(), buffer.num_planes()))
        }));
        let (rate, channels) = decoded.map_err(|_| Fault::Decoder)?.ok_or(Fault::Packet)?;
        if channels == 0 || !RATES.contains(&rate) {
            return Err(Fault::Decoder);
        }
        let share = 1.0 / channels as f32;
        mono.extend(
            samples.chunks_exact(channels).map(|c| c.iter().map(|x| full_scale(*x)).sum::<f32>() * share),
        );
        Ok(Sound { rate, channels: channels as u16, mono })
    }

    /// Forgets what came before, where the stream does not go on from there.
    pub(super) fn reset(&mut self) {
        self.decoder.reset();
    }
}
