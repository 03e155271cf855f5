//! The limit of the disk: appends what is queued in one write, syncs it, answers all, and knows nothing else. And the
//! journal under the same waiters.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quittance::event::Digest;
use quittance::store::embedded::journal::{Entry, Journal, Options};

/// One record of a waiter: a head's payload and its two parts have together the bytes of an ordinary one.
const PAYLOAD: usize = 250;
const RAW: usize = 800;
const EVENT: usize = 900;
const MOST: usize = 1024;

type Job = SyncSender<()>;

/// What came of a run.
pub struct Logged {
    /// Answers a second.
    pub rate: f64,
    /// Syncs for each answer.
    pub syncs: f64,
}

/// `waiters` threads, each with one record on its way, over a log that appends raw bytes.
pub fn raw(folder: &Path, waiters: usize, time: Duration) -> Logged {
    let mut file = OpenOptions::new().create(true).append(true).open(folder.join("raw")).expect("made");
    let record = vec![0x5a; PAYLOAD + RAW + EVENT + 128];
    let mut group = Vec::new();
    run(waiters, time, move |count| {
        group.clear();
        (0..count).for_each(|_| group.extend_from_slice(&record));
        file.write_all(&group).expect("written");
        file.sync_data().expect("synced");
    })
}

/// The same over the journal.
pub fn journal(folder: &Path, waiters: usize, time: Duration) -> Logged {
    let options = Options { segment_bytes: 64 << 20, verify: false };
    let (mut journal, _) = Journal::open(&folder.join("journal"), options).expect("opened");
    let (raw, event) = (Bytes::from(vec![b'r'; RAW]), vec![b'e'; EVENT]);
    let entry = Entry {
        payload: vec![b'p'; PAYLOAD],
        raw_hash: Digest::of(&raw),
        event_hash: Digest::of(&event),
        raw,
        event,
        fingerprints: vec![1, 2, 3, 4],
    };
    run(waiters, time, move |count| {
        let group = vec![entry.clone(); count];
        journal.append(&group).expect("appended");
    })
}

fn run(waiters: usize, time: Duration, mut append: impl FnMut(usize) + Send) -> Logged {
    let (jobs, queue) = sync_channel::<Job>(waiters);
    let began = Instant::now();
    let (mut answers, mut syncs) = (0_u64, 0_u64);
    thread::scope(|scope| {
        for _ in 0..waiters {
            let jobs = jobs.clone();
            let ask = move || {
                let (reply, answer) = sync_channel(1);
                while began.elapsed() < time && jobs.send(reply.clone()).is_ok() && answer.recv().is_ok() {}
            };
            thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, ask).expect("a thread");
        }
        drop(jobs);
        while let Some(group) = take(&queue) {
            append(group.len());
            syncs += 1;
            answers += group.len() as u64;
            for reply in group {
                let _ = reply.send(());
            }
        }
    });
    let elapsed = began.elapsed().as_secs_f64();
    Logged { rate: answers as f64 / elapsed, syncs: syncs as f64 / answers as f64 }
}

fn take(queue: &Receiver<Job>) -> Option<Vec<Job>> {
    let mut group = vec![queue.recv().ok()?];
    while group.len() < MOST
        && let Ok(job) = queue.try_recv()
    {
        group.push(job);
    }
    Some(group)
}
