//! The folder of the tapes: how they are called, and when they go. What does not bear the name of a
//! tape is not ours and is left alone, and so is a tape that is still being written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How names end.
pub(super) const ENDING: &str = ".tape";
/// A tape that was written to within this time may still be growing.
const FRESH: Duration = Duration::from_secs(60);
/// Of a call's id, in a name.
const LONGEST_ID: usize = 64;

/// `2026-11-26T10-43-42.123Z_CA….tape`: sorts by time, and is safe whatever the carrier sends.
pub(super) fn name(started: SystemTime, call_sid: &str) -> String {
    let time = humantime::format_rfc3339_millis(started).to_string().replace(':', "-");
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let id: String = call_sid.chars().take(LONGEST_ID).map(safe).collect();
    format!("{time}_{}{ENDING}", if id.is_empty() { "unknown" } else { &id })
}

/// Whether a file is called as [`name`] calls them.
fn is_tape(name: &str) -> bool {
    let pattern = b"dddd-dd-ddTdd-dd-dd.dddZ_";
    let Some(rest) = name.strip_suffix(ENDING) else { return false };
    let matches = |(byte, pattern): (u8, &u8)| match pattern {
        b'd' => byte.is_ascii_digit(),
        other => byte == *other,
    };
    rest.len() > pattern.len() && rest.bytes().zip(pattern).all(matches)
}

/// What a look at the folder came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub deleted: usize,
    /// What the tapes take up that are left, in bytes.
    pub bytes: u64,
}

/// Deletes the tapes that were written last more than `keep` ago, then the oldest until no more than
/// `most_bytes` are left.
pub fn sweep(folder: &Path, keep: Duration, most_bytes: u64, now: SystemTime) -> io::Result<Swept> {
    let mut tapes: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for found in fs::read_dir(folder)? {
        let found = found?;
        // Of the entry itself: a link is no tape, wherever it leads.
        let Ok(meta) = found.metadata() else { continue };
        if meta.is_file() && found.file_name().to_str().is_some_and(is_tape) {
            tapes.push((meta.modified()?, meta.len(), found.path()));
        }
    }
    tapes.sort();
    let mut swept = Swept { deleted: 0, bytes: tapes.iter().map(|(_, bytes, _)| bytes).sum() };
    for (written, bytes, path) in tapes {
        let age = now.duration_since(written).unwrap_or_default();
        let goes = age > keep || (swept.bytes > most_bytes && age > FRESH);
        if goes && fs::remove_file(path).is_ok() {
            swept.deleted += 1;
            swept.bytes -= bytes;
        }
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn at(seconds_ago: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW - seconds_ago)
    }

    #[test]
    fn names_sort_by_time_and_hold_no_path() {
        assert_eq!(name(at(0), "CA12"), "2027-01-15T08-00-00.000Z_CA12.tape");
        assert_eq!(name(at(0), "../../etc/x y"), "2027-01-15T08-00-00.000Z_______etc_x_y.tape");
        assert_eq!(name(at(0), ""), "2027-01-15T08-00-00.000Z_unknown.tape");
        for id in ["CA12", "../../etc/passwd", "", &"x".repeat(500)] {
            let name = name(at(0), id);
            assert!(is_tape(&name) && name.len() < 100 && !name.contains('/'), "{name}");
        }
    }

    #[test]
    fn old_tapes_go_and_nothing_else() {
        let folder = tempfolder("sweep");
        let make = |name: &str, seconds_ago: u64, bytes: usize| {
            fs::write(folder.join(name), vec![0; bytes]).unwrap();
            let file = fs::File::options().write(true).open(folder.join(name)).unwrap();
            file.set_modified(at(seconds_ago)).unwrap();
        };
        let tape = |day: u32| format!("2027-01-{day:02}T08-00-00.000Z_CA.tape");
        make(&tape(1), 5_000, 100);
        make(&tape(2), 3_000, 100);
        make(&tape(3), 2_000, 100);
        make(&tape(4), 10, 100);
        let others =
            ["notes.txt", "x.tape", "2027-01-01T08-00-00.000Z_CA.tape.bak", "2027-01-01T08-00-00Z_CA.tape"];
        others.iter().for_each(|name| make(name, 9_000, 10));
        fs::create_dir(folder.join("2027-01-09T08-00-00.000Z_CA.tape")).unwrap();
        std::os::unix::fs::symlink("notes.txt", folder.join("2027-01-08T08-00-00.000Z_CA.tape")).unwrap();

        let hour = Duration::from_secs(3_600);
        let swept = |most| sweep(&folder, hour, most, at(0)).unwrap();
        assert_eq!(swept(1_000_000), Swept { deleted: 1, bytes: 300 }, "by age");
        assert!(!folder.join(tape(1)).exists());
        assert_eq!(swept(250), Swept { deleted: 1, bytes: 200 }, "by size, the oldest first");
        assert!(!folder.join(tape(2)).exists() && folder.join(tape(3)).exists());
        assert_eq!(swept(0), Swept { deleted: 1, bytes: 100 }, "not what is being written");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), others.len() + 3);
        fs::remove_dir_all(&folder).unwrap();
    }

    fn tempfolder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("voxgate-tapes-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }
}
