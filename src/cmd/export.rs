//! `quittance export`: notifications as JSON lines, for an archive or another program.

use std::io::Write;
use std::path::Path;

use serde_json::Value;

use super::api::{Absent, Api};
use super::list::{WHOLE_PAGE, question};
use super::{Failure, Out, sources, talk};
use crate::cli;

/// Asks page after page and prints.
///
/// # Errors
/// [`Failure`] when the question is refused, nobody can answer, or stdout cannot be written. What was printed until then
/// is whole lines.
pub fn run<W: Write>(file: &Path, arguments: &cli::Export, out: &mut Out<W>) -> Result<(), Failure> {
    let api = Api::reach(file, Absent::Refuse)?;
    sources::heard_of(&api, arguments.source.as_deref())?;
    let wanted = as_list(arguments);
    let (mut after, mut count) = (None::<String>, 0_u64);
    loop {
        let page = api.ask(&question(&wanted, WHOLE_PAGE.into(), after.as_deref()))?;
        for item in page.get("notifications").and_then(Value::as_array).into_iter().flatten() {
            match item["id"].as_str().filter(|_| arguments.whole) {
                Some(id) => out.json(&api.ask(&format!("/api/v1/notifications/{id}"))?)?,
                None => out.json(item)?,
            }
            count += 1;
        }
        after = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    talk(&format!("{count} {} exported", if count == 1 { "notification" } else { "notifications" }));
    Ok(())
}

fn as_list(arguments: &cli::Export) -> cli::List {
    let cli::Export { source, order, outcome, status, verdict, since, until, whole: _ } = arguments;
    cli::List {
        source: source.clone(),
        order: order.clone(),
        outcome: outcome.clone(),
        status: status.clone(),
        verdict: verdict.clone(),
        since: since.clone(),
        until: until.clone(),
        limit: u16::MAX,
        all: true,
        after: None,
        json: true,
    }
}
