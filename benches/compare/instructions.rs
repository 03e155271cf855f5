//! Instructions that the daemon executes for one notification of each provider, counted by callgrind.
//!
//! Unlike times these are nearly the same on a busy machine: two runs differ by a few tenths of a percent in what a
//! request does, and by some percent in what a group or a batch does, since these are larger when more comes together. The real daemon runs
//! twice for each provider, once with few notifications and once with more; the difference belongs to the
//! notifications, start and stop fall out. callgrind's processor has no SHA extensions, so hashing weighs more here than it
//! does in truth.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::load::{self, Pace};
use crate::material::{Material, Requests};
use crate::servers::Daemon;

const FEW: usize = 200;
const MANY: usize = 1000;
const CONNECTIONS: usize = 8;
/// How often is measured before a rise is believed.
const TRIES: usize = 3;
/// A rise above this fails.
const TOLERANCE: f64 = 0.05;
/// Functions below this share of a notification are not in the file.
const SHARE: f64 = 0.005;
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

/// Instructions by function.
type Counts = BTreeMap<String, f64>;

/// The exit status.
pub fn run(arguments: &[String]) -> i32 {
    let (check, save) = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => (false, false),
        ["--check"] => (true, false),
        ["--save"] => (false, true),
        other => {
            eprintln!("instructions takes --check or --save, not {}", other.join(" "));
            return 2;
        }
    };
    let folder = crate::default_cache().join("instructions");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("made");
    let material = Material::new(&folder);
    let file = fs::read_to_string(FILE).unwrap_or_default();
    let before = read(&file);
    let (mut text, mut failed) = (String::new(), false);
    for (provider, requests) in load_of_each(&material) {
        let known = before.get(provider);
        let was = known.and_then(|known| known.get(TOTAL)).copied();
        let mut counts = per_notification(&folder, &material, &requests);
        // How the work falls into groups and batches depends on time, and so does a part of their cost. What grew is above
        // the bound every time.
        for _ in 1..TRIES {
            if !check || was.is_none_or(|was| in_all(&counts) <= was * (1.0 + TOLERANCE)) {
                break;
            }
            let again = per_notification(&folder, &material, &requests);
            if in_all(&again) < in_all(&counts) {
                counts = again;
            }
        }
        let total = in_all(&counts);
        let change = was.map(|was| total / was - 1.0);
        let told = change.map_or("no baseline".to_owned(), |change| format!("{:+.1} %", change * 100.0));
        println!("{provider:<14} {total:>10.0} instructions per notification  {told}");
        text += &format!("{provider} {total:.0} {TOTAL}\n");
        let mut largest: Vec<(&String, &f64)> = counts.iter().filter(|(_, count)| **count > total * SHARE).collect();
        largest.sort_by(|a, b| b.1.total_cmp(a.1));
        largest.iter().for_each(|(name, count)| text += &format!("{provider} {count:.0} {name}\n"));
        if check && change.is_none_or(|change| change > TOLERANCE) {
            failed = true;
            tell_what_grew(known.unwrap_or(&Counts::new()), &counts);
        }
    }
    if save {
        fs::write(FILE, text).expect("written");
    }
    if failed {
        println!(
            "more than {:.0} % above benches/instructions.txt; if it must be so: ./bench instructions --save",
            TOLERANCE * 100.0
        );
    }
    i32::from(failed)
}

const TOTAL: &str = "in all";

fn in_all(counts: &Counts) -> f64 {
    counts.values().sum()
}

fn read(text: &str) -> BTreeMap<&str, Counts> {
    let mut all: BTreeMap<&str, Counts> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        if let (Some(provider), Some(count), Some(name)) = (words.next(), words.next(), words.next())
            && let Ok(count) = count.parse()
        {
            all.entry(provider).or_default().insert(name.to_owned(), count);
        }
    }
    all
}

fn tell_what_grew(before: &Counts, now: &Counts) {
    let mut grown: Vec<(f64, &String)> =
        now.iter().map(|(name, count)| (count - before.get(name).copied().unwrap_or(0.0), name)).collect();
    grown.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (more, name) in grown.iter().take(8).filter(|(more, _)| *more > 0.0) {
        println!("    {more:>+10.0}  {name}");
    }
}

fn load_of_each(material: &Material) -> Vec<(&'static str, Requests)> {
    let all = FEW + MANY;
    vec![
        ("clickpay", material.clickpay(0, all, "/clickpay")),
        ("paygol", material.paygol(0, all, "/paygol", false)),
        ("paygol-legacy", material.legacy(all)),
        ("clickkw", material.clickkw(all)),
        ("clickgem", material.clickgem(all)),
    ]
}

fn per_notification(folder: &Path, material: &Material, requests: &Requests) -> Counts {
    let few = counted(folder, material, &requests.part(0, FEW));
    let many = counted(folder, material, &requests.part(FEW, MANY));
    let mut counts = many;
    for (name, count) in few {
        *counts.entry(name).or_default() -= count;
    }
    counts.values_mut().for_each(|count| *count /= (MANY - FEW) as f64);
    counts
}

/// Everything that the daemon executed from its start to its end.
fn counted(folder: &Path, material: &Material, requests: &Requests) -> Counts {
    let run = folder.join("run");
    let _ = fs::remove_dir_all(&run);
    fs::create_dir_all(&run).expect("made");
    let out = run.join("callgrind.out");
    let into = format!("--callgrind-out-file={}", out.display());
    let before = ["valgrind", "--quiet", "--tool=callgrind", "--dump-line=no", "--compress-strings=no", &into];
    let server = Daemon::default().launch(&run, material, &before);
    server.until_ready(Duration::from_secs(120));
    let outcome = load::run(server.address, requests, CONNECTIONS, Pace::Closed, Duration::from_secs(300));
    assert_eq!((outcome.answers, outcome.failures), (requests.len() as u64, 0), "every notification is taken");
    server.stop();
    parse(&out)
}

/// What each function executed itself.
fn parse(file: &PathBuf) -> Counts {
    let text = String::from_utf8_lossy(&fs::read(file).expect("callgrind wrote it")).into_owned();
    let (mut counts, mut function, mut called) = (Counts::new(), String::new(), false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            // Recursion levels are the same function.
            function = name.split('\'').next().unwrap_or(name).to_owned();
        } else if line.starts_with("calls=") {
            called = true; // the next line is what the callee executed
        } else if line.starts_with(|first: char| first.is_ascii_digit() || first == '+' || first == '*' || first == '-')
        {
            let count: f64 = line.split(' ').nth(1).and_then(|count| count.parse().ok()).unwrap_or(0.0);
            if !std::mem::take(&mut called) {
                *counts.entry(function.clone()).or_default() += count;
            }
        }
    }
    counts
}
