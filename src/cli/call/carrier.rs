//! What Twilio does with the audio that a server sends it, as a value: bytes queue up and play in
//! real time, marks come back when what was before them has played, `clear` empties the queue. The
//! time is handed in, so a story of a minute is tested at once.
//!
//! Time is counted in slots of 125 µs, the length of one byte of μ-law at 8 kHz, so that nothing is
//! rounded twice: slot n of the call is byte n of what the caller heard.

use crate::audio::{FRAME_BYTES, SILENCE, level};
use std::collections::VecDeque;
use std::time::Duration;

const SLOT_US: u64 = 125;
const SLOTS_PER_MS: u64 = 8;
/// Twilio keeps ten minutes and drops what is beyond (31931).
const CAPACITY: u64 = 10 * 60 * 1_000 * SLOTS_PER_MS;
/// A shorter gap is below what a jitter buffer on the phone side evens out: it adds to
/// [`Carrier::gap_total`], but is no underrun.
const UNDERRUN: u64 = 5 * SLOTS_PER_MS;
const MOMENT: u64 = 40 * SLOTS_PER_MS;
/// Root mean square of 20 ms above which a person hears something.
pub const AUDIBLE_RMS: f32 = 100.0;

/// Whether, and when, marks come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MarksMode {
    #[default]
    Normal,
    Never,
    /// That many milliseconds after they ought to.
    Late(u64),
}

/// What `clear` does to pending marks: Twilio's text says they are returned, other carriers and
/// simulators drop them, and a server has to survive both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MarksOnClear {
    #[default]
    Return,
    Drop,
}

#[derive(Clone, Debug)]
pub struct CarrierOptions {
    pub marks: MarksMode,
    pub on_clear: MarksOnClear,
    /// Keep what the caller hears. Off for load, where only the counts matter.
    pub record: bool,
    /// Audio that comes this long after the queue ran dry begins a new spurt; audio that comes
    /// sooner ends a gap in the old one.
    pub spurt_gap: Duration,
}

impl Default for CarrierOptions {
    fn default() -> CarrierOptions {
        CarrierOptions {
            marks: MarksMode::Normal,
            on_clear: MarksOnClear::Return,
            record: true,
            spurt_gap: Duration::from_millis(300),
        }
    }
}

/// What the arrival of a media message meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// It began a spurt: nothing had been queued for [`CarrierOptions::spurt_gap`], or at all.
    pub new_spurt: bool,
    /// The caller heard a gap of this length before it.
    pub underrun: Option<Duration>,
    /// There is something to hear in it.
    pub audible: bool,
    /// Bytes dropped because ten minutes were queued.
    pub dropped: u64,
}

/// Audio heard without a gap longer than [`CarrierOptions::spurt_gap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spurt {
    pub start: Duration,
    pub end: Duration,
}

/// Twilio's playout buffer of one call.
#[derive(Debug)]
pub struct Carrier {
    options: CarrierOptions,
    /// The present; every slot before it has been heard.
    slot: u64,
    queued: u64,
    /// The queued bytes, kept only when recording.
    queue: VecDeque<u8>,
    received: u64,
    played: u64,
    cleared: u64,
    overflowed: u64,
    /// When the running spurt last ran dry; `None` when a `clear` ended it.
    dry_at: Option<u64>,
    audible_since: Option<u64>,
    audible_until: u64,
    /// Marks with the count of bytes that have to go before each.
    pending: VecDeque<(u64, String)>,
    /// Marks on their way back, with the slot at which they are due.
    returning: VecDeque<(u64, String)>,
    heard: Vec<u8>,
    spurts: Vec<Spurt>,
    underruns: u64,
    gap_total: u64,
    max_lead: u64,
}

fn slot(now: Duration) -> u64 {
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX) / SLOT_US
}

fn time(slot: u64) -> Duration {
    Duration::from_micros(slot.saturating_mul(SLOT_US))
}

impl Carrier {
    pub fn new(options: CarrierOptions) -> Carrier {
        Carrier {
            options,
            slot: 0,
            queued: 0,
            queue: VecDeque::new(),
            received: 0,
            played: 0,
            cleared: 0,
            overflowed: 0,
            dry_at: None,
            audible_since: None,
            audible_until: 0,
            pending: VecDeque::new(),
            returning: VecDeque::new(),
            heard: Vec::new(),
            spurts: Vec::new(),
            underruns: 0,
            gap_total: 0,
            max_lead: 0,
        }
    }

    /// Audio has arrived.
    pub fn media(&mut self, payload: &[u8], now: Duration) -> Arrival {
        self.poll(now);
        let mut arrival = Arrival::default();
        if payload.is_empty() {
            return arrival;
        }
        if self.queued == 0 {
            match self.dry_at.map(|dry| self.slot - dry) {
                Some(gap) if gap <= slot(self.options.spurt_gap) => {
                    self.gap_total += gap;
                    if gap >= UNDERRUN {
                        self.underruns += 1;
                        arrival.underrun = Some(time(gap));
                    }
                }
                _ => arrival.new_spurt = true,
            }
        }
        self.received += payload.len() as u64;
        let room = usize::try_from(CAPACITY - self.queued).unwrap_or(usize::MAX);
        let kept = &payload[..payload.len().min(room)];
        arrival.dropped = (payload.len() - kept.len()) as u64;
        self.overflowed += arrival.dropped;

        for piece in kept.chunks(FRAME_BYTES) {
            let start = self.slot + self.queued;
            self.queued += piece.len() as u64;
            if level::rms(piece) > AUDIBLE_RMS {
                arrival.audible = true;
                if self.audible_since.is_none() || start > self.audible_until + slot(self.options.spurt_gap) {
                    self.audible_since = Some(start);
                }
                self.audible_until = start + piece.len() as u64;
            }
        }
        self.max_lead = self.max_lead.max(self.queued);
        if self.options.record {
            self.queue.extend(kept);
            let end = time(self.slot + self.queued);
            match self.spurts.last_mut() {
                Some(spurt) if !arrival.new_spurt => spurt.end = end,
                _ => self.spurts.push(Spurt { start: time(self.slot), end }),
            }
        }
        arrival
    }

