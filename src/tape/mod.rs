//! Tapes: calls written down as they happen, read back, and run again in virtual time. What is on a
//! tape is what a call was told and when, and what it did; everything else follows from that, because
//! a call is a value.
//!
//! A tape holds what was said, as sound and as text: personal data, for as long as it is kept. So
//! nothing is recorded unless somebody says where to, files are readable by their owner alone, what
//! looks like a secret among the parameters is left out, and old tapes go by themselves.
//!
//! | file | what it is for |
//! |---|---|
//! | `record` | the frame around each record: what survives `kill -9` |
//! | `entry`, `model`, `header` | what is in a record; `model`: of what a model said |
//! | `often` | what a tape has most of, read faster |
//! | `taped`, `recorder` | a call with a tape running, and the way to the disk |
//! | `folder` | names, and how long tapes are kept |
//! | `reel` | a tape that has been read |
//! | `replay`, `answers`, `carrier` | the same call once more, with its settings or with others |
//! | `conducted` | once more a call that a model or a bot conducted |
//!
//! Who conducts a call decides what can be said of it later. A dialogue is this side's own: other settings
//! make another call of it, with answers that are moved or made up. A model that hears and speaks
//! is asked nothing twice: a replay goes on until this side would do something else, and ends there. And
//! what a relayed bot said is said again, whatever the settings.

mod answers;
mod carrier;
mod conducted;
mod entry;
mod folder;
mod header;
mod model;
mod often;
mod record;
mod recorder;
mod reel;
mod replay;
mod taped;
#[cfg(test)]
mod tests;

pub use entry::{ActionWord, Entry, FailureWord, JobWord};
pub use folder::{Swept, sweep};
pub use header::{CallIds, Conductor, Header};
pub use model::{AboutWord, AnswerWord, EndWord, MeaningWord, SpokenWord, ToldWord};
pub use record::Damage;
pub use recorder::{Done, Recorder, Tapes};
pub use reel::{Room, Tape, Unreadable, append, begin};
pub use replay::{Origins, Outcome, Step, replay, simulate};
pub use taped::{Taped, TapedRealtime, TapedRelay};

/// How the file begins, for people and for `file`.
const MAGIC: &[u8] = b"voxgate tape 1\n";
