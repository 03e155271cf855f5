//! Section `power`: the power goes under the whole daemon, in the three ways of the test's disk (`tests/power`).

use std::time::Instant;

use crate::disk::{MODES, Mode};
use crate::report::{Form, Row, say};
use crate::serve::{Tally, life};

/// Power cuts of one life.
const CUTS: u64 = 12;

/// The section.
pub fn run(form: &Form) -> Result<Vec<Row>, String> {
    MODES.iter().map(|mode| in_mode(form, *mode)).collect()
}

fn in_mode(form: &Form, mode: Mode) -> Result<Row, String> {
    let began = Instant::now();
    // A thousand cuts of the daemon in the long form, those in the middle of a start not counted.
    let (cuts, lives) = form.pick((4, 2), (CUTS, 28));
    let mut sum = Tally::default();
    for at in 0..lives {
        let tally = life(mode, form.seed + at * 3 + mode as u64, cuts, at % 2 == 1);
        sum.add(&tally);
        if form.long {
            say(format!("{mode:?}: {} power cuts, {} acknowledged", sum.cuts, sum.acknowledged));
        }
    }
    let enough = cuts * lives;
    if sum.cuts < enough || sum.acknowledged < 50 {
        return Err(format!("too little happened: {} power cuts, {} acknowledged", sum.cuts, sum.acknowledged));
    }
    let what = format!("daemon, {mode:?}: {} cuts, {} in a start, {} kills", sum.cuts, sum.cuts_in_a_start, sum.kills);
    Ok(Row {
        faults: sum.cuts + sum.cuts_in_a_start + sum.kills,
        acknowledged: sum.acknowledged,
        ..Row::new("power", what, form, began)
    })
}
