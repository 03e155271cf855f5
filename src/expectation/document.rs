//! A registration's JSON, read so that only one reading fits: a key that stands twice is refused wherever it stands,
//! since whoever wrote it and whoever reads it could each believe another of the two.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The longest name that an error repeats.
const MAX_NAME: usize = 64;

/// Why a text is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// What serde would say repeats what it read, and that may be an indicator.
    #[error("is not JSON, from line {line}, column {column} on")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// The key.
    #[error("{0}: stands twice")]
    Repeated(String),
}

/// The one value of a JSON text.
///
/// # Errors
/// [`DocumentError`].
pub fn document(text: &[u8]) -> Result<Value, DocumentError> {
    let mut repeated = None;
    let mut parser = serde_json::Deserializer::from_slice(text);
    let read = Once { path: "", repeated: &mut repeated }.deserialize(&mut parser);
    let whole = read.and_then(|value| parser.end().map(|()| value));
    whole.map_err(|error| match repeated {
        Some(key) => DocumentError::Repeated(key),
        None => DocumentError::NotJson { line: error.line(), column: error.column() },
    })
}

/// A member's name as an error may say it: short, and nothing that moves a cursor.
pub(super) fn named(path: &str, name: &str) -> String {
    let name: String = name.chars().take(MAX_NAME).collect();
    let name = name.escape_debug().to_string();
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// Reads a value at `path`; `repeated` carries the name past serde_json's error type.
struct Once<'a> {
    path: &'a str,
    repeated: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Once<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Once { path: self.path, repeated: self.repeated })? {
            list.push(item);
        }
        Ok(list.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let path = named(self.path, &name);
            if map.contains_key(&name) {
                *self.repeated = Some(path);
                return Err(A::Error::custom("a key stands twice"));
            }
            let value = members.next_value_seed(Once { path: &path, repeated: self.repeated })?;
            map.insert(name, value);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn error(text: &str) -> String {
        document(text.as_bytes()).expect_err(text).to_string()
    }

    #[test]
    fn a_key_that_stands_twice_is_named_however_it_is_spelt_and_wherever_it_stands() {
        assert_eq!(error(r#"{"order_id":"1","order_id":"2"}"#), "order_id: stands twice");
        assert_eq!(error(r#"{"order_id":"1","order_id":"1"}"#), "order_id: stands twice");
        assert_eq!(error(r#"{"order_id":"1","order\u005fid":"2"}"#), "order_id: stands twice");
        assert_eq!(error(r#"{"amount":{"value":"1","value":"2"}}"#), "amount.value: stands twice");
        assert_eq!(error(r#"[{"a":{}},{"b":1,"b":1}]"#), "b: stands twice");
        assert_eq!(error(&format!(r#"{{"{0}":1,"{0}":1}}"#, "\\u001b".repeat(100))).len(), 64 * 6 + 14);
        assert!(document(br#"{"a":{"x":1},"b":{"x":1}}"#).is_ok(), "two objects may use one name");
    }

    #[test]
    fn what_is_not_json_is_told_by_its_place_alone() {
        assert_eq!(error("{\"indicator_status\":\"kw-1\", x"), "is not JSON, from line 1, column 29 on");
        for bad in ["", "{", "{}{}", "nul", "[1,]"] {
            assert!(error(bad).starts_with("is not JSON"), "{bad}");
        }
        assert!(error(&"[".repeat(100_000)).starts_with("is not JSON"), "a deep one does not overflow");
    }

    proptest! {
        #[test]
        fn what_repeats_no_key_reads_as_serde_reads_it(text in r#"[\[\]{}:,"ab0-9.\\ -]{0,40}"#) {
            let read = document(text.as_bytes());
            let plain = serde_json::from_str::<Value>(&text);
            match read {
                Err(DocumentError::Repeated(_)) => prop_assert!(plain.is_ok() || text.len() > 8),
                read => prop_assert_eq!(read.ok(), plain.ok()),
            }
        }
    }
}
