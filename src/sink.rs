//! Where events go. The built-in feed is always there; it reads the journal and holds nothing of its own.

pub mod feed;
