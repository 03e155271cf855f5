//! Retiring: bodies first, keys that nothing hangs on later, by writing sealed segments anew.
//!
//! Never while the clock is in doubt. Parts stay while anything unsettled needs them; keys of what was told stay for
//! ever, since the providers sign no time and the key is the replay defence.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::committer::{Job, chain_of};
use super::decide::clock_is_doubtful;
use super::journal::{Keep, SegmentInfo, Stored};
use super::record::{Record, Stamped, Statement, millis};
use super::state::{Key, Value};
use super::{Inner, Live};
use crate::event::{Position, Status, Verdict};

/// Looks for something to retire until the store is closed.
pub(super) fn run(inner: &Arc<Inner>) {
    let mut done: HashMap<Position, u64> = HashMap::new();
    while !inner.shared.is_draining() && !inner.shared.has_failed() {
        if let Some(live) = inner.live.get() {
            pass(inner, live, &mut done);
        }
        let mut waited = Duration::ZERO;
        while waited < inner.options.retention_tick && !inner.shared.is_draining() {
            let step = Duration::from_millis(50).min(inner.options.retention_tick);
            std::thread::park_timeout(step);
            waited += step;
        }
    }
}

/// What a pass goes by.
struct Terms {
    /// Parts older than this may go.
    bodies_before: u64,
    /// Keys older than this may go.
    keys_before: u64,
    /// Everything up to here is settled at every sink.
    settled: Position,
    /// What is on its way again.
    again: HashSet<Position>,
}

fn pass(inner: &Inner, live: &Live, done: &mut HashMap<Position, u64>) {
    // Judged by this very reading: what others have noted of the clock is older than it, and a start has noted nothing yet.
    let now = inner.options.clock.now();
    if inner.shared.clock_alarm() || clock_is_doubtful(now, inner.shared.trusted_at()) {
        return;
    }
    let now = millis(now);
    let retention = inner.terms.now().retention;
    // Before it is read what is settled: whatever is asked for from here on stops what is judged without it.
    live.ledger.watch();
    let span = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut terms = Terms {
        bodies_before: now.saturating_sub(span(retention.bodies)),
        keys_before: now.saturating_sub(span(retention.keys)),
        settled: live.sinks.settled_by_all().unwrap_or(Position(u64::MAX)),
        again: HashSet::new(),
    };
    let segments: Vec<SegmentInfo> = live.reader.segments().into_iter().filter(|segment| segment.sealed).collect();
    // What is judged by the index must be in it, and so must everything about it.
    let indexed = inner.shared.head().0.saturating_sub(inner.shared.lag());
    for segment in segments {
        if segment.last.0 > indexed {
            break;
        }
        if inner.shared.is_draining() || !is_old(live, &segment, terms.bodies_before) {
            break; // newer ones are not older
        }
        // Rewritten once for its bodies, and then once a day for what was unsettled or held then.
        if done.get(&segment.first).is_some_and(|at| now.saturating_sub(*at) < 86_400_000) {
            continue;
        }
        if terms.again.is_empty() && segment.first <= terms.settled {
            terms.again = redelivered(live, terms.settled);
        }
        if rewrite(inner, live, &segment, &terms) {
            done.insert(segment.first, now);
        }
    }
}

/// Events whose redelivery stands above a position.
fn redelivered(live: &Live, above: Position) -> HashSet<Position> {
    let heads = live.reader.heads(Position(above.0.saturating_add(1))).flatten();
    let again = heads.filter_map(|stored| match Stamped::decode(&stored.payload)?.record {
        Record::Redelivery(again) => Some(again.position),
        _ => None,
    });
    again.collect()
}

/// Whether a segment's newest record is older than a time.
fn is_old(live: &Live, segment: &SegmentInfo, before: u64) -> bool {
    let newest = live.reader.heads_back(segment.last).flatten().find(|stored| stored.position >= segment.first);
    newest.and_then(|stored| Stamped::decode(&stored.payload)).is_some_and(|s| millis(s.committed_at) < before)
}

