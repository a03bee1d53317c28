//! Whether another call can be taken: asked before anything is spent on it, by the voice webhook, by the
//! handshake, and by `/readyz`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::gateway::Gateway;
use crate::observe::Busy;

impl Gateway {
    /// What there is no room for; a number's calls apart.
    pub(super) fn busy(&self) -> Option<Busy> {
        let limits = &self.config.limits;
        if self.is_draining() {
            Some(Busy::Draining)
        } else if self.calls.active() >= limits.max_calls {
            Some(Busy::Capacity)
        } else if self.calls.unstarted() >= limits.max_unstarted {
            Some(Busy::Unstarted)
        } else if limits.max_memory > 0 && self.memory.bytes() > limits.max_memory {
            Some(Busy::Memory)
        } else {
            None
        }
    }
}

/// The memory of this process, read at most once a second.
pub(super) struct Resident {
    start: Instant,
    resident: AtomicU64,
    /// In milliseconds since the start.
    next_look: AtomicU64,
    looking: AtomicBool,
}

const LOOK: Duration = Duration::from_secs(1);

impl Default for Resident {
    fn default() -> Resident {
        let (resident, next_look) = (AtomicU64::new(0), AtomicU64::new(0));
        Resident { start: Instant::now(), resident, next_look, looking: AtomicBool::new(false) }
    }
}

impl Resident {
    /// In bytes; 0 where it cannot be known.
    fn bytes(&self) -> u64 {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now >= self.next_look.load(Ordering::Acquire) && !self.looking.swap(true, Ordering::AcqRel) {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            self.resident.store(resident_in(&status), Ordering::Release);
            self.next_look.store(now + LOOK.as_millis() as u64, Ordering::Release);
            self.looking.store(false, Ordering::Release);
        }
        self.resident.load(Ordering::Acquire)
    }
}

fn resident_in(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process() {
        assert_eq!(resident_in("Name:\tvoxgate\nVmRSS:\t   12345 kB\nThreads:\t3\n"), 12_345 * 1024);
        assert_eq!(resident_in(""), 0);
        assert!(Resident::default().bytes() > 1_000_000, "this one has some");
    }
}
