//! The log: to stderr, for people on a terminal, as JSON for everything else. `QUITTANCE_LOG` filters it.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

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
    // Whoever closed stderr wants no log; that is no reason to complain on the same stderr.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let started = if terminal {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        log.with_ansi(colour).with_target(false).try_init()
    } else {
        log.with_ansi(false).json().flatten_event(true).try_init()
    };
    started.map_err(|_| TelemetryError::Started)
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
