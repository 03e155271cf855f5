//! Another configuration while the daemon runs: taken whole, or refused whole with everything that is wrong with it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use super::once_ready;
use crate::admin::Reloads;
use crate::clock::Clock;
use crate::config::{self, Config, Problems, Source};
use crate::drain::Tasks;
use crate::event::SourceName;
use crate::listener::Site;
use crate::metrics::Metrics;
use crate::quarantine::{Bounds, Quarantine};
use crate::store::{ByHand, Store, Terms};

/// Puts other configurations in force. A cheap clone.
#[derive(Clone)]
pub struct Reloader(Arc<Inner>);

/// What a reload touches.
pub(super) struct Parts {
    pub current: watch::Sender<Arc<Site>>,
    pub metrics: Metrics,
    pub clock: Arc<dyn Clock>,
    pub store: Arc<dyn Store>,
    pub quarantine: Option<Quarantine>,
    pub reloads: Reloads,
    pub tasks: Tasks,
}

struct Inner {
    parts: Parts,
    /// Requests that room was made for at the start.
    queue: usize,
    /// One at a time.
    turn: Mutex<()>,
}

/// The former configuration is still in force; why is in the log and in `/api/v1/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotTaken;

impl Reloader {
    pub(super) fn new(parts: Parts) -> Self {
        let queue = parts.current.borrow().config.listener.max_in_flight;
        Self(Arc::new(Inner { parts, queue, turn: Mutex::new(()) }))
    }

    /// Reads a configuration file and puts it in force: the next connection takes its times from it, the next request
    /// everything else. What is under way ends as it began.
    ///
    /// # Errors
    /// [`NotTaken`] when something is wrong with it, or needs a restart. Nothing is changed then.
    pub async fn reload(&self, file: &Path) -> Result<(), NotTaken> {
        let _turn = self.0.turn.lock().await;
        let (this, file) = (self.clone(), file.to_owned());
        // Files are read, keys parsed and grammars compiled: off the tasks that answer.
        let work = self.0.parts.tasks.spawn_blocking("reload", move || this.load(&file));
        match work.await {
            Ok(result) => result,
            Err(_) => {
                self.refuse("the reload ended by a panic: this is a mistake in the program, please report it");
                Err(NotTaken)
            }
        }
    }

    fn load(&self, file: &Path) -> Result<(), NotTaken> {
        let running = Arc::clone(&self.0.parts.current.borrow().config);
        let judged = Config::load(file).and_then(|wanted| {
            let list = config::needs_restart(&running, &wanted, self.0.queue);
            if list.is_empty() { Ok(wanted) } else { Err(Problems { file: file.display().to_string(), list }) }
        });
        match judged {
            Ok(wanted) => {
                self.adopt(&running, wanted);
                Ok(())
            }
            Err(problems) => {
                self.refuse(&problems.to_string());
                Err(NotTaken)
            }
        }
    }

    /// Writes into the journal that another configuration is in force. Nothing waits for it: it is in force already.
    fn note(&self, added: &str, removed: &str) {
        let mut reason = format!("a reload; sources added: {added}; removed: {removed}");
        reason.truncate(ByHand::MAX_REASON); // names are ASCII
        let by = match ByHand::new("the daemon", &reason) {
            Ok(by) => by,
            Err(why) => return tracing::warn!(why, "a reload could not be audited"),
        };
        let store = Arc::clone(&self.0.parts.store);
        self.0.parts.tasks.spawn("reload audit", async move {
            if let Err(error) = store.audit("reload", by).await {
                tracing::warn!(%error, "a reload could not be audited");
            }
        });
    }

    fn refuse(&self, why: &str) {
        tracing::error!(why, "the new configuration is refused, the former one stays in force");
        self.0.parts.metrics.reload_refused();
        self.0.parts.reloads.refused(why.to_owned());
    }

    fn adopt(&self, running: &Config, wanted: Config) {
        let Parts { current, metrics, clock, store, quarantine, reloads, tasks } = &self.0.parts;
        let (now, wanted) = (clock.now(), Arc::new(wanted));
        // Before anything can arrive at a new source, everybody else knows it.
        metrics.adopt(&wanted.sources, now);
        store.adopt(Terms::of(&wanted));
        let mut short_of = None;
        if let Some(quarantine) = quarantine {
            let bounds = Bounds { max_bytes: wanted.quarantine.max_bytes, max_age: wanted.quarantine.max_age };
            if let Err(error) = quarantine.adopt(wanted.sources.iter().map(|source| &source.name), bounds) {
                short_of = Some(format!("it is in force, but a new source has no quarantine: {error}"));
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "no quarantine for a new source: what it refuses is not kept");
            }
        }
        let site = Arc::new(Site::new(Arc::clone(&wanted), metrics));
        current.send_replace(Arc::clone(&site));
        reloads.taken(now, short_of);

        let (before, after) = (names(&running.sources), names(&wanted.sources));
        let list = |names: &mut dyn Iterator<Item = &&SourceName>| {
            names.map(|name| name.as_str()).collect::<Vec<_>>().join(" ")
        };
        let (added, removed) = (list(&mut after.difference(&before)), list(&mut before.difference(&after)));
        tracing::info!(sources = wanted.sources.len(), added, removed, "the new configuration is in force");
        self.note(&added, &removed);

        let new = site.routes.endpoints().iter().filter(|endpoint| !before.contains(&endpoint.source));
        let seen = new.map(|endpoint| (endpoint.source.clone(), endpoint.metrics.clone())).collect();
        let consumers = wanted.feed_consumers.iter().filter(|name| !running.feed_consumers.contains(name));
        let consumers = consumers.cloned().collect();
        tasks.spawn("first look", once_ready(Arc::clone(store), seen, consumers, tasks.clone()));
    }
}

fn names(sources: &[Source]) -> BTreeSet<&SourceName> {
    sources.iter().map(|source| &source.name).collect()
}
