//! Quittance from outside: the real executable, real sockets, a real disk. One file for each promise.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it expected by panicking")]

mod fixtures;
mod harness;
mod http;

mod schema;
mod tidy;
