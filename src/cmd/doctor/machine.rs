//! What lies on this machine: the daemon, the store's files, their rights, the disk, the clock.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::HumanBytes;
use rustix::fs::{StatVfs, statfs, statvfs};

use super::super::check;
use super::{Check, Running};
use crate::clock::{Clock as _, System};
use crate::config::{Config, units};
use crate::event::rfc3339;
use crate::store::embedded::inspect;

/// The clock may be this far before the newest record, and this far after it (design, section 3).
const BACK: Duration = Duration::from_secs(5);
const AHEAD: Duration = Duration::from_secs(48 * 3600);
/// A sync that takes longer holds every answer up.
const SLOW_SYNC: Duration = Duration::from_millis(100);
/// Room on the disk below which it is time to act.
const LITTLE_ROOM: f64 = 0.05;
/// `f_type` of tmpfs and ramfs: what lies there is gone after a restart of the machine.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Whether one runs, takes notifications, and runs by the configuration that was offered last.
pub(super) fn daemon(running: Option<&Running>) -> Vec<Check> {
    const CHECK: &str = "daemon";
    let Some(running) = running else {
        return vec![Check::note(CHECK, "no daemon runs on this store", "start one with serve")];
    };
    let mut checks = vec![match &running.not_ready {
        None => Check::ok(CHECK, format!("process {} takes notifications", running.pid)),
        Some(why) => {
            let what = format!("process {} takes no notifications: {why}", running.pid);
            Check::wrong(CHECK, what, "providers try again for a while; see to the reason that it gives")
        }
    }];
    if let Some(error) = running.status["config"]["last_reload_error"].as_str() {
        let what = format!("the last reload was refused, or not taken whole: {error}");
        checks.push(Check::wrong(
            CHECK,
            what,
            "mend that and reload; where it was refused, the former configuration is still in force",
        ));
    }
    if running.status["store"]["restored"] == true {
        let what = "the store comes from a backup: every event is held";
        let remedy = "compare what happened since the backup with the providers, then serve --restored-ended";
        checks.push(Check::note(CHECK, what, remedy));
    }
    checks
}

/// The store's folder, and what was found damaged in it.
pub(super) fn store(config: &Config, running: Option<&Running>) -> Vec<Check> {
    const CHECK: &str = "store";
    let path = &config.store.path;
    if let Err(trouble) = check::check_store(path) {
        let (what, remedy) = trouble.told();
        return vec![Check::wrong(CHECK, what, remedy)];
    }
    let journal = path.join("journal");
    if !journal.exists() {
        return vec![Check::note(
            CHECK,
            format!("there is no store in {} yet", path.display()),
            "the first serve makes it",
        )];
    }
    let mut checks = Vec::new();
    match fs::read_dir(&journal) {
        Ok(entries) => {
            let files = entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|file| file.len());
            let (count, bytes) = files.fold((0_u64, 0), |(count, bytes), length| (count + 1, bytes + length));
            checks.push(Check::ok(CHECK, format!("{} in {count} files of {}", HumanBytes(bytes), journal.display())));
        }
        Err(error) => {
            let what = format!("{} cannot be read: {error}", journal.display());
            checks.push(Check::wrong(CHECK, what, "run as the user that runs the daemon"));
        }
    }
    let damage = path.join("damage");
    let places = fs::read_dir(&damage).map_or(0, |entries| entries.filter(Result::is_ok).count());
    if places > 0 {
        let what = format!("{places} damaged places of the journal were kept aside in {}", damage.display());
        let remedy = "look at the disk (smartctl, dmesg), run doctor --verify, ask the providers for what is lost; then move \
                      the folder's files elsewhere";
        checks.push(Check::wrong(CHECK, what, remedy));
    }
    if !path.join("seal.key").exists() {
        let what = "seal.key is missing: what was registered with an indicator cannot be recognized any more";
        checks.push(Check::wrong(CHECK, what, "bring it back from the backup of the store before the next start"));
    }
    let letters = running.and_then(|running| running.metric("dead_letters", "")).unwrap_or(0.0);
    if letters > 0.0 {
        let what = format!("{letters} events were refused by the sink for good");
        checks.push(Check::wrong(CHECK, what, "see why in the log, mend it, then dead-letters retry"));
    }
    checks
}

/// Whether the index keeps up.
pub(super) fn index(config: &Config, running: Option<&Running>) -> Option<Check> {
    const CHECK: &str = "index";
    if let Some(running) = running {
        let lag = running.status["store"]["index_lag"].as_u64().unwrap_or(0);
        let limit = config.store.index_lag as u64;
        let what = format!("{lag} records behind the journal, of {limit} that it may be");
        return Some(if lag > limit / 2 {
            Check::wrong(
                CHECK,
                what,
                "beyond that senders get 503: the disk is too slow for the index, or store.index_lag too small",
            )
        } else {
            Check::ok(CHECK, what)
        });
    }
    if !config.store.path.join("journal").exists() {
        return None;
    }
    Some(match config.store.path.join("index").is_dir() {
        true => Check::ok(CHECK, "there; the next start looks whether it fits the journal, and builds it anew if not"),
        false => {
            Check::note(CHECK, "missing", "the next start builds it from the journal, or doctor --rebuild-index does")
        }
    })
}

