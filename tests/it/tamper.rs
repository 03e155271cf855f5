//! What `doctor --verify` tells apart: damage, retirement, tampering, and what only a head that was noted elsewhere
//! shows. The files are changed here by code of its own, with every checksum mended as somebody would who knows how.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::fixtures;
use crate::harness::{Config, Daemon, eventually, quittance};

const SEGMENT_HEADER: usize = 84;
const GROUP_HEADER: usize = 92;

/// One frame, taken apart.
#[derive(Clone)]
struct Frame {
    kind: u8,
    fingerprints: Vec<u8>,
    /// Position, hash of the head before, hashes of the parts, lengths, payload.
    head: Vec<u8>,
    raw: Vec<u8>,
    event: Vec<u8>,
}

fn number(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes.try_into().unwrap()) as usize
}

impl Frame {
    fn read(bytes: &[u8]) -> Self {
        let fingerprints = 16 + 8 * usize::from(u16::from_le_bytes(bytes[14..16].try_into().unwrap()));
        let lengths = fingerprints + 104;
        let (payload, raw) = (number(&bytes[lengths..lengths + 4]), number(&bytes[lengths + 4..lengths + 8]));
        let head = lengths + 12 + payload;
        let raw = if bytes[12] == 0 { raw } else { 0 };
        Self {
            kind: bytes[12],
            fingerprints: bytes[16..fingerprints].to_vec(),
            head: bytes[fingerprints..head].to_vec(),
            raw: bytes[head..head + raw].to_vec(),
            event: bytes[head + raw..].to_vec(),
        }
    }

    fn write(&self, seed: u32) -> Vec<u8> {
        let length = 16 + self.fingerprints.len() + self.head.len() + self.raw.len() + self.event.len();
        let mut out = (length as u32).to_le_bytes().to_vec();
        let mut rest =
            crc32c::crc32c_append(crc32c::crc32c_append(seed, &self.raw), &self.event).to_le_bytes().to_vec();
        rest.extend([self.kind, 0]);
        rest.extend(((self.fingerprints.len() / 8) as u16).to_le_bytes());
        rest.extend([self.fingerprints.as_slice(), &self.head].concat());
        out.extend(crc32c::crc32c_append(crc32c::crc32c_append(seed, &out), &rest).to_le_bytes());
        [out, rest, self.raw.clone(), self.event.clone()].concat()
    }

    fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.head).into()
    }
}

/// Writes a segment that is not sealed anew, frame by frame, all checksums right. With `relink`, the whole chain too.
fn rewrite(bytes: &[u8], relink: bool, change: impl Fn(usize, &mut Frame)) -> Vec<u8> {
    let seed = crc32c::crc32c(&bytes[24..40]);
    let mut out = bytes[..SEGMENT_HEADER].to_vec();
    let (mut at, mut count) = (SEGMENT_HEADER, 0);
    let mut chain: Option<[u8; 32]> = None;
    while bytes.get(at..at + 4) == Some(b"QGR1") {
        let mut header = bytes[at..at + GROUP_HEADER].to_vec();
        let end = at + GROUP_HEADER + number(&header[80..84]);
        if let Some(chain) = chain.filter(|_| relink) {
            header[36..68].copy_from_slice(&chain);
        }
        let mut body = Vec::new();
        at += GROUP_HEADER;
        while at < end {
            let length = number(&bytes[at..at + 4]);
            let mut frame = Frame::read(&bytes[at..at + length]);
            if let Some(chain) = chain.filter(|_| relink) {
                frame.head[8..40].copy_from_slice(&chain);
            }
            change(count, &mut frame);
            chain = Some(frame.hash());
            body.extend(frame.write(seed));
            (at, count) = (at + length, count + 1);
        }
        let synced = out.len() as u64;
        header[68..76].copy_from_slice(&synced.to_le_bytes());
        header[80..84].copy_from_slice(&(body.len() as u32).to_le_bytes());
        header[84..88].copy_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        let crc = crc32c::crc32c(&header[..88]);
        header[88..].copy_from_slice(&crc.to_le_bytes());
        out.extend(header);
        out.extend(body);
    }
    assert!(count > 3, "there is something to change");
    out
}

