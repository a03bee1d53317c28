//! The log: one line an event on stderr, as text or as JSON. `RUST_LOG` chooses levels.

mod line;
mod outlet;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use self::line::PlainLine;
use self::outlet::Outlet;
use crate::config::LogFormat;

/// Pingora says at INFO what we say better, and at WARN and ERROR what a client did wrong, or that a
/// successor waits for its sockets.
const LEVELS: &str = "info,pingora_core=warn,pingora_core::server::transfer_fd=off,pingora_proxy=error,\
                      symphonia=error";

/// The target of the line that every request has: such lines are written together, many at once.
pub const EVERY_REQUEST: &str = "voxgate::http";

/// The log, while this is there: what waits is written when it goes.
pub struct Log(());

/// Starts the log. A second call changes nothing.
pub fn init(format: LogFormat) -> Log {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let levels = levels(&asked);
    let layer = fmt::layer().with_writer(Outlet).with_target(false);
    let layer = match format {
        LogFormat::Text if std::io::stderr().is_terminal() => layer.with_ansi(true).boxed(),
        LogFormat::Text => layer.with_ansi(false).event_format(PlainLine).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    // The bridge from the `log` crate, which Pingora uses, comes with `try_init`.
    let _ = tracing_subscriber::registry().with(levels).with(layer).try_init();
    Log(())
}

/// The levels that are asked for, if that makes sense. Nothing at all is what an environment file has that leaves
/// the variable empty: no wish to be told nothing.
fn levels(asked: &str) -> EnvFilter {
    let asked = Some(asked).filter(|asked| !asked.trim().is_empty());
    asked.and_then(|asked| EnvFilter::try_new(asked).ok()).unwrap_or_else(|| EnvFilter::new(LEVELS))
}

impl Drop for Log {
    fn drop(&mut self) {
        outlet::flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_wish_is_none() {
        let usual = EnvFilter::new(LEVELS).to_string();
        for asked in ["", " ", "\t\n", "voxgate=loud"] {
            assert_eq!(levels(asked).to_string(), usual, "{asked:?}");
        }
        for asked in ["warn", "off", "voxgate=debug"] {
            assert_eq!(levels(asked).to_string(), asked);
        }
    }
}
