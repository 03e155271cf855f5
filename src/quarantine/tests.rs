//! Files, bounds and damage, with real folders.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::clock::Manual;
use crate::provider::Place;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time")
}

fn source() -> SourceName {
    SourceName::new("paygol").expect("a name")
}

fn request(second: i64, remote: &str, body: &[u8]) -> Received {
    let mut headers = HeaderMap::new();
    headers.append("x-pg-sig", HeaderValue::from_static("00ff"));
    headers.append("accept", HeaderValue::from_static("a"));
    headers.append("accept", HeaderValue::from_bytes(b"\xff").expect("opaque"));
    Received {
        method: Method::POST,
        path: "/paygol".to_owned(),
        rest: String::new(),
        query: Some("key=hush".to_owned()),
        headers,
        body: Bytes::copy_from_slice(body),
        remote: remote.parse().expect("an address"),
        at: at(second),
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    clock: Manual,
}

impl Fixture {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), clock: Manual::at(at(0)) }
    }
    fn open(&self, max_bytes: u64) -> Quarantine {
        let bounds = Bounds { max_bytes, max_age: Duration::from_secs(100) };
        Quarantine::open(
            &self.folder.path().join("quarantine"),
            [&source()],
            bounds,
            Arc::new(self.clock.clone()),
            self.seal(),
        )
        .expect("opened")
    }
    fn seal(&self) -> Seal {
        Seal::open(self.folder.path()).expect("a key")
    }
    fn files(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("quarantine/paygol");
        let mut files: Vec<_> =
            std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
        files.sort();
        files
    }
}

fn scar() -> Scar {
    Scar { place: Place::Query, start: 4, length: 16, hmac: [7; 16] }
}

/// Waits until the writer has taken everything: dropping the last handle does.
fn drain(quarantine: Quarantine) {
    drop(quarantine);
}

fn same(one: &Received, other: &Received) -> bool {
    let parts = |r: &Received| (r.method.clone(), r.path.clone(), r.rest.clone(), r.query.clone(), r.headers.clone());
    parts(one) == parts(other) && (&one.body, one.remote, one.at) == (&other.body, other.remote, other.at)
}

#[test]
fn what_was_offered_is_there_after_a_restart_byte_for_byte_and_private() {
    let fixture = Fixture::new();
    let quarantine = fixture.open(1 << 20);
    let offered = request(1, "192.0.2.1", b"{\"a\":\"\xff\"}");
    quarantine.offer(&source(), "bad signature: no key verifies it", &offered, &[]);
    drain(quarantine);

    let [path] = fixture.files().try_into().expect("one file");
    assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    let folder = path.parent().expect("a folder");
    assert_eq!(folder.metadata().expect("there").permissions().mode() & 0o777, 0o700);

    let quarantine = fixture.open(1 << 20);
    let [entry] = quarantine.entries(&source()).try_into().expect("one entry");
    assert_eq!(
        (entry.reason.as_str(), entry.remote, entry.bytes),
        ("bad signature: no key verifies it", offered.remote, 4096)
    );
    let kept = quarantine.read(entry.id).expect("whole").expect("there");
    assert!(same(&kept.received, &offered) && kept.source == source());
    assert_eq!(quarantine.figures().bytes.get(&source()), Some(&4096));
    assert!(!format!("{entry:?}").contains("hush"), "a list shows no secret");
    assert_eq!(quarantine.read(QuarantineId::at(at(5))).expect("no error").map(|_| ()), None);
}

#[test]
fn bearer_secrets_do_not_reach_the_disk_and_can_still_be_told_right_from_wrong() {
    let fixture = Fixture::new();
    let quarantine = fixture.open(1 << 20);
    let mut offered = request(1, "192.0.2.1", b"key=a-bearer-secret&x=1");
    offered.headers.insert("cookie", HeaderValue::from_static("a-session"));
    quarantine.offer(&source(), "bad_signature", &offered, &[Cut { place: Place::Body, range: 4..19 }]);
    drain(quarantine);
    let [path] = fixture.files().try_into().expect("one file");
    let bytes = std::fs::read(path).expect("readable");
    for secret in [b"a-bearer-secret".as_slice(), b"a-session"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "a secret was kept");
    }
    let kept = decode(&bytes).expect("whole");
    assert_eq!(kept.received.body, b"key=&x=1".as_slice());
    assert_eq!(kept.scars[0].hmac, fixture.seal().of("cut", b"a-bearer-secret"));
}

