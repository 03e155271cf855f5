//! What was acknowledged is there, whatever happened to the process or the disk (D1, D2, D3, D11). What happens to the
//! power is tested in `tests/power`.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fixtures::{self, PAYGOL_SECRET, paygol};
use crate::harness::{Config, Daemon, eventually};
use crate::http;

/// A signed Paygol request with a transaction of its own.
fn numbered(number: u64) -> Vec<u8> {
    let fields = paygol(json!({ "transaction_id": format!("T-{number}"), "custom": format!("order {number}") }));
    let signature = fixtures::paygol_signature(&fields, PAYGOL_SECRET);
    let headers = [("Content-Type", "application/json"), ("X-Pg-Sig", signature.as_str())];
    http::request("POST", "/paygol", &headers, fields.to_string().as_bytes())
}

fn transactions(feed: &[Value]) -> Vec<String> {
    feed.iter().map(|e| fixtures::text(&e["data"]["transaction_id"])).collect()
}

#[track_caller]
fn all_there_once(daemon: &Daemon, acknowledged: &BTreeSet<String>) {
    let told = transactions(&daemon.feed());
    let distinct: BTreeSet<String> = told.iter().cloned().collect();
    assert_eq!(told.len(), distinct.len(), "something is told twice");
    let lost: Vec<_> = acknowledged.difference(&distinct).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

#[test]
fn killed_again_and_again_under_load_it_loses_nothing_that_it_acknowledged() {
    let mut daemon = Daemon::with(Config { store: "segment = \"1MiB\"".into(), ..Config::default() });
    let acknowledged = Mutex::new(BTreeSet::new());
    let next = AtomicU64::new(0);
    for round in 0..6 {
        let stop = AtomicBool::new(false);
        let public = daemon.public;
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while !stop.load(Ordering::SeqCst) {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        match http::send(public, &numbered(number)) {
                            Ok(answer) if answer.status == 200 => {
                                acknowledged.lock().unwrap().insert(format!("T-{number}"));
                            }
                            Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                            Err(_) => return, // killed
                        }
                    }
                });
            }
            let enough = (round + 1) * 60;
            eventually("some are acknowledged", || {
                if acknowledged.lock().unwrap().len() > enough { Ok(()) } else { Err(()) }
            });
            daemon.kill();
            stop.store(true, Ordering::SeqCst);
        });
        daemon.start_again();
        all_there_once(&daemon, &acknowledged.lock().unwrap());
    }
    // What was sent and maybe kept comes again, as providers do: nothing becomes two events.
    for number in 0..next.load(Ordering::SeqCst) {
        assert_eq!(daemon.send(&numbered(number)).status, 200);
        acknowledged.lock().unwrap().insert(format!("T-{number}"));
    }
    all_there_once(&daemon, &acknowledged.lock().unwrap());
    assert_eq!(daemon.metric("quittance_journal_damage_total"), 0.0, "a torn tail is no damage");
}

#[test]
fn sigterm_in_the_middle_of_requests_answers_what_it_began_and_exits_0() {
    let mut daemon = Daemon::start();
    let mut acknowledged = BTreeSet::new();
    let mut halves = Vec::new();
    for number in 0..8 {
        let bytes = numbered(number);
        let half = bytes.len() - 40;
        let mut stream = http::connect(daemon.public).unwrap();
        std::io::Write::write_all(&mut stream, &bytes[..half]).unwrap();
        halves.push((number, stream, bytes[half..].to_vec()));
    }
    eventually("they are seen", || if daemon.metric("quittance_connections") >= 8.0 { Ok(()) } else { Err(()) });
    daemon.sigterm();
    for (number, mut stream, rest) in halves {
        let answer = std::io::Write::write_all(&mut stream, &rest).and_then(|()| http::read_answer(&mut stream));
        match answer {
            Ok(answer) if answer.status == 200 => {
                acknowledged.insert(format!("T-{number}"));
            }
            Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
            Err(error) => panic!("request {number} that had begun got no answer: {error}"),
        }
    }
    let status = daemon.wait_for_end(Duration::from_secs(12));
    assert!(status.success(), "{status}: {}", daemon.log());
    daemon.start_again();
    all_there_once(&daemon, &acknowledged);
}

#[test]
fn sigint_is_a_clean_end_too() {
    let mut daemon = Daemon::start();
    crate::harness::signal(daemon.pid(), rustix::process::Signal::INT);
    assert!(daemon.wait_for_end(Duration::from_secs(12)).success());
}

