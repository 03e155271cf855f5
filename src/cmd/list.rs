//! `quittance list`: the notifications that were kept, newest first.

use std::io::Write;
use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::api::{Absent, Api};
use super::reading::{Side, Style, money, table, text, words};
use super::{Failure, Out, sources, talk};
use crate::cli;

/// The largest page that the API gives.
pub(super) const WHOLE_PAGE: u16 = 1000;
const HEADING: [&str; 9] = ["RECEIVED", "SOURCE", "ORDER", "SAYS", "AMOUNT", "VERDICT", "REASONS", "SEEN", "ID"];
const SIDES: [Side; 9] = {
    use Side::{Left, Right};
    [Left, Left, Left, Left, Right, Left, Left, Right, Left]
};
const VERDICT: usize = 5;

/// Asks and prints.
///
/// # Errors
/// [`Failure`] when the question is refused, nobody can answer, or stdout cannot be written.
pub fn run<W: Write>(file: &Path, arguments: &cli::List, out: &mut Out<W>) -> Result<(), Failure> {
    let api = Api::reach(file, Absent::Refuse)?;
    sources::heard_of(&api, arguments.source.as_deref())?;
    let style = Style::of_stdout();
    let mut after = arguments.after.clone();
    let mut nothing_yet = true;
    // A page may end before it is full: where what is asked for is rare, the daemon does not look for it for long.
    let mut left = if arguments.all { usize::MAX } else { arguments.limit.into() };
    loop {
        let limit = left.min(WHOLE_PAGE.into());
        let page = api.ask(&question(arguments, limit, after.as_deref()))?;
        let items = page.get("notifications").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if arguments.json {
            items.iter().try_for_each(|item| out.json(item))?;
        } else if !items.is_empty() {
            print(&style, items, nothing_yet, out)?;
        }
        nothing_yet &= items.is_empty();
        after = page.get("next").and_then(Value::as_str).map(str::to_owned);
        left = left.saturating_sub(items.len());
        if after.is_none() || left == 0 {
            break;
        }
    }
    match after {
        Some(next) => talk(&format!("there are more: --after {next}, or --all")),
        None if nothing_yet => talk("no notification like that is kept"),
        None => {}
    }
    Ok(())
}

/// The question for a page.
pub(super) fn question(arguments: &cli::List, limit: usize, after: Option<&str>) -> String {
    let mut question = format!("/api/v1/notifications?limit={limit}");
    let given = [
        ("source", arguments.source.as_deref()),
        ("order_id", arguments.order.as_deref()),
        ("outcome", arguments.outcome.as_deref()),
        ("status", arguments.status.as_deref()),
        ("verdict", arguments.verdict.as_deref()),
        ("since", arguments.since.as_deref()),
        ("until", arguments.until.as_deref()),
        ("after", after),
    ];
    for (name, value) in given.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        question += &format!("&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    }
    question
}

fn print<W: Write>(style: &Style, items: &[Value], heading: bool, out: &mut Out<W>) -> Result<(), Failure> {
    let first = heading.then(|| HEADING.map(str::to_owned).to_vec());
    let rows: Vec<Vec<String>> = first.into_iter().chain(items.iter().map(|item| row(style, item))).collect();
    table(style, &SIDES, &rows, Some(VERDICT)).try_for_each(|line| out.styled(&line))
}

fn row(style: &Style, item: &Value) -> Vec<String> {
    let outcome = item["outcome"].as_str().filter(|outcome| *outcome != "accepted");
    let reasons = outcome.map(str::to_owned).into_iter().chain(Some(words(&item["reasons"])).filter(|w| !w.is_empty()));
    // A conflict is both the outcome and the reason: once is enough.
    let mut reasons: Vec<String> = reasons.collect();
    reasons.dedup();
    vec![
        style.time(&item["received_at"]),
        text(&item["source"]),
        text(&item["order_id"]),
        format!("{}.{}", text(&item["kind"]), text(&item["status"])),
        money(&item["amount"]),
        text(&item["verdict"]),
        reasons.join(", "),
        text(&item["times_seen"]),
        text(&item["id"]),
    ]
}
