//! Legacy Paygol's query and body, with and without its key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quittance_fuzz::{At, notification};

fuzz_target!(|data: &[u8]| notification(At::PaygolLegacy, data));