#[test]
fn sigterm_with_an_idle_and_a_stuck_connection_still_ends_in_time() {
    let mut daemon = Daemon::start();
    let _idle = http::connect(daemon.public).unwrap();
    let mut stuck = http::connect(daemon.public).unwrap();
    std::io::Write::write_all(&mut stuck, b"POST /paygol HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").unwrap();
    let _waiting = http::connect(daemon.admin).map(|mut s| {
        std::io::Write::write_all(&mut s, &http::request("GET", "/api/v1/events?wait=60s", &[], b"")).unwrap();
        s
    });
    daemon.sigterm();
    let status = daemon.wait_for_end(Duration::from_secs(12));
    assert!(status.success(), "{status}: {}", daemon.log());
}

/// The newest segment of the journal.
fn newest_segment(daemon: &Daemon) -> std::path::PathBuf {
    let mut files = Vec::new();
    let mut folders = vec![daemon.store()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with("index") {
                    folders.push(path);
                }
            } else if name.ends_with(".segment") || name.ends_with(".seg") || name.contains("journal") {
                files.push(path);
            }
        }
    }
    files.sort();
    files.pop().expect("a segment")
}

#[test]
fn a_torn_tail_is_cut_and_damage_in_the_middle_is_skipped_counted_and_kept_aside() {
    let mut daemon = Daemon::start();
    for number in 0..20 {
        assert_eq!(daemon.send(&numbered(number)).status, 200);
    }
    let before = transactions(&daemon.feed());
    assert!(daemon.stop().success());
    // D2: a tail that is no group must not need a hand.
    let segment = newest_segment(&daemon);
    let mut bytes = fs::read(&segment).unwrap();
    let whole = bytes.clone();
    bytes.extend_from_slice(&[0x5a; 700]);
    fs::write(&segment, &bytes).unwrap();
    daemon.start_again();
    assert_eq!(transactions(&daemon.feed()), before);
    assert_eq!(daemon.metric("quittance_journal_damage_total"), 0.0);
    assert!(daemon.stop().success());

    // Bytes that were synced and do not read any more are damage: reported, and the rest goes on.
    let segment = newest_segment(&daemon);
    let mut bytes = fs::read(&segment).unwrap();
    assert!(bytes.len() >= whole.len() / 2);
    let at = memchr::memmem::find(&bytes, b"T-7\"").expect("the seventh is in there");
    bytes[at] ^= 0xff;
    fs::write(&segment, &bytes).unwrap();
    daemon.start_again();
    let after = transactions(&daemon.feed());
    assert!(after.len() < before.len() && after.len() > before.len() / 2, "{after:?}");
    assert!(after.iter().all(|t| before.contains(t)));
    assert!(daemon.metric("quittance_journal_damage_total") >= 1.0, "{}", daemon.log());
    assert_eq!(daemon.send(&numbered(100)).status, 200, "and it goes on");
}

#[test]
fn a_ruined_index_is_rebuilt_without_a_hand() {
    let mut daemon = Daemon::start();
    for number in 0..20 {
        assert_eq!(daemon.send(&numbered(number)).status, 200);
    }
    let before = daemon.feed();
    daemon.kill();
    let index = daemon.store().join("index");
    let mut ruined = 0;
    let mut folders = vec![index];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                let mut bytes = fs::read(entry.path()).unwrap();
                bytes.iter_mut().for_each(|byte| *byte ^= 0x77);
                fs::write(entry.path(), bytes).unwrap();
                ruined += 1;
            }
        }
    }
    assert!(ruined > 0);
    daemon.start_again();
    assert_eq!(daemon.feed(), before);
    for number in 0..20 {
        assert_eq!(daemon.send(&numbered(number)).status, 200);
    }
    assert_eq!(daemon.feed(), before, "every key is known");
}