/// Runs `doctor --verify` in the daemon's folder.
fn verify(daemon: &Daemon, more: &[&str]) -> (i32, Value) {
    let arguments = [&["--config", "quittance.toml", "doctor", "--verify", "--json"][..], more].concat();
    let output = quittance(daemon.folder(), &arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{:?}", output.stderr));
    (output.status.code().unwrap(), report)
}

fn paid(daemon: &Daemon, transactions: std::ops::Range<u32>) {
    for transaction in transactions {
        let fields = fixtures::paygol(json!({ "transaction_id": format!("TAMPER-{transaction}") }));
        assert_eq!(daemon.paygol(&fields).status, 200);
    }
}

/// A stopped daemon with some payments, its only segment, and its head as it was noted in the log.
fn scene() -> (Daemon, PathBuf, String) {
    let mut daemon = Daemon::start();
    paid(&daemon, 0..6);
    assert!(daemon.stop().success());
    // The last head is noted before the last line.
    let log = eventually("the log is here to its end", || {
        let log = daemon.log();
        if log.contains("\"stopped\"") { Ok(log) } else { Err(log) }
    });
    let noted = log.lines().rev().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["head"].as_str().filter(|head| head.contains(':')).map(str::to_owned)
    });
    let segment = daemon.store().join("journal/00000000000000000001.journal");
    (daemon, segment, noted.unwrap_or_else(|| panic!("no head in {log}")))
}

/// The index of the first record with an event.
fn first_event(frame: &Frame) -> bool {
    !frame.event.is_empty()
}

#[test]
fn a_journal_that_nobody_touched_is_sound_also_while_the_daemon_runs() {
    let (mut daemon, _, noted) = scene();
    let (status, report) = verify(&daemon, &["--since", &noted]);
    assert_eq!((status, &report["damaged"], &report["tampered"]), (0, &json!(0), &json!(0)), "{report}");
    assert_eq!(report["since"]["result"], "same", "{report}");
    let hash = noted.split_once(':').unwrap().1;
    let (status, report) = verify(&daemon, &["--since", hash]);
    assert_eq!((status, &report["since"]["result"]), (0, &json!("same")), "the hash alone is found too: {report}");
    daemon.start_again();
    paid(&daemon, 6..8);
    let (status, report) = verify(&daemon, &["--since", &noted]);
    assert_eq!((status, &report["since"]["result"]), (0, &json!("same")), "{report}");
    assert!(report["records"].as_u64().unwrap() >= 8, "{report}");
    let out =
        quittance(daemon.folder(), &["--config", "quittance.toml", "doctor", "--verify", "--since", "1:abc"]).output();
    assert_eq!(out.unwrap().status.code(), Some(2), "what is no hash is told");
}

#[test]
fn an_event_that_was_changed_with_all_checksums_mended_is_tampering() {
    let (daemon, segment, _) = scene();
    let bytes = fs::read(&segment).unwrap();
    let changed = rewrite(&bytes, false, |_, frame| {
        let text = String::from_utf8_lossy(&frame.event).into_owned();
        frame.event = text.replace("7500.00", "9500.00").into_bytes();
    });
    assert_ne!(changed, rewrite(&bytes, false, |_, _| ()));
    fs::write(&segment, changed).unwrap();
    let (status, report) = verify(&daemon, &[]);
    assert_eq!((status, &report["damaged"]), (1, &json!(0)), "{report}");
    assert_eq!(report["tampered"], 6, "{report}");
    assert_eq!(report["findings"][0]["what"], "tampering");
}

