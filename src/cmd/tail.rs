//! `quittance tail`: the newest events of the feed, then each as it comes. It reads without a consumer's name, so that
//! nothing is acknowledged by it.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use super::api::{Absent, Api};
use super::reading::{Style, money, text, words};
use super::{Failure, Out, talk};
use crate::cli;
use crate::event::Position;
use crate::store::cursor::{FeedCursor, StoreId};

/// Long enough to ask rarely, short enough for a reader that closed the pipe to be noticed.
const WAIT_SECONDS: u32 = 2;

/// Prints until the feed ends or the reader does, or until SIGINT or SIGTERM: whoever has seen enough is content.
///
/// # Errors
/// [`Failure`] when the cursor is no good, nobody can answer, or stdout cannot be written.
pub fn run<W: Write>(file: &Path, arguments: &cli::Tail, out: &mut Out<W>) -> Result<(), Failure> {
    super::end_on_signal()?;
    let api = Api::reach(file, Absent::Refuse)?;
    let style = Style::of_stdout();
    // Nothing can come to a store that no daemon has.
    let follows = !arguments.no_follow && matches!(api, Api::Daemon(_));
    if !follows && !arguments.no_follow {
        talk("no daemon runs: this is what is kept, and nothing can come");
    }
    let mut after = match (&arguments.after, arguments.lines) {
        (Some(cursor), _) => Some(cursor.clone()),
        (None, u64::MAX) => None,
        (None, lines) => newest(&api, lines, &mut |entry| print(&style, entry, arguments.json, out))?,
    };
    loop {
        let page = api.ask(&question(after.as_deref(), if follows { WAIT_SECONDS } else { 0 }, 1000))?;
        let entries = entries_of(&page);
        entries.iter().try_for_each(|entry| print(&style, entry, arguments.json, out))?;
        after = page["next"].as_str().map(str::to_owned);
        if entries.is_empty() {
            if !follows {
                return Ok(());
            }
            out.check_reader()?;
        }
    }
}

/// Tells the last `lines` entries and gives the cursor behind them. The feed is asked from its beginning only; so a
/// stretch before the head is read, twice as long each time, until it holds enough.
fn newest(
    api: &Api,
    lines: u64,
    tell: &mut impl FnMut(&Value) -> Result<(), Failure>,
) -> Result<Option<String>, Failure> {
    let (store, head) = head(api)?;
    let at = |position: u64| FeedCursor::new(store, Position(position)).to_string();
    let mut stretch = lines.saturating_mul(2);
    loop {
        let from = head.saturating_sub(stretch);
        let (mut entries, mut cursor) = (Vec::new(), at(from));
        loop {
            let answer = api.get(&question(Some(&cursor), 0, 1000))?;
            match answer.status {
                200 => {}
                // So far back nothing is kept any more: the beginning is where the feed says it is.
                410 => {
                    let oldest = answer.body["oldest"].as_str().context("the feed does not say where it begins")?;
                    cursor = oldest.to_owned();
                    stretch = u64::MAX;
                    continue;
                }
                _ => return Err(anyhow::anyhow!("{}", answer.reason()).into()),
            }
            let page = entries_of(&answer.body);
            cursor = answer.body["next"].as_str().context("the feed gives no cursor")?.to_owned();
            if page.is_empty() {
                break;
            }
            entries.extend_from_slice(page);
        }
        let enough = usize::try_from(lines).unwrap_or(usize::MAX);
        if entries.len() >= enough || from == 0 || stretch == u64::MAX {
            let skip = entries.len().saturating_sub(enough);
            entries.iter().skip(skip).try_for_each(tell)?;
            return Ok(Some(cursor));
        }
        stretch = stretch.saturating_mul(2);
    }
}

/// The feed's entry at a position, if there is one, and what follows it on the page.
pub(super) fn entries_at(api: &Api, position: Position) -> anyhow::Result<Vec<Value>> {
    let (store, _) = head(api)?;
    let before = FeedCursor::new(store, Position(position.0.saturating_sub(1))).to_string();
    Ok(entries_of(&api.ask(&question(Some(&before), 0, 1))?).to_vec())
}

/// The timeline that the feed goes on in, and the newest position. A store that comes from a backup has other timelines
/// than the one that bears its name, and that one ends at the backup.
fn head(api: &Api) -> anyhow::Result<(StoreId, u64)> {
    let page = api.ask(&question(None, 0, 1))?;
    let next = page["next"].as_str().context("the feed gives no cursor")?;
    let timeline = FeedCursor::timeline(next).context("the feed's cursor is no cursor")?;
    let status = api.ask("/api/v1/status")?;
    Ok((timeline, status["store"]["head"].as_u64().context("the status names no head")?))
}

fn question(after: Option<&str>, wait: u32, limit: u32) -> String {
    let after = after.map(|cursor| format!("&after={}", percent_encoding::utf8_percent_encode(cursor, PLAIN)));
    format!("/api/v1/events?limit={limit}&wait={wait}s{}", after.unwrap_or_default())
}

/// What a cursor is made of stays readable in a log of the questions.
const PLAIN: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_');

fn entries_of(page: &Value) -> &[Value] {
    page["entries"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn print<W: Write>(style: &Style, entry: &Value, as_json: bool, out: &mut Out<W>) -> Result<(), Failure> {
    if as_json {
        return out.json(entry);
    }
    let (event, data) = (&entry["event"], &entry["event"]["data"]);
    let source = event["source"].as_str().unwrap_or_default().trim_start_matches("/sources/").to_owned();
    let reasons = words(&data["reasons"]);
    let because = if reasons.is_empty() { String::new() } else { format!("  ({reasons})") };
    let again = entry["replay"].as_str().map(|_| format!("  replay {}", text(&entry["replay"])));
    let settles = data["relates_to"]["id"]
        .as_str()
        .map(|_| format!("  {} {}", text(&data["relates_to"]["as"]), text(&data["relates_to"]["id"])));
    out.styled(&format!(
        "{}  {:<16}  {:<12}  {:<16}  {:>16}  {}  {}{because}{}{}",
        style.time(&event["time"]),
        text(&event["type"]),
        super::printable(&source),
        text(&data["order_id"]),
        money(&data["amount"]),
        style.verdict(&format!("{:<7}", text(&data["verdict"]))),
        text(&event["id"]),
        settles.unwrap_or_default(),
        again.unwrap_or_default(),
    ))
}
