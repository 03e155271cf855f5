//! A limit on how much an outsider can make us log.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

/// So many lines a second; what is left out is counted and told with the next line.
pub struct LogBudget {
    /// The second in the upper half, lines in it in the lower one.
    window: AtomicU64,
    left_out: AtomicU64,
    lines_per_second: u32,
}

impl LogBudget {
    /// At most this many lines a second.
    pub fn new(lines_per_second: u32) -> Self {
        Self { window: AtomicU64::new(0), left_out: AtomicU64::new(0), lines_per_second }
    }

    /// Whether a line may be written now, and how many were left out since the last one.
    pub fn take(&self, now: Timestamp) -> Option<u64> {
        let second = (now.as_second() as u64) << 32;
        let lines = |window: u64| if window & !0xffff_ffff == second { window & 0xffff_ffff } else { 0 };
        let step = |window| Some(second | (lines(window) + 1).min(u64::from(u32::MAX)));
        let before = self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap_or_default();
        if lines(before) < u64::from(self.lines_per_second) {
            Some(self.left_out.swap(0, Ordering::Relaxed))
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_writes_a_few_lines_a_second_and_none_is_forgotten() {
        let budget = LogBudget::new(2);
        let at = |second| Timestamp::from_second(second).expect("in range");
        let told: Vec<_> = (0..5).map(|_| budget.take(at(1_000))).collect();
        assert_eq!(told, [Some(0), Some(0), None, None, None]);
        assert_eq!(budget.take(at(1_001)), Some(3));
        assert_eq!(budget.take(at(1_001)), Some(0));
        assert_eq!(budget.take(at(1_001)), None);
    }
}