#[test]
fn a_head_that_was_changed_breaks_the_chain_unless_all_of_it_is_written_anew() {
    let (daemon, segment, noted) = scene();
    let bytes = fs::read(&segment).unwrap();
    let change = |at: usize, frame: &mut Frame| {
        if at == 1 {
            let last = frame.head.len() - 1;
            frame.head[last] ^= 1;
        }
    };
    fs::write(&segment, rewrite(&bytes, false, change)).unwrap();
    let (status, report) = verify(&daemon, &[]);
    assert_eq!((status, &report["damaged"], &report["tampered"]), (1, &json!(0), &json!(1)), "{report}");

    fs::write(&segment, rewrite(&bytes, true, change)).unwrap();
    let (status, report) = verify(&daemon, &[]);
    assert_eq!((status, &report["tampered"]), (0, &json!(0)), "all of it was written anew: {report}");
    for since in [noted.as_str(), noted.split_once(':').unwrap().1] {
        let (status, report) = verify(&daemon, &["--since", since]);
        assert_eq!((status, &report["since"]["result"]), (1, &json!("changed")), "{report}");
    }
}

#[test]
fn records_that_were_taken_off_the_end_are_missed_by_whoever_noted_the_head() {
    let (daemon, segment, noted) = scene();
    let bytes = fs::read(&segment).unwrap();
    let groups: Vec<usize> =
        memchr::memmem::find_iter(&bytes, &[b"QGR1".as_slice(), &bytes[24..40]].concat()).collect();
    fs::write(&segment, &bytes[..groups[groups.len() / 2]]).unwrap();
    let (status, report) = verify(&daemon, &[]);
    assert_eq!(status, 0, "what is left is whole: {report}");
    let (status, report) = verify(&daemon, &["--since", &noted]);
    assert_eq!((status, &report["since"]["result"]), (1, &json!("truncated")), "{report}");
}

#[test]
fn bytes_that_do_not_read_are_damage_and_not_tampering() {
    let (daemon, segment, _) = scene();
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(&segment, bytes).unwrap();
    let (status, report) = verify(&daemon, &[]);
    assert_eq!((status, &report["tampered"]), (1, &json!(0)), "{report}");
    assert_eq!(report["findings"][0]["what"], "damage", "{report}");
}

#[test]
fn what_retention_took_is_told_from_what_somebody_else_took() {
    let tables = "[retention]\nbodies = \"1s\"\nkeys = \"400d\"\n".to_owned();
    let config = Config {
        store: "segment = \"64KiB\"".into(),
        tables,
        listener: "max_body = \"4KiB\"\nmax_header = \"8KiB\"".into(),
        ..Config::default()
    };
    let mut daemon = Daemon::with(config);
    paid(&daemon, 0..90);
    let segments = || fs::read_dir(daemon.store().join("journal")).unwrap().count();
    assert!(segments() > 2, "a segment is full");
    assert!(daemon.stop().success());
    std::thread::sleep(std::time::Duration::from_millis(1100)); // what is kept for a second is old after it
    daemon.start_again();
    let retired = eventually("retention takes what is old", || {
        let (status, report) = verify(&daemon, &[]);
        if report["parts_retired"].as_u64() > Some(10) { Ok((status, report)) } else { Err(report) }
    });
    assert_eq!((retired.0, &retired.1["tampered"]), (0, &json!(0)), "{}", retired.1);
    assert!(daemon.stop().success());

    // Of the last segment, which retention never touches, somebody takes the parts of a record in the same way.
    let mut names: Vec<PathBuf> =
        fs::read_dir(daemon.store().join("journal")).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "journal"));
    names.sort();
    let last = names.last().unwrap();
    let bytes = fs::read(last).unwrap();
    let taken = rewrite(&bytes, false, |_, frame| {
        if first_event(frame) {
            (frame.kind, frame.raw, frame.event) = (1, Vec::new(), Vec::new());
        }
    });
    assert_ne!(taken.len(), rewrite(&bytes, false, |_, _| ()).len(), "there is an event in the last segment");
    fs::write(last, taken).unwrap();
    let (status, report) = verify(&daemon, &[]);
    assert_eq!((status, &report["damaged"]), (1, &json!(0)), "{report}");
    assert!(report["tampered"].as_u64() >= Some(1), "{report}");
}
