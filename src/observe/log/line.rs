//! A line of text, as `tracing_subscriber` writes it where it writes no colours, for a fifth of the work:
//! each request has one. What a value holds cannot begin another line, nor command a terminal.

use std::cell::RefCell;
use std::fmt::{self, Debug, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// As long as most lines are.
const USUAL: usize = 256;

pub(super) struct PlainLine;

impl<S, N> FormatEvent<S, N> for PlainLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // `writer` is behind a pointer: what is written piece by piece is written here first.
        let mut line = String::with_capacity(USUAL);
        write_time(SystemTime::now(), &mut line)?;
        line.push_str(match *event.metadata().level() {
            Level::ERROR => " ERROR",
            Level::WARN => "  WARN",
            Level::INFO => "  INFO",
            Level::DEBUG => " DEBUG",
            Level::TRACE => " TRACE",
        });
        let mut fields = Fields { line: &mut line, done: Ok(()) };
        event.record(&mut fields);
        fields.done?;
        line.push('\n');
        writer.write_str(&line)
    }
}

thread_local! {
    /// The last second that this thread wrote, and how it is written.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

fn write_time(now: SystemTime, line: &mut String) -> fmt::Result {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            let whole = UNIX_EPOCH + Duration::from_secs(since.as_secs());
            *second = since.as_secs();
            text.clear();
            write!(text, "{}", humantime::format_rfc3339_seconds(whole))?;
        }
        line.push_str(text.trim_end_matches('Z'));
        Ok(())
    })?;
    // A digit before them, so that none is left out.
    let micros = 1_000_000 + since.subsec_micros();
    line.push('.');
    line.push_str(&itoa::Buffer::new().format(micros)[1..]);
    line.push('Z');
    Ok(())
}

struct Fields<'l> {
    line: &'l mut String,
    done: fmt::Result,
}

impl Fields<'_> {
    /// Writes all of a field but its value; false for one that is not to be written.
    fn begin(&mut self, field: &Field) -> bool {
        let name = field.name();
        // What the bridge from the `log` crate adds.
        if name.starts_with("log.") {
            return false;
        }
        self.line.push(' ');
        if name != "message" {
            self.line.push_str(name.strip_prefix("r#").unwrap_or(name));
            self.line.push('=');
        }
        true
    }

    fn text(&mut self, field: &Field, value: &str) {
        if self.begin(field) {
            self.line.push_str(value);
        }
    }

    fn debug(&mut self, value: &dyn Debug) {
        if self.done.is_ok() {
            self.done = write!(OneLine(self.line), "{value:?}");
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.begin(field) {
            self.debug(value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let plain = value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'));
        if self.begin(field) {
            if plain {
                self.line.push('"');
                self.line.push_str(value);
                self.line.push('"');
            } else {
                self.debug(&value);
            }
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.text(field, itoa::Buffer::new().format(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.text(field, itoa::Buffer::new().format(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.text(field, if value { "true" } else { "false" });
    }
}

/// Writes control characters as they would be in a Rust string.
struct OneLine<'l>(&'l mut String);

impl Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, control)) = rest.char_indices().find(|(_, c)| c.is_control()) {
            self.0.push_str(&rest[..at]);
            self.0.extend(control.escape_default());
            rest = &rest[at + control.len_utf8()..];
        }
        self.0.push_str(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::{MakeWriter, layer};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Lines;

        fn make_writer(&'a self) -> Lines {
            self.clone()
        }
    }

    /// What our format makes of events, and what `tracing_subscriber` does.
    fn both(events: impl Fn()) -> [String; 2] {
        let (ours, theirs) = (Lines::default(), Lines::default());
        let subscriber = tracing_subscriber::registry()
            .with(layer().event_format(PlainLine).with_writer(ours.clone()))
            .with(layer().with_target(false).with_ansi(false).with_writer(theirs.clone()));
        tracing::subscriber::with_default(subscriber, events);
        [ours, theirs].map(|lines| String::from_utf8(lines.0.lock().unwrap().clone()).unwrap())
    }

    fn without_times(text: &str) -> String {
        let line = |line: &str| {
            let (time, rest) = line.split_at("2026-11-27T00:00:00.000000Z".len());
            assert!(humantime::parse_rfc3339(time).is_ok(), "{line}");
            rest.to_owned()
        };
        text.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_line_is_what_it_was() {
        let [ours, theirs] = both(|| {
            let (text, error) = ("a \"b\" \\ é \n \u{1b}[1m", std::io::Error::other("no, \"x\""));
            let r#type = 1;
            tracing::info!(method = "GET", status = 200u16, ms = 0u64, cold = -3, ok = true, "HTTP");
            tracing::warn!(text, %error, ?error, half = 0.5, "two words");
            tracing::error!(r#type, none = None::<u8>, some = Some(4), "é");
            tracing::debug!("only a message");
            tracing::trace!(only = "a field");
        });
        let [ours, theirs] = [ours, theirs].map(|text| without_times(&text));
        assert_eq!(ours, theirs);
        assert!(ours.starts_with("  INFO HTTP method=\"GET\" status=200 ms=0 cold=-3 ok=true\n"), "{ours}");
    }

    #[test]
    fn a_value_begins_no_line() {
        let [ours, _] = both(|| tracing::info!(why = %"a\n2026 ERROR b\u{1b}[2J\u{9b}", "is\nit?"));
        assert_eq!(without_times(&ours), "  INFO is\\nit? why=a\\n2026 ERROR b\\u{1b}[2J\\u{9b}");
    }

    #[test]
    fn a_time_has_all_its_digits() {
        let written = |micros| {
            let mut text = String::new();
            write_time(UNIX_EPOCH + Duration::from_micros(micros), &mut text).unwrap();
            text
        };
        assert_eq!(written(1_000_007), "1970-01-01T00:00:01.000007Z");
        assert_eq!(written(1_999_999), "1970-01-01T00:00:01.999999Z");
        assert_eq!(written(86_400_000_000), "1970-01-02T00:00:00.000000Z");
    }
}
