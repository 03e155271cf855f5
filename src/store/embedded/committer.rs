//! The one thread that writes: takes what is queued, decides it in order, appends one group, syncs once, answers all.
//!
//! **Invariant:** nobody is answered with success, and no reader sees anything of a group, before its `fdatasync`
//! returned. What a group changed in memory is taken back if it could not be written.

mod by_hand;
mod expectation;
mod release;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::decide::{Circumstances, Decision, clock_is_doubtful, decide};
use super::filter::Filter;
use super::index::{Batch, Covered, Index};
use super::journal::{AppendError, Entry, Journal, Prepared as Rewriting, Reader, RewriteError};
use super::ledger::Ledger;
use super::overlay::{Look, Overlay, Preloaded};
use super::record::{Audit, Expected, Progress, Record, Stamped};
use super::sinks::{FORGOTTEN, Sinks, owed};
use super::state::{self, Key, Keys, Value, View};
use super::status::Shared;
use crate::clock::Clock;
use crate::event::{AccountName, Digest, Position};
use crate::failpoint;
use crate::metrics::CommitMetrics;
use crate::provider::Verified;
use crate::store::{ByHand, Committed, ExpectError, Registered, Unavailable};
pub use by_hand::ToRule;
pub use release::ToRelease;

/// Jobs in one group, and bytes of their parts: beyond, the next group takes them.
const GROUP_JOBS: usize = 1024;
const GROUP_BYTES: usize = 8 << 20;
/// How often progress is written, the index gets its turn, the full disk is tried again.
const TICK: Duration = Duration::from_millis(100);
const PROGRESS_EVERY: Duration = Duration::from_millis(800);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(3600);
const HAND_OVER_AT: usize = 4096;

/// Something for the committer to do.
pub enum Job {
    /// Decide and keep a notification.
    Notification(Box<Notification>),
    /// Register an expectation.
    Expectation(Box<Registering>),
    /// End a hold by hand.
    Rule(Box<ToRule>),
    /// Let in by hand what nobody could prove.
    Release(Box<ToRelease>),
    /// Write records that need no decision; the reply comes after the sync, with the first one's position.
    Append(Vec<Record>, oneshot::Sender<Result<Position, Unavailable>>),
    /// Tell what stands under these keys now.
    Look(Vec<Key>, SyncSender<Vec<Option<Value>>>),
    /// Put a rewritten segment in its place, forget keys that went with it.
    Install(Box<Rewriting>, Vec<Key>, SyncSender<bool>),
    /// Finish what is queued before this and end.
    Close,
}

/// A verified notification, with everything done that another thread can do.
pub struct Notification {
    /// What was proven.
    pub verified: Verified,
    /// The raw part.
    pub raw: Bytes,
    /// Its hash.
    pub raw_hash: Digest,
    /// Click KW: hash of the indicator.
    pub indicator: Option<[u8; 16]>,
    /// The orders that other cuts could name, with the accounts whose they would be.
    pub rivals: Option<Vec<(AccountName, String)>>,
    /// It comes out of the quarantine, and who wants it let in.
    pub again: Option<ByHand>,
    /// What was looked up ahead.
    pub preloaded: Preloaded,
    /// Who waits.
    pub reply: oneshot::Sender<Result<Committed, Unavailable>>,
}

/// An expectation to be registered.
pub struct Registering {
    /// What is expected.
    pub expected: Expected,
    /// Why it can never be paid, where it cannot.
    pub unfit: Option<&'static str>,
    /// Who waits.
    pub reply: oneshot::Sender<Result<Registered, ExpectError>>,
}

/// A batch on its way to the index.
pub struct HandOver {
    /// The values.
    pub batch: Arc<Batch>,
    /// What the index covers with them.
    pub covered: Covered,
    /// Keys to forget.
    pub forget: Vec<Key>,
}

/// What the committer works with.
pub struct Committer {
    /// The journal's one writer.
    pub journal: Journal,
    /// For re-decisions.
    pub reader: Reader,
    /// What the index lacks.
    pub overlay: Overlay,
    /// What was ever kept.
    pub filter: Arc<Filter>,
    /// The index, for reading.
    pub index: Arc<Index>,
    /// Makes keys.
    pub keys: Keys,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How far sinks have come.
    pub sinks: Arc<Sinks>,
    /// What operators see.
    pub ledger: Arc<Ledger>,
    /// What others see.
    pub shared: Arc<Shared>,
    /// Wakes whoever waits for events.
    pub head: watch::Sender<Position>,
    /// To the index's thread.
    pub hand_over: SyncSender<HandOver>,
    /// Hand-overs that the index's thread has finished.
    pub turns: Arc<AtomicU64>,
    /// For the histograms.
    pub metrics: Option<CommitMetrics>,
    /// What was configured.
    pub terms: super::Current,
}

