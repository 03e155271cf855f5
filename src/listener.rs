//! The public listener: receives notifications over HTTP/1.1, has them verified and kept, and answers.
//!
//! In the order in which a request passes: `connection` (hyper, and the one timer), `watch` and `strict` (what the
//! bytes tell before and beside hyper), `routes`, `body`, `intake` (the way of one request), `commit`, `respond`
//! (every status code). It knows no relay and no sink.

pub(crate) mod body;
pub(crate) mod budget;
pub(crate) mod commit;
pub(crate) mod connection;
pub(crate) mod intake;
pub(crate) mod respond;
pub(crate) mod routes;
pub(crate) mod site;
pub mod strict;
#[cfg(test)]
mod tests;
pub(crate) mod watch;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};

use crate::drain::Tasks;
use commit::Slot;
pub use intake::Intake;
pub use routes::{Endpoint, Routes};
pub use site::{Site, Sites};

/// A bound socket that accepts nothing yet.
pub struct Listener {
    door: Door,
    sites: Sites,
    intake: Intake,
    connections: IntGauge,
}

/// A bound socket, whose connections are counted.
pub(crate) struct Door {
    socket: TcpListener,
}

/// After an accept that failed for want of something (file descriptors, memory): time for it to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Listener {
    /// Binds the socket, or takes the one that was handed over. Nothing is accepted before [`Listener::run`].
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(
        sites: Sites,
        handed_over: Option<std::net::TcpListener>,
        intake: Intake,
        connections: IntGauge,
    ) -> io::Result<Self> {
        let address = sites.now().config.listener.address;
        Ok(Self { door: Door::bind(address, handed_over).await?, sites, intake, connections })
    }

    /// The bound address, with the port that the system chose.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.door.socket.local_addr()
    }

    /// Accepts until `tasks` stop. Every connection is one of the tasks.
    pub async fn run(self, tasks: Tasks) {
        let Self { door, sites, intake, connections } = self;
        let stop = tasks.stopping();
        let refuse = intake.clone();
        let serve = |stream: TcpStream, peer: SocketAddr, slot: Slot| {
            let (site, intake, stop, open) = (sites.now(), intake.clone(), stop.clone(), Open::new(&connections));
            tasks.spawn("connection", async move {
                let _open = (slot, open);
                let (service, fault) =
                    (|watch| intake.connection(watch, peer.ip()), |fault| intake.head_fault(fault, peer.ip()));
                let http = site.http.clone();
                drop(site); // an old configuration must not live as long as an idle connection
                http.serve(stream, stop, service, fault).await;
            });
        };
        let max_connections = || sites.now().config.listener.max_connections;
        door.accept(pin!(stop.cancelled()), max_connections, serve, |peer| refuse.too_many_connections(peer.ip()))
            .await;
    }
}

impl Door {
    /// Binds a socket, unless one was handed over that listens already.
    pub(crate) async fn bind(address: SocketAddr, handed_over: Option<std::net::TcpListener>) -> io::Result<Self> {
        let socket = match handed_over {
            Some(socket) => {
                socket.set_nonblocking(true)?;
                TcpListener::from_std(socket)?
            }
            None => TcpListener::bind(address).await?,
        };
        Ok(Self { socket })
    }
    /// The bound address.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Hands every connection to `serve` with its place, until `stop`. Those above `max_connections` get `refusal` and
    /// are closed at once.
    pub(crate) async fn accept(
        self,
        mut stop: impl Future<Output = ()> + Unpin,
        max_connections: impl Fn() -> usize,
        serve: impl Fn(TcpStream, SocketAddr, Slot),
        refusal: impl Fn(SocketAddr) -> Bytes,
    ) {
        let open = Arc::new(AtomicUsize::new(0));
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Answers are one small write each: nothing to gather. A socket that cannot is as good.
                    let _ = stream.set_nodelay(true);
                    match Slot::take(&open, max_connections()) {
                        Some(slot) => serve(stream, peer, slot),
                        // One try: who is too many is not waited for.
                        None => drop(stream.try_write(&refusal(peer))),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Counts as an open connection for as long as it lives.
struct Open(IntGauge);

impl Open {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
