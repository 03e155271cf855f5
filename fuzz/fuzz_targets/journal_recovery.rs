//! A segment of any bytes: recovery ends, what it finds is readable, and a second start finds the same and no damage.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| quittance_fuzz::journal::recover(data));
