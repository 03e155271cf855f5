//! The commands that change something by hand, but for `replay`: each asks the API and prints what it answers.

use std::io::Write;
use std::path::Path;

use anyhow::anyhow;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::api::{Absent, Api};
use super::daemon::Answer;
use super::reading::{Side, Style, table, text};
use super::{Failure, Out, replay, sources, talk};
use crate::cli::{Consumer, DeadLetter, Quarantined, Settle};

/// `quittance settle`.
///
/// # Errors
/// [`Failure`] when it is refused, nobody can answer, or stdout cannot be written.
pub fn settle<W: Write>(file: &Path, arguments: &Settle, out: &mut Out<W>) -> Result<(), Failure> {
    let api = Api::reach(file, Absent::Refuse)?;
    let document = json!({ "verdict": arguments.verdict, "reason": arguments.reason });
    let answer = api.post(&format!("/api/v1/events/{}/settle", arguments.event), &document)?;
    let settled = granted(answer, &[200, 201])?;
    if arguments.json {
        return out.json(&settled);
    }
    talk(&format!("settled: the new event says {}", text(&settled["verdict"])));
    out.line(&text(&settled["id"]))
}

/// `quittance dead-letters`.
///
/// # Errors
/// As [`settle`].
pub fn dead_letters<W: Write>(file: &Path, what: &DeadLetter, out: &mut Out<W>) -> Result<(), Failure> {
    let api = Api::reach(file, Absent::Refuse)?;
    match what {
        DeadLetter::List { json } => {
            let letters = pages(&api, "/api/v1/dead-letters?limit=1000", "dead_letters")?;
            let columns = ["at", "source", "order_id", "type", "attempts", "reason", "id"];
            list(&letters, &columns, *json, "there is no dead letter", out)
        }
        DeadLetter::Show { event } => out.json(&api.ask(&format!("/api/v1/dead-letters/{event}"))?),
        DeadLetter::Retry { event: Some(event), json, .. } => {
            let answer = api.post(&format!("/api/v1/dead-letters/{event}/retry"), &json!({}))?;
            let begun = granted(answer, &[202])?;
            replay::follow(&api, &begun, *json, false, out)
        }
        DeadLetter::Retry { event: None, json, .. } => {
            let wanted = json!({ "dead_letters": true, "rate": "max", "reason": "all dead letters tried again" });
            let begun = granted(api.post("/api/v1/replays", &wanted)?, &[201])?;
            replay::follow(&api, &begun, *json, false, out)
        }
    }
}

/// `quittance quarantine`.
///
/// # Errors
/// As [`settle`].
pub fn quarantine<W: Write>(file: &Path, what: &Quarantined, out: &mut Out<W>) -> Result<(), Failure> {
    let api = Api::reach(file, Absent::Refuse)?;
    match what {
        Quarantined::List { source, json } => {
            let of = source.as_ref().map(|source| format!("&source={source}")).unwrap_or_default();
            let entries = pages(&api, &format!("/api/v1/quarantine?limit=1000{of}"), "entries")?;
            if entries.is_empty() {
                sources::configured(&api, source.as_deref())?;
            }
            let columns = ["received_at", "source", "remote", "reason", "bytes", "id"];
            list(&entries, &columns, *json, "the quarantine is empty", out)
        }
        Quarantined::Show { id } => out.json(&api.ask(&format!("/api/v1/quarantine/{}", encoded(id)))?),
        Quarantined::Release { id, reason, json } => {
            let answer =
                api.post(&format!("/api/v1/quarantine/{}/release", encoded(id)), &json!({ "reason": reason }))?;
            let released = granted(answer, &[200, 201])?;
            if *json {
                return out.json(&released);
            }
            let (notification, event) = (text(&released["id"]), text(&released["event_id"]));
            talk("released: it is held, and names no order and no amount, for nobody could prove any");
            talk(&format!(
                "see what was sent with `quittance show {notification}`, and book by hand what is true of it;"
            ));
            talk(&format!("then end the hold: `quittance settle {event} refuse --reason ...`"));
            out.line(&event)
        }
        Quarantined::Reverify { source, json } => {
            sources::configured(&api, source.as_deref())?;
            let mut document = json!({ "source": source });
            let mut all = [0_u64; 5];
            loop {
                let page = granted(api.post("/api/v1/quarantine/reverify", &document)?, &[200])?;
                for (sum, name) in all.iter_mut().zip(COUNTS) {
                    *sum += page[name].as_u64().unwrap_or_default();
                }
                if *json {
                    out.json(&page)?;
                }
                document["after"] = page["next"].clone();
                if page["next"].is_null() {
                    break;
                }
            }
            if *json {
                return Ok(());
            }
            let [looked_at, let_in, known, refused, undecidable] = all;
            out.line(&format!(
                "{looked_at} looked at: {let_in} genuine and let in, {known} known already, {refused} still refused, \
                 {undecidable} that cannot be judged any more"
            ))
        }
    }
}

const COUNTS: [&str; 5] = ["looked_at", "let_in", "known", "refused", "undecidable"];

/// `quittance consumers`.
///
/// # Errors
/// As [`settle`].
pub fn consumers<W: Write>(file: &Path, what: &Consumer, out: &mut Out<W>) -> Result<(), Failure> {
    let api = Api::reach(file, Absent::Refuse)?;
    match what {
        Consumer::List { json } => {
            let all = api.ask("/api/v1/consumers")?;
            let all = all["consumers"].as_array().cloned().unwrap_or_default();
            list(&all, &["name", "behind", "configured", "cursor"], *json, "nobody reads the feed", out)
        }
        Consumer::Forget { name } => {
            granted(api.delete(&format!("/api/v1/consumers/{}", encoded(name)))?, &[204])?;
            talk("forgotten: nothing is kept for it any more");
            Ok(())
        }
    }
}

/// What an answer brings, if it is one of those that were hoped for.
pub(super) fn granted(answer: Answer, hoped_for: &[u16]) -> anyhow::Result<Value> {
    if hoped_for.contains(&answer.status) { Ok(answer.body) } else { Err(anyhow!("{}", answer.reason())) }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// All pages of a list.
fn pages(api: &Api, target: &str, name: &str) -> anyhow::Result<Vec<Value>> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let mut page = api.ask(&format!("{target}{after}"))?;
        if let Some(Value::Array(items)) = page.get_mut(name).map(Value::take) {
            all.extend(items);
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(all),
        }
    }
}

fn list<W: Write>(items: &[Value], columns: &[&str], json: bool, none: &str, out: &mut Out<W>) -> Result<(), Failure> {
    if json {
        return items.iter().try_for_each(|item| out.json(item));
    }
    if items.is_empty() {
        talk(none);
        return Ok(());
    }
    let style = Style::of_stdout();
    let cell = |item: &Value, column: &&str| match *column {
        "at" | "received_at" => style.time(&item[*column]),
        column => text(&item[column]),
    };
    let heading = columns.iter().map(|column| column.to_uppercase()).collect();
    let rows = items.iter().map(|item| columns.iter().map(|column| cell(item, column)).collect());
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(rows).collect();
    let sides: Vec<Side> = columns
        .iter()
        .map(|column| if ["attempts", "bytes", "behind"].contains(column) { Side::Right } else { Side::Left })
        .collect();
    table(&style, &sides, &rows, None).try_for_each(|line| out.line(&line))
}
