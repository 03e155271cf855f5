//! `quittance show`: everything that is kept about one notification, or everything that happened to an order.

use std::io::Write;
use std::path::Path;

use anyhow::{anyhow, bail};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::api::{Absent, Api};
use super::reading::{Side, Style, money, table, text, words};
use super::{Failure, Out, tail};
use crate::cli;
use crate::event::EventId;

/// Asks and prints.
///
/// # Errors
/// [`Failure`] when there is no such thing, nobody can answer, or stdout cannot be written.
pub fn run<W: Write>(file: &Path, arguments: &cli::Show, out: &mut Out<W>) -> Result<(), Failure> {
    let api = Api::reach(file, Absent::Refuse)?;
    let style = Style::of_stdout();
    let document = match (&arguments.order, &arguments.id) {
        (Some((source, order)), _) => timeline(&api, source, order)?,
        (None, id) => notification(&api, id.as_deref().unwrap_or_default())?,
    };
    match (arguments.json, &arguments.order) {
        (true, _) => out.json(&document),
        (false, Some(_)) => print_timeline(&style, &document, out),
        (false, None) => print_notification(&style, &document, out),
    }
}

fn timeline(api: &Api, source: &str, order: &str) -> anyhow::Result<Value> {
    let encoded = utf8_percent_encode(order, NON_ALPHANUMERIC);
    let history = api.ask(&format!("/api/v1/orders/{source}/{encoded}"))?;
    if history["entries"].as_array().is_none_or(Vec::is_empty) {
        bail!("nothing is known of order {order:?} at source {source}: neither an expectation nor a notification");
    }
    Ok(history)
}

/// A notification by its own id, or by its event's.
fn notification(api: &Api, id: &str) -> anyhow::Result<Value> {
    let encoded = utf8_percent_encode(id, NON_ALPHANUMERIC);
    let answer = api.get(&format!("/api/v1/notifications/{encoded}"))?;
    let of_event = || {
        let event = EventId::parse(id)?;
        let entries = tail::entries_at(api, event.position()).ok()?;
        let told = entries.iter().map(|entry| &entry["event"]).find(|told| told["id"] == id)?;
        told["data"]["notification_id"].as_str().map(str::to_owned)
    };
    match (answer.status, answer.status == 404) {
        (200, _) => Ok(answer.body),
        (_, true) => match of_event() {
            Some(its) if its != id => api.ask(&format!("/api/v1/notifications/{its}")),
            _ => Err(anyhow!("no notification and no event has the id {id:?}; `quittance list` names them")),
        },
        _ => Err(anyhow!("{}", answer.reason())),
    }
}

fn print_notification<W: Write>(style: &Style, it: &Value, out: &mut Out<W>) -> Result<(), Failure> {
    let mut line = |name: &str, value: String| out.styled(format!("{name:13} {value}").trim_end());
    line("notification", text(&it["id"]))?;
    line("event", text(&it["event_id"]))?;
    line("source", format!("{} ({})", text(&it["source"]), text(&it["provider"])))?;
    line("received", style.time(&it["received_at"]))?;
    if it["times_seen"].as_u64().is_some_and(|times| times > 1) {
        line("seen", format!("{} times, last {}", text(&it["times_seen"]), style.time(&it["last_seen_at"])))?;
    }
    line("outcome", text(&it["outcome"]))?;
    line("says", format!("{}.{}", text(&it["kind"]), text(&it["status"])))?;
    line("order", text(&it["order_id"]))?;
    line("transaction", text(&it["transaction_id"]))?;
    line("amount", money(&it["amount"]))?;
    let reasons = words(&it["reasons"]);
    let because = if reasons.is_empty() { String::new() } else { format!(": {reasons}") };
    line("verdict", format!("{}{because}", style.verdict(&text(&it["verdict"]))))?;
    line("expectation", text(&it["expectation"]))?;
    let proof = &it["verification"];
    line(
        "assurance",
        format!("{}, by {} with key {}", text(&it["assurance"]), text(&proof["scheme"]), text(&proof["key"])),
    )?;
    if !proof["signed_hash"].is_null() {
        line("signed hash", text(&proof["signed_hash"]))?;
    }
    for delivery in it["deliveries"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let (at, sink) = (style.time(&delivery["at"]), text(&delivery["sink"]));
        line(
            "delivery",
            format!("{at}  {sink}, attempt {}: {}", text(&delivery["attempt"]), text(&delivery["result"])),
        )?;
    }
    print_request(&it["request"], out)?;
    print_event(&it["event"], out)
}

