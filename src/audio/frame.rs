//! A frame, and the cutter that makes frames of chunks of any length.

/// Samples a second, which with μ-law is also bytes a second.
pub const SAMPLE_RATE: u32 = 8_000;
/// Bytes of μ-law in one millisecond.
pub const BYTES_PER_MS: usize = 8;
/// Bytes of μ-law in one frame of 20 ms.
pub const FRAME_BYTES: usize = 160;
/// The μ-law byte of silence. (0x00 would be full-scale noise.)
pub const SILENCE: u8 = 0xFF;

/// 20 ms of μ-law, 8 kHz, mono.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame(pub [u8; FRAME_BYTES]);

impl Frame {
    pub const SILENT: Frame = Frame([SILENCE; FRAME_BYTES]);
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame(rms {:.0})", super::level::rms(&self.0))
    }
}

/// Cuts a stream of bytes, arriving in chunks of any length, into frames.
#[derive(Clone, Debug)]
pub struct Cutter {
    held: [u8; FRAME_BYTES],
    len: usize,
}

impl Default for Cutter {
    fn default() -> Cutter {
        Cutter { held: [SILENCE; FRAME_BYTES], len: 0 }
    }
}

impl Cutter {
    /// Bytes held back because they do not fill a frame yet.
    pub fn held(&self) -> usize {
        self.len
    }

    /// The next frame that the chunk completes, which goes from the front of it; `None` once the rest of
    /// it is held.
    pub fn next(&mut self, chunk: &mut &[u8]) -> Option<Frame> {
        if self.len == 0
            && let Some((frame, rest)) = chunk.split_first_chunk()
        {
            *chunk = rest;
            return Some(Frame(*frame));
        }
        let take = chunk.len().min(FRAME_BYTES - self.len);
        let (now, later) = chunk.split_at(take);
        self.held[self.len..self.len + take].copy_from_slice(now);
        self.len += take;
        *chunk = later;
        (self.len == FRAME_BYTES).then(|| {
            self.len = 0;
            Frame(self.held)
        })
    }

    /// The last, incomplete frame, padded with silence; `None` if nothing is held.
    pub fn flush(&mut self) -> Option<Frame> {
        if self.len == 0 {
            return None;
        }
        self.held[self.len..].fill(SILENCE);
        self.len = 0;
        Some(Frame(self.held))
    }

    /// Forgets what is held.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_frames(bytes in prop::collection::vec(any::<u8>(), 0..2000),
                                              cuts in prop::collection::vec(1usize..400, 1..40)) {
            let mut cutter = Cutter::default();
            let mut out = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (mut now, later) = rest.split_at((*cut).min(rest.len()));
                while let Some(frame) = cutter.next(&mut now) {
                    out.extend_from_slice(&frame.0);
                }
                prop_assert!(now.is_empty());
                rest = later;
            }
            if let Some(tail) = cutter.flush() {
                out.extend_from_slice(&tail.0);
            }
            prop_assert_eq!(out.len(), bytes.len().div_ceil(FRAME_BYTES) * FRAME_BYTES);
            prop_assert_eq!(&out[..bytes.len()], &bytes[..]);
            prop_assert!(out[bytes.len()..].iter().all(|&b| b == SILENCE));
        }
    }
}