type Answer = Box<dyn FnOnce(Result<(), Unavailable>) + Send>;

/// A group in the making.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    bytes: usize,
    answers: Vec<Answer>,
    progress: Vec<Record>,
    /// What operators are shown of it.
    ledger: Vec<(Position, Record)>,
    /// Records that the sinks are owed.
    events: usize,
    /// Something in it must not take the room kept in reserve.
    needs_room: bool,
    /// The index failed half way through: nothing of it may last.
    spoiled: bool,
}

#[derive(Default)]
struct Rhythm {
    progress: Option<Instant>,
    hand_over: Option<Instant>,
    heartbeat: Option<Instant>,
    retry: Option<Instant>,
    marked: bool,
    forget: Vec<Key>,
}

fn due(at: Option<Instant>, every: Duration) -> bool {
    at.is_none_or(|at| at.elapsed() >= every)
}

impl Committer {
    /// Works until it is told to close, then ends the journal and the index cleanly.
    pub fn run(mut self, jobs: &Receiver<Job>) {
        let mut rhythm = Rhythm { heartbeat: Some(Instant::now()), ..Rhythm::default() };
        loop {
            let first = match jobs.recv_timeout(TICK) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let idle = first.is_none();
            self.overlay.finished(self.turns.load(Ordering::Acquire));
            let circumstances = self.circumstances();
            let mut group = Group::default();
            let mut next = first;
            let mut closing = false;
            while let Some(job) = next {
                closing |= matches!(job, Job::Close);
                // Such a record may change the circumstances (a store restored, a clock confirmed), which are looked at
                // once for each group: what comes after it must not be judged by those from before.
                // And an installation takes its time: what waited for it must not be stamped with when that began.
                let last = matches!(job, Job::Append(..) | Job::Install(..));
                self.take(job, &mut group, &mut rhythm, &circumstances);
                let room = !last && group.answers.len() < GROUP_JOBS && group.bytes < GROUP_BYTES;
                next = if room { jobs.try_recv().ok() } else { None };
            }
            self.ride_along(&mut group, &mut rhythm, &circumstances, idle);
            self.commit(group);
            self.turn_to_index(&mut rhythm);
            if closing {
                break;
            }
            if idle && !rhythm.marked {
                rhythm.marked = true;
                self.mark_idle();
            } else if !idle {
                rhythm.marked = false;
            }
        }
        self.finish(rhythm);
    }

    fn circumstances(&self) -> Circumstances {
        let newest = match self.overlay.pinned(&self.keys.clock()) {
            Some(Value::Clock(newest)) => *newest,
            _ => 0,
        };
        let now = self.clock.now();
        let clock_alarm = clock_is_doubtful(now, newest);
        self.shared.set_trusted_at(newest);
        self.shared.set_clock_alarm(clock_alarm);
        let restored = matches!(self.overlay.pinned(&self.keys.restored()), Some(Value::Restored(true)));
        self.shared.set_restored(restored);
        Circumstances { now, clock_alarm, restored, fulfil_never: self.terms.now().fulfil_never, again: false }
    }

