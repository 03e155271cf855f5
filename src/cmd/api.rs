//! The admin API, whoever answers: the daemon that holds the store, or this process, which opens it.
//!
//! A command asks the same questions and prints the same objects either way.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::Method;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::Failure;
use super::daemon::{Answer, Daemon};
use crate::admin::Inside;
use crate::app;
use crate::clock::{Clock, System};
use crate::config::Config;
use crate::store::embedded::{Embedded, Options};
use crate::store::{Readiness, Store};

/// Who answers.
pub(super) enum Api {
    /// A daemon holds the store.
    Daemon(Daemon),
    /// Nobody does: this process opened it, and closes it in the end.
    Own(Own),
}

/// A store that this process has opened.
pub(super) struct Own {
    store: Embedded,
    inside: Inside,
    runtime: Runtime,
}

/// What to do where there is no store yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// Make it: something is to be written.
    Make,
    /// Say so: there is nothing to be read.
    Refuse,
}

impl Api {
    /// Finds the daemon, or opens the store and waits until its keys are complete.
    ///
    /// # Errors
    /// When the configuration does not read, or the store cannot be opened or read.
    pub(super) fn reach(file: &Path, absent: Absent) -> Result<Self, Failure> {
        let contact = Config::contact(file).map_err(Failure::Config)?;
        if let Some(daemon) = Daemon::find(&contact)? {
            return Ok(Self::Daemon(daemon));
        }
        let config = Config::load(file).map_err(Failure::Config)?;
        may_open(&config.store.path, absent)?;
        Ok(Self::Own(Own::open(config)?))
    }

    /// GET of a path with its query.
    ///
    /// # Errors
    /// When no answer comes.
    pub(super) fn get(&self, target: &str) -> anyhow::Result<Answer> {
        match self {
            Self::Daemon(daemon) => daemon.get(target),
            Self::Own(own) => Ok(own.ask(Method::GET, target, Bytes::new())),
        }
    }

    /// POST of a JSON document.
    ///
    /// # Errors
    /// When no answer comes.
    pub(super) fn post(&self, target: &str, document: &Value) -> anyhow::Result<Answer> {
        match self {
            Self::Daemon(daemon) => daemon.post(target, document),
            Self::Own(own) => Ok(own.ask(Method::POST, target, document.to_string().into())),
        }
    }

    /// DELETE.
    ///
    /// # Errors
    /// When no answer comes.
    pub(super) fn delete(&self, target: &str) -> anyhow::Result<Answer> {
        match self {
            Self::Daemon(daemon) => daemon.delete(target),
            Self::Own(own) => Ok(own.ask(Method::DELETE, target, Bytes::new())),
        }
    }

    /// Whether a daemon answers.
    pub(super) fn is_daemon(&self) -> bool {
        matches!(self, Self::Daemon(_))
    }

    /// The body of a GET that is answered with success.
    ///
    /// # Errors
    /// When no answer comes, or it is a refusal.
    pub(super) fn ask(&self, target: &str) -> anyhow::Result<Value> {
        let answer = self.get(target)?;
        if answer.status == 200 { Ok(answer.body) } else { Err(anyhow!("{}", answer.reason())) }
    }
}

/// Who runs this command, for the audit: the name before `sudo`, else the user's.
pub(super) fn operator() -> String {
    let names = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    let mut printable =
        names.filter(|name| (1..=100).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()));
    printable.next().unwrap_or_else(|| format!("user {}", rustix::process::geteuid().as_raw()))
}

/// What opens a store owns the files that it makes there, and the daemon could not write to them afterwards.
fn may_open(store: &Path, absent: Absent) -> anyhow::Result<()> {
    let shown = store.display();
    let folder = match std::fs::metadata(store) {
        Ok(folder) => folder,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && absent == Absent::Make => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("there is no store in {shown} yet; start the daemon with serve")
        }
        Err(error) => return Err(anyhow::Error::new(error).context(format!("looking at the store in {shown}"))),
    };
    let me = rustix::process::geteuid().as_raw();
    if folder.uid() != me {
        bail!(
            "no daemon runs, and the store in {shown} belongs to user {}, not to {me}: start the daemon, or run this as \
             that user",
            folder.uid()
        );
    }
    Ok(())
}

impl Own {
    fn open(config: Config) -> anyhow::Result<Self> {
        // The API reads where waiting for a disk holds up nobody, and so wants threads of its own.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("starting the runtime")?;
        let options = Options { progress_bar: true, ..Options::of(&config, Arc::new(System)) };
        let store = Embedded::open(options).context("opening the store")?;
        let clock: Arc<dyn Clock> = Arc::new(System);
        let inside = {
            let _on_it = runtime.enter();
            app::inside(config, Arc::new(store.clone()), clock)
        };
        match inside {
            Ok(inside) => {
                let own = Self { store, inside, runtime };
                own.wait_until_ready()?;
                Ok(own)
            }
            Err(error) => {
                store.close();
                Err(error.into())
            }
        }
    }

    fn wait_until_ready(&self) -> anyhow::Result<()> {
        const LOOK_AGAIN: Duration = Duration::from_millis(10);
        loop {
            if let Some(why) = self.store.fatal().borrow().as_ref() {
                bail!("the store failed: {why}");
            }
            match self.store.readiness() {
                Readiness::Ready => return Ok(()),
                Readiness::Rebuilding(_) => std::thread::sleep(LOOK_AGAIN),
                Readiness::Storage(why) => bail!("the disk refuses: {why}"),
                Readiness::Draining => bail!("the store is closing"),
            }
        }
    }

    fn ask(&self, method: Method, target: &str, body: Bytes) -> Answer {
        let (status, body) = self.runtime.block_on(self.inside.ask(method, target, &operator(), body));
        Answer { status: status.as_u16(), body: serde_json::from_slice(&body).unwrap_or_default() }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.store.close();
    }
}
