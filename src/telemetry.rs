//! The log: to stderr, for people on a terminal, as JSON for everything else. `QUITTANCE_LOG` filters it.
//!
//! Where nobody watches, ordinary lines go out in batches, since a system call for each would cost as much as taking the
//! notification in that it tells of. A line that somebody must act on takes everything before it along at once.

use std::io::{self, IsTerminal, Write};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::sink::amqp::SILENCED;

/// The variable that says how much is logged, in `tracing`'s language: `warn`, or `info,quittance::listener=debug`.
pub const VARIABLE: &str = "QUITTANCE_LOG";

/// The log cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter says nothing that can be understood.
    #[error("{VARIABLE} is not a filter: {0}; write error, warn, info, debug, or module=level pairs with commas")]
    Filter(String),
    /// Something else in this process has a log already.
    #[error("a log was started already")]
    Started,
}

/// Starts the log, at `default` unless [`VARIABLE`] says otherwise.
///
/// # Errors
/// [`TelemetryError`].
pub fn start(default: &str) -> Result<(), TelemetryError> {
    let wanted = std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let filter = filter(wanted.as_deref().unwrap_or(default))?;
    let terminal = std::io::stderr().is_terminal();
    let lines = LINES.get_or_init(|| Lines::to(Box::new(io::stderr())));
    let gathering =
        !terminal && std::thread::Builder::new().name("log".to_owned()).spawn(|| lines.pass_on_for_ever()).is_ok();
    let writer = Gate { lines, gathering };
    // Whoever closed stderr wants no log; that is no reason to complain on the same stderr.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    let started = if terminal {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        log.with_ansi(colour).with_target(false).try_init()
    } else {
        log.with_ansi(false).json().flatten_event(true).try_init()
    };
    started.map_err(|_| TelemetryError::Started)
}

/// Writes what still waits: before the last words of the process.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        pass_on(&mut lines.lock());
    }
}

static LINES: OnceLock<Lines> = OnceLock::new();
/// How old an ordinary line may get before it is written, and how many bytes may wait.
const GATHERED_FOR: Duration = Duration::from_millis(20);
const GATHERED_BYTES: usize = 64 << 10;

/// Lines on their way out.
struct Lines {
    waiting: Mutex<Waiting>,
    some: Condvar,
}

struct Waiting {
    bytes: Vec<u8>,
    out: Box<dyn Write + Send>,
}

/// Which lines may wait.
struct Gate {
    lines: &'static Lines,
    gathering: bool,
}

/// One event's way out.
struct Pen {
    lines: &'static Lines,
    at_once: bool,
}

impl Lines {
    fn to(out: Box<dyn Write + Send>) -> Self {
        Self { waiting: Mutex::new(Waiting { bytes: Vec::new(), out }), some: Condvar::new() }
    }

    fn write(&self, line: &[u8], at_once: bool) {
        let mut waiting = self.lock();
        let first = waiting.bytes.is_empty();
        waiting.bytes.extend_from_slice(line);
        if at_once || waiting.bytes.len() >= GATHERED_BYTES {
            pass_on(&mut waiting);
        } else if first {
            self.some.notify_one();
        }
    }

    fn pass_on_for_ever(&self) {
        loop {
            let waiting = self.some.wait_while(self.lock(), |waiting| waiting.bytes.is_empty());
            drop(waiting.unwrap_or_else(PoisonError::into_inner));
            std::thread::sleep(GATHERED_FOR);
            pass_on(&mut self.lock());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader that has gone is no reason to stop.
fn pass_on(waiting: &mut Waiting) {
    let _ = waiting.out.write_all(&waiting.bytes);
    waiting.bytes.clear();
}

impl<'a> MakeWriter<'a> for Gate {
    type Writer = Pen;

    fn make_writer(&'a self) -> Pen {
        Pen { lines: self.lines, at_once: true }
    }
    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Pen {
        Pen { lines: self.lines, at_once: !self.gathering || *meta.level() <= Level::WARN }
    }
}

impl Write for Pen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines.write(bytes, self.at_once);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    let wrong = |error: String| TelemetryError::Filter(error);
    let filter = EnvFilter::builder().parse(text).map_err(|error| wrong(error.to_string()))?;
    // Whatever was asked for: what others log of a message, its body included, is nobody's to read here.
    SILENCED.iter().try_fold(filter, |filter, directive| {
        Ok(filter.add_directive(directive.parse().map_err(|error| wrong(format!("{directive}: {error}")))?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written, to look at.
    #[derive(Clone, Default)]
    struct Seen(std::sync::Arc<Mutex<Vec<u8>>>);

    impl Write for Seen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("whole").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seen {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("whole").clone()).expect("text")
        }
    }

    #[test]
    fn ordinary_lines_wait_and_a_warning_takes_them_along_in_order() {
        let seen = Seen::default();
        let lines = Lines::to(Box::new(seen.clone()));
        lines.write(b"one\n", false);
        lines.write(b"two\n", false);
        assert_eq!(seen.text(), "");
        lines.write(b"warning\n", true);
        assert_eq!(seen.text(), "one\ntwo\nwarning\n");
    }

    #[test]
    fn what_waits_is_bounded_and_soon_written() {
        let seen = Seen::default();
        let lines: &'static Lines = Box::leak(Box::new(Lines::to(Box::new(seen.clone()))));
        let line = [b'x'; 1024];
        (0..GATHERED_BYTES / line.len()).for_each(|_| lines.write(&line, false));
        assert_eq!(seen.text().len(), GATHERED_BYTES, "no more than that waits, also when nobody passes it on");
        std::thread::spawn(|| lines.pass_on_for_ever());
        lines.write(b"last\n", false);
        while !seen.text().ends_with("last\n") {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_filter_that_means_nothing_is_refused_and_not_taken_for_silence() {
        for good in ["info", "warn,quittance::listener=debug", "off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["loud=loud", "quittance=verbose", "info,=,"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
