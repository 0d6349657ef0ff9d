//! The program's own log, on standard error.
//!
//! Two things hold for every event, whoever writes it, and are therefore done here and not at the call:
//!
//! - **No statement, value or secret.** Libraries write what they work on below `warn`: a second parser
//!   the SQL that it reads, HTTP clients their headers. Of libraries only warnings and errors pass,
//!   whatever `RUST_LOG` says. Our own events carry no SQL (`Debug` of the types that hold some prints
//!   digests and lengths).
//! - **One event is one line.** A field may hold what a stranger sent: a user name, a path, an error of
//!   a peer. Line breaks, control characters and what else a terminal obeys or hides are escaped.

use std::fmt::{self, Write as _};

use tracing::field::Field;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::prelude::*;

/// What our own events and spans have as their target, or the beginning of it.
const OURS: &str = "countersign";

/// Sends the log to standard error; `RUST_LOG` says how much of it.
pub(super) fn start() {
    start_at("info");
}

/// The same, with another level where `RUST_LOG` says nothing.
pub(super) fn start_at(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colours = super::terminal::error_is_seen();
    // Fails only when a log has been set up already, as when the demo serves.
    let _ = subscriber(filter, std::io::stderr, colours).try_init();
}

fn subscriber<W>(filter: EnvFilter, writer: W, colours: bool) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let fields = format::debug_fn(write_field).delimited(" ");
    let lines = tracing_subscriber::fmt::layer().fmt_fields(fields).with_writer(writer).with_ansi(colours);
    tracing_subscriber::registry().with(filter).with(filter_fn(may_be_logged)).with(lines)
}

fn may_be_logged(of: &Metadata<'_>) -> bool {
    let target = of.target();
    let ours = target.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    ours || *of.level() <= Level::WARN
}

fn write_field(out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    // Where in its source a library wrote it.
    if field.name().starts_with("log.") {
        return Ok(());
    }
    if field.name() != "message" {
        write!(out, "{}=", field.name())?;
    }
    write!(Escaping(out), "{value:?}")
}

/// Passes text on with everything escaped that is not plainly visible.
struct Escaping<'o, 'w>(&'o mut Writer<'w>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            // Visible, though Rust escapes them inside of literals.
            '"' | '\'' | '\\' => self.0.write_char(c),
            c => c.escape_debug().try_for_each(|escaped| self.0.write_char(escaped)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged by `events` where everything is asked for.
    fn logged(events: impl FnOnce()) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = subscriber(EnvFilter::new("trace"), move || writer.clone(), false);
        tracing::subscriber::with_default(subscriber, events);
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_is_one_line_whatever_its_fields_hold() {
        const FORGED: &str =
            "x\"\n2026-01-01T00:00:00Z  INFO countersign: granted\r\u{1b}[8m\u{9b}8m\u{2028}\u{202e}\u{7f}\t";
        let log = logged(|| {
            let span = tracing::info_span!(target: OURS, "session", user = %FORGED, peer = ?FORGED);
            let _inside = span.enter();
            tracing::info!(target: OURS, user = %FORGED, error = FORGED, other = ?FORGED, "turned away: {FORGED}");
        });

        assert_eq!(log.lines().count(), 1, "{log:?}");
        assert!(log.ends_with('\n'));
        let odd = |c: &char| *c != '\n' && (c.is_control() || matches!(c, '\u{2028}' | '\u{202e}'));
        assert_eq!(log.chars().find(odd), None, "{log:?}");
        // Not lost: five fields and the message.
        assert_eq!(log.matches("granted").count(), 6, "{log:?}");
        assert!(log.contains("user=x\"\\n2026-01-01"), "{log:?}");
    }

    #[test]
    fn libraries_are_heard_from_warnings_on_only() {
        let log = logged(|| {
            tracing::trace!(target: "sqlparser::parser", "patient-4711");
            tracing::debug!(target: "hyper::proto", "patient-4711");
            tracing::info!(target: "countersigned::liar", "patient-4711");
            tracing::warn!(target: "rustls", "a warning");
            tracing::trace!(target: "countersign::proxy", "ours");
        });

        assert!(!log.contains("patient-4711"), "{log}");
        assert!(log.contains("a warning") && log.contains("ours"), "{log}");
    }
}
