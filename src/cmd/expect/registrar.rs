//! Who registers: the running daemon, or this process with the store of its own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::super::daemon::Daemon;
use super::Judge;
use crate::clock::{Clock, System};
use crate::config::Config;
use crate::event::rfc3339;
use crate::store::embedded::{Embedded, Options};
use crate::store::{Readiness, Store};

/// Takes one registration after the other.
pub(super) enum Registrar {
    /// A daemon holds the store: it registers.
    Daemon(Daemon),
    /// Nobody does: this process opens it, and closes it in the end.
    Store(Embedded, Runtime),
}

impl Registrar {
    /// Finds the daemon, or opens the store: then waits until its keys are complete.
    ///
    /// # Errors
    /// When the store cannot be opened or read.
    pub(super) fn find(config: &Config) -> anyhow::Result<Self> {
        if let Some(daemon) = Daemon::find(config)? {
            return Ok(Self::Daemon(daemon));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().context("starting the runtime")?;
        let options = Options { progress_bar: true, ..Options::of(config, Arc::new(System)) };
        let store = Embedded::open(options).context("opening the store")?;
        let opened = Self::Store(store, runtime);
        opened.wait_until_ready()?;
        Ok(opened)
    }

    fn wait_until_ready(&self) -> anyhow::Result<()> {
        const LOOK_AGAIN: Duration = Duration::from_millis(10);
        let Self::Store(store, _) = self else { return Ok(()) };
        loop {
            if let Some(why) = store.fatal().borrow().as_ref() {
                bail!("the store failed: {why}");
            }
            match store.readiness() {
                Readiness::Ready => return Ok(()),
                Readiness::Rebuilding(_) => std::thread::sleep(LOOK_AGAIN),
                Readiness::Storage(why) => bail!("the disk refuses: {why}"),
                Readiness::Draining => bail!("the store is closing"),
            }
        }
    }

    /// Registers one; gives what the admin API answers.
    ///
    /// # Errors
    /// When it is refused, or cannot be kept.
    pub(super) fn register(&self, judge: &Judge<'_>, document: &Value) -> anyhow::Result<Value> {
        match self {
            Self::Daemon(daemon) => {
                let answer = daemon.post("/api/v1/expectations", document)?;
                if matches!(answer.status, 200 | 201) { Ok(answer.body) } else { Err(anyhow!("{}", answer.reason())) }
            }
            Self::Store(store, runtime) => {
                let (registration, return_url) = judge.read(document, now()).map_err(|message| anyhow!("{message}"))?;
                let (source, order) = (registration.source.clone(), registration.order.clone());
                let registered = runtime.block_on(store.expect(registration))?;
                Ok(json!({
                    "source": source,
                    "order_id": order,
                    "return_url": return_url,
                    "expires_at": rfc3339(registered.expires_at),
                }))
            }
        }
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        if let Self::Store(store, _) = self {
            store.close();
        }
    }
}

fn now() -> Timestamp {
    System.now()
}
