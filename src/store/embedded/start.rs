//! From a folder to a store that takes notifications, on a thread of its own.
//!
//! Opens the journal, again and again while the disk refuses; believes the index or builds it anew; fills the filter;
//! then starts the committer. A start that cannot write is not ready and tries again: it never ends the process.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{self, sync_channel};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::oneshot;

use super::committer::{Committer, Job, chain_of, index_thread, pinned_progress};
use super::filter::Filter;
use super::index::{Batch, Covered, Index};
use super::journal::{Journal, Options as JournalOptions, ReadError, Reader, disk};
use super::ledger::Ledger;
use super::overlay::Overlay;
use super::rebuild::{RebuildError, bring_up};
use super::record::{Audit, Progress, Record, Stamped};
use super::sinks::{Sinks, owed};
use super::state::{Keys, Value};
use super::{Enlisted, Inner, Live, retention};
use crate::config::SinkStart;
use crate::event::{Digest, Position};
use crate::seal::Seal;
use crate::store::Unavailable;

/// How long a start waits before it tries a refusing disk again.
const RETRY: Duration = Duration::from_millis(500);

/// Starts the thread that brings a store up.
pub(super) fn begin(inner: &Arc<Inner>) {
    let store = Arc::clone(inner);
    spawn(inner, "store-start", move || run(&store));
}

/// A panic of a thread (sled has been seen to) must not leave a daemon that waits for it for ever.
pub(super) fn spawn(inner: &Arc<Inner>, name: &'static str, work: impl FnOnce() + Send + 'static) {
    let store = Arc::clone(inner);
    let guarded = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
            store.shared.fail(&format!("the thread {name} panicked"));
        }
    };
    match std::thread::Builder::new().name(name.to_owned()).spawn(guarded) {
        Ok(thread) => inner.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread),
        Err(error) => inner.shared.fail(&format!("a thread could not be started: {error}")),
    }
}

fn run(inner: &Arc<Inner>) {
    let Some((journal, seal, index, covered)) = open(inner) else { return };
    let reader = journal.reader();
    let keys = Keys::new(journal.store_id());
    let (jobs, queue) = sync_channel(inner.options.terms.max_in_flight + 64);
    let live = Live {
        reader: reader.clone(),
        index: Arc::new(index),
        filter: Arc::new(Filter::for_keys(reader.head().0.saturating_mul(4))),
        seal,
        keys,
        sinks: Arc::new(Sinks::for_segments(inner.options.segment_bytes)),
        ledger: Arc::new(Ledger::default()),
        turns: Arc::new(AtomicU64::new(0)),
        terms: inner.terms.clone(),
        store_id: journal.store_id(),
        jobs: OnceLock::new(),
    };
    inner.head.send_replace(reader.head());
    let live = inner.live.get_or_init(|| live);
    // Before the keys: the relay has its own way to go on, and a long rebuild must not hold it up.
    enlist(inner, live, &reader, covered.as_ref());
    let Some(pinned) = complete(inner, live, &reader, covered) else { return };
    pinned_progress(&pinned).into_iter().for_each(|progress| live.sinks.restore(progress));
    live.ledger.restore(&pinned);
    inner.shared.dead_letters_found(live.ledger.open_letters());
    if let Some(Value::Horizon(position)) = pinned.get(&keys.horizon()) {
        inner.shared.set_horizon(*position);
    }
    match pinned.get(&keys.timelines()) {
        Some(Value::Timelines(timelines)) => inner.shared.set_timelines(timelines),
        _ => inner.shared.set_timelines(&[keys.first_timeline()]),
    }
    if let Some(Value::Clock(newest)) = pinned.get(&keys.clock()) {
        inner.shared.set_trusted_at(*newest);
    }
    let (hand_over, batches) = sync_channel(1);
    let committer = Committer {
        journal,
        reader,
        overlay: Overlay::new(pinned),
        filter: Arc::clone(&live.filter),
        index: Arc::clone(&live.index),
        keys,
        clock: Arc::clone(&inner.options.clock),
        sinks: Arc::clone(&live.sinks),
        ledger: Arc::clone(&live.ledger),
        shared: Arc::clone(&inner.shared),
        head: inner.head.clone(),
        hand_over,
        turns: Arc::clone(&live.turns),
        metrics: inner.options.metrics.clone(),
        terms: inner.terms.clone(),
    };
    // The first thing that the committer writes, so that nothing is judged or numbered without it.
    let mut noted = note_circumstances(inner, &jobs);
    let store = Arc::clone(inner);
    spawn(inner, "store-index", move || {
        if let Some(live) = store.live.get() {
            let build = || build_anew(&store, live).is_some();
            index_thread(&live.index, &batches, &live.turns, &store.shared, build);
        }
    });
    spawn(inner, "store-commit", move || committer.run(&queue));
    while let Some(answer) = noted.take() {
        let written = matches!(answer.blocking_recv(), Ok(Ok(_)));
        if written || inner.shared.is_draining() || inner.shared.has_failed() {
            break;
        }
        // Not ready until it is: a store that forgot that it came from a backup would tell everything again.
        std::thread::park_timeout(RETRY);
        noted = note_circumstances(inner, &jobs);
    }
    if live.jobs.set(jobs).is_err() {
        inner.shared.fail("the store was started twice");
    }
    let store = Arc::clone(inner);
    spawn(inner, "store-retention", move || retention::run(&store));
    if inner.options.sink.is_none() {
        let store = Arc::clone(inner);
        spawn(inner, "store-backlog", move || follow_consumers(&store));
    }
    tracing::info!(head = inner.shared.head().0, "the store is ready");
    if inner.shared.is_draining()
        && let Some(jobs) = live.jobs.get()
    {
        // `close` came before there was anybody to tell.
        let _ = jobs.send(Job::Close);
    }
}

