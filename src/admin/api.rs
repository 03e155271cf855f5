//! What was kept: a list, one notification, an order's history.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::problem::Problem;
use crate::config::units;
use crate::event::{NotificationId, OrderId, SourceName, Status, Verdict};
use crate::store::cursor::{CursorError, PageCursor};
use crate::store::{Filter, KeptOutcome};

/// The list's questions, as they are sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    source: Option<String>,
    order_id: Option<String>,
    outcome: Option<String>,
    status: Option<String>,
    verdict: Option<String>,
    since: Option<String>,
    until: Option<String>,
    after: Option<String>,
    limit: Option<String>,
}

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// A page of notifications, newest first.
pub async fn notifications(
    State(desk): State<Shared>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(question) = question.map_err(bad_query)?;
    let filter = filter(&question, desk.clock.now())?;
    let limit = limit(question.limit.as_deref())?;
    let id = desk.store.id();
    let before = question.after.as_deref().map(|cursor| PageCursor::parse(cursor, id)).transpose();
    let before = before.map_err(|error| match error {
        CursorError::Malformed => Problem::bad_request("after: use the \"next\" of the page before"),
        CursorError::OtherStore | CursorError::Abandoned => Problem::new(http::StatusCode::GONE, error.to_string()),
    })?;
    let page = desk.read("list", move |store| store.notifications(&filter, before, limit)).await?;
    let next = page.next.map(|position| PageCursor::new(id, position).to_string());
    Ok(Json(json!({ "notifications": page.notifications, "next": next })))
}

/// One notification with everything that is kept about it.
pub async fn notification(
    State(desk): State<Shared>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<crate::store::Kept>, Problem> {
    let missing = || Problem::not_found("no notification has this id");
    let Path(id) = id.map_err(|_| missing())?;
    let id = NotificationId::parse(&id).ok_or_else(missing)?;
    desk.read("show", move |store| store.notification(id)).await?.map(Json).ok_or_else(missing)
}

/// What happened to an order, oldest first.
pub async fn order(
    State(desk): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let missing = || Problem::not_found("there is no such source");
    let Path((source, order)) = path.map_err(|_| missing())?;
    let source = SourceName::new(&source).ok_or_else(missing)?;
    let order = OrderId::new(&order).ok_or_else(|| Problem::not_found("an order has at least one character"))?;
    let (of, named) = (source.clone(), order.clone());
    let entries = desk.read("order", move |store| store.order(&of, &named)).await?;
    // An order nobody has heard of is an empty history; a source nobody has heard of is a mistake.
    if entries.is_empty() && desk.sites.now().config.sources.iter().all(|known| known.name != source) {
        return Err(missing());
    }
    Ok(Json(json!({ "source": source, "order_id": order, "entries": entries })))
}

/// A question that could not even be taken apart. Its text is not repeated.
pub fn bad_query(_: QueryRejection) -> Problem {
    Problem::bad_request("the query has an unknown or repeated parameter, or is not UTF-8")
}

/// `limit`: 1 to 1000, 100 where left out; above 1000 is 1000.
pub fn limit(text: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(DEFAULT_LIMIT) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match (digits, text.parse::<usize>()) {
        (true, Ok(0)) | (false, _) => Err(Problem::bad_request("limit: a whole number from 1 to 1000")),
        (true, Ok(limit)) => Ok(limit.min(MAX_LIMIT)),
        (true, Err(_)) => Ok(MAX_LIMIT), // digits alone, and more than fit
    }
}

fn filter(question: &Question, now: Timestamp) -> Result<Filter, Problem> {
    let source = question.source.as_deref().map(|text| {
        SourceName::new(text).ok_or_else(|| Problem::bad_request("source: a name of [a-z0-9-], 1 to 32 characters"))
    });
    let order = question
        .order_id
        .as_deref()
        .map(|text| OrderId::new(text).ok_or_else(|| Problem::bad_request("order_id: at least one character")));
    Ok(Filter {
        source: source.transpose()?,
        order: order.transpose()?,
        outcome: word("outcome", question.outcome.as_deref(), KeptOutcome::parse, KeptOutcome::ALL)?,
        status: word("status", question.status.as_deref(), Status::parse, Status::ALL)?,
        verdict: word("verdict", question.verdict.as_deref(), Verdict::parse, Verdict::ALL)?,
        since: time("since", question.since.as_deref(), now)?,
        until: time("until", question.until.as_deref(), now)?,
    })
}

fn word<T: std::fmt::Display>(
    name: &str,
    text: Option<&str>,
    parse: fn(&str) -> Option<T>,
    all: &[T],
) -> Result<Option<T>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let words = || all.iter().map(T::to_string).collect::<Vec<_>>().join(", ");
    parse(text).map(Some).ok_or_else(|| Problem::bad_request(format!("{name}: one of {}", words())))
}

/// RFC 3339, or how long ago.
fn time(name: &str, text: Option<&str>, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let ago = || units::duration(text).and_then(|ago| now.checked_sub(ago).ok());
    let time = text.parse().ok().or_else(ago);
    time.map(Some).ok_or_else(|| {
        Problem::bad_request(format!("{name}: a time like 2026-11-20T08:15:30Z, or how long ago, like 2h"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_above_a_thousand_are_a_thousand_and_nonsense_is_refused() {
        for (text, limit_is) in [(None, 100), (Some("1"), 1), (Some("1000"), 1000), (Some("1001"), 1000)] {
            assert_eq!(limit(text).ok(), Some(limit_is), "{text:?}");
        }
        assert_eq!(limit(Some(&"9".repeat(40))).ok(), Some(1000));
        for bad in ["0", "", "-1", "+1", "1.5", "ten", " 1"] {
            assert!(limit(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_moments_or_how_long_ago() {
        let now: Timestamp = "2026-11-20T08:00:00Z".parse().expect("a time");
        let of = |text: &str| time("since", Some(text), now).ok().flatten().map(|time| time.to_string());
        assert_eq!(of("2h").as_deref(), Some("2026-11-20T06:00:00Z"));
        assert_eq!(of("2026-11-20T09:15:30.5+01:00").as_deref(), Some("2026-11-20T08:15:30.5Z"));
        for bad in ["", "2", "h", "-2h", "2026-11-20", "yesterday", "99999999999d"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
