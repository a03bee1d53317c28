//! Where lines of the log go: to stderr. The one that every request has waits a moment for others: a write
//! for each would cost as much as forwarding the request. Any other line goes out at once, and what waits
//! before it, so that lines stay in their order. A process that is killed loses that moment's requests.

use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use super::EVERY_REQUEST;

/// So long at most.
const WAIT: Duration = Duration::from_millis(50);
/// What waits is no more than this and a line.
const MOST: usize = 16 * 1024;

static WAITING: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static BEGUN: Condvar = Condvar::new();
static WRITER: Once = Once::new();

fn waiting() -> MutexGuard<'static, Vec<u8>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes what waits. Who holds the lock writes, so that nothing overtakes.
fn write(waiting: &mut Vec<u8>) {
    // Where stderr is closed there is nobody to tell.
    let _ = io::stderr().write_all(waiting);
    waiting.clear();
}

pub(super) fn flush() {
    write(&mut waiting());
}

/// Writes, for as long as the process lives, what has waited.
fn write_what_waits() {
    loop {
        let begun = BEGUN.wait_while(waiting(), |waiting| waiting.is_empty());
        drop(begun);
        std::thread::sleep(WAIT);
        flush();
    }
}

pub(super) struct Outlet;

/// For one line.
pub(super) struct Line {
    may_wait: bool,
}

impl<'a> MakeWriter<'a> for Outlet {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { may_wait: false }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        Line { may_wait: meta.target() == EVERY_REQUEST }
    }
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = waiting();
        let first = waiting.is_empty();
        waiting.extend_from_slice(line);
        if !self.may_wait || waiting.len() > MOST {
            write(&mut waiting);
        } else if first {
            drop(waiting);
            let start = || std::thread::Builder::new().name("log".into()).spawn(write_what_waits);
            // Where there are no threads left, the next line that does not wait takes these along.
            WRITER.call_once(|| drop(start()));
            BEGUN.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
