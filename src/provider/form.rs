//! `application/x-www-form-urlencoded`, for bodies and queries, strictly: what two readers could read in two ways is
//! refused.

use std::ops::Range;

/// One decoded parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Decoded name.
    pub name: String,
    /// Decoded value.
    pub value: String,
    /// Where the value stands in the input, still encoded: what a cut takes out.
    pub range: Range<usize>,
}

/// Why a form cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// A `%` without two hexadecimal digits behind it, or a result that is not UTF-8.
    #[error("not a form")]
    NotAForm,
    /// A name stands twice.
    #[error("a parameter stands twice")]
    Repeated,
    /// More parameters than any provider sends.
    #[error("too many parameters")]
    TooManyFields,
}

/// The parameters in order, `+` and `%xx` decoded, at most `max_fields`, no name twice (after decoding, so that
/// `key` and `%6bey` are one). `a` without `=` has an empty value; nothing between two `&` is no parameter.
///
/// # Errors
/// [`FormError`].
pub fn fields(input: &[u8], max_fields: usize) -> Result<Vec<Field>, FormError> {
    let mut fields: Vec<Field> = Vec::new();
    let mut start = 0;
    for pair in input.split(|&byte| byte == b'&') {
        let end = start + pair.len();
        if !pair.is_empty() {
            let name_len = memchr::memchr(b'=', pair);
            let (name, value) = match name_len {
                Some(at) => (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default()),
                None => (pair, [].as_slice()),
            };
            let name = decode(name)?;
            if fields.len() >= max_fields {
                return Err(FormError::TooManyFields);
            }
            if fields.iter().any(|known| known.name == name) {
                return Err(FormError::Repeated);
            }
            fields.push(Field { name, value: decode(value)?, range: end - value.len()..end });
        }
        start = end + 1;
    }
    Ok(fields)
}

/// `+` and `%xx` decoded.
fn decode(encoded: &[u8]) -> Result<String, FormError> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.iter();
    while let Some(&byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || bytes.next().and_then(|&digit| char::from(digit).to_digit(16));
                let (high, low) = digit().zip(digit()).ok_or(FormError::NotAForm)?;
                u8::try_from(high << 4 | low).map_err(|_| FormError::NotAForm)?
            }
            plain => plain,
        });
    }
    String::from_utf8(decoded).map_err(|_| FormError::NotAForm)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(input: &str) -> Result<Vec<(String, String)>, FormError> {
        fields(input.as_bytes(), 4).map(|fields| fields.into_iter().map(|f| (f.name, f.value)).collect())
    }

    #[test]
    fn names_and_values_are_decoded() {
        let expected = [("a b", "c&d=é"), ("e", ""), ("f", ""), ("g", "h=i")];
        let expected: Vec<_> = expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        assert_eq!(read("a+b=c%26d%3D%C3%a9&e=&&f&g=h=i&"), Ok(expected));
        assert_eq!(read(""), Ok(vec![]));
    }

    #[test]
    fn a_range_is_where_the_encoded_value_stands() {
        let input = b"x=1&key=a%20b&y&z=";
        let ranges: Vec<_> = fields(input, 9).expect("a form").into_iter().map(|f| (f.name, &input[f.range])).collect();
        let expected: [(&str, &[u8]); 4] = [("x", b"1"), ("key", b"a%20b"), ("y", b""), ("z", b"")];
        assert_eq!(ranges, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_refused() {
        assert_eq!(read("key=1&key=1"), Err(FormError::Repeated));
        assert_eq!(read("key=1&%6bey=2"), Err(FormError::Repeated));
        for bad in ["a=%", "a=%1", "a=%zz", "a=%+1", "%=a", "a=%ff", "a=%c3"] {
            assert_eq!(read(bad), Err(FormError::NotAForm), "{bad}");
        }
        assert_eq!(read("a&b&c&d&e"), Err(FormError::TooManyFields));
    }

    proptest! {
        #[test]
        fn any_bytes_give_fields_or_an_error(input in prop::collection::vec(any::<u8>(), 0..200)) {
            for field in fields(&input, 24).unwrap_or_default() {
                prop_assert!(input.get(field.range).is_some());
            }
        }

        #[test]
        fn any_text_survives(name in any::<String>(), value in any::<String>()) {
            let encode = |text: &str| percent_encoding::percent_encode(text.as_bytes(), percent_encoding::NON_ALPHANUMERIC).to_string();
            let input = format!("{}={}", encode(&name), encode(&value));
            let fields = fields(input.as_bytes(), 1).expect("a form");
            prop_assert_eq!((&fields[0].name, &fields[0].value), (&name, &value));
            prop_assert_eq!(fields[0].range.len(), encode(&value).len());
        }
    }
}
