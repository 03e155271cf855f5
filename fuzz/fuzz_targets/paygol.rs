//! Paygol's body, forged and signed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quittance_fuzz::{At, notification};

fuzz_target!(|data: &[u8]| notification(At::Paygol, data));