    fn take(&mut self, job: Job, group: &mut Group, rhythm: &mut Rhythm, circumstances: &Circumstances) {
        match job {
            Job::Notification(job) => self.take_notification(*job, group, circumstances),
            Job::Expectation(job) => self.take_expectation(*job, group, circumstances),
            Job::Rule(job) => self.take_ruling(*job, group, circumstances),
            Job::Release(job) => self.take_release(*job, group, circumstances),
            Job::Append(records, reply) => {
                let alone = self.shared.is_full() && !records.iter().any(needs_room);
                if alone {
                    // What may use the reserve must not fail with what may not.
                    self.commit(std::mem::take(group));
                }
                let first = self.position(group);
                for record in records {
                    self.enter(record, Bytes::new(), Digest::of(b""), Vec::new(), group, circumstances);
                }
                group.answers.push(Box::new(move |result| sent(reply.send(result.map(|()| first)))));
                if alone {
                    self.commit(std::mem::take(group));
                }
            }
            Job::Look(keys, reply) => {
                let mut look = look(&mut self.overlay, &self.filter, &self.index, None);
                let values = keys.iter().map(|key| look.get(key)).collect();
                if look.failed.is_none() {
                    // Told after the sync: whoever asks must not see what may yet be taken back.
                    group.answers.push(Box::new(move |result| {
                        if result.is_ok() {
                            sent(reply.try_send(values));
                        }
                    }));
                }
            }
            Job::Close => {}
            Job::Install(rewriting, forget, reply) => {
                // One that was contradicted meanwhile is needed after all, and its head with it.
                let needed = |key: &Key| matches!(self.overlay.find(key), Some(Value::Seen(s)) if !s.twins.is_empty());
                // The same goes for a body that somebody wants sent.
                if forget.iter().any(needed) || self.ledger.was_asked_for(rewriting.span()) {
                    sent(reply.try_send(false));
                    return;
                }
                let installed = self.journal.install(*rewriting);
                if let Err(error) = &installed {
                    tracing::error!(error = %chain_of(error), "a rewritten segment could not take its place");
                    if matches!(error, RewriteError::Fatal(_)) {
                        self.shared.fail("a rewritten segment could not be synced");
                    }
                }
                if installed.is_ok() {
                    rhythm.forget.extend(forget);
                }
                let _ = reply.try_send(installed.is_ok());
            }
        }
    }

    fn take_notification(&mut self, job: Notification, group: &mut Group, circumstances: &Circumstances) {
        let position = self.position(group);
        let mut look = look(&mut self.overlay, &self.filter, &self.index, Some(&job.preloaded));
        let rivals = job.rivals.as_deref();
        let circumstances = &Circumstances { again: job.again.is_some(), ..*circumstances };
        let decision = decide(&mut look, &self.keys, position, &job.verified, job.indicator, rivals, circumstances);
        let failed = look.failed.is_some();
        let reply = job.reply;
        if failed {
            // The index could not be asked, so nothing is decided.
            sent(reply.send(Err(Unavailable::Storage)));
            return;
        }
        match decision {
            Decision::Known(committed) => {
                group.answers.push(Box::new(move |result| sent(reply.send(result.map(|()| committed)))));
            }
            Decision::Keep { statement, event, committed } => {
                let json = event.map(|event| event.to_json()).unwrap_or_default();
                let record = Record::Notification(statement);
                self.enter(record, job.raw, job.raw_hash, json, group, circumstances);
                if let Some(by) = job.again {
                    let what = format!("reverified:{}", committed.notification);
                    let audit = Audit { what, who: by.who().to_owned(), reason: by.reason().to_owned() };
                    self.enter(Record::Audit(audit), Bytes::new(), Digest::of(b""), Vec::new(), group, circumstances);
                }
                group.answers.push(Box::new(move |result| sent(reply.send(result.map(|()| committed)))));
            }
        }
    }

    /// The position of the group's next record.
    fn position(&self, group: &Group) -> Position {
        Position(self.journal.next_position().0 + group.entries.len() as u64)
    }

    fn enter(
        &mut self,
        record: Record,
        raw: Bytes,
        raw_hash: Digest,
        event: Vec<u8>,
        group: &mut Group,
        circumstances: &Circumstances,
    ) {
        let position = self.position(group);
        let fingerprints = self.keys.fingerprints(&record);
        group.events += usize::from(owed(&record).is_some());
        let stamped = Stamped { committed_at: circumstances.now, doubtful: circumstances.clock_alarm, record };
        let mut look = look(&mut self.overlay, &self.filter, &self.index, None);
        state::apply(&mut look, &self.keys, position, &stamped);
        if let Some(error) = look.failed {
            tracing::warn!(error = %chain_of(&error), "a record could not be entered: its group is refused");
            group.spoiled = true;
        }
        group.needs_room |= needs_room(&stamped.record);
        if matches!(stamped.record, Record::DeadLetter(_) | Record::Redelivery(_) | Record::ReplayJob(_)) {
            group.ledger.push((position, stamped.record.clone()));
        }
        let entry =
            Entry { payload: stamped.encode(), raw, raw_hash, event_hash: Digest::of(&event), event, fingerprints };
        group.bytes += entry.payload.len() + entry.raw.len() + entry.event.len();
        group.entries.push(entry);
    }

