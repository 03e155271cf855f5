//! From a body to fields and the strings that may have been signed.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::super::Refusal;
use super::super::form::{self, FormError};
use super::super::json::{self, JsonError, Value};
use super::Refuse;

/// The field that holds the signature.
const SIGN: &str = "platSign";
/// Fields with a value that a notification may have, besides the signature.
const MAX_FIELDS: usize = 24;
/// Fields in a body: absent ones (`null`, empty) come on top.
const MAX_FIELDS_IN_BODY: usize = 64;

/// A body, read.
pub(super) struct Message {
    /// Name and value of each field that has one, in signing order, without the signature.
    fields: Vec<(String, Scalar)>,
    sign: Option<String>,
}

/// A value, and what PHP would print for it where that is something else.
#[derive(Clone)]
struct Scalar {
    literal: String,
    php: Option<String>,
}

impl Message {
    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Refuse> {
        let unreadable = |why| {
            // Whatever it is, somebody meant to sign it: it may prove genuine to a later version.
            let may_be_genuine = memchr::memmem::find(body, SIGN.as_bytes()).is_some();
            Refuse { refusal: Refusal::Malformed(why), may_be_genuine }
        };
        let received = match Format::of(headers, body).ok_or(Refuse::for_good(Refusal::ContentType))? {
            Format::Json => from_json(body).map_err(unreadable)?,
            Format::Form => from_form(body).map_err(unreadable)?,
        };
        let mut message = Self { fields: Vec::with_capacity(received.len()), sign: None };
        for (name, value) in received {
            if name == SIGN {
                message.sign = Some(value.literal);
            } else {
                message.fields.push((name, value));
            }
        }
        if message.fields.len() > MAX_FIELDS {
            return Err(unreadable("more than 24 fields"));
        }
        message.fields.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(message)
    }

    /// The signature's bytes.
    pub(super) fn signature(&self) -> Result<Vec<u8>, Refuse> {
        let sign = self.sign.as_deref().ok_or(Refuse::for_good(Refusal::NoSignature))?;
        // Both spellings occur; one of them must hold for the whole value, with nothing else in it.
        STANDARD
            .decode(sign)
            .or_else(|_| URL_SAFE_NO_PAD.decode(sign))
            .map_err(|_| Refuse { refusal: Refusal::BadSignature("platSign is not base64"), may_be_genuine: true })
    }

    /// The values as they may have been signed: first as they stand there, then as PHP prints them.
    pub(super) fn readings(&self) -> Vec<Vec<(String, String)>> {
        let reading = |php: bool| {
            let value = |scalar: &Scalar| match &scalar.php {
                Some(printed) if php => printed.clone(),
                _ => scalar.literal.clone(),
            };
            let fields = self.fields.iter().map(|(name, scalar)| (name.clone(), value(scalar)));
            fields.filter(|(_, value)| !value.is_empty()).collect()
        };
        let mut readings = vec![reading(false)];
        if self.fields.iter().any(|(_, scalar)| scalar.php.is_some()) {
            readings.push(reading(true));
        }
        readings
    }
}

enum Format {
    Json,
    Form,
}

impl Format {
    /// `None` for a content type that ClickPay never uses. JSON is what it sends today; older siblings of the platform
    /// post forms, and PHP's curl calls JSON a form when nobody tells it otherwise.
    fn of(headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        let Some(value) = headers.get(CONTENT_TYPE) else { return Some(Self::Json) };
        let essence = value.to_str().ok()?.split(';').next()?.trim();
        if essence.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let looks_like_json = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
            Some(if looks_like_json { Self::Json } else { Self::Form })
        } else {
            None
        }
    }
}

/// The fields that have a value. `null` and the empty string are absent: they add nothing to what was signed.
fn from_json(body: &[u8]) -> Result<Vec<(String, Scalar)>, &'static str> {
    let fields = json::object(body, MAX_FIELDS_IN_BODY).map_err(|error| match error {
        JsonError::NotAnObject => "not a JSON object",
        JsonError::RepeatedKey => "a key stands twice",
        JsonError::TooManyFields => "too many fields",
    })?;
    let mut present = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        let value = match value {
            Value::Null => continue,
            Value::Text(text) if text.is_empty() => continue,
            Value::Text(literal) => Scalar { literal, php: None },
            _ if name == SIGN => return Err("platSign is no string"),
            Value::Number(literal) => Scalar { php: php_number(&literal).filter(|php| *php != literal), literal },
            Value::Bool(yes) => Scalar { literal: yes.to_string(), php: Some(if yes { "1" } else { "" }.to_owned()) },
            Value::Nested(_) => return Err("a value is nested"),
        };
        present.push((name, value));
    }
    Ok(present)
}

fn from_form(body: &[u8]) -> Result<Vec<(String, Scalar)>, &'static str> {
    let fields = form::fields(body, MAX_FIELDS_IN_BODY).map_err(|error| match error {
        FormError::NotAForm => "not a form",
        FormError::Repeated => "a field stands twice",
        FormError::TooManyFields => "too many fields",
    })?;
    let present = fields.into_iter().filter(|field| !field.value.is_empty()).map(|field| {
        // Base64 has no spaces: they are plus signs that nobody escaped.
        let literal = if field.name == SIGN { field.value.replace(' ', "+") } else { field.value };
        (field.name, Scalar { literal, php: None })
    });
    Ok(present.collect())
}

/// What PHP prints for a JSON number after `json_decode`: integers that fit as they are, everything else as a double
/// of 14 significant digits (its `precision`), `1.0E+25` style above 14 digits. `None` where it would be infinite.
pub(super) fn php_number(literal: &str) -> Option<String> {
    let is_integer = !literal.contains(['.', 'e', 'E']);
    if is_integer && let Ok(integer) = literal.parse::<i64>() {
        return Some(integer.to_string());
    }
    let number: f64 = literal.parse().ok()?;
    if !number.is_finite() {
        return None;
    }
    let scientific = format!("{number:.13e}");
    let (mantissa, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits = mantissa.replace('.', "");
    let digits = match digits.trim_end_matches('0') {
        "" => return Some(format!("{sign}0")),
        digits => digits,
    };
    // The point stands before digit `exponent + 1`.
    if !(-4..14).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        let rest = if rest.is_empty() { "0" } else { rest };
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        return Some(format!("{sign}{first}.{rest}E{exponent_sign}{}", exponent.abs()));
    }
    let Ok(whole) = usize::try_from(exponent + 1) else {
        return Some(format!("{sign}0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1)));
    };
    if whole == 0 {
        return Some(format!("{sign}0.{digits}"));
    }
    if digits.len() <= whole {
        return Some(format!("{sign}{digits:0<whole$}"));
    }
    let (before, after) = digits.split_at(whole);
    Some(format!("{sign}{before}.{after}"))
}
