//! How late the threads that carry the calls come to what is due: a tick each 20 ms, as a call has it.
//! What holds a thread for longer makes frames late.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::observe::Metrics;

const TICK: Duration = Duration::from_millis(20);
/// Told once a second.
const TELL_EVERY: u32 = 50;

/// Looks for ever, on the threads where it is spawned.
pub(super) async fn watch(metrics: Arc<Metrics>) {
    let lag = metrics.worker_stall.local();
    let (mut due, mut ticks) = (Instant::now(), 0u32);
    loop {
        due += TICK;
        sleep_until(due).await;
        let late = due.elapsed();
        lag.observe(late.as_secs_f64());
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(TELL_EVERY) {
            lag.flush();
        }
        // One long stall is one, and not all the ticks that it swallowed.
        due += Duration::from_millis(late.as_millis() as u64 / 20 * 20);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_thread_that_is_held_is_seen() {
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let watching = tokio::spawn(watch(metrics.clone()));
        tokio::task::yield_now().await;
        #[expect(clippy::disallowed_methods, reason = "what is looked for")]
        std::thread::sleep(Duration::from_millis(300));
        while metrics.worker_stall.get_sample_count() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let seen = metrics.worker_stall.get_sample_sum();
        assert!(seen >= 0.27, "{seen}");
        watching.abort();
    }
}