/// The request as it came. Its secrets were cut out before it was kept.
fn print_request<W: Write>(request: &Value, out: &mut Out<W>) -> Result<(), Failure> {
    out.line("")?;
    if request.is_null() {
        return out.line("the request is no longer kept (retention.bodies)");
    }
    out.line(&format!("{} {}    from {}", text(&request["method"]), text(&request["path"]), text(&request["remote"])))?;
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        out.line(&format!("{name}: {}", value.as_str().unwrap_or_default()))?;
    }
    let body = BASE64_STANDARD.decode(request["body"].as_str().unwrap_or_default()).unwrap_or_default();
    if body.is_empty() {
        return Ok(());
    }
    out.line("")?;
    match std::str::from_utf8(&body) {
        Ok(body) => body.lines().try_for_each(|line| out.line(line)),
        Err(_) => out.line(&format!("{} bytes that are no text: see --json", body.len())),
    }
}

fn print_event<W: Write>(event: &Value, out: &mut Out<W>) -> Result<(), Failure> {
    out.line("")?;
    if event.is_null() {
        return out.line("the event is no longer kept (retention.bodies), or there was none");
    }
    let pretty = serde_json::to_string_pretty(event).map_err(|error| Failure::Operation(error.into()))?;
    pretty.lines().try_for_each(|line| out.line(line))
}

fn print_timeline<W: Write>(style: &Style, history: &Value, out: &mut Out<W>) -> Result<(), Failure> {
    let entries = history["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| vec![style.time(&entry["at"]), text(&entry["what"]), sentence(style, entry)])
        .collect();
    table(style, &[Side::Left; 3], &rows, None).try_for_each(|line| out.styled(&line))
}

/// What one entry of a timeline says.
fn sentence(style: &Style, entry: &Value) -> String {
    let reasons = words(&entry["reasons"]);
    let because = if reasons.is_empty() { String::new() } else { format!(" ({reasons})") };
    match entry["what"].as_str() {
        Some("expectation") => {
            let session = entry["session_id"].as_str().map(|_| format!(", session {}", text(&entry["session_id"])));
            let until = style.time(&entry["expires_at"]);
            format!(
                "{} of {} until {until}{}",
                text(&entry["kind"]),
                money(&entry["amount"]),
                session.unwrap_or_default()
            )
        }
        Some("notification") => {
            let outcome = match entry["outcome"].as_str() {
                Some("accepted") | None => String::new(),
                Some(_) => format!(", {}", text(&entry["outcome"])),
            };
            format!(
                "{}.{} {}, {}{outcome}  {}",
                text(&entry["kind"]),
                text(&entry["status"]),
                money(&entry["amount"]),
                text(&entry["assurance"]),
                text(&entry["id"])
            )
        }
        Some("event" | "settlement") => {
            let settles = entry["settles"].as_str().map(|_| format!(", settles {}", text(&entry["settles"])));
            format!(
                "{} {}: {}{because}, expectation {}{}  {}",
                text(&entry["sequence"]),
                text(&entry["type"]),
                style.verdict(&text(&entry["verdict"])),
                text(&entry["expectation"]),
                settles.unwrap_or_default(),
                text(&entry["id"])
            )
        }
        Some("delivery") => {
            format!("{}, attempt {}: {}", text(&entry["sink"]), text(&entry["attempt"]), text(&entry["result"]))
        }
        _ => text(entry),
    }
}
