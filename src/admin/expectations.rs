//! Registering what the order system expects.
//!
//! Everything that can be wrong with a registration is told in a sentence that names the member, never its value: an
//! indicator is a secret, and an error may end in somebody's log.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::problem::Problem;
use super::{Desk, Shared};
use crate::config::ProviderSettings;
use crate::event::{Currency, Decimal, Kind, Money, OrderId, SourceName, rfc3339};
use crate::provider::{Bearer, Provider};
use crate::store::Registration;

const MEMBERS: [&str; 7] = ["source", "order_id", "kind", "amount", "session_id", "indicator_status", "expires_at"];
const DEFAULT_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The longest return URL that Click KW's gateway takes.
const MAX_RETURN_URL: usize = 255;
/// The longest session, getid or indicator.
const MAX_SESSION: usize = 255;

/// 201 with the return URL once it is synced; 200 where the same was registered before.
pub async fn register(State(desk): State<Shared>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let (registration, return_url) = read(&desk, &headers, &body)?;
    let (source, order) = (registration.source.clone(), registration.order.clone());
    let registered = desk.store.expect(registration).await?;
    let status = if registered.existed { StatusCode::OK } else { StatusCode::CREATED };
    tracing::info!(source = source.as_str(), existed = registered.existed, "expectation registered");
    let document = json!({
        "source": source,
        "order_id": order,
        "return_url": return_url,
        "expires_at": rfc3339(registered.expires_at),
    });
    Ok((status, [(header::CACHE_CONTROL, "no-store")], Json(document)).into_response())
}

fn read(desk: &Desk, headers: &HeaderMap, body: &[u8]) -> Result<(Registration, Option<String>), Problem> {
    let members = members(headers, body)?;
    let source = text(&members, "source")?.ok_or_else(|| Problem::unprocessable("source: is missing"))?;
    let name = SourceName::new(source);
    let position = desk.sources.iter().position(|source| Some(&source.name) == name.as_ref());
    let found = position.and_then(|at| desk.sources.get(at).zip(desk.routes.endpoints().get(at)));
    let (source, endpoint) = found.ok_or_else(|| Problem::unprocessable("source: there is no such source"))?;
    let provider = &*endpoint.provider;

    let (order, return_url) = order(desk, provider, text(&members, "order_id")?)?;
    let kind = text(&members, "kind")?.map_or(Some(Kind::Payment), Kind::parse);
    let kind = kind.ok_or_else(|| Problem::unprocessable("kind: one of payment, payout, refund"))?;
    let amount = amount(&source.provider, members.get("amount"))?;
    let (session, indicator) = session(&source.provider, &members)?;
    let expires_at = expires_at(text(&members, "expires_at")?, desk.clock.now())?;
    let registration =
        Registration { source: source.name.clone(), order, kind, amount, session, indicator, expires_at };
    Ok((registration, return_url))
}

/// The object that was sent, with known members only.
fn members(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json"));
    }
    let value: Value = serde_json::from_slice(body).map_err(|_| Problem::bad_request("the body is not JSON"))?;
    let Value::Object(members) = value else { return Err(Problem::unprocessable("the body is not an object")) };
    match members.keys().any(|name| !MEMBERS.contains(&name.as_str())) {
        true => Err(Problem::unprocessable(format!("an unknown member; known are {}", MEMBERS.join(", ")))),
        false => Ok(members),
    }
}

/// A member that is text; `None` where it is missing or null.
fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Problem> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Problem::unprocessable(format!("{name}: must be text"))),
    }
}

