//! ClickGem's return, query and body, with and without its tag.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quittance_fuzz::{At, notification};

fuzz_target!(|data: &[u8]| notification(At::ClickGem, data));
