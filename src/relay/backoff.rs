//! How long to wait before the next try. Pure: chance comes from outside.

use std::time::Duration;

/// The first wait, and the longest.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Waits that double from 0.1 s to 5 s. Each is shortened by chance, by up to half: many daemons that lost one broker
/// must not come back to it in step.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait. `chance` is any number; equal ones give equal waits.
    pub fn next(&mut self, chance: u32) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.failures.min(6)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        longest - longest.mul_f64(f64::from(chance) / f64::from(u32::MAX) / 2.0)
    }

    /// It worked: the next wait is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How often it failed since it last worked.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_seconds_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.next(0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.failures(), 8);
        backoff.reset();
        assert_eq!(backoff.next(0).as_millis(), 100);
    }

    #[test]
    fn chance_shortens_a_wait_by_up_to_half() {
        assert_eq!(Backoff::default().next(u32::MAX).as_millis(), 50);
        let middle = Backoff::default().next(u32::MAX / 2).as_millis();
        assert!((74..=76).contains(&middle), "{middle}");
    }
}
