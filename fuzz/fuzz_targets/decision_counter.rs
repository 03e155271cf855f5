//! The decision counter over any string: it ends, stays within its bound, and a narrower grammar never allows more.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|string: &str| quittance_fuzz::count_decisions(string));