    /// A mark has arrived: it comes back when everything queued before it has played.
    pub fn mark(&mut self, name: &str, now: Duration) {
        self.poll(now);
        self.pending.push_back((self.gone() + self.queued, name.to_owned()));
        self.release(self.slot, self.gone());
    }

    /// A `clear` has arrived. Says how much audio it threw away.
    pub fn clear(&mut self, now: Duration) -> Duration {
        self.poll(now);
        let thrown = self.queued;
        self.cleared += thrown;
        self.queued = 0;
        self.queue.clear();
        self.audible_until = self.audible_until.min(self.slot);
        self.dry_at = None;
        if let Some(spurt) = self.spurts.last_mut() {
            spurt.end = spurt.end.min(time(self.slot));
        }
        match self.options.on_clear {
            MarksOnClear::Return => self.release(self.slot, self.gone()),
            MarksOnClear::Drop => self.pending.clear(),
        }
        time(thrown)
    }

    /// Lets the time pass.
    pub fn poll(&mut self, now: Duration) {
        let to = slot(now);
        if to <= self.slot {
            return;
        }
        let heard = self.queued.min(to - self.slot);
        self.release(self.slot, self.gone() + heard);
        self.queued -= heard;
        self.played += heard;
        if heard > 0 && self.queued == 0 {
            self.dry_at = Some(self.slot + heard);
        }
        if self.options.record {
            // Both fit: they count bytes that are or will be in memory.
            self.heard.extend(self.queue.drain(..heard as usize));
            self.heard.resize(to as usize, SILENCE);
        }
        self.slot = to;
    }

    /// The next mark that is due back by `now`.
    pub fn poll_mark(&mut self, now: Duration) -> Option<String> {
        self.poll(now);
        self.returning.pop_front_if(|(due, _)| *due <= self.slot).map(|(_, name)| name)
    }

    /// When [`Carrier::poll_mark`] will next have something, as things are.
    pub fn next_mark_at(&self) -> Option<Duration> {
        let late = match self.options.marks {
            MarksMode::Normal => 0,
            MarksMode::Never => return None,
            MarksMode::Late(ms) => ms * SLOTS_PER_MS,
        };
        let returning = self.returning.front().map(|(due, _)| *due);
        let pending = self.pending.front().map(|(after, _)| self.slot + (after - self.gone()) + late);
        returning.or(pending).map(time)
    }

    /// Sends back the marks that have fewer than `gone` bytes before them; byte `self.gone()` plays
    /// at `from`.
    fn release(&mut self, from: u64, gone: u64) {
        while let Some((after, name)) = self.pending.pop_front_if(|(after, _)| *after <= gone) {
            let played_at = from + after.saturating_sub(self.gone());
            match self.options.marks {
                MarksMode::Normal => self.returning.push_back((played_at, name)),
                MarksMode::Late(ms) => self.returning.push_back((played_at + ms * SLOTS_PER_MS, name)),
                MarksMode::Never => {}
            }
        }
    }

    fn gone(&self) -> u64 {
        self.played + self.cleared
    }

    /// Audio that is queued and has yet to play.
    pub fn lead(&self) -> Duration {
        time(self.queued)
    }

    /// The most that was ever queued.
    pub fn max_lead(&self) -> Duration {
        time(self.max_lead)
    }

    /// When the last thing there is to hear will have been heard. In the future while it plays.
    pub fn audible_until(&self) -> Duration {
        time(self.audible_until)
    }

    /// When the stretch that ends at [`Carrier::audible_until`] began to be heard.
    pub fn audible_since(&self) -> Option<Duration> {
        self.audible_since.map(time)
    }

    /// Something is to be heard, or was a moment ago: a server that sends nothing ahead has an empty
    /// queue whenever a frame is a millisecond late.
    pub fn speaking(&self) -> bool {
        self.audible_since.is_some() && self.slot < self.audible_until + MOMENT
    }

    /// Audio played so far, silence that was sent included.
    pub fn played(&self) -> Duration {
        time(self.played)
    }

    /// Bytes received, played, thrown away by `clear`, dropped for want of room, and queued.
    pub fn bytes(&self) -> [u64; 5] {
        [self.received, self.played, self.cleared, self.overflowed, self.queued]
    }

    /// Gaps of 5 ms and more within a spurt.
    pub fn underruns(&self) -> u64 {
        self.underruns
    }

    /// All gaps within spurts, the shortest included.
    pub fn gap_total(&self) -> Duration {
        time(self.gap_total)
    }

    /// What the caller heard from the start of the stream (when recording): byte n at n × 125 µs.
    pub fn heard(&self) -> &[u8] {
        &self.heard
    }

    pub fn spurts(&self) -> &[Spurt] {
        &self.spurts
    }
}

#[cfg(test)]
#[path = "carrier_tests.rs"]
mod tests;
