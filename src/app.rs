//! The one place that knows all the others: opens the store and binds every socket first, starts second, and stops in
//! one order.

mod head;
mod reload;
#[cfg(test)]
pub(crate) mod stage;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::admin::{Admin, Desk, Inside, Reloads};
use crate::clock::{self, Clock};
use crate::config::{self, Config};
use crate::drain::Tasks;
use crate::event::{Position, SourceName};
use crate::listener::{Intake, Listener, Site, Sites};
use crate::metrics::{Metrics, SourceMetrics};
use crate::provider::Ordinary;
use crate::quarantine::{Bounds, Quarantine};
use crate::relay::Relay;
use crate::relay::health::Health;
use crate::replay::{Replays, Towards};
use crate::seal::Seal;
use crate::service_manager::{self, Sockets};
use crate::sink::amqp::{Amqp, WrongUrl};
use crate::sink::feed::Feed;
use crate::store::embedded::journal::disk::make_folder;
use crate::store::embedded::{self, AMQP, Embedded, Enlisted};
use crate::store::{Filter, HeadNote, Readiness, Store};
use crate::traces::Traces;
use reload::Parts;
pub use reload::{NotTaken, Reloader};

/// A daemon whose sockets are bound and whose store is open, and which accepts nothing yet.
pub struct App {
    listener: Listener,
    admin: Admin,
    addresses: Addresses,
    sources: Vec<SourceLine>,
    store: Arc<dyn Store>,
    seen: Vec<(SourceName, SourceMetrics)>,
    /// Readers of the feed that count from the first start, whether or not they have asked yet.
    consumers: Vec<String>,
    serving: Tasks,
    relaying: Tasks,
    asking: Tasks,
    /// `None`: the feed alone.
    relay: Option<Relay>,
    /// What a former run left unfinished is gone on with once the store is ready.
    replays: Replays,
    /// Says whether the store knows where the relay's sink goes on.
    enlisted: Option<watch::Receiver<Enlisted>>,
    reloader: Reloader,
    traces: Traces,
    note: HeadNote,
    /// Says why the store failed for good.
    fatal: Option<watch::Receiver<Option<String>>>,
}

/// Where it listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The public listener.
    pub public: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
}

/// What an operator is told about a source at the start.
pub struct SourceLine {
    /// Its name.
    pub name: SourceName,
    /// The URL to give to the provider.
    pub url: String,
    /// What an ordinary payment will get.
    pub ordinary: Ordinary,
}

