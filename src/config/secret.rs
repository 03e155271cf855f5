//! A secret that cannot be printed or serialized by accident.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// Secret text; wiped when the last copy is dropped. Equality is not offered: compare with `subtle`.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Keeps `text`. The rules for what may be a secret are the config's.
    pub fn new(text: String) -> Self {
        Self(Arc::new(Zeroizing::new(text)))
    }
    /// The secret itself, to be compared, hashed or handed to a broker, never printed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
