//! What carries events from the journal to the sink, however often that breaks.
//!
//! It knows the store and the sink and nobody else. It keeps nothing: what is not settled is still in the journal, so
//! that a start, a lost connection and a new event are one code path. [`window`] decides what a refusal means;
//! this file waits, sends and settles.
//!
//! **Invariant:** an event is settled as delivered only after the sink said that it has it; everything else ends with the
//! event being due again, or a dead letter.

pub mod backoff;
pub mod health;
pub mod window;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::drain::Tasks;
use crate::event::Position;
use crate::failpoint;
use crate::metrics::{Published, RelayMetrics};
use crate::sink::{Link, Report, Sink, Trouble};
use crate::store::{Due, NOT_OPEN, Settled, Store, StoreError};
use crate::traces::{Publishing, Traces};
use backoff::Backoff;
use health::Health;
use window::{Judgement, Refusal, Stall, Window};

/// How long a confirm may take before the connection is not believed any more.
const CONFIRM: Duration = Duration::from_secs(30);
/// How often the loop turns although nothing happens, and after how long without a turn it is started anew.
const TURN: Duration = Duration::from_secs(1);
const STUCK: Duration = Duration::from_secs(90);
/// How long what is on its way may take to be confirmed at a stop.
const LAST_CONFIRMS: Duration = Duration::from_millis(1200);
/// A connection that lived this long was a good one: the next wait is the first again.
const GOOD: Duration = Duration::from_secs(10);
/// How long to wait for a journal that cannot be read.
const UNREADABLE: Duration = Duration::from_secs(1);

/// The relay. A cheap clone.
#[derive(Clone)]
pub struct Relay {
    /// Gives events and takes what became of them.
    pub store: Arc<dyn Store>,
    /// Where they go.
    pub sink: Arc<dyn Sink>,
    /// The sink's name in the store.
    pub name: &'static str,
    /// Unconfirmed events at most.
    pub window: usize,
    /// Refusals after which an event is a dead letter.
    pub attempts: u32,
    /// What others are told.
    pub health: Health,
    /// The series.
    pub metrics: RelayMetrics,
    /// Spans of what is sent.
    pub traces: Traces,
    /// Its tasks.
    pub tasks: Tasks,
}

/// Events that were claimed and not taken over yet. Whoever asked for them may have been given up meanwhile, or the
/// daemon is stopping: then their claims end here.
struct Claims {
    store: Arc<dyn Store>,
    name: &'static str,
    due: Vec<Due>,
    /// As long as it is held, no other relay begins.
    _turn: OwnedMutexGuard<()>,
}

impl Drop for Claims {
    fn drop(&mut self) {
        self.due.drain(..).for_each(|due| self.store.settle(self.name, due.position, Settled::Released));
    }
}

/// How one connection's work ended.
enum End {
    Stopped,
    Lost(Trouble),
}

/// One connection's work.
struct Carrier<'a> {
    relay: &'a Relay,
    turn: &'a Arc<Mutex<()>>,
    window: &'a mut Window,
    backoff: &'a mut Backoff,
    head: watch::Receiver<Position>,
    stopping: CancellationToken,
    /// Nothing is handed out before.
    hold: Option<Instant>,
    /// After the hold: the sink is to be made ready again.
    renew: bool,
    /// The store had nothing more when it was last asked.
    dry: bool,
    /// By when the last confirms must be here.
    last_call: Option<Instant>,
    unreadable: bool,
    publishing: Publishing,
}

impl Relay {
    /// Works until it is asked to stop. What panics or gets stuck is started anew.
    pub async fn run(self) {
        let stopping = self.tasks.stopping();
        let turn = Arc::new(Mutex::new(()));
        loop {
            self.health.turned();
            let mut work = self.tasks.spawn("relay", self.clone().work(Arc::clone(&turn)));
            let mut look = tokio::time::interval(TURN);
            let finished = loop {
                tokio::select! {
                    end = &mut work => break end.is_ok(),
                    _ = look.tick() => if self.health.since_turn() > STUCK {
                        tracing::error!("the relay is stuck: starting it anew");
                        work.abort();
                    },
                }
            };
            if finished || stopping.is_cancelled() {
                return;
            }
            tracing::error!("the relay's task ended too early: starting it anew");
            self.health.down("the relay's task ended too early");
            self.metrics.connected(false);
            // What the lost task was claiming may still come: it must not be claimed after its claims were ended.
            tokio::select! {
                _ended = turn.lock() => self.store.release(self.name),
                () = stopping.cancelled() => return,
            }
            tokio::time::sleep(TURN).await;
        }
    }

