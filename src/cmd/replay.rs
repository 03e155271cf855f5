//! `quittance replay`: says what it would send again, asks, begins, and watches.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::api::{Absent, Api};
use super::operate::granted;
use super::reading::{money, text};
use super::{Failure, Out, sources, talk};
use crate::cli;
use crate::replay::request::MAX_IDS;

/// Above so many it asks.
const ASK_ABOVE: u64 = 10;
/// How often it looks how far the daemon is.
const LOOK: Duration = Duration::from_millis(250);
const MAX_FILE: u64 = 1 << 20;

/// Looks, asks, begins, watches.
///
/// # Errors
/// [`Failure`] when it is refused or fails, nobody can answer, or stdout cannot be written.
pub fn run<W: Write>(file: &Path, arguments: &cli::Replay, out: &mut Out<W>) -> Result<(), Failure> {
    if let Some(id) = &arguments.cancel {
        let api = Api::reach(file, Absent::Refuse)?;
        granted(api.delete(&format!("/api/v1/replays/{id}"))?, &[202])?;
        talk("canceled: what was written is sent all the same");
        return Ok(());
    }
    let mut wanted = wanted(arguments)?;
    let api = Api::reach(file, Absent::Refuse)?;
    sources::heard_of(&api, arguments.source.as_deref())?;
    if arguments.reparse {
        return reparse(&api, wanted, arguments.json, out);
    }
    wanted.insert("dry_run".to_owned(), true.into());
    let look = granted(api.post("/api/v1/replays", &Value::Object(wanted.clone()))?, &[200])?;
    let count = look["matched"].as_u64().unwrap_or_default();
    if arguments.dry_run {
        return show(&look, count, arguments.json, out);
    }
    if look["gone"].as_u64().is_some_and(|gone| gone > 0) {
        talk(&format!("{} more fit, but nothing is left of them: their bodies were retired", look["gone"]));
    }
    if count == 0 {
        talk("no event fits");
        return Ok(());
    }
    if count > ASK_ABOVE && !arguments.yes {
        ask(count)?;
    }
    wanted.insert("dry_run".to_owned(), false.into());
    let begun = granted(api.post("/api/v1/replays", &Value::Object(wanted))?, &[201])?;
    follow(&api, &begun, arguments.json, arguments.no_wait, out)
}

/// Page after page of what today's code says otherwise.
fn reparse<W: Write>(api: &Api, mut wanted: Map<String, Value>, json: bool, out: &mut Out<W>) -> Result<(), Failure> {
    const COUNTS: [&str; 6] = ["looked_at", "same", "differ", "refused", "undecidable", "gone"];
    wanted.remove("rate");
    let mut all = [0_u64; 6];
    loop {
        let page = granted(api.post("/api/v1/replays/reparse", &Value::Object(wanted.clone()))?, &[200])?;
        for (sum, name) in all.iter_mut().zip(COUNTS) {
            *sum += page[name].as_u64().unwrap_or_default();
        }
        if json {
            out.json(&page)?;
        } else {
            page["differences"].as_array().into_iter().flatten().try_for_each(|one| difference(one, out))?;
        }
        if page["next"].is_null() {
            break;
        }
        wanted.insert("after".to_owned(), page["next"].clone());
    }
    let [looked_at, same, differ, refused, undecidable, gone] = all;
    talk(&format!(
        "{looked_at} looked at: {same} say the same today, {differ} differ, {refused} would be refused, {undecidable} cannot be \
         judged any more; of {gone} nothing is left"
    ));
    Ok(())
}

fn difference<W: Write>(one: &Value, out: &mut Out<W>) -> Result<(), Failure> {
    let [at, source, order, id] = ["received_at", "source", "order_id", "id"].map(|name| text(&one[name]));
    let what = match (one["today"].as_str(), one["reason"].as_str()) {
        (Some("refused"), Some(reason)) => format!("would be refused: {reason}"),
        (Some("undecidable"), _) => "cannot be judged any more".to_owned(),
        _ => one["fields"].as_array().into_iter().flatten().map(member).collect::<Vec<_>>().join("; "),
    };
    out.line(&format!("{at}  {source}  {order}  {id}  {what}"))
}

fn member(field: &Value) -> String {
    let name = text(&field["name"]);
    if field["shown"] == true {
        format!("{name}: {} -> {}", field["kept"], field["today"])
    } else {
        format!("{name} differs")
    }
}

