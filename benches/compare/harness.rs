//! What the tests' broker node asks of the tests around it.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Asks again until it is `Ok`, for 20 seconds at most.
pub fn eventually<T, E: Debug>(what: &str, mut probe: impl FnMut() -> Result<T, E>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match probe() {
            Ok(value) => return value,
            Err(error) if Instant::now() > end => panic!("never came true: {what}; last: {error:?}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