    async fn work(self, turn: Arc<Mutex<()>>) {
        let stopping = self.tasks.stopping();
        let (mut window, mut backoff) = (Window::new(self.window, self.attempts), Backoff::default());
        loop {
            self.health.turned();
            let connecting = tokio::select! {
                connected = self.patiently(self.sink.connect()) => connected,
                () = stopping.cancelled() => return,
            };
            let lost = match connecting {
                Ok(mut link) => {
                    let began = Instant::now();
                    self.up();
                    match Carrier::new(&self, &turn, &mut window, &mut backoff).carry(&mut *link).await {
                        End::Stopped => {
                            self.let_go(window.lost());
                            link.close().await;
                            self.metrics.connected(false);
                            return;
                        }
                        End::Lost(trouble) => {
                            if began.elapsed() > GOOD {
                                backoff.reset();
                            }
                            trouble
                        }
                    }
                }
                Err(trouble) => trouble,
            };
            self.let_go(window.lost());
            self.down(&lost);
            let wait = backoff.next(chance());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    /// A connection may take its time, as long as its own bounds allow: that is no reason to call the relay stuck.
    async fn patiently<T>(&self, what: impl Future<Output = T>) -> T {
        let mut what = std::pin::pin!(what);
        loop {
            self.health.turned();
            if let Ok(done) = tokio::time::timeout(TURN, &mut what).await {
                return done;
            }
        }
    }

    fn up(&self) {
        self.metrics.connected(true);
        if self.health.up() {
            tracing::info!(sink = self.name, "the relay is connected");
        }
    }

    fn down(&self, trouble: &Trouble) {
        self.metrics.connected(false);
        self.metrics.blocked(false);
        if self.health.down(&trouble.to_string()) {
            let remedy = trouble.remedy;
            tracing::warn!(sink = self.name, error = %trouble, remedy, "the relay is down: events wait in the journal");
        }
    }

    fn settle(&self, position: Position, how: Settled) {
        self.store.settle(self.name, position, how);
    }

    fn let_go(&self, positions: Vec<Position>) {
        positions.into_iter().for_each(|position| self.settle(position, Settled::Released));
    }
}

impl<'a> Carrier<'a> {
    fn new(relay: &'a Relay, turn: &'a Arc<Mutex<()>>, window: &'a mut Window, backoff: &'a mut Backoff) -> Self {
        let (head, stopping) = (relay.store.head(), relay.tasks.stopping());
        Self {
            relay,
            turn,
            window,
            backoff,
            head,
            stopping,
            hold: None,
            renew: false,
            dry: false,
            last_call: None,
            unreadable: false,
            publishing: relay.traces.publishing(),
        }
    }

    async fn carry(mut self, link: &mut dyn Link) -> End {
        loop {
            self.relay.health.turned();
            let now = Instant::now();
            if let Some(end) = self.stop(now) {
                return end;
            }
            if self.hold.is_some_and(|until| until <= now) {
                self.hold = None;
                if std::mem::take(&mut self.renew)
                    && let Some(end) = self.renew(link).await
                {
                    return end;
                }
            }
            self.wake_rested(now);
            let none_due = self.hand_out(link).await;
            if let Some(stall) = self.window.stall(none_due) {
                self.stalled(stall, now);
            }
            if let Some(trouble) = self.overdue(now) {
                return End::Lost(trouble);
            }
            let idle = self.room() > 0 && self.dry;
            let wake = self.wake_at(now);
            let report = tokio::select! {
                report = link.next() => Some(report),
                changed = self.head.changed(), if idle => {
                    self.dry = false;
                    if changed.is_err() {
                        return End::Stopped; // the store has gone
                    }
                    None
                }
                () = tokio::time::sleep_until(wake) => None,
                () = self.stopping.cancelled(), if self.last_call.is_none() => None,
            };
            if let Some(report) = report
                && let Some(end) = self.heard(report, link).await
            {
                return end;
            }
        }
    }

    /// At a stop: what is on its way gets a moment, and nothing more is sent.
    fn stop(&mut self, now: Instant) -> Option<End> {
        if !self.stopping.is_cancelled() {
            return None;
        }
        let until = *self.last_call.get_or_insert(now + LAST_CONFIRMS);
        (self.window.in_flight() == 0 || now >= until).then_some(End::Stopped)
    }

    /// The link's bounds are longer than a stop may take.
    async fn renew(&self, link: &mut dyn Link) -> Option<End> {
        tokio::select! {
            renewed = self.relay.patiently(link.renew()) => renewed.err().map(End::Lost),
            () = self.stopping.cancelled() => Some(End::Stopped),
        }
    }

    fn room(&self) -> usize {
        if self.hold.is_some() || self.last_call.is_some() { 0 } else { self.window.room() }
    }

    fn wake_at(&self, now: Instant) -> Instant {
        let confirm = self.window.oldest().map(|sent| sent + CONFIRM);
        let times = [self.window.next_rested(), confirm, self.hold, self.last_call];
        times.into_iter().flatten().min().map_or(now + TURN, |at| at.min(now + TURN))
    }

    fn wake_rested(&mut self, now: Instant) {
        for (position, why) in self.window.rested(now) {
            self.relay.settle(position, why.map_or(Settled::Released, Settled::Refused));
            self.dry = false;
        }
    }

    /// Sends what is due, if there is room enough to be worth asking. Whether the store was asked and had nothing.
    async fn hand_out(&mut self, link: &mut dyn Link) -> bool {
        let (room, flying) = (self.room(), self.window.in_flight());
        if room == 0 || self.dry || (flying > 0 && room < self.relay.window / 4) {
            return room > 0 && self.dry;
        }
        // Seen before the store is asked: what comes after is a change.
        self.head.borrow_and_update();
        match self.claim(room).await {
            Ok(mut claims) => {
                self.unreadable = false;
                self.dry = claims.due.len() < room;
                let now = Instant::now();
                let none = claims.due.is_empty();
                for due in claims.due.drain(..) {
                    link.send(&due);
                    self.window.sent(due.position, due.attempts, now);
                    self.publishing.sent(&due, now);
                }
                if !none {
                    failpoint::reach("after-publish");
                }
                none
            }
            Err(error) => {
                if self.relay.store.id() != NOT_OPEN && !std::mem::replace(&mut self.unreadable, true) {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "the relay cannot read the journal: it tries again and again");
                }
                self.hold = Some(Instant::now() + UNREADABLE);
                false
            }
        }
    }

    async fn claim(&self, room: usize) -> Result<Claims, StoreError> {
        let (store, name) = (Arc::clone(&self.relay.store), self.relay.name);
        let turn = Arc::clone(self.turn).lock_owned().await;
        let claim = move || {
            let due = store.due(name, room)?;
            Ok(Claims { store, name, due, _turn: turn })
        };
        let claiming = self.relay.tasks.spawn_blocking("relay claim", claim);
        claiming.await.unwrap_or_else(|_| Err(StoreError::Index("claiming ended by a panic".to_owned())))
    }

    /// Nothing gets through: all is let go, and the next try waits.
    fn stalled(&mut self, stall: Stall, now: Instant) {
        self.relay.let_go(stall.suspects);
        self.dry = false;
        self.hold = Some(now + self.backoff.next(chance()));
        // A queue that was deleted, a binding that is missing: what may be declared is declared again. And RabbitMQ goes on
        // to nack for a channel that once met a full queue, when it is a raised limit that makes room.
        self.renew = stall.how != Refusal::Broke;
        self.relay.metrics.blocked(true);
        let why = match stall.how {
            Refusal::Returned => format!("no queue takes the events ({}): is one bound to the exchange?", stall.why),
            Refusal::Nacked => format!("no event is taken ({}): is the queue full?", stall.why),
            Refusal::Broke => format!("no event is taken ({})", stall.why),
        };
        if self.relay.health.blocked(&why) {
            tracing::warn!(sink = self.relay.name, why, "the sink takes nothing: events wait in the journal");
        }
    }

    /// A peer that does not confirm is no peer.
    fn overdue(&self, now: Instant) -> Option<Trouble> {
        let sent = self.window.oldest()?;
        if now.duration_since(sent) < CONFIRM {
            return None;
        }
        for _ in 0..self.window.in_flight() {
            self.relay.metrics.published(Published::Timeout);
        }
        let what = format!("no confirm came for {} s", CONFIRM.as_secs());
        Some(Trouble { at: self.relay.name.to_owned(), what, remedy: "see the broker's log" })
    }

    async fn heard(&mut self, report: Report, link: &mut dyn Link) -> Option<End> {
        let (now, metrics) = (Instant::now(), &self.relay.metrics);
        match report {
            Report::Took(position) => {
                metrics.published(Published::Confirmed);
                self.publishing.ended(position, Published::Confirmed);
                if let Some(charged) = self.window.took(position, now) {
                    failpoint::reach("after-confirm");
                    self.relay.settle(position, Settled::Delivered);
                    charged.into_iter().for_each(|judgement| self.judged(judgement));
                    self.flowing();
                }
            }
            Report::Returned(position, why) => {
                metrics.published(Published::Returned);
                self.publishing.ended(position, Published::Returned);
                let judgement = self.window.refused(position, Refusal::Returned, why, now);
                judgement.into_iter().for_each(|judgement| self.judged(judgement));
            }
            Report::Nacked(position, why) => {
                metrics.published(Published::Nacked);
                self.publishing.ended(position, Published::Nacked);
                let judgement = self.window.refused(position, Refusal::Nacked, why, now);
                judgement.into_iter().for_each(|judgement| self.judged(judgement));
            }
            Report::Broken(why) => {
                // A message that breaks every channel, and nothing else to send: told once, by the stall.
                if !self.relay.health.snapshot().blocked {
                    tracing::warn!(why, "the broker closed the channel: what was unconfirmed is sent one by one");
                }
                self.publishing.lost();
                let lost = self.window.broke(&why, now);
                self.relay.let_go(lost);
                self.dry = false;
                return self.renew(link).await;
            }
            Report::Blocked(Some(why)) => {
                self.window.block(true, now);
                metrics.blocked(true);
                let why = format!("the broker blocks publishers ({why})");
                if self.relay.health.blocked(&why) {
                    tracing::warn!(why, "events wait in the journal");
                }
            }
            Report::Blocked(None) => {
                self.window.block(false, now);
                self.flowing();
            }
            Report::Lost(trouble) => return Some(End::Lost(trouble)),
        }
        None
    }

    /// Something got through.
    fn flowing(&mut self) {
        self.dry = false;
        self.backoff.reset();
        // While it blocks, confirms still come for what was sent before: they say nothing of now.
        if !self.window.is_blocked() && self.relay.health.flowing() {
            self.relay.metrics.blocked(false);
            tracing::info!(sink = self.relay.name, "the sink takes events again");
        }
    }

    fn judged(&self, judgement: Judgement) {
        match judgement {
            Judgement::Rest(position, _, why) => {
                tracing::warn!(%position, why, "an event was refused while others were taken: it is tried again");
            }
            Judgement::Dead(position, why) => {
                tracing::error!(%position, why, "an event was refused for good: it is a dead letter now");
                self.relay.settle(position, Settled::Dead(why));
            }
        }
    }
}

/// A number that nobody foresees, so that daemons do not come back in step; the middle where the system has none.
fn chance() -> u32 {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(4) => u32::from_le_bytes(bytes),
        _ => u32::MAX / 2,
    }
}

#[cfg(test)]
mod tests;
