//! Nothing waits for ever: a section that is not over in its time is told with where it hangs, and ended.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::daemon::threads_of;
use crate::mount;
use crate::report::Form;

/// Many times what a section takes.
const SHORT: Duration = Duration::from_secs(15 * 60);
const LONG: Duration = Duration::from_secs(6 * 3600);
/// What a section may take to come to its end once its disks are given up.
const LAST: Duration = Duration::from_secs(60);

/// Watches until it is dropped.
pub struct Watch(#[expect(dead_code, reason = "its end is what is heard")] SyncSender<()>);

impl Watch {
    /// Over a section.
    pub fn over(section: &'static str, form: &Form) -> Self {
        let (alive, heard) = sync_channel::<()>(0);
        let limit = form.pick(SHORT, LONG);
        thread::spawn(move || {
            if heard.recv_timeout(limit) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            eprintln!("{section} hangs: it is not over after {limit:?}. Threads:\n{}", threads_of("self"));
            for child in children() {
                eprintln!("process {child}:\n{}", threads_of(&child));
            }
            // Whoever waits for a disk of the test hears an error, and the section may yet tell more.
            mount::give_all_up();
            if heard.recv_timeout(LAST) == Err(RecvTimeoutError::Timeout) {
                std::process::exit(1);
            }
        });
        Self(alive)
    }
}

/// Processes that this one started.
fn children() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    tasks.flat_map(|task| of(task).split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}
