//! Every task has a name, its panic is reported, and its end is waited for.
//!
//! The daemon starts no task any other way. What stops first and what last is not decided here: `app` has the list.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks that end together. A cheap clone.
#[derive(Clone)]
pub struct Tasks(Arc<Inner>);

struct Inner {
    tracker: TaskTracker,
    runtime: Handle,
    running: Mutex<BTreeMap<&'static str, usize>>,
    stop: CancellationToken,
}

/// A name and how many tasks of it are still running.
pub type StillRunning = Vec<(&'static str, usize)>;

/// Counts its task as running for as long as it lives, and says so when the task ends by a panic.
struct Running {
    tasks: Tasks,
    name: &'static str,
}

impl Tasks {
    /// An empty group whose tasks run on `runtime`.
    pub fn new(runtime: Handle) -> Self {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        Self(Arc::new(Inner { tracker, runtime, running: Mutex::default(), stop }))
    }

    /// Starts a task. Works outside of the runtime too.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // Boxed first: an async block that awaits what it captured would hold it twice, and connections are many.
        let (running, task) = (Running::start(self, name), Box::pin(task));
        let named = async move {
            let _running = running;
            task.await
        };
        self.0.tracker.spawn_on(named, &self.0.runtime)
    }

    /// Runs what waits for a disk where it holds up nobody.
    pub fn spawn_blocking<T, F>(&self, name: &'static str, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let running = Running::start(self, name);
        let work = move || {
            let _running = running;
            work()
        };
        self.0.tracker.spawn_blocking_on(work, &self.0.runtime)
    }

    /// Ends when the group is asked to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.0.stop.clone()
    }

    /// Asks every task to stop; those that serve a request finish it first.
    pub fn stop(&self) {
        self.0.stop.cancel();
        self.0.tracker.close();
    }

    /// Waits until all tasks ended, at most for `bound`.
    ///
    /// # Errors
    /// Who is still running then.
    pub async fn wait(&self, bound: Duration) -> Result<(), StillRunning> {
        self.0.tracker.close();
        match tokio::time::timeout(bound, self.0.tracker.wait()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.running()),
        }
    }

    fn running(&self) -> StillRunning {
        let running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().filter(|(_, count)| **count > 0).map(|(name, count)| (*name, *count)).collect()
    }
}

impl Running {
    fn start(tasks: &Tasks, name: &'static str) -> Self {
        *tasks.0.running.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
        Self { tasks: tasks.clone(), name }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.name, "a task panicked: this is a mistake in the program, please report it");
        }
        let mut running = self.tasks.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(self.name) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_still_runs_at_the_bound_is_named() {
        let tasks = Tasks::new(Handle::current());
        let stop = tasks.stopping();
        tasks.spawn("polite", async move { stop.cancelled().await });
        tasks.spawn("stubborn", std::future::pending::<()>());
        tasks.stop();
        let left = tasks.wait(Duration::from_millis(200)).await;
        assert_eq!(left, Err(vec![("stubborn", 1)]));
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_task_and_nothing_else() {
        let tasks = Tasks::new(Handle::current());
        let doomed = tasks.spawn("doomed", async { panic!("on purpose") });
        assert!(doomed.await.is_err());
        let work = tasks.spawn_blocking("work", || 7).await;
        assert_eq!(work.expect("it runs"), 7);
        tasks.stop();
        assert_eq!(tasks.wait(Duration::from_secs(5)).await, Ok(()));
    }
}
