//! `application/x-www-form-urlencoded`, for bodies and queries.

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

/// The parameters in order, `+` and `%xx` decoded, at most `max_fields`, no name twice.
///
/// # Errors
/// [`FormError`].
pub fn fields(_input: &[u8], _max_fields: usize) -> Result<Vec<Field>, FormError> {
    todo!()
}
