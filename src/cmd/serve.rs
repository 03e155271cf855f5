//! `quittance serve`: the daemon.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, talk};
use crate::app::{App, AppError, Options};
use crate::cli::Serve;
use crate::config::{Config, Problem, Problems};

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start: an address or the store is taken, the runtime cannot be made, or the configuration does not fit
/// the store.
pub fn run(config: Config, file: &Path, arguments: &Serve) -> Result<(), Failure> {
    match serve(config, arguments) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failure(error, file)),
        Err(error) => Err(error.into()),
    }
}

/// What only the store or lapin can tell of a configuration is told like every other mistake in it.
pub(super) fn failure(error: AppError, file: &Path) -> Failure {
    let (path, remedy) = match &error {
        AppError::NeedsStart => (
            "relay.amqp.start".to_owned(),
            "set it to \"now\" (only what comes from now on) or \"beginning\" (everything that is kept)",
        ),
        AppError::BrokerUrl(url) => (
            format!("relay.amqp.url[{}]", url.number),
            "write amqp://user:password@host:port/vhost, special characters percent-encoded",
        ),
        _ => return Failure::Operation(error.into()),
    };
    let problem = Problem { path, line: None, message: error.to_string(), remedy: remedy.to_owned() };
    Failure::Config(Problems { file: file.display().to_string(), list: vec![problem] })
}

fn serve(config: Config, arguments: &Serve) -> anyhow::Result<Result<(), AppError>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        // Asked for before anything is opened: a stop that comes early must find somebody who listens.
        let shutdown = Shutdown::listen().context("listening for signals")?;
        let options = Options {
            restored: arguments.restored,
            restored_ended: arguments.restored_ended,
            confirm_clock: arguments.confirm_clock,
            progress_bar: std::io::stderr().is_terminal(),
        };
        let app = match App::bind(config, options).await {
            Ok(app) => app,
            Err(error) => return Ok(Err(error)),
        };
        announce(&app);
        Ok(app.run(shutdown.asked()).await)
    })
}

/// What an operator wants to see before anything else.
fn announce(app: &App) {
    for source in app.sources() {
        let (ordinary, matched) = (source.ordinary.verdict, source.ordinary.with_expectation);
        let (name, url, why) = (&source.name, &source.url, &source.ordinary.why);
        talk(&format!("source {name}: {url} -> {ordinary}; {matched} with a matching expectation ({why})"));
    }
    talk(&format!("admin listener on http://{}", app.admin_addr()));
    talk(&format!("listening on http://{}", app.public_addr()));
}

struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Shutdown {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn asked(mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                // Left to its default it would end the process without draining.
                _ = self.hangup.recv() => tracing::warn!("SIGHUP: this version reads its config at the start only"),
            }
        }
    }
}
