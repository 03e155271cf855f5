//! Section `power`: the power goes under the whole daemon and under the journal alone, in the three ways of the test's disk
//! (`tests/power`); and what sled alone would have lost there.

use std::time::Instant;

use crate::disk::{MODES, Mode};
use crate::journal::{self, Trouble};
use crate::report::{Form, Row, say};
use crate::serve::{Tally, life};
use crate::sled_alone;

/// Power cuts of one life.
const CUTS: u64 = 12;
const TROUBLES: [(Trouble, &str); 4] =
    [(Trouble::No, "sound"), (Trouble::Short, "short writes"), (Trouble::Full, "full"), (Trouble::Failing, "failing")];

/// The section.
pub fn run(form: &Form) -> Result<Vec<Row>, String> {
    let daemon = MODES.iter().map(|mode| in_mode(form, *mode));
    let journal = TROUBLES.iter().map(|(trouble, disk)| journal_alone(form, *trouble, disk));
    let mut rows = daemon.chain(journal).collect::<Result<Vec<_>, _>>()?;
    rows.extend(sled_beside(form));
    Ok(rows)
}

/// The journal alone, on a disk that has another trouble besides its power.
fn journal_alone(form: &Form, trouble: Trouble, disk: &str) -> Result<Row, String> {
    let began = Instant::now();
    let tally = journal::run(trouble, form.seed, form.pick(4, 60))?;
    let (cuts, in_a_start) = (tally.cuts, tally.cuts_in_a_start);
    let what = format!("journal, {disk}: {cuts} cuts, {in_a_start} in a start");
    if form.long {
        say(format!("{what}: {tally:?}"));
    }
    let faults = cuts + in_a_start + tally.refusals + tally.fatal;
    Ok(Row { faults, acknowledged: tally.acknowledged, ..Row::new("power", what, form, began) })
}

/// For comparison: what sled alone loses of what it has flushed. It promises less than the journal, so this is no fault.
fn sled_beside(form: &Form) -> Vec<Row> {
    let began = Instant::now();
    let tallies = sled_alone::run(form.seed, form.pick(5, 200));
    let row = |(mode, tally): (Mode, sled_alone::Tally)| {
        if form.long {
            say(format!("sled alone, {mode:?}: {tally}"));
        }
        let what = format!("sled alone, {mode:?}, to compare: {} not opened", tally.does_not_open);
        let (faults, acknowledged, lost) = (tally.cuts, tally.flushed, tally.lost);
        Row { faults, acknowledged, lost, ..Row::new("power", what, form, began) }
    };
    tallies.into_iter().map(row).collect()
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
            let Tally { cuts, acknowledged, segments, retired, .. } = sum;
            say(format!(
                "{mode:?}: {cuts} power cuts, {acknowledged} acknowledged, {segments} segments, {retired} retired"
            ));
        }
    }
    let enough = cuts * lives;
    // Each life has one segment at least; bodies go in every second one, where it lasts long enough.
    if sum.cuts < enough || sum.acknowledged < 10 || sum.segments <= lives || (form.long && sum.retired == 0) {
        return Err(format!("too little happened: {sum:?}"));
    }
    let what = format!("daemon, {mode:?}: {} cuts, {} in a start, {} kills", sum.cuts, sum.cuts_in_a_start, sum.kills);
    Ok(Row {
        faults: sum.cuts + sum.cuts_in_a_start + sum.kills,
        acknowledged: sum.acknowledged,
        ..Row::new("power", what, form, began)
    })
}
