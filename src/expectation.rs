//! What the order system says when it registers an expectation: one JSON object, read and judged the same way whether it
//! comes over the admin API or from the command line. Pure.
//!
//! Everything that can be wrong with a registration is told in a sentence that names the member, never its value: an
//! indicator is a secret, and an error may end in somebody's log.

mod document;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::config::{ProviderSettings, Source};
use crate::event::{Currency, Decimal, Kind, Money, OrderId, SourceName};
use crate::provider::{Bearer, Provider, clickgem};
use crate::store::Registration;
pub use document::{DocumentError, document};

const MEMBERS: [&str; 7] = ["source", "order_id", "kind", "amount", "session_id", "indicator_status", "expires_at"];
/// How long an expectation holds that does not say so.
pub const DEFAULT_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The longest return URL that Click KW's gateway takes.
const MAX_RETURN_URL: usize = 255;
/// The longest session, getid or indicator.
const MAX_SESSION: usize = 255;

/// A registration and its order's return URL, where the source has one. `provider_at` gives the provider of the source
/// at a place in `sources`.
///
/// # Errors
/// A sentence that names the member and what it must be.
pub fn read<'p>(
    value: &Value,
    sources: &[Source],
    provider_at: impl Fn(usize) -> Option<&'p dyn Provider>,
    public_url: &str,
    now: Timestamp,
) -> Result<(Registration, Option<String>), String> {
    let members = value.as_object().ok_or("the body is not an object")?;
    known(members, "", &MEMBERS)?;
    let source = text(members, "source")?.ok_or("source: is missing")?;
    let name = SourceName::new(source);
    let position = sources.iter().position(|source| Some(&source.name) == name.as_ref());
    let found = position.and_then(|at| sources.get(at).zip(provider_at(at)));
    let (source, provider) = found.ok_or_else(|| {
        let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
        format!("source: there is no source {source:?}; configured are {}", names.join(", "))
    })?;

    let (order, return_url) = order(public_url, provider, text(members, "order_id")?)?;
    let kind = text(members, "kind")?.map_or(Some(Kind::Payment), Kind::parse);
    let kind = kind.ok_or("kind: one of payment, payout, refund")?;
    let (amount, unfit) = amount(&source.provider, members.get("amount"))?;
    let (session, indicator) = session(&source.provider, members)?;
    let expires_at = expires_at(text(members, "expires_at")?, now)?;
    let registration =
        Registration { source: source.name.clone(), order, kind, amount, session, indicator, expires_at, unfit };
    Ok((registration, return_url))
}

/// Whether all members are known ones; a member whose name was misspelt must not be left out silently.
fn known(members: &Map<String, Value>, path: &str, names: &[&str]) -> Result<(), String> {
    match members.keys().find(|name| !names.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            Err(format!("{}: an unknown member; known are {}", document::named(path, name), names.join(", ")))
        }
    }
}

/// A member that is text; `None` where it is missing or null.
fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name}: must be text")),
    }
}

fn order(public_url: &str, provider: &dyn Provider, text: Option<&str>) -> Result<(OrderId, Option<String>), String> {
    let order = text.and_then(OrderId::new).ok_or_else(|| "order_id: is missing".to_owned())?;
    if provider.has_return_url() && !order.fits_url() {
        return Err("order_id: a return URL carries [A-Za-z0-9_-], 1 to 64 characters".to_owned());
    }
    if !provider.carries_order(&order) {
        return Err("order_id: this provider carries a number alone, 1 to 10 digits, the first not 0".to_owned());
    }
    let url = provider.return_path(&order).map(|path| format!("{public_url}{path}"));
    if url.as_ref().is_some_and(|url| url.len() > MAX_RETURN_URL) {
        return Err("order_id: its return URL would be longer than 255 characters".to_owned());
    }
    Ok((order, url))
}

/// An amount, and why it cannot be paid at the source if it cannot. The latter is the last word only where the order is
/// not open with another amount: that contradicts first.
fn amount(provider: &ProviderSettings, sent: Option<&Value>) -> Result<(Money, Option<&'static str>), String> {
    const SHAPE: &str = r#"amount: must be an object like {"value": "6.000", "currency": "KWD"}"#;
    let members = sent.and_then(Value::as_object).ok_or_else(|| SHAPE.to_owned())?;
    known(members, "amount", &["value", "currency"])?;
    let member = |name: &str| members.get(name).and_then(Value::as_str).ok_or_else(|| SHAPE.to_owned());
    let value = Decimal::parse(member("value")?).filter(|value| !value.is_zero());
    let value = value.ok_or_else(|| "amount.value: a plain decimal above zero, as text".to_owned())?;
    let currency = Currency::parse(member("currency")?);
    let currency = currency.ok_or_else(|| "amount.currency: a code like KWD".to_owned())?;
    let (fixed, digits) = match provider {
        ProviderSettings::ClickPay(settings) => (Some(settings.currency), None),
        // The gateway takes two decimals, whatever the currency has (protocols, Click KW).
        ProviderSettings::ClickKw(settings) => (Some(settings.currency), Some(2)),
        ProviderSettings::Paygol(_) | ProviderSettings::PaygolLegacy(_) | ProviderSettings::ClickGem(_) => (None, None),
    };
    let exponent = digits.into_iter().chain(currency.exponent()).min();
    let unfit = if fixed.is_some_and(|fixed| fixed != currency) {
        Some("amount.currency: this source is configured for another one")
    } else if exponent.is_some_and(|exponent| value.minor_units(exponent).is_none()) {
        Some("amount.value: more digits than can be paid there")
    } else {
        None
    };
    Ok((Money { value, currency }, unfit))
}

fn session(
    provider: &ProviderSettings,
    members: &Map<String, Value>,
) -> Result<(Option<String>, Option<Bearer>), String> {
    let bounded = |name: &'static str, taken: bool| {
        let sent = text(members, name)?;
        match sent {
            Some(_) if !taken => Err(format!("{name}: this provider has none")),
            Some(text) if text.is_empty() || text.len() > MAX_SESSION => {
                Err(format!("{name}: 1 to {MAX_SESSION} bytes"))
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
    let mut session = bounded("session_id", has_session)?.map(str::to_owned);
    if let (ProviderSettings::ClickGem(_), Some(text)) = (provider, &session) {
        // Another spelling would never equal what comes back, and every genuine return would raise an alarm.
        let getid = clickgem::getid(text).ok_or("session_id: the getid of create's answer, 32 hexadecimal digits")?;
        session = Some(getid);
    }
    Ok((session, bounded("indicator_status", has_indicator)?.map(Bearer::new)))
}

fn expires_at(text: Option<&str>, now: Timestamp) -> Result<Timestamp, String> {
    let wrong = || "expires_at: a time to come, like 2026-11-20T08:15:30Z".to_owned();
    let Some(text) = text else { return now.checked_add(DEFAULT_LIFE).map_err(|_| wrong()) };
    let at = text.parse::<Timestamp>().map_err(|_| wrong())?;
    (at > now).then_some(at).ok_or_else(wrong)
}
