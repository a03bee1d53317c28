//! What the child writes, forwarded line by line: as it is behind `app | ` where the log is text, as an
//! event where it is JSON. The child never waits for whoever reads our output, and neither does a
//! call: what does not fit is counted instead.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::config::LogFormat;

/// Lines that wait to be written.
const WAITING: usize = 1024;
/// A longer line is forwarded in pieces.
const LONGEST: usize = 8 * 1024;
/// How long the last lines may take.
const LAST_LINES: Duration = Duration::from_millis(500);

#[derive(Clone, Copy)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

type Line = (Stream, String);

#[derive(Clone)]
pub(super) struct Output {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

/// Done when everything is written that was read.
pub(super) struct Written(oneshot::Receiver<()>);

impl Written {
    pub(super) async fn wait(self) {
        let _ = tokio::time::timeout(LAST_LINES, self.0).await;
    }
}

impl Output {
    pub(super) fn start(format: LogFormat) -> (Output, Written) {
        let (lines, queued) = sync_channel(WAITING);
        let (done, written) = oneshot::channel();
        let output = Output { lines, lost: Arc::default() };
        let lost = output.lost.clone();
        // Writing may block for as long as nobody reads: a thread that nobody waits for.
        std::thread::spawn(move || {
            write(&queued, &lost, format);
            let _ = done.send(());
        });
        (output, Written(written))
    }

    /// Reads until the last process that holds the other end has gone.
    pub(super) fn forward(&self, stream: Stream, mut pipe: impl AsyncRead + Send + Unpin + 'static) {
        let output = self.clone();
        tokio::spawn(async move {
            let mut cutter = Cutter::default();
            let mut part = [0; 4096];
            while let Ok(read @ 1..) = pipe.read(&mut part).await {
                cutter.push(&part[..read], |line| output.send(stream, line));
            }
            cutter.rest(|line| output.send(stream, line));
        });
    }

    fn send(&self, stream: Stream, line: &[u8]) {
        let line = String::from_utf8_lossy(line).into_owned();
        if self.lines.try_send((stream, line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(lines: &Receiver<Line>, lost: &AtomicU64, format: LogFormat) {
    for (stream, line) in lines {
        match (format, stream) {
            (LogFormat::Json, _) => info!(stream = stream.as_str(), line, "CHILD_OUTPUT"),
            // A reader that has gone is met again by the log itself.
            (LogFormat::Text, Stream::Stdout) => drop(writeln!(std::io::stdout().lock(), "app | {line}")),
            (LogFormat::Text, Stream::Stderr) => drop(writeln!(std::io::stderr().lock(), "app | {line}")),
        }
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            lines => warn!(lines, "CHILD_OUTPUT_LOST"),
        }
    }
}

/// Cuts bytes into lines.
#[derive(Default)]
struct Cutter(Vec<u8>);

impl Cutter {
    fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = LONGEST - self.0.len();
            let within = &bytes[..bytes.len().min(room)];
            let (taken, ends) = match within.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at, true),
                None => (within.len(), within.len() == room),
            };
            self.0.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if ends {
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
                line(self.0.strip_suffix(b"\r").unwrap_or(&self.0));
                self.0.clear();
            }
        }
    }

    fn rest(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.0.is_empty() {
            line(&self.0);
            self.0.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut keep = |line: &[u8]| lines.push(String::from_utf8_lossy(line).into_owned());
        let mut cutter = Cutter::default();
        for part in parts {
            cutter.push(part, &mut keep);
        }
        cutter.rest(&mut keep);
        lines
    }

    #[test]
    fn lines_are_whole_however_they_come_and_never_too_long() {
        assert_eq!(cut(&[b"one\ntw", b"o\r\n\nthr", b"ee"]), ["one", "two", "", "three"]);
        let long = "x".repeat(LONGEST + 5);
        assert_eq!(cut(&[long.as_bytes(), b"\nnext\n"]), [&long[..LONGEST], "xxxxx", "next"]);
        let exact = "y".repeat(LONGEST);
        assert_eq!(cut(&[format!("{exact}\nz\n").as_bytes()]), [exact.as_str(), "z"]);
    }

    #[tokio::test]
    async fn a_child_never_waits_for_who_reads_our_output() {
        let (lines, nobody_reads) = sync_channel(2);
        let output = Output { lines, lost: Arc::default() };
        for _ in 0..5 {
            output.send(Stream::Stdout, b"line");
        }
        assert_eq!(output.lost.load(Ordering::Relaxed), 3);
        assert_eq!(nobody_reads.try_iter().count(), 2);
    }
}