/// Finds where the relay's sink goes on: from its newest record, or where a new one begins.
fn enlist(inner: &Arc<Inner>, live: &Live, reader: &Reader, covered: Option<&Covered>) {
    let Some(relay) = &inner.options.sink else {
        inner.enlisted.send_replace(Enlisted::Yes);
        return;
    };
    let found = match newest_progress(live, reader, covered, &relay.name) {
        // What the index cannot tell the heads can, all of them.
        Err(RebuildError::Index(_)) => newest_progress(live, reader, None, &relay.name),
        found => found,
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => return inner.shared.fail(&chain_of(&error)),
    };
    match (found, relay.start) {
        (Some(progress), _) => live.sinks.restore(progress),
        (None, Some(SinkStart::Now)) => live.sinks.begin(&relay.name, reader.head()),
        (None, Some(SinkStart::Beginning)) => live.sinks.begin(&relay.name, Position(0)),
        (None, None) if holds_events(reader) => {
            inner.enlisted.send_replace(Enlisted::NeedsStart);
            return;
        }
        (None, None) => live.sinks.begin(&relay.name, Position(0)),
    }
    // Taken before anything is handed out: what is settled from here on is counted down as it is.
    let owes =
        Owed { after: live.sinks.watermark(&relay.name), up_to: reader.head(), but: live.sinks.beyond(&relay.name) };
    inner.enlisted.send_replace(Enlisted::Yes);
    // Those who wait for events look again.
    inner.head.send_modify(|_| ());
    let (store, name) = (Arc::clone(inner), relay.name.clone());
    spawn(inner, "store-backlog", move || count_backlog(&store, &name, &owes));
}