    /// What is known of an order; an unknown one is empty. `None` where that could not be read.
    fn order(&mut self, key: &Key) -> Option<state::Order> {
        let mut look = look(&mut self.overlay, &self.filter, &self.index, None);
        let value = look.get(key);
        look.failed.is_none().then(|| match value {
            Some(Value::Order(order)) => order,
            _ => state::Order::default(),
        })
    }

    /// Adds what rides in the next group: progress, the heartbeat, a try whether the disk has room again.
    fn ride_along(&mut self, group: &mut Group, rhythm: &mut Rhythm, circumstances: &Circumstances, idle: bool) {
        if due(rhythm.progress, PROGRESS_EVERY) {
            let progress = self.sinks.unwritten();
            if !progress.is_empty() {
                rhythm.progress = Some(Instant::now());
                if self.shared.is_full() {
                    // Alone, it may use the reserve.
                    self.commit(std::mem::take(group));
                }
            }
            for record in progress.clone() {
                self.enter(record, Bytes::new(), Digest::of(b""), Vec::new(), group, circumstances);
            }
            group.progress = progress;
            if self.shared.is_full() {
                self.commit(std::mem::take(group));
            }
        }
        let alive = due(rhythm.heartbeat, HEARTBEAT_EVERY) && !circumstances.clock_alarm;
        let retry = self.shared.is_full() && idle && due(rhythm.retry, Duration::from_secs(1));
        if alive || retry {
            (rhythm.heartbeat, rhythm.retry) = (Some(Instant::now()), Some(Instant::now()));
            self.enter(Record::Heartbeat, Bytes::new(), Digest::of(b""), Vec::new(), group, circumstances);
        }
    }

    fn commit(&mut self, group: Group) {
        if group.spoiled || self.shared.has_failed() {
            // The state in memory may be wrong, so nothing that was decided by it may last.
            self.overlay.take_back();
            self.sinks.not_written(&group.progress);
            group.answers.into_iter().for_each(|answer| answer(Err(Unavailable::Storage)));
            return;
        }
        if group.entries.is_empty() {
            drop(self.overlay.keep());
            group.answers.into_iter().for_each(|answer| answer(Ok(())));
            return;
        }
        let began = Instant::now();
        failpoint::reach("before-append");
        let appended = match group.needs_room {
            false => self.journal.append_reserved(&group.entries),
            true => self.journal.append(&group.entries),
        };
        match appended {
            Ok(appended) => {
                for fingerprint in self.overlay.keep() {
                    if !self.filter.may_contain(fingerprint) {
                        self.filter.insert(fingerprint);
                    }
                }
                if let Some(metrics) = &self.metrics {
                    metrics.observe_commit(began.elapsed());
                    metrics.observe_batch(group.entries.len());
                }
                self.shared.wrote(appended.last, appended.chain);
                if group.needs_room {
                    // What fits into the reserve says nothing about the room beside it.
                    self.shared.recovered();
                }
                for (position, record) in group.ledger {
                    if self.ledger.written(position, &record) {
                        self.shared.dead_letter_closed();
                    }
                }
                self.sinks.written(group.events);
                // Before the head: a cursor behind the begin of a timeline must not name the one before.
                if let Some(Value::Timelines(timelines)) = self.overlay.pinned(&self.keys.timelines()) {
                    self.shared.set_timelines(timelines);
                }
                self.head.send_replace(appended.last);
                failpoint::reach("after-visible");
                if !group.progress.is_empty() {
                    failpoint::reach("settle-appended");
                }
                group.answers.into_iter().for_each(|answer| answer(Ok(())));
            }
            Err(error) => {
                self.overlay.take_back();
                self.sinks.not_written(&group.progress);
                match &error {
                    AppendError::Full(source) => self.shared.full(&source.to_string()),
                    AppendError::TooLarge => tracing::error!("a group is too large for the journal: nothing was kept"),
                    AppendError::Fatal(..) => self.shared.fail(&chain_of(&error)),
                }
                group.answers.into_iter().for_each(|answer| answer(Err(Unavailable::Storage)));
            }
        }
    }