/// A file system of a few megabytes; needs root.
struct SmallDisk(crate::harness::Folder);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let folder = crate::harness::Folder::new();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "quittance-test"])
            .arg(folder.path())
            .status()
            .expect("mount runs");
        assert!(mounted.success(), "mounting a tmpfs needs root: run ./test as root or in a container");
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_503_and_unready_and_it_goes_on_when_there_is_room() {
    let disk = SmallDisk::new("24M");
    let filler = disk.0.path().join("filler");
    let config =
        Config { store: "segment = \"1MiB\"".into(), store_path: disk.0.path().join("store"), ..Config::default() };
    let mut daemon = Daemon::with(config);
    let mut acknowledged = BTreeSet::new();
    let send = |daemon: &Daemon, number: u64, acknowledged: &mut BTreeSet<String>| {
        let answer = daemon.send(&numbered(number));
        if answer.status == 200 {
            acknowledged.insert(format!("T-{number}"));
        }
        answer
    };
    for number in 0..20 {
        assert_eq!(send(&daemon, number, &mut acknowledged).status, 200);
    }
    // Fill what is left, and then write until it is felt: what is allocated already may still be used up.
    let _ = fs::write(&filler, vec![0_u8; 24 << 20]);
    let mut number = 20;
    let refusal = loop {
        let answer = send(&daemon, number, &mut acknowledged);
        number += 1;
        if answer.status != 200 {
            break answer;
        }
        assert!(number < 20_000, "the disk never filled");
    };
    assert_eq!(refusal.status, 503, "{refusal:?}");
    assert!(refusal.header("retry-after").is_some());
    assert_eq!(refusal.text(), "OK".replace("OK", &refusal.text()), "a fixed phrase");
    assert_ne!(refusal.text(), "OK");
    // It lives on for longer than the index can put off writing: the index, too, must not end at a full disk.
    let over = Instant::now() + Duration::from_millis(2500);
    while Instant::now() < over {
        let status = send(&daemon, number, &mut acknowledged).status;
        assert!(status == 200 || status == 503, "{status}");
        number += 1;
    }
    eventually("it says that it is not ready", || {
        let answer = daemon.admin_get("/readyz");
        if answer.status == 503 && answer.json()["ready"] == false && answer.json()["reason"].is_string() {
            Ok(())
        } else {
            Err(answer)
        }
    });
    assert_eq!(daemon.admin_get("/healthz").status, 200, "the process works");
    assert!(daemon.metric(r#"quittance_refusals_total{reason="storage",source="paygol"}"#) >= 1.0);
    all_there_once(&daemon, &acknowledged);
    fs::remove_file(&filler).unwrap();
    eventually("it goes on by itself", || {
        let answer = send(&daemon, number, &mut acknowledged);
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    });
    daemon.wait_until_ready();
    daemon.crash_and_restart();
    all_there_once(&daemon, &acknowledged);
}

#[test]
fn a_start_on_a_full_disk_is_not_ready_and_no_crash_loop() {
    let disk = SmallDisk::new("24M");
    let filler = disk.0.path().join("filler");
    let config =
        Config { store: "segment = \"1MiB\"".into(), store_path: disk.0.path().join("store"), ..Config::default() };
    let mut daemon = Daemon::with(config);
    assert_eq!(daemon.send(&numbered(1)).status, 200);
    let before = daemon.feed();
    daemon.kill();
    let _ = fs::write(&filler, vec![0_u8; 24 << 20]);
    daemon.launch_again();
    let answer = daemon.admin_get("/readyz");
    if answer.status != 200 {
        assert_eq!(answer.status, 503);
        assert_eq!(daemon.send(&numbered(2)).status, 503);
    }
    fs::remove_file(&filler).unwrap();
    daemon.wait_until_ready();
    assert_eq!(daemon.feed(), before);
    assert_eq!(daemon.send(&numbered(2)).status, 200);
}

#[test]
fn a_restored_store_holds_every_paid_event() {
    let mut daemon = Daemon::start();
    assert_eq!(daemon.send(&numbered(1)).status, 200);
    assert!(daemon.stop().success());
    daemon.set_arguments(&["--restored"]);
    daemon.start_again();
    assert_eq!(daemon.send(&numbered(2)).status, 200);
    let data = daemon.last_event();
    assert_eq!(
        (data["verdict"].as_str(), &data["reasons"]),
        (Some("hold"), &json!(["restored"])),
        "{:#?}",
        daemon.feed()
    );
    assert_eq!(daemon.ask("/api/v1/status")["store"]["restored"], true);
    // It is a fact of the store, not of one start: a supervisor that starts it again ends nothing.
    daemon.set_arguments(&[]);
    daemon.crash_and_restart();
    assert_eq!(daemon.send(&numbered(3)).status, 200);
    assert_eq!(daemon.last_event()["verdict"], "hold");
}
