//! `quittance serve`: the daemon.

use std::io::IsTerminal;
use std::path::Path;
use std::pin::pin;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::check::is_wrong_place;
use super::{Failure, talk};
use crate::app::{App, AppError, Options, Reloader};
use crate::cli::Serve;
use crate::config::{Config, Problem, Problems};
use crate::service_manager::{self, Sockets};
use crate::store::embedded::lock::LockError;

/// Runs until SIGTERM or SIGINT; SIGHUP has it read its configuration anew.
///
/// # Errors
/// When it cannot start: an address or the store is taken, the runtime cannot be made, or the configuration does not fit
/// the store.
pub fn run(config: Config, file: &Path, arguments: &Serve) -> Result<(), Failure> {
    match serve(config, file, arguments) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failure(error, file)),
        Err(error) => Err(error.into()),
    }
}

/// What only the store or lapin can tell of a configuration is told like every other mistake in it.
pub(super) fn failure(error: AppError, file: &Path) -> Failure {
    let wrong_place = |error: &LockError| matches!(error, LockError::Io { source, .. } if is_wrong_place(source));
    let (path, remedy) = match &error {
        AppError::Store(why) if why.downcast_ref().is_some_and(wrong_place) => {
            ("store.path".to_owned(), "name a folder that this user may make or write")
        }
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

fn serve(config: Config, file: &Path, arguments: &Serve) -> anyhow::Result<Result<(), AppError>> {
    // Before the runtime and its threads: it clears the environment of what it took.
    let sockets = Sockets::inherited().context("the sockets of the service manager: each has to be a TCP listener")?;
    let configured = config.listener.address;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let ended = runtime.block_on(async {
        // Asked for before anything is opened: a stop that comes early must find somebody who listens.
        let signals = Signals::listen().context("listening for signals")?;
        let options = Options {
            restored: arguments.restored,
            restored_ended: arguments.restored_ended,
            confirm_clock: arguments.confirm_clock,
            progress_bar: std::io::stderr().is_terminal(),
            sockets,
        };
        let app = match App::bind(config, options).await {
            Ok(app) => app,
            Err(error) => return Ok(Err(error)),
        };
        announce(&app);
        if configured.port() != 0 && configured != app.public_addr() {
            let given = app.public_addr();
            tracing::warn!(%configured, %given, "the service manager's socket is another than listener.address");
        }
        let reloader = app.reloader();
        Ok(app.run(signals.obeyed(&reloader, file)).await)
    });
    // What was left behind at the end of the time to drain is not waited for now either.
    runtime.shutdown_background();
    ended
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

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Ends when a stop is asked for. Until then every SIGHUP is a reload; those that come during one are one more.
    async fn obeyed(mut self, reloader: &Reloader, file: &Path) {
        let mut stop = pin!(stop(&mut self.terminate, &mut self.interrupt));
        loop {
            let reload = async {
                self.hangup.recv().await;
                reload(reloader, file).await;
            };
            // A configuration on a disk that hangs must not keep anybody from stopping.
            tokio::select! {
                () = &mut stop => return,
                () = reload => {}
            }
        }
    }
}

async fn stop(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// One reload. What came of it is in the log and in `/api/v1/status`.
async fn reload(reloader: &Reloader, file: &Path) {
    tracing::info!(file = %file.display(), "SIGHUP: reading the configuration anew");
    service_manager::reloading();
    let _ = reloader.reload(file).await;
    service_manager::reloaded();
}
