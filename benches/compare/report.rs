//! Medians with their spread, on the terminal and in `benches/RESULTS.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What one row found.
#[derive(Clone, Debug)]
pub struct Line {
    /// Which.
    pub row: String,
    /// What was measured.
    pub what: String,
    /// One figure for each round.
    pub figures: Vec<f64>,
    /// What it is counted in; empty for a ratio.
    pub unit: &'static str,
    /// What is wanted; `None` for what is told beside.
    pub goal: Option<Goal>,
}

/// A goal of the table.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// At least.
    Least(f64),
    /// At most.
    Most(f64),
}

/// Collects lines.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order in which they came.
    pub lines: Vec<Line>,
}

impl Line {
    /// The middle one of all rounds.
    pub fn median(&self) -> f64 {
        median(&self.figures)
    }
    fn met(&self) -> &'static str {
        match self.goal {
            None => "",
            Some(Goal::Least(goal)) if self.median() >= goal => "met",
            Some(Goal::Most(goal)) if self.median() <= goal => "met",
            Some(_) => "missed",
        }
    }
    fn goal(&self) -> String {
        match self.goal {
            None => String::new(),
            Some(Goal::Least(goal)) => format!(">= {} {}", number(goal), self.unit).trim().to_owned(),
            Some(Goal::Most(goal)) => format!("<= {} {}", number(goal), self.unit).trim().to_owned(),
        }
    }
    fn spread(&self) -> String {
        let least = self.figures.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{} to {}", number(least), number(most))
    }
    fn median_text(&self) -> String {
        format!("{} {}", number(self.median()), self.unit).trim().to_owned()
    }
}

impl Report {
    /// Notes a line and prints it.
    pub fn add(&mut self, row: &str, what: &str, unit: &'static str, goal: Option<Goal>, figures: Vec<f64>) {
        let line = Line { row: row.to_owned(), what: what.to_owned(), figures, unit, goal };
        println!(
            "{:<12} {:<66} {:>14} ({}; {} rounds) {} {}",
            line.row,
            line.what,
            line.median_text(),
            line.spread(),
            line.figures.len(),
            line.goal(),
            line.met()
        );
        self.lines.push(line);
    }

    /// Writes what was found into the table of `file`, in the place of what stood there of the same rows. Every row
    /// keeps the date and the machine of its own call.
    pub fn write(&self, file: &Path, date: &str, machine: &str) {
        const END: &str = "<!-- measured: end -->";
        let text = fs::read_to_string(file).unwrap_or_default();
        let (before, rest) = text.split_once(BEGIN).unwrap_or((HEAD, ""));
        let after = rest.split_once(END).map_or("\n", |(_, after)| after);
        let mut sections: BTreeMap<usize, (String, String)> = BTreeMap::new();
        let place = |row: &str| crate::rows::ROWS.iter().position(|known| known.name == row).unwrap_or(usize::MAX);
        for section in rest.split_once(END).map_or("", |(table, _)| table).split("\n### ").skip(1) {
            let (name, body) = section.split_once('\n').unwrap_or((section, ""));
            sections.insert(place(name.trim()), (name.trim().to_owned(), body.trim().to_owned()));
        }
        let mut fresh: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
        self.lines.iter().for_each(|line| fresh.entry(&line.row).or_default().push(line));
        for (row, lines) in fresh {
            let mut body = format!(
                "{date}; {machine}\n\n| what | median | spread | rounds | goal | |\n| --- | --- | --- | --- | --- | --- |\n"
            );
            for line in lines {
                let _ = writeln!(
                    body,
                    "| {} | {} | {} | {} | {} | {} |",
                    line.what,
                    line.median_text(),
                    line.spread(),
                    line.figures.len(),
                    line.goal(),
                    line.met()
                );
            }
            sections.insert(place(row), (row.to_owned(), body.trim().to_owned()));
        }
        let mut out = format!("{before}{BEGIN}\n");
        for (name, body) in sections.values() {
            let _ = write!(out, "\n### {name}\n\n{body}\n");
        }
        let _ = write!(out, "\n{END}{after}");
        fs::write(file, out).expect("the results can be written");
    }
}

const BEGIN: &str = "<!-- measured: begin -->";
const HEAD: &str = "# Results\n\nWritten by `./bench`; each row stands with the date and the machine of its own call. Everything that is compared \
was measured in one call, in turns. Ratios carry over to other machines, absolute figures do not.\n\n";

/// The middle value.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// A figure with as many digits as say something.
pub fn number(figure: f64) -> String {
    match figure.abs() {
        big if big >= 1000.0 => format!("{figure:.0}"),
        some if some >= 10.0 => format!("{figure:.1}"),
        few if few >= 0.1 || few == 0.0 => format!("{figure:.2}"),
        _ => format!("{figure:.4}"),
    }
}

/// Processor, cores, memory, disk, kernel; nothing else of the machine.
pub fn machine(folder: &Path) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|line| line.trim_start_matches([':', ' ', '\t']).trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kib: u64 =
        field(&read("/proc/meminfo"), "MemTotal").split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{}, {cores} cores, {} GiB, {}, Linux {}",
        field(&read("/proc/cpuinfo"), "model name"),
        (kib + (1 << 19)) >> 20,
        file_system(folder),
        kernel.trim()
    )
}

fn file_system(folder: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let folder = folder.canonicalize().unwrap_or_else(|_| PathBuf::from("/"));
    let mut best = ("", "unknown");
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(_), Some(place), Some(kind)) = (words.next(), words.next(), words.next()) else { continue };
        if folder.starts_with(place) && place.len() >= best.0.len() {
            best = (place, kind);
        }
    }
    best.1.to_owned()
}
