//! The service manager, systemd or whatever speaks its protocol: sockets that it keeps open across restarts, and what it
//! is told. Without one everything here does nothing.
//!
//! The watchdog is fed only while progress is made: a daemon whose runtime turns and whose committer is stuck looks alive
//! to everybody else.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::drain::Tasks;
use crate::store::{Filter, Readiness, Store};

/// Sockets that were handed over, bound and listening. The service manager has its own hold on them: that ours is closed
/// refuses nobody.
#[derive(Debug, Default)]
pub struct Sockets {
    /// The public listener's: the first.
    pub public: Option<TcpListener>,
    /// The admin listener's: the second, where there is one.
    pub admin: Option<TcpListener>,
}

impl Sockets {
    /// Takes what this process was started with (`LISTEN_FDS`, `LISTEN_PID`). To be asked once, before any thread is
    /// started, since the environment is cleared of it.
    ///
    /// # Errors
    /// When one of the two is no listening TCP socket.
    pub fn inherited() -> io::Result<Self> {
        let mut handed = ListenFd::from_env();
        Ok(Self { public: handed.take_tcp_listener(0)?, admin: handed.take_tcp_listener(1)? })
    }
}

/// The daemon accepts. What it still has to do before it can keep anything, `/readyz` says: a disk that refuses must not
/// end in a loop of restarts.
pub fn ready(listening: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(listening)]);
}

/// The configuration is read anew. [`reloaded`] ends it, whatever came of it.
pub fn reloading() {
    // systemd 253 and newer wants to know when it began.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the service manager cannot be told of the reload"),
    }
}

/// The reload is over.
pub fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// The daemon accepts no more and finishes what is in flight.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("finishing what is in flight")]);
}

/// Feeds the watchdog until `tasks` stop, twice in the time that it allows and only while the store gets on.
pub async fn feed_watchdog(store: Arc<dyn Store>, tasks: Tasks) {
    let Some(allowed) = sd_notify::watchdog_enabled() else { return };
    let stop = tasks.stopping();
    let mut pace = tokio::time::interval(allowed / 2);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = pace.tick() => {}
        }
        let asked = Arc::clone(&store);
        let moves = tasks.spawn_blocking("watchdog's look", move || gets_on(&*asked));
        tokio::select! {
            () = stop.cancelled() => return,
            // Not fed meanwhile: a look that hangs is what the watchdog is for.
            moved = moves => match moved {
                Ok(()) => tell(&[NotifyState::Watchdog]),
                Err(_) => tracing::error!("the watchdog's look ended by a panic: it is not fed"),
            },
        }
    }
}

/// Returns once the committer has answered. It writes one group after the other, so that an answer of its own thread means
/// that it is not stuck. Before it runs, the start is on its way or tries a refusing disk again: that is progress, too.
fn gets_on(store: &dyn Store) {
    if store.readiness() == Readiness::Ready {
        // An error is an answer; what it says is told by whoever asks for something.
        let _ = store.notifications(&Filter::default(), None, 1);
    }
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_nobody_manages_has_no_sockets_and_no_watchdog() {
        let sockets = Sockets::inherited().expect("nothing was handed over");
        assert!(sockets.public.is_none() && sockets.admin.is_none());
        ready("nobody hears it");
        stopping();
    }
}