#[test]
fn a_flood_from_one_address_leaves_room_for_others() {
    let fixture = Fixture::new();
    let quarantine = fixture.open(16 * 4096);
    quarantine.offer(&source(), "bad signature", &request(0, "192.0.2.9", b"genuine"), &[]);
    for second in 1..40 {
        quarantine.offer(&source(), "bad signature", &request(second, "198.51.100.1", b"flood"), &[]);
    }
    drain(quarantine);
    let quarantine = fixture.open(16 * 4096);
    let remotes: Vec<_> = quarantine.entries(&source()).iter().map(|entry| entry.remote.to_string()).collect();
    assert_eq!(remotes, ["192.0.2.9", "198.51.100.1", "198.51.100.1"]);
    assert_eq!(fixture.files().len(), 3, "what went is gone from the disk");
}

#[test]
fn old_entries_go_at_a_start_and_with_the_next_offer() {
    let fixture = Fixture::new();
    let quarantine = fixture.open(1 << 20);
    quarantine.offer(&source(), "bad signature", &request(0, "192.0.2.1", b"1"), &[]);
    quarantine.offer(&source(), "bad signature", &request(60, "192.0.2.1", b"2"), &[]);
    drain(quarantine);
    fixture.clock.set(at(101));
    let quarantine = fixture.open(1 << 20);
    assert_eq!(quarantine.entries(&source()).len(), 1);
    fixture.clock.set(at(161));
    quarantine.offer(&source(), "bad signature", &request(161, "192.0.2.1", b"3"), &[]);
    drain(quarantine);
    assert_eq!(fixture.files().len(), 1);
}

#[test]
fn a_smaller_bound_holds_from_the_next_start() {
    let fixture = Fixture::new();
    let quarantine = fixture.open(1 << 20);
    for second in 0..20 {
        quarantine.offer(&source(), "bad signature", &request(second, &format!("192.0.2.{second}"), b"x"), &[]);
    }
    drain(quarantine);
    let quarantine = fixture.open(8 * 4096);
    assert_eq!(quarantine.figures().bytes.get(&source()), Some(&(8 * 4096)));
    assert_eq!(fixture.files().len(), 8);
}

#[test]
fn too_large_unknown_and_too_many_are_dropped_and_counted() {
    let fixture = Fixture::new();
    let quarantine = fixture.open(8 * 4096);
    quarantine.offer(&source(), "bad signature", &request(0, "192.0.2.1", &[0; 5000]), &[]);
    quarantine.offer(&SourceName::new("none").expect("a name"), "bad signature", &request(0, "192.0.2.1", b""), &[]);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while quarantine.figures().dropped < 2 && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(quarantine.figures().dropped, 2);
    assert!(fixture.files().is_empty());
}

#[test]
fn damaged_files_are_skipped_counted_and_still_bounded() {
    let fixture = Fixture::new();
    let quarantine = fixture.open(8 * 4096);
    for second in 0..3 {
        quarantine.offer(&source(), "bad signature", &request(second, &format!("192.0.2.{second}"), b"x"), &[]);
    }
    drain(quarantine);
    let files = fixture.files();
    // What a power loss leaves: an empty file, and one whose end never reached the disk.
    std::fs::write(&files[0], b"").expect("written");
    let mut torn = std::fs::read(&files[1]).expect("read");
    *torn.last_mut().expect("a byte") ^= 1;
    std::fs::write(&files[1], &torn).expect("written");
    std::fs::write(files[0].with_extension("tmp"), b"unfinished").expect("written");
    std::fs::write(files[0].with_file_name("README"), b"not ours").expect("written");

    let quarantine = fixture.open(8 * 4096);
    let entries = quarantine.entries(&source());
    assert_eq!(
        entries.iter().map(|entry| entry.reason.as_str()).collect::<Vec<_>>(),
        ["damaged", "bad signature", "bad signature"]
    );
    assert!(matches!(quarantine.read(entries[0].id), Err(QuarantineError::Damaged { source: Damage::Magic, .. })));
    assert!(matches!(quarantine.read(entries[1].id), Err(QuarantineError::Damaged { source: Damage::Checksum, .. })));
    assert!(quarantine.read(entries[2].id).expect("whole").is_some());
    assert_eq!(quarantine.figures().damaged, 3, "one at the start, two when read");
    assert_eq!(fixture.files().len(), 4, "the unfinished file is gone, the stranger's is not");
    assert_eq!(quarantine.figures().bytes.get(&source()), Some(&(3 * 4096)));
}

