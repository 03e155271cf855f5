//! What comes with a change: a JSON document, and the name of whoever asks.

use http::StatusCode;
use http::header::{self, HeaderMap};
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::store::ByHand;

/// Who asks, as he says of himself: for the audit, and believed as far as the token is.
pub const OPERATOR: &str = "quittance-operator";

/// The document in a body.
///
/// # Errors
/// 415 for another content type; 400 for what is not JSON, or not what is wanted.
pub fn read<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json"));
    }
    serde_json::from_slice(body).map_err(|error| {
        // What serde says of a document names its fields, and may repeat a value: only the former is told.
        let text = error.to_string();
        let of_fields =
            ["unknown field", "missing field", "duplicate field"].iter().any(|known| text.starts_with(known));
        Problem::bad_request(match (error.is_data(), of_fields) {
            (true, true) => format!("the document is not what is wanted: {text}"),
            (true, false) => "a field of the document is of another type or has an unknown word".to_owned(),
            (false, _) => "the body is not JSON".to_owned(),
        })
    })
}

/// Who asks, and why.
///
/// # Errors
/// 422 for a reason or a name that cannot be kept.
pub fn by_hand(headers: &HeaderMap, reason: &str) -> Result<ByHand, Problem> {
    ByHand::new(&who(headers)?, reason).map_err(Problem::unprocessable)
}

/// Who asks: `api` where nobody says.
///
/// # Errors
/// 400 for a name that is no text.
pub fn who(headers: &HeaderMap) -> Result<String, Problem> {
    let wrong = || Problem::bad_request("quittance-operator: a name of printable ASCII");
    let name = headers.get(OPERATOR).map(|name| name.to_str().map_err(|_| wrong())).transpose()?;
    Ok(name.map(str::trim).filter(|name| !name.is_empty()).unwrap_or("api").to_owned())
}
