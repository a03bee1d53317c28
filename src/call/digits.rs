//! Keys that the caller presses. A key is never speech: digits are collected until `#`, or until no
//! other comes, and are then put to the agent as a turn.

use std::time::Duration;

use crate::time::CallTime;

/// More than anyone keys at once; further keys are dropped.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Digits {
    keys: String,
    due: Option<CallTime>,
}

impl Digits {
    pub(super) fn press(&mut self, key: char, now: CallTime, timeout: Duration) {
        if self.keys.len() < MOST {
            self.keys.push(key);
        }
        self.due = Some(if key == '#' { now } else { now + timeout });
    }

    /// When the digits will be complete.
    pub(super) fn due(&self) -> Option<CallTime> {
        self.due
    }

    /// The digits, if they are complete; a `#` at their end only ended them.
    pub(super) fn take(&mut self, now: CallTime) -> Option<String> {
        self.due.filter(|due| *due <= now)?;
        self.due = None;
        let keys = std::mem::take(&mut self.keys);
        match keys.strip_suffix('#') {
            Some(digits) if !digits.is_empty() => Some(digits.to_owned()),
            _ => Some(keys),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_end_with_a_hash_or_with_time() {
        let timeout = Duration::from_secs(2);
        for (keys, after_ms, taken) in [
            ("12", 1_999, None),
            ("12", 2_000, Some("12")),
            ("12#", 0, Some("12")),
            ("#", 0, Some("#")),
            ("*1", 2_000, Some("*1")),
            ("", 9_000, None),
        ] {
            let mut digits = Digits::default();
            keys.chars().for_each(|key| digits.press(key, CallTime::ZERO, timeout));
            assert_eq!(digits.take(CallTime::from_millis(after_ms)).as_deref(), taken, "{keys}");
        }
    }

    #[test]
    fn a_stuck_key_does_not_fill_the_memory() {
        let mut digits = Digits::default();
        (0..10_000).for_each(|_| digits.press('5', CallTime::ZERO, Duration::ZERO));
        assert_eq!(digits.take(CallTime::ZERO).map(|d| d.len()), Some(MOST));
    }
}