    fn turn_to_index(&mut self, rhythm: &mut Rhythm) {
        if self.shared.has_failed() {
            return; // the next start must not find what may be wrong
        }
        self.overlay.finished(self.turns.load(Ordering::Acquire));
        let waiting = self.overlay.waiting();
        // One that does not read is given something too: so its thread finds out.
        let something = waiting > 0 || self.index.trouble().is_some();
        let wanted = waiting >= HAND_OVER_AT || (something && due(rhythm.hand_over, TICK)) || !rhythm.forget.is_empty();
        if !wanted || self.overlay.is_flushing() {
            return;
        }
        rhythm.hand_over = Some(Instant::now());
        let covered = Covered { position: self.shared.head(), chain: self.journal.chain() };
        let forget = std::mem::take(&mut rhythm.forget);
        let hand_over = HandOver { batch: self.overlay.hand_over(), covered, forget };
        if let Err(TrySendError::Disconnected(_)) = self.hand_over.try_send(hand_over) {
            self.shared.fail("the index's thread has ended");
        }
    }

    fn mark_idle(&mut self) {
        if let Err(error) = self.journal.mark_idle() {
            match error {
                AppendError::Fatal(..) => self.shared.fail(&chain_of(&error)),
                AppendError::Full(_) | AppendError::TooLarge => tracing::debug!(error = %chain_of(&error), "no mark"),
            }
        }
    }

    fn finish(mut self, mut rhythm: Rhythm) {
        let circumstances = self.circumstances();
        let mut group = Group::default();
        rhythm.progress = None;
        self.ride_along(&mut group, &mut rhythm, &circumstances, false);
        self.commit(group);
        // The index's thread takes the last batch when it is done with the one before; where the index is lost, never.
        for _ in 0..100 {
            self.turn_to_index(&mut rhythm);
            let done = self.overlay.waiting() == 0 && !self.overlay.is_flushing();
            if done || self.shared.has_failed() || self.shared.index_lost() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Err(error) = self.journal.close() {
            tracing::error!(error = %chain_of(&error), "the journal could not be ended with a mark");
        }
    }
}

/// Whether a record must not take the room kept in reserve: all but what lets the relay go on and room be made.
fn needs_room(record: &Record) -> bool {
    match record {
        Record::Progress(_)
        | Record::SinkStart(_)
        | Record::DeadLetter(_)
        | Record::Horizon(_)
        | Record::Timeline(_)
        | Record::Audit(_) => false,
        Record::Notification(_)
        | Record::Settlement(_)
        | Record::Expectation(_)
        | Record::Redelivery(_)
        | Record::ReplayJob(_)
        | Record::Heartbeat => true,
    }
}

fn look<'a>(
    overlay: &'a mut Overlay,
    filter: &'a Filter,
    index: &'a Index,
    preloaded: Option<&'a Preloaded>,
) -> Look<'a> {
    Look { overlay, filter, index, preloaded, failed: None }
}

/// Whoever asked may have gone; what was asked is done all the same.
fn sent<T>(_: Result<(), T>) {}

/// An error with all its causes, in one line.
pub fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Writes batches to the index until the committer is gone. An index that fails is built anew from the journal, again
/// and again until the disk has room for it.
pub fn index_thread(
    index: &Index,
    batches: &Receiver<HandOver>,
    turns: &AtomicU64,
    shared: &Shared,
    mut build_anew: impl FnMut() -> bool,
) {
    while let Ok(HandOver { batch, covered, forget }) = batches.recv() {
        failpoint::reach("before-index");
        let failed = index.write(&batch, covered, &forget).err().map(|error| chain_of(&error));
        // Also where it takes what it is given, and a look-up has failed since.
        if let Some(error) = index.trouble().or(failed) {
            tracing::error!(error, "the index failed: it is built anew from the journal");
            // What is built anew holds this batch too: all of it was in the journal before it was handed over.
            if !build_anew() {
                break;
            }
        } else {
            failpoint::reach("after-index");
            shared.indexed(covered.position);
        }
        turns.fetch_add(1, Ordering::Release);
    }
    if index.trouble().is_some() {
        // Closed before it was built anew: the next start must not believe it.
        let _ = index.disown();
    } else if let Err(error) = index.flush() {
        tracing::warn!(error = %chain_of(&error), "the index was not flushed; the next start will catch up");
    }
}

/// The pinned values of an index.
pub fn pinned_progress(pinned: &Batch) -> Vec<Progress> {
    pinned
        .values()
        .filter_map(|value| match value {
            Value::Sink(progress) if progress.watermark != FORGOTTEN => Some(progress.clone()),
            _ => None,
        })
        .collect()
}