#[test]
fn a_source_that_is_no_longer_configured_ages_too() {
    let fixture = Fixture::new();
    let quarantine = fixture.open(1 << 20);
    quarantine.offer(&source(), "bad signature", &request(0, "192.0.2.1", b"1"), &[]);
    drain(quarantine);
    fixture.clock.set(at(101));
    let bounds = Bounds { max_bytes: 1 << 20, max_age: Duration::from_secs(100) };
    let other = SourceName::new("other").expect("a name");
    let folder = fixture.folder.path().join("quarantine");
    drain(
        Quarantine::open(&folder, [&other], bounds, Arc::new(fixture.clock.clone()), fixture.seal()).expect("opened"),
    );
    assert!(fixture.files().is_empty());
}

#[test]
fn every_changed_byte_and_every_cut_is_seen() {
    let whole = encode(&source(), "bad signature", &request(0, "192.0.2.1", b"body"), &[scar()]);
    assert!(decode(&whole).is_ok());
    for index in 0..whole.len() {
        let mut changed = whole.clone();
        changed[index] ^= 0x10;
        assert!(decode(&changed).is_err(), "byte {index}");
        assert!(decode(&whole[..index]).is_err(), "cut at {index}");
    }
    assert_eq!(decode(&[whole, vec![0]].concat()).map(|_| ()), Err(Damage::Length));
}

proptest! {
    #[test]
    fn any_bytes_read_back_or_are_damage(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
        // And with a right frame around them, so that the fields themselves are reached.
        let mut framed = b"QTNQUAR\x01".to_vec();
        let mut checked = (bytes.len() as u32).to_le_bytes().to_vec();
        checked.append(&mut bytes);
        framed.extend(crc32c::crc32c(&checked).to_le_bytes());
        framed.extend(checked);
        let _ = decode(&framed);
    }

    #[test]
    fn requests_read_back(
        path in "/\\PC{0,40}", rest in "\\PC{0,20}", query in prop::option::of("\\PC{0,40}"), reason in "\\PC{0,200}",
        headers in prop::collection::vec(("[a-z][a-z-]{0,10}", prop::collection::vec(0x20u8..0x7f, 0..20)), 0..5),
        body in prop::collection::vec(any::<u8>(), 0..200), remote: IpAddr, ms in 0i64..4_000_000_000_000,
    ) {
        let headers = headers.iter().map(|(name, value)| {
            (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_bytes(value).expect("a value"))
        }).collect();
        let at = Timestamp::from_millisecond(ms).expect("a time");
        let received = Received {
            method: Method::GET, path, rest, query, headers, body: Bytes::from(body), remote: remote.to_canonical(), at,
        };
        let kept = decode(&encode(&source(), &reason, &received, &[scar()])).expect("read back");
        prop_assert!(same(&kept.received, &received));
        prop_assert_eq!(kept.scars, [scar()]);
        prop_assert!(reason.starts_with(&kept.reason));
    }
}

#[test]
fn a_new_source_without_a_folder_leaves_the_other_new_ones_theirs() {
    let fixture = Fixture::new();
    let quarantine = fixture.open(1 << 20);
    std::fs::write(fixture.folder.path().join("quarantine/aaa"), b"no folder").expect("written");
    let new = ["aaa", "bbb"].map(|name| SourceName::new(name).expect("a name"));
    let bounds = Bounds { max_bytes: 1 << 20, max_age: Duration::from_secs(100) };
    assert!(
        matches!(quarantine.adopt(&new, bounds), Err(QuarantineError::Folder { path, .. }) if path.ends_with("aaa"))
    );
    assert_eq!(quarantine.sources(), [new[1].clone(), source()]);
}
