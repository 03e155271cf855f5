//! What a command was told that nobody can mean: refused before anything is asked or changed.

use anyhow::anyhow;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::Failure;
use super::api::Api;

/// Refuses a source that is not configured.
///
/// # Errors
/// [`Failure::Usage`], naming those that are; or when no answer comes.
pub(super) fn configured(api: &Api, source: Option<&str>) -> Result<(), Failure> {
    let Some(source) = source else { return Ok(()) };
    let status = api.ask("/api/v1/status")?;
    let all = status["sources"].as_array().into_iter().flatten();
    let names: Vec<&str> = all.filter_map(|source| source["name"].as_str()).collect();
    if names.contains(&source) {
        return Ok(());
    }
    Err(Failure::Usage(anyhow!("--source: there is no source {source:?}; configured are {}", names.join(", "))))
}

/// The same, but one that is configured no more and of which something is kept is one too.
///
/// # Errors
/// As [`configured`].
pub(super) fn heard_of(api: &Api, source: Option<&str>) -> Result<(), Failure> {
    let unknown = match configured(api, source) {
        Err(Failure::Usage(unknown)) => unknown,
        other => return other,
    };
    let name = utf8_percent_encode(source.unwrap_or_default(), NON_ALPHANUMERIC);
    let mut after = String::new();
    loop {
        let page = api.ask(&format!("/api/v1/notifications?limit=1&source={name}{after}"))?;
        if page["notifications"].as_array().is_some_and(|kept| !kept.is_empty()) {
            return Ok(());
        }
        match &page["next"] {
            Value::String(next) => after = format!("&after={next}"),
            _ => return Err(Failure::Usage(unknown)),
        }
    }
}