/// What a start may be told besides the config.
#[derive(Debug, Default)]
pub struct Options {
    /// The store comes from a backup: every paid event holds until it is confirmed or released.
    pub restored: bool,
    /// Holding because of a backup ends.
    pub restored_ended: bool,
    /// The clock is right although the newest record says otherwise.
    pub confirm_clock: bool,
    /// Draw a progress bar while keys are read.
    pub progress_bar: bool,
    /// What the service manager keeps open for it.
    pub sockets: Sockets,
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store cannot be opened: another daemon has it, or it is no store.
    #[error("the store cannot be opened")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An address is taken or not ours.
    #[error("{what} cannot listen on {address}")]
    Bind {
        /// Which listener.
        what: &'static str,
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The store failed while it ran: a sync that failed is never tried again by the same process.
    #[error("the store failed: {0}")]
    Failed(String),
    /// `relay.amqp` is new to a store that holds events, and the configuration does not say where it begins.
    #[error("the store holds events, and relay.amqp is new to it: nobody said which of them it is to get")]
    NeedsStart,
    /// A broker's URL does not read.
    #[error(transparent)]
    BrokerUrl(#[from] WrongUrl),
    /// Two series of the metrics collide: a mistake in the program.
    #[error("the metrics cannot be set up")]
    Metrics(#[from] prometheus::Error),
}

/// How long requests in flight have after a stop. With what the others get it stays below the 10 s that are promised.
const SERVING_BOUND: Duration = Duration::from_secs(6);
/// How long the relay has after that, to hear what became of what it sent.
const RELAYING_BOUND: Duration = Duration::from_secs(2);
/// How long a start waits for the journal, to refuse what it must refuse before anything is bound. A disk that takes
/// longer is met by the same refusal later.
const ENLISTING_BOUND: Duration = Duration::from_secs(3);
/// How long answers of the admin listener have after that.
const ASKING_BOUND: Duration = Duration::from_secs(1);
/// How long the collector of spans has for the last ones.
const FLUSHING_BOUND: Duration = Duration::from_millis(500);

impl App {
    /// Opens the store, then binds both sockets; nothing is accepted before [`App::run`]. A store that has to read its
    /// keys first, or whose disk refuses, is open all the same: `/readyz` says how far it is.
    ///
    /// # Errors
    /// Another daemon has the store, an address cannot be bound, a broker's URL does not read, or nobody said where a
    /// new sink begins.
    pub async fn bind(config: Config, options: Options) -> Result<Self, AppError> {
        // Before anything is opened: a configuration that is wrong leaves nothing behind.
        config.amqp.as_ref().map(|amqp| Amqp::new(amqp, HeadNote::default(), Traces::default())).transpose()?;
        let clock: Arc<dyn Clock> = Arc::new(clock::System);
        let metrics = Metrics::new(&config.sources, clock.now())?;
        let how = embedded::Options {
            restored: options.restored,
            restored_ended: options.restored_ended,
            confirm_clock: options.confirm_clock,
            metrics: Some(metrics.commit()),
            progress_bar: options.progress_bar,
            ..embedded::Options::of(&config, Arc::clone(&clock))
        };
        let opening = Handle::current().spawn_blocking(move || Embedded::open(how)).await;
        let store = opening.map_err(|error| AppError::Store(error.into()))?.map_err(|e| AppError::Store(e.into()))?;
        let mut enlisted = store.enlisted();
        // Not known in time is no reason not to start.
        let _ = tokio::time::timeout(ENLISTING_BOUND, enlisted.wait_for(|now| *now != Enlisted::NotYet)).await;
        let now = *enlisted.borrow();
        if now == Enlisted::NeedsStart {
            return Err(AppError::NeedsStart);
        }
        let app = Self::assemble(config, Arc::new(store.clone()), metrics, clock, options.sockets).await?;
        let url = format!("http://{}", app.admin_addr());
        store.announce(&url).map_err(|error| AppError::Store(error.into()))?;
        Ok(Self { fatal: Some(store.fatal()), enlisted: Some(enlisted), ..app })
    }

    /// With a store that is open. Binds both sockets; nothing is accepted before [`App::run`].
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub async fn with_store(config: Config, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self, AppError> {
        let metrics = Metrics::new(&config.sources, clock.now())?;
        Self::assemble(config, store, metrics, clock, Sockets::default()).await
    }

    async fn assemble(
        config: Config,
        store: Arc<dyn Store>,
        metrics: Metrics,
        clock: Arc<dyn Clock>,
        sockets: Sockets,
    ) -> Result<Self, AppError> {
        let group = || Tasks::new(Handle::current());
        let (serving, relaying, asking) = (group(), group(), group());
        let note = HeadNote::default();
        let traces = traces(&config, &clock, &metrics);
        let relay = match &config.amqp {
            None => None,
            Some(amqp) => Some(Relay {
                store: Arc::clone(&store),
                sink: Arc::new(Amqp::new(amqp, note.clone(), traces.clone())?),
                name: AMQP,
                window: usize::from(amqp.window),
                attempts: amqp.attempts,
                health: Health::default(),
                metrics: metrics.relay(),
                traces: traces.clone(),
                tasks: relaying.clone(),
            }),
        };
        let quarantine = quarantine(&config, &clock);
        let config = Arc::new(config);
        let site = Arc::new(Site::new(Arc::clone(&config), &metrics));
        let (current, replaced) = watch::channel(Arc::clone(&site));
        let sites = Sites::new(replaced);
        let reloads = Reloads::new(clock.now());
        let intake = Intake::new(
            sites.clone(),
            Arc::clone(&store),
            Arc::clone(&clock),
            serving.clone(),
            metrics.nowhere(),
            quarantine.clone(),
            traces.clone(),
        );
        let source_lines = site.routes.endpoints().iter().map(|endpoint| SourceLine {
            name: endpoint.source.clone(),
            url: format!("{}{}", config.listener.public_url, endpoint.path),
            ordinary: endpoint.provider.ordinary(),
        });
        let sources = source_lines.collect();
        let seen = site.routes.endpoints().iter().map(|e| (e.source.clone(), e.metrics.clone())).collect();

        if config.amqp.is_none() {
            // The feed is a part of this process: it is there as long as anything is.
            metrics.relay().connected(true);
        }
        let address = config.listener.address;
        let failed = |what, address| move |source| AppError::Bind { what, address, source };
        let listener = Listener::bind(sites.clone(), sockets.public, intake, metrics.connections().clone()).await;
        let listener = listener.map_err(failed("the public listener", address))?;
        let reloader = Reloader::new(Parts {
            current,
            metrics: metrics.clone(),
            clock: Arc::clone(&clock),
            store: Arc::clone(&store),
            quarantine: quarantine.clone(),
            reloads: reloads.clone(),
            tasks: asking.clone(),
        });
        let carrier = relay.as_ref().map(|relay| (relay.name, relay.window));
        let towards = config.amqp.clone().map(|amqp| towards(amqp, note.clone()));
        let replays = Replays::new(Arc::clone(&store), asking.clone(), Arc::clone(&clock), carrier, towards);
        let desk = Desk {
            store: Arc::clone(&store),
            feed: Feed::new(Arc::clone(&store), asking.clone()),
            started_at: clock.now(),
            metrics,
            clock,
            tasks: asking.clone(),
            sites,
            reloads,
            quarantine,
            draining: serving.stopping(),
            relay: relay.as_ref().map(|relay| relay.health.clone()),
            replays: replays.clone(),
        };
        let address = config.admin.address;
        let admin = Admin::bind(desk, sockets.admin).await.map_err(failed("the admin listener", address))?;
        let addresses = Addresses {
            public: listener.address().map_err(failed("the public listener", address))?,
            admin: admin.address().map_err(failed("the admin listener", address))?,
        };
        let consumers = config.feed_consumers.clone();
        let (enlisted, fatal) = (None, None);
        Ok(Self {
            listener,
            admin,
            addresses,
            sources,
            store,
            seen,
            consumers,
            serving,
            relaying,
            asking,
            relay,
            replays,
            enlisted,
            reloader,
            traces,
            note,
            fatal,
        })
    }

    /// Where it listens, with the ports that the system chose.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }
    /// The public listener's address.
    pub fn public_addr(&self) -> SocketAddr {
        self.addresses.public
    }
    /// The admin listener's address.
    pub fn admin_addr(&self) -> SocketAddr {
        self.addresses.admin
    }
    /// The sources, in the config's order.
    pub fn sources(&self) -> &[SourceLine] {
        &self.sources
    }

    /// Puts other configurations in force while it runs.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Serves until `shutdown`, then stops in this order: accept no more; let requests in flight finish; let the relay
    /// hear what became of what it sent; let the admin listener's answers finish; close the store, which finishes what
    /// is queued and marks all as synced.
    ///
    /// # Errors
    /// [`AppError::Failed`] when it stopped because the store failed for good; [`AppError::NeedsStart`] when a store that
    /// opened late holds events and nobody said where the relay begins.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
        let listening = format!("listening on {}", self.addresses.public);
        let Self {
            listener,
            admin,
            store,
            seen,
            consumers,
            serving,
            relaying,
            asking,
            relay,
            replays,
            enlisted,
            fatal,
            traces,
            note,
            ..
        } = self;
        // It waits for the journal by itself, and a broker that is away keeps nobody from receiving.
        relay.map(|relay| relaying.spawn("relay supervisor", relay.run()));
        asking.spawn("admin listener", admin.run(asking.clone()));
        serving.spawn("listener", listener.run(serving.clone()));
        asking.spawn("unfinished replays", replays.resume());
        asking.spawn("first look", once_ready(Arc::clone(&store), seen, consumers, asking.clone()));
        asking.spawn("head notes", head::note_heads(Arc::clone(&store), note.clone(), asking.clone(), head::EVERY));
        asking.spawn("watchdog", service_manager::feed_watchdog(Arc::clone(&store), asking.clone()));
        service_manager::ready(&listening);
        let failure = tokio::select! {
            () = shutdown => None,
            why = failed(fatal) => Some(AppError::Failed(why)),
            () = needs_start(enlisted) => Some(AppError::NeedsStart),
        };

        service_manager::stopping();
        tracing::info!("stopping: accepting no more, finishing what is in flight");
        serving.stop();
        report("listener", serving.wait(SERVING_BOUND).await);
        relaying.stop();
        report("relay", relaying.wait(RELAYING_BOUND).await);
        asking.stop();
        report("admin listener", asking.wait(ASKING_BOUND).await);
        // Beside the rest: nothing but the last spans hangs on it.
        let flushing = Handle::current().spawn_blocking(move || traces.flush(FLUSHING_BOUND));
        let closing = Handle::current().spawn_blocking(move || {
            head::note_head(&*store, &note);
            store.close();
        });
        if closing.await.is_err() {
            tracing::error!("closing the store ended by a panic");
        }
        let _ = flushing.await; // a panic there takes spans with it and nothing else
        tracing::info!("stopped");
        failure.map_or(Ok(()), Err)
    }
}

/// The admin API over a store that a command has opened itself: no socket, no relay, and nothing is received. Runs on
/// the current runtime.
///
/// # Errors
/// When the metrics cannot be set up.
pub fn inside(config: Config, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Inside, AppError> {
    let metrics = Metrics::new(&config.sources, clock.now())?;
    let quarantine = quarantine(&config, &clock);
    let towards = config.amqp.clone().map(|amqp| towards(amqp, HeadNote::default()));
    let (_, site) = watch::channel(Arc::new(Site::new(Arc::new(config), &metrics)));
    let tasks = Tasks::new(Handle::current());
    let replays = Replays::noted(Arc::clone(&store), tasks.clone(), Arc::clone(&clock), towards);
    Ok(Inside::new(Desk {
        feed: Feed::new(Arc::clone(&store), tasks.clone()),
        started_at: clock.now(),
        reloads: Reloads::new(clock.now()),
        store,
        metrics,
        clock,
        draining: tasks.stopping(),
        tasks,
        sites: Sites::new(site),
        quarantine,
        replays,
        relay: None,
    }))
}

/// Ends when the store failed for good, with the reason.
async fn failed(fatal: Option<watch::Receiver<Option<String>>>) -> String {
    if let Some(mut fatal) = fatal
        && let Ok(why) = fatal.wait_for(Option::is_some).await
    {
        return why.clone().unwrap_or_default();
    }
    std::future::pending().await
}

/// Ends when it turns out that nobody said where the relay begins.
async fn needs_start(enlisted: Option<watch::Receiver<Enlisted>>) {
    if let Some(mut enlisted) = enlisted
        && enlisted.wait_for(|now| *now == Enlisted::NeedsStart).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn report(group: &str, end: Result<(), crate::drain::StillRunning>) {
    for (task, count) in end.err().unwrap_or_default() {
        tracing::warn!(group, task, count, "still running at the end of the time to drain: left behind");
    }
}

/// Makes the sink of another exchange at the configured brokers.
fn towards(settings: config::Amqp, note: HeadNote) -> Towards {
    Arc::new(move |elsewhere| match Amqp::new(&settings, note.clone(), Traces::default()) {
        Ok(amqp) => Arc::new(amqp.towards(&elsewhere.exchange, elsewhere.routing_key.as_deref())),
        // It read when the daemon started.
        Err(WrongUrl { .. }) => unreachable!("the relay has the same URLs"),
    })
}

/// A thread that cannot be started for them keeps nobody from receiving either.
fn traces(config: &Config, clock: &Arc<dyn Clock>, metrics: &Metrics) -> Traces {
    Traces::start(config.traces.as_ref(), Arc::clone(clock), metrics.traces()).unwrap_or_else(|error| {
        tracing::error!(%error, "no traces: their thread cannot be started");
        Traces::default()
    })
}

/// A quarantine that cannot be opened keeps nobody from receiving.
fn quarantine(config: &Config, clock: &Arc<dyn Clock>) -> Option<Quarantine> {
    let bounds = Bounds { max_bytes: config.quarantine.max_bytes, max_age: config.quarantine.max_age };
    let folder = config.store.path.join("quarantine");
    let names = config.sources.iter().map(|source| &source.name);
    // Without the store's key no secret can be cut out, so nothing is kept.
    let seal = match make_folder(&config.store.path).and_then(|()| Seal::open(&config.store.path)) {
        Ok(seal) => seal,
        Err(error) => {
            tracing::error!(%error, "no quarantine: the store's seal.key cannot be read or made");
            return None;
        }
    };
    match Quarantine::open(&folder, names, bounds, Arc::clone(clock), seal) {
        Ok(quarantine) => Some(quarantine),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "no quarantine: what is refused is not kept");
            None
        }
    }
}

/// What waits for the store to be readable. How long a source has been silent must not begin anew with every start, so
/// the newest notification of each source is looked up. And the feed's configured consumers are made known: what they
/// have not acknowledged must not be retired, although they never asked.
async fn once_ready(
    store: Arc<dyn Store>,
    seen: Vec<(SourceName, SourceMetrics)>,
    consumers: Vec<String>,
    tasks: Tasks,
) {
    const LOOK_AGAIN: Duration = Duration::from_millis(250);
    let stopping = tasks.stopping();
    while store.readiness() != Readiness::Ready {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
    for name in consumers {
        store.acknowledge(&name, Position::default());
    }
    let look = move || {
        for (source, metrics) in seen {
            let filter = Filter { source: Some(source), ..Filter::default() };
            let mut before = None;
            // A page ends in time, found or not: a stop waits for one page, not for a walk through the journal.
            while !stopping.is_cancelled()
                && let Ok(page) = store.notifications(&filter, before, 1)
            {
                if let Some(at) = page.notifications.first().and_then(|item| item.received_at.parse().ok()) {
                    metrics.received_at(at);
                    break;
                }
                before = page.next;
                if before.is_none() {
                    break;
                }
            }
        }
    };
    // It is a figure of a metric: without it the silence counts from the start.
    let _ = tasks.spawn_blocking("last notifications", look).await;
}
