//! One flat JSON object, strictly, with the literal text of its values.

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

/// Why a body is not a flat object.
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

/// The fields of a body in the order in which they stand there, at most `max_fields`.
///
/// # Errors
/// [`JsonError`].
pub fn object(_body: &[u8], _max_fields: usize) -> Result<Vec<(String, Value)>, JsonError> {
    todo!()
}
