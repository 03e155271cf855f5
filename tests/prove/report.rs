//! What a section has to say at its end: rows of one table.

use std::fmt;
use std::io::Write as _;
use std::time::Instant;

use serde_json::{Value, json};

use crate::judge::{Counts, History, in_short, judge};

/// How long and from which seed.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    pub long: bool,
    pub seed: u64,
}

impl Form {
    /// One number for the short form, another one for the long.
    pub fn pick<T>(&self, short: T, long: T) -> T {
        if self.long { long } else { short }
    }
}

/// A row of the table. What it counts as lost, invented or doubled was excluded by name: anything else fails the section; but for the
/// rows of another store, which stand there to compare.
#[derive(Clone, Debug)]
pub struct Row {
    pub section: &'static str,
    pub what: String,
    pub faults: u64,
    pub acknowledged: u64,
    pub lost: u64,
    pub invented: u64,
    /// Messages beyond the first of an event, all with its id.
    pub repeated: u64,
    /// Acknowledged, and destroyed by the fault itself where it lay on the disk; told as damage.
    pub destroyed: u64,
    pub seed: u64,
    pub seconds: f64,
}

impl Row {
    /// One that counts nothing yet.
    pub fn new(section: &'static str, what: impl Into<String>, form: &Form, began: Instant) -> Self {
        Self {
            section,
            what: what.into(),
            faults: 0,
            acknowledged: 0,
            lost: 0,
            invented: 0,
            repeated: 0,
            destroyed: 0,
            seed: form.seed,
            seconds: began.elapsed().as_secs_f64(),
        }
    }

    /// What the judge says of a history.
    ///
    /// # Errors
    /// The broken promises.
    pub fn judged(
        section: &'static str,
        what: impl Into<String>,
        form: &Form,
        began: Instant,
        history: &History,
    ) -> Result<Self, String> {
        let Counts { acknowledged, repeated, destroyed, .. } = judge(history).map_err(|wrong| in_short(&wrong))?;
        Ok(Self { faults: history.faults, acknowledged, repeated, destroyed, ..Self::new(section, what, form, began) })
    }

    /// The row as an object.
    pub fn json(&self) -> Value {
        json!({
            "section": self.section, "what": self.what, "faults": self.faults, "acknowledged": self.acknowledged,
            "lost": self.lost, "invented": self.invented, "repeated": self.repeated, "destroyed": self.destroyed,
            "seed": self.seed, "seconds": (self.seconds * 10.0).round() / 10.0,
        })
    }

    /// The line above all rows.
    pub fn heading() -> String {
        let mut line = String::from("section      what                                            ");
        for word in ["faults", "acknowledged", "lost", "invented", "repeated", "destroyed", "seed", "seconds"] {
            line += &format!(" {word:>12}");
        }
        line
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12} {:<48}", self.section, self.what)?;
        for number in
            [self.faults, self.acknowledged, self.lost, self.invented, self.repeated, self.destroyed, self.seed]
        {
            write!(f, " {number:>12}")?;
        }
        write!(f, " {:>12.1}", self.seconds)
    }
}

/// Something to know while it runs.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "  {line}");
}