/// Whether the clock can be right.
pub(super) fn clock(config: &Config, running: Option<&Running>) -> Check {
    const CHECK: &str = "clock";
    let now = System.now();
    let newest = match inspect::newest_record(&config.store.path) {
        Ok(newest) => newest,
        Err(error) => return Check::note(CHECK, format!("the newest record cannot be read: {error}"), ""),
    };
    let Some(newest) = newest else {
        return Check::ok(CHECK, format!("{}; no record yet to compare it with", rfc3339(now)));
    };
    let ago = now.duration_since(newest);
    let seconds = Duration::from_secs(ago.unsigned_abs().as_secs());
    let what = |how: &str| format!("{} is {} {how} the newest record", rfc3339(now), units::show_duration(seconds));
    if ago.is_negative() && ago.unsigned_abs() > BACK {
        return Check::wrong(CHECK, what("before"), "set the clock; if it is right, serve --confirm-clock");
    }
    if ago.is_positive() && ago.unsigned_abs() > AHEAD {
        let remedy = "set the clock; if it is right, as after a long stop, serve --confirm-clock: until then every event is held";
        return if running.is_some() {
            Check::wrong(CHECK, what("after"), remedy)
        } else {
            Check::note(CHECK, what("after"), remedy)
        };
    }
    if Path::new("/run/systemd/timesync").is_dir() && !Path::new("/run/systemd/timesync/synchronized").exists() {
        return Check::note(
            CHECK,
            what("after"),
            "systemd-timesyncd has not synchronized it yet: timedatectl timesync-status",
        );
    }
    Check::ok(CHECK, what("after"))
}

/// Whether others can read or write what is the daemon's alone.
pub(super) fn rights(config: &Config, file: &Path) -> Vec<Check> {
    const CHECK: &str = "rights";
    let mut checks = Vec::new();
    if fs::metadata(file).is_ok_and(|file| file.mode() & 0o022 != 0) {
        let what = format!("{} can be written by others", file.display());
        checks.push(Check::wrong(CHECK, what, format!("chmod go-w {}", file.display())));
    }
    let path = &config.store.path;
    let Ok(folder) = fs::metadata(path) else { return checks };
    let mut looked = 0;
    let names = ["", "journal", "index", "quarantine", "damage", "seal.key", "lock"];
    for name in names {
        let place = if name.is_empty() { path.clone() } else { path.join(name) };
        let Ok(found) = fs::metadata(&place) else { continue };
        looked += 1;
        let mode = found.mode() & 0o777;
        // Behind a folder that nobody else may enter it does not matter; the folder itself, and the key, must be closed.
        let closed = ["", "journal", "quarantine", "seal.key"].contains(&name);
        if closed && mode & 0o077 != 0 {
            let what = format!("{} has mode {mode:o}: others can reach what was paid by whom", place.display());
            checks.push(Check::wrong(CHECK, what, format!("chmod go-rwx {}", place.display())));
        }
        if found.uid() != folder.uid() {
            let what =
                format!("{} belongs to user {}, the store to user {}", place.display(), found.uid(), folder.uid());
            let remedy = format!("chown -R {} {}", folder.uid(), path.display());
            checks.push(Check::wrong(CHECK, what, remedy));
        }
    }
    if checks.is_empty() {
        checks.push(Check::ok(CHECK, format!("{looked} places of the store are its owner's alone")));
    }
    checks
}

/// Room, kind and speed of the disk.
pub(super) fn disk(config: &Config) -> Vec<Check> {
    const CHECK: &str = "disk";
    let path = &config.store.path;
    let Some(place) = path.ancestors().find(|place| place.is_dir()) else { return Vec::new() };
    let mut checks = Vec::new();
    match statvfs(place) {
        Ok(figures) => checks.push(room(&figures, config.store.segment_bytes)),
        Err(error) => checks.push(Check::wrong(CHECK, format!("{}: {error}", place.display()), "")),
    }
    if statfs(place).is_ok_and(|found| IN_MEMORY.contains(&(found.f_type as u64))) {
        let what = format!("{} lies in memory: everything is lost when the machine stops", place.display());
        checks.push(Check::wrong(CHECK, what, "put the store on a disk"));
    }
    if place == path {
        checks.push(sync(path));
    }
    checks
}

fn room(figures: &StatVfs, segment: u64) -> Check {
    const CHECK: &str = "disk";
    let (free, all) = (figures.f_bavail * figures.f_frsize, figures.f_blocks * figures.f_frsize);
    let what = format!("{} of {} are free", HumanBytes(free), HumanBytes(all));
    let share = free as f64 / all.max(1) as f64;
    let remedy =
        "make room, or let less be kept (retention.bodies, quarantine.bytes); a full disk is answered with 503";
    if free < 2 * segment || share < LITTLE_ROOM {
        return Check::wrong(CHECK, what, remedy);
    }
    if figures.f_files > 0 && figures.f_favail < 1000 {
        return Check::wrong(
            CHECK,
            format!("{} files more can be made", figures.f_favail),
            "make room for files (inodes)",
        );
    }
    Check::ok(CHECK, what)
}

/// How long one sync takes: every answer of success waits for one.
fn sync(path: &Path) -> Check {
    const CHECK: &str = "disk";
    let try_it = || -> std::io::Result<Duration> {
        use std::io::Write as _;
        let mut file = tempfile::tempfile_in(path)?;
        file.write_all(&[0; 4096])?;
        let began = Instant::now();
        file.sync_data()?;
        Ok(began.elapsed())
    };
    match try_it() {
        Ok(took) if took > SLOW_SYNC => {
            let what = format!("a sync took {} ms", took.as_millis());
            Check::note(CHECK, what, "every answer waits for one: is the disk busy, or is it a network's?")
        }
        Ok(took) => Check::ok(CHECK, format!("a sync took {:.1} ms", took.as_secs_f64() * 1000.0)),
        Err(error) => {
            Check::wrong(CHECK, format!("{} cannot be synced: {error}", path.display()), "look at the disk (dmesg)")
        }
    }
}
