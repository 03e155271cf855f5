//! What is left of an acknowledged notification when the power goes.
//!
//! The tests mount a file system of their own (`mount`) that forgets what was not synced, in three ways (`disk::Mode`),
//! and run real code on it: sled alone (`sled_alone`, which shows why the journal exists), the journal
//! (`journal`) and the whole daemon (`serve`). A little of it runs with `cargo test`, more in `./prove power`, most in
//! `./prove --long power`; `QUITTANCE_SEED=<n>` repeats a run whose seed was printed. They need root, /dev/fuse and the
//! package fuse3.

mod daemon;
mod disk;
mod file;
mod first_start;
mod forgets;
#[allow(dead_code, reason = "the black-box tests use more of it")]
#[path = "../it/http.rs"]
mod http;
mod journal;
mod journal_faults;
mod ledger;
mod mount;
mod rng;
mod serve;
mod sled_alone;