/// Watches a replay to its end; one that nobody carries yet is only named.
pub(super) fn follow<W: Write>(
    api: &Api,
    begun: &Value,
    json: bool,
    no_wait: bool,
    out: &mut Out<W>,
) -> Result<(), Failure> {
    let id = begun["id"].as_str().unwrap_or_default().to_owned();
    if !json {
        out.line(&id)?;
    }
    if no_wait || !api.is_daemon() {
        if !api.is_daemon() {
            talk("written down: the daemon carries it when it starts");
        }
        return if json { out.json(begun) } else { Ok(()) };
    }
    let bar = progress(begun["matched"].as_u64().unwrap_or_default());
    loop {
        let now = api.ask(&format!("/api/v1/replays/{id}"))?;
        bar.set_position(now["redelivered"].as_u64().unwrap_or_default());
        let ended = match now["state"].as_str() {
            Some("running") => {
                std::thread::sleep(LOOK);
                continue;
            }
            Some("done") => Ok(()),
            Some("failed") => Err(Failure::Operation(anyhow!("the replay failed: {}", text(&now["error"])))),
            _ => Err(Failure::Operation(anyhow!("the replay was canceled"))),
        };
        bar.finish_and_clear();
        if json {
            out.json(&now)?;
        } else {
            talk(&format!("{} sent again", now["redelivered"]));
        }
        return ended;
    }
}

fn wanted(arguments: &cli::Replay) -> Result<Map<String, Value>, Failure> {
    let mut wanted = Map::new();
    let given = [
        ("source", &arguments.source),
        ("order_id", &arguments.order),
        ("status", &arguments.status),
        ("verdict", &arguments.verdict),
        ("since", &arguments.since),
        ("until", &arguments.until),
        ("exchange", &arguments.to_exchange),
        ("routing_key", &arguments.routing_key),
        ("reason", &arguments.reason),
    ];
    for (name, value) in given {
        wanted.extend(value.as_ref().map(|value| (name.to_owned(), json!(value))));
    }
    wanted.insert("rate".to_owned(), json!(arguments.rate));
    let mut ids = arguments.id.clone();
    if let Some(file) = &arguments.file {
        ids.extend(lines(file).map_err(Failure::Usage)?);
    }
    let filtered =
        ["source", "order_id", "status", "verdict", "since", "until"].iter().any(|f| wanted.contains_key(*f));
    if ids.is_empty() && !filtered && !arguments.all {
        return Err(Failure::Usage(anyhow!("say which: a filter, --id, --file, or --all")));
    }
    if ids.len() > MAX_IDS {
        let count = ids.len();
        return Err(Failure::Usage(anyhow!(
            "{count} ids are too many for one replay: at most {MAX_IDS}; split the file"
        )));
    }
    if !ids.is_empty() {
        wanted.insert("ids".to_owned(), json!(ids));
    }
    Ok(wanted)
}

/// The lines of a file that say something.
fn lines(file: &Path) -> anyhow::Result<Vec<String>> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(MAX_FILE).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|opened| opened.take(MAX_FILE).read_to_string(&mut text))
    };
    read.with_context(|| format!("reading {}", file.display()))?;
    let lines: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        return Err(anyhow!("{} holds no id", file.display()));
    }
    Ok(lines)
}

fn show<W: Write>(look: &Value, count: u64, json: bool, out: &mut Out<W>) -> Result<(), Failure> {
    if json {
        return out.json(look);
    }
    let sample = look["sample"].as_array().cloned().unwrap_or_default();
    for item in &sample {
        let [at, source, order, kind, status, verdict, id] =
            ["received_at", "source", "order_id", "kind", "status", "verdict", "event_id"]
                .map(|name| text(&item[name]));
        let amount = money(&item["amount"]);
        out.line(&format!("{at}  {source}  {order}  {kind}.{status}  {amount}  {verdict}  {id}"))?;
    }
    let more = count.saturating_sub(sample.len() as u64);
    talk(&format!("{count} events would be sent again{}", if more > 0 { "; these are the first" } else { "" }));
    Ok(())
}

/// A question that only a terminal can answer.
fn ask(count: u64) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Operation(anyhow!("{count} events would be sent again: say --yes")));
    }
    let _ = write!(std::io::stderr().lock(), "{count} events are sent again. Go on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Operation(anyhow!("nothing was sent"))),
    }
}

fn progress(count: u64) -> ProgressBar {
    if count < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}, {eta} left");
    ProgressBar::new(count).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
