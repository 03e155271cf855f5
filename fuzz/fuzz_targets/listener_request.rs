//! A request's bytes: the scan of heads says the same however the network cut them, and every path goes to one source.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quittance::listener::strict::Scan;

fuzz_target!(|data: &[u8]| {
    let (mut whole, mut pieces, mut bytes) = (Scan::default(), Scan::default(), Scan::default());
    whole.feed(data);
    data.chunks(data.len() / 3 + 1).for_each(|piece| pieces.feed(piece));
    data.chunks(1).for_each(|byte| bytes.feed(byte));
    for other in [&pieces, &bytes] {
        assert_eq!((whole.flaw(), whole.heads()), (other.flaw(), other.heads()));
    }
    quittance_fuzz::request(data);
});
