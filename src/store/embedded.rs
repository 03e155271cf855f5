//! The embedded store: the journal is the truth, sled is its index.

pub mod journal;
pub mod lock;