/// A sink's newest record: above what the index covers by reading heads, newest first, else from the index; without
/// an index from the heads alone.
fn newest_progress(
    live: &Live,
    reader: &Reader,
    covered: Option<&Covered>,
    sink: &str,
) -> Result<Option<Progress>, RebuildError> {
    let covered_to = covered.map_or(Position(0), |covered| covered.position);
    for stored in reader.heads_back(reader.head()) {
        let stored = match stored {
            Ok(stored) => stored,
            Err(ReadError::Damaged { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        if stored.position <= covered_to {
            break;
        }
        match Stamped::decode(&stored.payload).map(|stamped| stamped.record) {
            Some(Record::Progress(progress)) if progress.sink == sink => return Ok(Some(progress)),
            Some(Record::SinkStart(start)) if start.sink == sink => {
                return Ok(Some(Progress { sink: start.sink, watermark: start.after, beyond: Vec::new() }));
            }
            _ => {}
        }
    }
    let found = covered.map(|_| live.index.get(&live.keys.sink(sink))).transpose()?;
    Ok(match found.flatten() {
        Some(Value::Sink(progress)) => Some(progress),
        _ => None,
    })
}

fn holds_events(reader: &Reader) -> bool {
    let heads = reader.heads(Position(1)).filter_map(Result::ok);
    heads.filter_map(|stored| Stamped::decode(&stored.payload)).any(|stamped| owed(&stamped.record).is_some())
}

/// What the relay's sink had not settled at the start.
struct Owed {
    after: Position,
    up_to: Position,
    but: BTreeSet<Position>,
}

/// Counts what the relay is owed from before this start, once; later events are counted as they come.
fn count_backlog(inner: &Arc<Inner>, sink: &str, owes: &Owed) {
    const AT_A_TIME: i64 = 1024;
    let Some(live) = inner.live.get() else { return };
    let mut events = 0;
    for stored in live.reader.heads(Position(owes.after.0 + 1)) {
        let Ok(stored) = stored else { continue };
        if stored.position > owes.up_to || inner.shared.is_draining() {
            break;
        }
        let event = Stamped::decode(&stored.payload).is_some_and(|stamped| owed(&stamped.record).is_some());
        events += i64::from(event && !owes.but.contains(&stored.position));
        if events == AT_A_TIME {
            live.sinks.counted(sink, std::mem::take(&mut events));
        }
    }
    live.sinks.counted(sink, events);
}

/// Counts what the slowest consumer of the feed has not acknowledged, where the feed is the only sink: what comes is
/// added, what it acknowledges taken off. Each head is read at most twice, and none while it keeps up.
fn follow_consumers(inner: &Inner) {
    const EVERY: Duration = Duration::from_millis(500);
    let Some(live) = inner.live.get() else { return };
    let count = |after: Position, up_to: Position| {
        let heads = live.reader.heads(Position(after.0 + 1)).take_while(|_| !inner.shared.is_draining());
        let heads = heads.filter_map(Result::ok).take_while(|stored| stored.position <= up_to);
        heads.filter(|stored| Stamped::decode(&stored.payload).is_some_and(|s| owed(&s.record).is_some())).count()
    };
    // So many events stand above the first and up to the second.
    let (mut from, mut to, mut events) = (Position(0), Position(0), 0_usize);
    while !inner.shared.is_draining() && !inner.shared.has_failed() {
        if let Some(acknowledged) = live.sinks.slowest("feed:") {
            if acknowledged >= to {
                (to, events) = (acknowledged, 0);
            } else if acknowledged >= from {
                events = events.saturating_sub(count(from, acknowledged));
            } else {
                events += count(acknowledged, from);
            }
            from = acknowledged;
            let head = live.reader.head();
            if head > to {
                events += count(to, head);
                to = head;
            }
            inner.shared.set_feed_backlog(events as u64, from);
        }
        std::thread::park_timeout(EVERY);
    }
}

/// Has written down what the operator said of this start. `None` where that is nothing.
fn note_circumstances(
    inner: &Inner,
    jobs: &mpsc::SyncSender<Job>,
) -> Option<oneshot::Receiver<Result<Position, Unavailable>>> {
    let audit = |what: &str, reason: &str| {
        Record::Audit(Audit { what: what.to_owned(), who: "serve".to_owned(), reason: reason.to_owned() })
    };
    let mut records = Vec::new();
    if inner.options.confirm_clock {
        records.push(audit("clock_confirmed", "--confirm-clock"));
    }
    if inner.options.restored {
        match disk::random() {
            Ok(timeline) => records.push(Record::Timeline(timeline)),
            Err(error) => inner.shared.fail(&format!("no random bytes: {error}")),
        }
        records.push(audit("restored", "--restored"));
    }
    if inner.options.restored_ended {
        records.push(audit("restored_ended", "--restored-ended"));
    }
    let (reply, answer) = oneshot::channel();
    (!records.is_empty() && jobs.send(Job::Append(records, reply)).is_ok()).then_some(answer)
}

/// Opens journal and index. `None` when the store is closed meanwhile.
fn open(inner: &Inner) -> Option<(Journal, Seal, Index, Option<Covered>)> {
    let shared = &inner.shared;
    loop {
        if shared.is_draining() {
            return None;
        }
        match try_open(inner) {
            Ok((journal, seal, index, covered)) => {
                shared.recovered();
                return Some((journal, seal, index, covered));
            }
            Err(error) => {
                shared.full(&error);
                std::thread::park_timeout(RETRY);
            }
        }
    }
}

fn try_open(inner: &Inner) -> Result<(Journal, Seal, Index, Option<Covered>), String> {
    let (options, shared) = (&inner.options, &inner.shared);
    // Before anything is answered: the journal's folder and the seal are of no use in one that a power cut takes back.
    disk::make_folder(&options.path).map_err(|error| format!("the store's folder: {error}"))?;
    let seal = Seal::open(&options.path).map_err(|error| format!("seal.key: {error}"))?;
    let journal_options = JournalOptions { segment_bytes: options.segment_bytes, verify: false };
    let (journal, recovered) = Journal::open(&options.path, journal_options).map_err(|error| chain_of(&error))?;
    shared.found(recovered.head, recovered.chain, recovered.damage_total);
    for damage in &recovered.damage {
        tracing::error!(file = damage.file, offset = damage.offset, length = damage.length, what = ?damage.what,
            "the journal is damaged here; what did not read was kept aside in `damage`");
    }
    if recovered.torn_bytes > 0 {
        tracing::info!(bytes = recovered.torn_bytes, "cut a group off that was never acknowledged");
    }
    let folder = options.path.join("index");
    let (store_id, boot) = (journal.store_id(), options.boot.as_str());
    let (index, covered) = match Index::open(&folder, store_id, boot) {
        Ok((index, Some(covered))) if fits(&covered, &journal) => (index, Some(covered)),
        other => {
            match other {
                Err(error) => tracing::warn!(error = %chain_of(&error), "the index does not open"),
                Ok((index, covered)) => {
                    if recovered.head.0 > 0 {
                        tracing::info!(covered = covered.map(|c| c.position.0), "the index does not fit the journal");
                    }
                    drop(index);
                }
            }
            Index::discard(&folder).map_err(|error| format!("removing the index: {error}"))?;
            let opened = Index::open(&folder, store_id, boot);
            (opened.map_err(|error| chain_of(&error))?.0, None)
        }
    };
    Ok((journal, seal, index, covered))
}

/// Whether what an index covers is a part of this journal: not beyond its head, and with the same history.
fn fits(covered: &Covered, journal: &Journal) -> bool {
    let reader = journal.reader();
    if covered.position.0 == 0 {
        return covered.chain == Digest([0; 32]);
    }
    if covered.position > reader.head() {
        return false;
    }
    matches!(reader.read(covered.position), Ok(Some(stored)) if stored.chain == covered.chain)
}

/// Replaces an index that failed by one built from the journal, and returns the values that are always in memory. `None`
/// when the store is closed meanwhile.
fn build_anew(inner: &Inner, live: &Live) -> Option<Batch> {
    inner.shared.set_index_lost(true);
    live.index.lose();
    let folder = inner.options.path.join("index");
    loop {
        if inner.shared.is_draining() || inner.shared.has_failed() {
            return None;
        }
        let built = Index::discard(&folder).map_err(|error| error.to_string()).and_then(|()| {
            let (fresh, _) =
                Index::open(&folder, live.store_id, &inner.options.boot).map_err(|error| chain_of(&error))?;
            let pinned = bring_up(&fresh, &live.reader, &live.keys, None, &inner.shared);
            if let Err(error @ RebuildError::Newer(_)) = &pinned {
                inner.shared.fail(&chain_of(error));
            }
            pinned.map(|pinned| (fresh, pinned)).map_err(|error| chain_of(&error))
        });
        match built {
            Ok((fresh, pinned)) => {
                live.index.adopt(fresh);
                inner.shared.set_index_lost(false);
                tracing::info!("the index is built anew");
                return Some(pinned);
            }
            Err(error) => {
                tracing::debug!(error, "the index cannot be built yet");
                std::thread::park_timeout(RETRY);
            }
        }
    }
}

/// Brings index and filter up. An index that does not read, or that the disk has no room for, is built anew. `None` when
/// that failed for good.
fn complete(inner: &Inner, live: &Live, reader: &Reader, covered: Option<Covered>) -> Option<Batch> {
    let bar = progress_bar(inner, reader, covered.as_ref());
    let done = std::thread::scope(|scope| {
        let ticker = bar.as_ref().map(|bar| {
            scope.spawn(move || {
                while !bar.is_finished() {
                    bar.set_position((inner.shared.progress() * 1000.0) as u64);
                    std::thread::park_timeout(Duration::from_millis(200));
                }
            })
        });
        let done = bring_up(&live.index, reader, &live.keys, covered, &inner.shared);
        let failed = match &done {
            Err(RebuildError::Index(error)) => Some(chain_of(error)),
            Ok(_) => live.index.trouble(),
            Err(_) => None,
        };
        let done = failed.map_or(done, |error| {
            tracing::error!(error, "the index failed: it is built anew from the journal");
            build_anew(inner, live).ok_or(RebuildError::Stopped)
        });
        if let (Some(bar), Some(ticker)) = (&bar, ticker) {
            bar.finish_and_clear();
            ticker.thread().unpark();
        }
        done
    });
    let pinned = match done {
        Ok(pinned) => pinned,
        Err(RebuildError::Stopped) => return None,
        Err(error) => {
            // The next start must not believe what half a build left behind.
            let _ = live.index.disown();
            inner.shared.fail(&chain_of(&error));
            return None;
        }
    };
    for segment in reader.fingerprints() {
        match segment {
            Ok((_, fingerprints)) => fingerprints.into_iter().for_each(|fingerprint| live.filter.insert(fingerprint)),
            Err(ReadError::Damaged { .. }) => {
                tracing::warn!("a segment's fingerprints do not read; its keys are looked up on the disk");
                live.filter.distrust();
            }
            Err(error) => {
                inner.shared.fail(&chain_of(&error));
                return None;
            }
        }
    }
    Some(pinned)
}

fn progress_bar(inner: &Inner, reader: &Reader, covered: Option<&Covered>) -> Option<ProgressBar> {
    use std::io::IsTerminal as _;
    let behind = reader.head().0 - covered.map_or(0, |covered| covered.position.0);
    let wanted = inner.options.progress_bar && behind > 50_000 && std::io::stderr().is_terminal();
    wanted.then(|| {
        let style = ProgressStyle::with_template("building the index {bar:40} {percent}% {eta}");
        ProgressBar::new(1000).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    })
}
