//! MPEG audio frames: what the four bytes at the front of each say, and what the first frame of a file
//! says about all of it.

/// The header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::audio) struct Head {
    pub(in crate::audio) layer: Layer,
    pub(super) rate: u32,
    pub(super) channels: u16,
    /// Bytes, the header among them. 0: the stream does not say (“free format”).
    pub(in crate::audio) len: usize,
    /// Samples.
    pub(super) samples: usize,
    side_info: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::audio) enum Layer {
    Two,
    Three,
}

impl Head {
    /// `None`: no frame begins here, or less than four bytes are there.
    pub(in crate::audio) fn read(bytes: &[u8]) -> Option<Head> {
        const V1_L3: [usize; 15] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
        const V1_L2: [usize; 15] = [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384];
        const V2: [usize; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
        let &[0xFF, b1, b2, b3] = bytes.get(..4)? else { return None };
        let rate = [44_100u32, 48_000, 32_000].get(usize::from((b2 >> 2) & 3))?;
        let (layer, kbits, rate, samples) = match (b1 >> 5, (b1 >> 3) & 3, (b1 >> 1) & 3) {
            (7, 3, 1) => (Layer::Three, &V1_L3, *rate, 1_152),
            (7, 3, 2) => (Layer::Two, &V1_L2, *rate, 1_152),
            (7, 2, 1) => (Layer::Three, &V2, rate / 2, 576),
            (7, 2, 2) => (Layer::Two, &V2, rate / 2, 1_152),
            (7, 0, 1) => (Layer::Three, &V2, rate / 4, 576),
            _ => return None,
        };
        let channels = if b3 >> 6 == 3 { 1 } else { 2 };
        let side_info = match (samples, channels) {
            (1_152, 1) => 17,
            (1_152, _) => 32,
            (_, 1) => 9,
            _ => 17,
        };
        let len = match kbits.get(usize::from(b2 >> 4))? {
            0 => 0,
            kbits => samples / 8 * kbits * 1_000 / rate as usize + usize::from((b2 >> 1) & 1),
        };
        Some(Head { layer, rate, channels, len, samples, side_info })
    }

    /// May be frames of one stream.
    pub(in crate::audio) fn goes_with(&self, other: &Head) -> bool {
        let of_stream = |h: &Head| (h.layer, h.rate, h.channels, h.len > 0);
        of_stream(self) == of_stream(other)
    }
}

/// A first frame that is no sound but says something about the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tag {
    /// The samples at the front that the encoder and the decoder have added.
    pub(super) delay: usize,
    /// Frames to come, and the samples of the file proper.
    pub(super) length: Option<(u64, u64)>,
}

impl Tag {
    /// `None`: the frame is sound.
    pub(super) fn read(frame: &[u8], head: &Head) -> Option<Tag> {
        /// What a decoder adds.
        const DECODER: usize = 529;
        let at = 4 + head.side_info;
        let name = frame.get(at..at + 4)?;
        if frame.get(36..40) == Some(b"VBRI") {
            return Some(Tag::default());
        }
        if !matches!(name, b"Xing" | b"Info") {
            return None;
        }
        let flags = *frame.get(at + 7)?;
        let frames = if flags & 1 != 0 { u32_at(frame, at + 8)? } else { 0 };
        // Number of frames, of bytes, table of contents, quality.
        let parts = [4, 4, 100, 4].iter().enumerate().filter(|(i, _)| flags >> i & 1 != 0);
        let lame = frame.get(at + 8 + parts.map(|(_, len)| len).sum::<usize>()..)?;
        let Some(trim @ 1..) = lame.get(21..24).map(|b| u32::from_be_bytes([0, b[0], b[1], b[2]])) else {
            return Some(Tag::default());
        };
        if ![b"LAME", b"Lavf", b"Lavc", b"L3.9"].iter().any(|by| lame.starts_with(*by)) {
            return Some(Tag::default());
        }
        let (delay, padding) = ((trim >> 12) as usize + DECODER, u64::from(trim & 0xFFF));
        let all = u64::from(frames) * head.samples as u64;
        let proper = (all + DECODER as u64).checked_sub(delay as u64 + padding);
        let length = proper.filter(|_| frames > 0).map(|n| (u64::from(frames), n.min(all)));
        Some(Tag { delay, length })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_frames() {
        let len = |b: [u8; 4]| Head::read(&b).map(|h| (h.rate, h.channels, h.len, h.samples));
        assert_eq!(len([0xFF, 0xFB, 0x90, 0x44]), Some((44_100, 2, 417, 1_152)));
        assert_eq!(len([0xFF, 0xFB, 0x92, 0xC4]), Some((44_100, 1, 418, 1_152)));
        assert_eq!(len([0xFF, 0xF3, 0x64, 0xC4]), Some((24_000, 1, 144, 576)));
        assert_eq!(len([0xFF, 0xE3, 0x18, 0xC4]), Some((8_000, 1, 72, 576)));
        assert_eq!(len([0xFF, 0xFB, 0x00, 0x44]), Some((44_100, 2, 0, 1_152)));
        assert_eq!(len([0xFF, 0xFB, 0xF0, 0x44]), None);
        assert_eq!(len([0xFF, 0xEB, 0x90, 0x44]), None);
        assert_eq!(len([0xFF, 0xFF, 0x90, 0x44]), None);
    }

    #[test]
    fn what_the_first_frame_says() {
        let mut frame = vec![0u8; 417];
        frame[..4].copy_from_slice(&[0xFF, 0xFB, 0x90, 0xC4]);
        let head = Head::read(&frame).expect("a header");
        assert_eq!(Tag::read(&frame, &head), None);
        frame[21..25].copy_from_slice(b"Info");
        assert_eq!(Tag::read(&frame, &head), Some(Tag::default()));
        frame[28] = 15;
        frame[32] = 10;
        let lame = 21 + 8 + 112;
        frame[lame..lame + 4].copy_from_slice(b"LAME");
        frame[lame + 21..lame + 24].copy_from_slice(&[0x24, 0x06, 0x00]);
        let tag = Tag { delay: 576 + 529, length: Some((10, 11_520 - 576 - 0x600)) };
        assert_eq!(Tag::read(&frame, &head), Some(tag));
        frame[32] = 1;
        assert_eq!(Tag::read(&frame, &head), Some(Tag { delay: 1_105, length: None }), "impossible");
    }
}
