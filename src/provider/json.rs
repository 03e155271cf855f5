//! One JSON object, strictly, with the literal text of its values: what a signature was made over must not be lost
//! in a number's conversion. Bodies are kept as they came; nothing here ever writes JSON.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A top-level value. Numbers keep their literal: `20000.00` and `20000` are different bytes to a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string, unescaped.
    Text(String),
    /// A number, as it stands in the body.
    Number(String),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
    /// An object or a list, as it stands in the body.
    Nested(String),
}

/// Why a body is not an object that only one reading fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, not UTF-8, not an object, or something behind it.
    #[error("not a JSON object")]
    NotAnObject,
    /// A key stands twice: two readers could believe two different values.
    #[error("a key stands twice")]
    RepeatedKey,
    /// More fields than any provider sends.
    #[error("too many fields")]
    TooManyFields,
}

impl Value {
    /// The text of a string; `None` for every other type, which no provider's notification uses for a value that
    /// decides.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::Bool(_) | Self::Null | Self::Nested(_) => None,
        }
    }
}

/// The fields of a body in the order in which they stand there, at most `max_fields`. Two spellings of one key
/// (`a` and `\u0061`) are one key.
///
/// # Errors
/// [`JsonError`].
pub fn object(body: &[u8], max_fields: usize) -> Result<Vec<(String, Value)>, JsonError> {
    let text = std::str::from_utf8(body).map_err(|_| JsonError::NotAnObject)?;
    let mut why = None;
    let mut parser = serde_json::Deserializer::from_str(text);
    let read = parser.deserialize_map(Fields { max_fields, why: &mut why });
    let complete = read.and_then(|fields| parser.end().map(|()| fields));
    complete.map_err(|_| why.unwrap_or(JsonError::NotAnObject))
}

/// Collects an object's members; `why` carries our own reasons past serde_json's error type.
struct Fields<'a> {
    max_fields: usize,
    why: &'a mut Option<JsonError>,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut refuse = |reason| {
            *self.why = Some(reason);
            A::Error::custom(reason)
        };
        let mut fields: Vec<(String, Value)> = Vec::new();
        while let Some(key) = members.next_key::<String>()? {
            if fields.len() >= self.max_fields {
                return Err(refuse(JsonError::TooManyFields));
            }
            if fields.iter().any(|(known, _)| *known == key) {
                return Err(refuse(JsonError::RepeatedKey));
            }
            let raw = members.next_value::<&'de RawValue>()?;
            let value = value(raw.get()).ok_or_else(|| refuse(JsonError::NotAnObject))?;
            fields.push((key, value));
        }
        Ok(fields)
    }
}

/// A value that serde_json has already found well-formed. `None` for a string that is no text (a lone surrogate).
fn value(literal: &str) -> Option<Value> {
    Some(match literal.as_bytes().first()? {
        b'"' => Value::Text(String::deserialize(&mut serde_json::Deserializer::from_str(literal)).ok()?),
        b'{' | b'[' => Value::Nested(literal.to_owned()),
        b't' => Value::Bool(true),
        b'f' => Value::Bool(false),
        b'n' => Value::Null,
        _ => Value::Number(literal.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &str) -> Result<Vec<(String, Value)>, JsonError> {
        object(body.as_bytes(), 4)
    }

    #[test]
    fn values_keep_their_literal_and_their_place() {
        let fields =
            read(" {\"b\" : 20000.00, \"a\":\"x\\u00e9\\/\", \"c\":[1, {\"d\": 2}] ,\"n\":null}\n").expect("an object");
        let expected = [
            ("b", Value::Number("20000.00".into())),
            ("a", Value::Text("xé/".into())),
            ("c", Value::Nested("[1, {\"d\": 2}]".into())),
            ("n", Value::Null),
        ];
        assert_eq!(fields, expected.map(|(k, v)| (k.to_owned(), v)));
        assert_eq!(read(r#"{"a":true,"b":false,"c":-0}"#).expect("an object")[2].1, Value::Number("-0".into()));
        assert_eq!(read("{}"), Ok(vec![]));
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_however_it_is_spelt() {
        assert_eq!(read(r#"{"a":"1","a":"1"}"#), Err(JsonError::RepeatedKey));
        assert_eq!(read(r#"{"a":"1","\u0061":"2"}"#), Err(JsonError::RepeatedKey));
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for bad in [
            "",
            "[]",
            "\"a\"",
            "{",
            "{}{}",
            "{} x",
            "{'a':1}",
            "{a:1}",
            "{\"a\":01}",
            "{\"a\":1,}",
            "{\"a\"}",
            "null",
            "{\"a\":\"\\ud800\"}",
            "{\"\\udc00\":1}",
            "{\"a\":\"\t\"}",
            "{\"a\":NaN}",
            "\u{feff}{}",
            "{\"a\":+1}",
        ] {
            assert_eq!(read(bad), Err(JsonError::NotAnObject), "{bad}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}", 4), Err(JsonError::NotAnObject));
        assert_eq!(read(r#"{"a":1,"b":1,"c":1,"d":1,"e":1}"#), Err(JsonError::TooManyFields));
    }

    #[test]
    fn a_deep_body_neither_overflows_nor_passes() {
        let deep = format!("{{\"a\":{}", "[".repeat(200_000));
        assert_eq!(read(&deep), Err(JsonError::NotAnObject));
        let closed = format!("{{\"a\":{}{}}}", "[".repeat(60_000), "]".repeat(60_000));
        assert!(matches!(&read(&closed).expect("an object")[0].1, Value::Nested(text) if text.len() == 120_000));
    }

    proptest! {
        #[test]
        fn any_bytes_give_fields_or_an_error(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = object(&body, 24);
        }

        #[test]
        fn any_text_survives(key in any::<String>(), text in any::<String>()) {
            let body = serde_json::to_vec(&serde_json::json!({ key.clone(): text.clone() })).expect("JSON");
            prop_assert_eq!(object(&body, 24), Ok(vec![(key, Value::Text(text))]));
        }
    }
}