fn rewrite(inner: &Inner, live: &Live, segment: &SegmentInfo, terms: &Terms) -> bool {
    let mut forget = Vec::new();
    let mut parts_up_to = None;
    let prepared = live.reader.prepare(segment.first, &mut |stored| {
        let (keep, key) = judge(live, stored, terms);
        forget.extend(key);
        if keep != Keep::Whole {
            parts_up_to = Some(stored.position);
        }
        keep
    });
    let prepared = match prepared {
        Ok(prepared) if prepared.changes() => prepared,
        Ok(_) => return true,
        Err(error) => {
            tracing::warn!(error = %chain_of(&error), "a segment could not be rewritten; tried again later");
            return false;
        }
    };
    let Some(jobs) = live.jobs.get() else { return false };
    let (bodies, heads) = (prepared.parts_retired, prepared.heads_retired);
    // The feed's horizon is durable before the bodies are gone.
    if let Some(up_to) = parts_up_to.filter(|up_to| up_to.0 > inner.shared.horizon()) {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let sent = jobs.send(Job::Append(vec![Record::Horizon(up_to)], reply));
        if sent.is_err() || !matches!(answer.blocking_recv(), Ok(Ok(_))) {
            return false;
        }
        inner.shared.set_horizon(up_to);
    }
    let (reply, installed) = sync_channel(1);
    let sent = jobs.send(Job::Install(Box::new(prepared), forget, reply));
    let installed = sent.is_ok() && installed.recv().unwrap_or(false);
    if installed {
        tracing::info!(first = segment.first.0, bodies, heads, "retired what is past its time");
    }
    installed
}

/// What becomes of a record, and the key to forget with it.
fn judge(live: &Live, stored: &Stored, terms: &Terms) -> (Keep, Option<Key>) {
    let Some(stamped) = Stamped::decode(&stored.payload) else { return (Keep::Whole, None) };
    let at = millis(stamped.committed_at);
    let old = at < terms.keys_before;
    match &stamped.record {
        Record::Notification(statement) | Record::Settlement(statement) => {
            let needed = stored.position > terms.settled
                || is_held(live, statement)
                || terms.again.contains(&stored.position)
                || live.ledger.needs(stored.position);
            if needed || at >= terms.bodies_before {
                (Keep::Whole, None)
            } else if old && !was_told(live, statement) {
                let key = live.keys.seen(&statement.source, &statement.idempotency);
                match live.index.get(&key) {
                    // What contradicts it, or what it contradicts, would be called new, and believed, without it.
                    Ok(Some(Value::Seen(seen))) if !seen.twins.is_empty() => (Keep::HeadOnly, None),
                    Ok(Some(Value::Seen(seen))) if seen.position == stored.position => (Keep::Drop, Some(key)),
                    Ok(_) => (Keep::Drop, None),
                    Err(_) => (Keep::HeadOnly, None),
                }
            } else {
                (Keep::HeadOnly, None)
            }
        }
        Record::Heartbeat if old => (Keep::Drop, None),
        _ => (Keep::Whole, None),
    }
}

/// Whether the payment that a statement speaks of was told, by itself or by an event that settled it: then its key is
/// the replay defence.
fn was_told(live: &Live, statement: &Statement) -> bool {
    let (transaction, order) = (statement.transaction.as_deref(), statement.order.as_ref());
    let told = [statement.status, Status::Paid]
        .into_iter()
        .filter_map(|status| live.keys.told(&statement.account, statement.kind, transaction, order, status));
    statement.told() || told.into_iter().any(|key| !matches!(live.index.get(&key), Ok(None)))
}

/// Whether an event is held and nothing has settled it yet.
fn is_held(live: &Live, statement: &Statement) -> bool {
    if statement.verdict != Verdict::Hold {
        return false;
    }
    let Some(event) = statement.event else { return false };
    !matches!(live.index.get(&live.keys.settled(event)), Ok(Some(Value::Settled(_))))
}
