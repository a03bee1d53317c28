//! A tape as bytes: how it is written, and read: the whole records of it, in order, and a word on what
//! is missing.

use super::MAGIC;
use super::entry::{Entry, decode, encode};
use super::header::{Header, VERSION};
use super::often;
use super::record::{self, Damage, Records};
use crate::time::CallTime;

/// How a tape begins; entries follow.
pub fn begin(header: &Header) -> Vec<u8> {
    let mut tape = MAGIC.to_vec();
    let text = serde_json::to_vec(header).unwrap_or_default();
    record::append(&mut tape, |out| {
        out.extend_from_slice(&text);
        true
    });
    tape
}

pub fn append(tape: &mut Vec<u8>, at: CallTime, entry: &Entry<'_>) {
    record::append(tape, |out| encode(at, entry, out));
}

/// A tape that has been read. It borrows from the file's bytes.
#[derive(Debug)]
pub struct Tape<'b> {
    pub header: Header,
    pub entries: Vec<(CallTime, Entry<'b>)>,
    pub damage: Vec<Damage>,
}

/// Room for the entries of one tape after the other: an allocation of half a megabyte a minute, which would
/// come as fresh pages of the system's each time.
#[derive(Default)]
pub struct Room(Vec<(CallTime, Entry<'static>)>);

/// Why there is nothing to read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("not a tape of voxgate's")]
    NotATape,
    #[error("its beginning is damaged: the settings of the call are lost")]
    NoHeader,
    #[error("a tape of format {0}, made by a newer voxgate; this one reads up to format {VERSION}")]
    Newer(u32),
}

impl<'b> Tape<'b> {
    pub fn read(bytes: &'b [u8]) -> Result<Tape<'b>, Unreadable> {
        Tape::read_in(&mut Room::default(), bytes)
    }

    /// The same, with room of another tape, which [`leave`](Self::leave) gives back.
    pub fn read_in(room: &mut Room, bytes: &'b [u8]) -> Result<Tape<'b>, Unreadable> {
        if !bytes.starts_with(MAGIC) {
            return Err(Unreadable::NotATape);
        }
        let mut records = Records::new(bytes, MAGIC.len());
        let header = match records.next() {
            Some(Ok(payload)) => serde_json::from_slice(payload).map_err(|_| Unreadable::NoHeader)?,
            _ => return Err(Unreadable::NoHeader),
        };
        let Header { version, .. } = header;
        if version > VERSION {
            return Err(Unreadable::Newer(version));
        }
        let mut tape = Tape { header, entries: std::mem::take(&mut room.0), damage: Vec::new() };
        // A frame in, a frame out and a tick every 20 ms.
        tape.entries.reserve(bytes.len() / 128);
        let mut last = CallTime::ZERO;
        for record in records {
            match record {
                // What is unknown is of a newer version: the rest of the call is worth reading.
                Ok(payload) => {
                    if !often::read(payload, &mut tape.entries) {
                        tape.entries.extend(decode(payload));
                    }
                    // Time does not go back.
                    if let Some((at, _)) = tape.entries.last_mut() {
                        last = last.max(*at);
                        *at = last;
                    }
                }
                Err(damage) => tape.damage.push(damage),
            }
        }
        Ok(tape)
    }

    /// Gives its room to another tape.
    pub fn leave(self, room: &mut Room) {
        // Collected in place: the allocation stays.
        room.0 = self.entries.into_iter().map_while(|_| None).collect();
    }

    /// Forgets what was measured of the caller's audio, so that a replay measures it anew.
    pub fn forget_measured(&mut self) {
        for (_, entry) in &mut self.entries {
            if let Entry::Heard { payload, timestamp_ms, .. } = entry {
                *entry = Entry::Media { payload: (*payload).into(), timestamp_ms: *timestamp_ms };
            }
        }
    }

    /// When the last entry was made.
    pub fn lasted(&self) -> CallTime {
        self.entries.last().map_or(CallTime::ZERO, |(at, _)| *at)
    }

    /// What is missing, in a sentence; `None` if the call is there to its end.
    pub fn missing(&self) -> Option<String> {
        let at = self.lasted().as_micros() as f64 / 1e6;
        let holes =
            self.damage.iter().filter(|damage| !damage.torn).map(|damage| damage.bytes).sum::<usize>();
        let end = match self.entries.last() {
            Some((_, Entry::End)) => None,
            Some((_, Entry::Cut(why))) => Some(format!("cut at {at:.3} s: {why}")),
            _ => Some(match self.damage.iter().find(|damage| damage.torn) {
                Some(torn) => {
                    format!("torn off at {at:.3} s: the last {} bytes are no whole record", torn.bytes)
                }
                None => format!("ends at {at:.3} s, in mid-call"),
            }),
        };
        let holes = (holes > 0).then(|| format!("{holes} bytes in the middle are damaged"));
        let all: Vec<String> = holes.into_iter().chain(end).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}
