//! Named points at which a test kills the process, and a clock that a test turns while the process runs.
//!
//! All of it is there with the feature `failpoints` only, which no release has; without it a point is an empty function.
//! A point stands on each side of every boundary between the arrival of a notification and its last trace: what a kill
//! there leaves behind is what `./prove` judges.
//!
//! - `QUITTANCE_FAILPOINT=<name>:<n>`: SIGKILL when the point is reached for the n-th time.
//! - `QUITTANCE_CLOCK=<file>`: the file holds seconds by which the clock is wrong, 0 while it does not read.

/// Every point, in the order in which a notification passes them.
pub const POINTS: [&str; 17] = [
    "after-read",
    "after-verify",
    "before-append",
    "after-append",
    "after-sync",
    "after-visible",
    "before-answer",
    "after-answer",
    "before-index",
    "after-index",
    "after-publish",
    "after-confirm",
    "settle-appended",
    "segment-made",
    "segment-named",
    "rewrite-synced",
    "rewrite-named",
];

/// The process is here.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_point: &'static str) {}

#[cfg(feature = "failpoints")]
pub use armed::{reach, wrong_by};

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The point that kills, and how often it is still to be passed, the last time included.
    fn target() -> Option<&'static (String, AtomicU64)> {
        static TARGET: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
        let target = TARGET.get_or_init(|| {
            let wanted = std::env::var("QUITTANCE_FAILPOINT").ok()?;
            let (name, times) = wanted.split_once(':').unwrap_or((&wanted, "1"));
            assert!(super::POINTS.contains(&name), "there is no fail point {name}");
            let times = times.parse().unwrap_or(1);
            Some((name.to_owned(), AtomicU64::new(times)))
        });
        target.as_ref()
    }

    /// The process is here; perhaps for the last time.
    pub fn reach(point: &'static str) {
        debug_assert!(super::POINTS.contains(&point), "{point} is not in the list of points");
        if let Some((name, left)) = target()
            && name == point
            && left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }

    /// By how many seconds the clock is wrong.
    pub fn wrong_by() -> i64 {
        static FILE: OnceLock<Option<std::path::PathBuf>> = OnceLock::new();
        let file = FILE.get_or_init(|| std::env::var_os("QUITTANCE_CLOCK").map(Into::into));
        let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }
}