fn order(desk: &Desk, provider: &dyn Provider, text: Option<&str>) -> Result<(OrderId, Option<String>), Problem> {
    let order = text.and_then(OrderId::new).ok_or_else(|| Problem::unprocessable("order_id: is missing"))?;
    if provider.has_return_url() && !order.fits_url() {
        return Err(Problem::unprocessable("order_id: a return URL carries [A-Za-z0-9_-], 1 to 64 characters"));
    }
    if !provider.carries_order(&order) {
        return Err(Problem::unprocessable("order_id: this provider cannot carry it"));
    }
    let url = provider.return_path(&order).map(|path| format!("{}{path}", desk.public_url));
    if url.as_ref().is_some_and(|url| url.len() > MAX_RETURN_URL) {
        return Err(Problem::unprocessable("order_id: its return URL would be longer than 255 characters"));
    }
    Ok((order, url))
}

fn amount(provider: &ProviderSettings, sent: Option<&Value>) -> Result<Money, Problem> {
    const SHAPE: &str = r#"amount: must be an object like {"value": "6.000", "currency": "KWD"}"#;
    let members = sent.and_then(Value::as_object).filter(|members| members.len() == 2);
    let members = members.ok_or_else(|| Problem::unprocessable(SHAPE))?;
    let member = |name: &str| members.get(name).and_then(Value::as_str).ok_or_else(|| Problem::unprocessable(SHAPE));
    let value = Decimal::parse(member("value")?).filter(|value| !value.is_zero());
    let value = value.ok_or_else(|| Problem::unprocessable("amount.value: a plain decimal above zero, as text"))?;
    let currency = Currency::parse(member("currency")?);
    let currency = currency.ok_or_else(|| Problem::unprocessable("amount.currency: a code like KWD"))?;
    let (fixed, digits) = match provider {
        ProviderSettings::ClickPay(settings) => (Some(settings.currency), None),
        // The gateway takes two decimals, whatever the currency has (protocols, Click KW).
        ProviderSettings::ClickKw(settings) => (Some(settings.currency), Some(2)),
        ProviderSettings::Paygol(_) | ProviderSettings::PaygolLegacy(_) | ProviderSettings::ClickGem(_) => (None, None),
    };
    if fixed.is_some_and(|fixed| fixed != currency) {
        return Err(Problem::unprocessable("amount.currency: this source is configured for another one"));
    }
    let exponent = digits.into_iter().chain(currency.exponent()).min();
    if exponent.is_some_and(|exponent| value.minor_units(exponent).is_none()) {
        return Err(Problem::unprocessable("amount.value: more digits than can be paid there"));
    }
    Ok(Money { value, currency })
}

fn session(
    provider: &ProviderSettings,
    members: &Map<String, Value>,
) -> Result<(Option<String>, Option<Bearer>), Problem> {
    let bounded = |name: &'static str, taken: bool| {
        let sent = text(members, name)?;
        match sent {
            Some(_) if !taken => Err(Problem::unprocessable(format!("{name}: this provider has none"))),
            Some(text) if text.is_empty() || text.len() > MAX_SESSION => {
                Err(Problem::unprocessable(format!("{name}: 1 to {MAX_SESSION} bytes")))
            }
            sent => Ok(sent),
        }
    };
    let (has_session, has_indicator) = match provider {
        ProviderSettings::ClickKw(_) => (true, true),
        ProviderSettings::ClickGem(_) => (true, false),
        ProviderSettings::ClickPay(_) | ProviderSettings::Paygol(_) | ProviderSettings::PaygolLegacy(_) => {
            (false, false)
        }
    };
    let session = bounded("session_id", has_session)?.map(str::to_owned);
    Ok((session, bounded("indicator_status", has_indicator)?.map(Bearer::new)))
}

fn expires_at(text: Option<&str>, now: Timestamp) -> Result<Timestamp, Problem> {
    let wrong = || Problem::unprocessable("expires_at: a time to come, like 2026-11-20T08:15:30Z");
    let Some(text) = text else { return now.checked_add(DEFAULT_LIFE).map_err(|_| wrong()) };
    let at = text.parse::<Timestamp>().map_err(|_| wrong())?;
    (at > now).then_some(at).ok_or_else(wrong)
}
