//! The admin listener: what the order system and the operator ask. JSON in, JSON out, errors as problem documents.
//!
//! It has the same limits on connections and heads as the public one, by the same code. Each file below is one group
//! of questions; `auth` says who may ask, `problem` how an error is told.

mod api;
mod auth;
mod consumers;
mod dead_letters;
mod document;
mod expectations;
mod feed;
mod health;
mod inside;
mod openapi;
mod problem;
mod quarantine;
mod reloads;
mod reparse;
mod replays;
mod settle;
mod status;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::Request;
use http::request::Parts;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Secret;
use crate::drain::Tasks;
use crate::listener::commit::Slot;
use crate::listener::connection::{Http, Tracked};
use crate::listener::watch::{Pace, Watch};
use crate::listener::{Door, Site, Sites, body};
use crate::metrics::Metrics;
use crate::quarantine::Quarantine;
use crate::relay::health::Health;
use crate::replay::Replays;
use crate::sink::feed::Feed;
use crate::store::{NOT_OPEN, Store, StoreError, Unavailable};
pub use document::OPERATOR;
pub use inside::Inside;
use problem::Problem;
pub use reloads::Reloads;

/// A bound socket that accepts nothing yet.
pub struct Admin {
    door: Door,
    router: Router,
    sites: Sites,
}

/// What the answers are made from.
pub struct Desk {
    /// Notifications, orders, expectations.
    pub store: Arc<dyn Store>,
    /// Its cursors and waiting.
    pub feed: Feed,
    /// Every series.
    pub metrics: Metrics,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where blocking reads run.
    pub tasks: Tasks,
    /// The configuration in force, with its sources.
    pub sites: Sites,
    /// When it was loaded, and why another one was not.
    pub reloads: Reloads,
    /// Asked for its size; `None` where it could not be opened.
    pub quarantine: Option<Quarantine>,
    /// Ends when the public listener stops.
    pub draining: CancellationToken,
    /// What is sent again.
    pub replays: Replays,
    /// The relay's state; `None`: there is the feed alone.
    pub relay: Option<Health>,
    /// When the daemon started.
    pub started_at: Timestamp,
}

/// The desk as the handlers hold it.
type Shared = Arc<Desk>;

const MAX_CONNECTIONS: usize = 512;
const MAX_HEADER_BYTES: usize = 16 * 1024;
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Answers may stream for as long as their reader likes: only what is sent to us is timed.
const PACE: Pace = Pace {
    idle: Duration::from_secs(60),
    header: Duration::from_secs(5),
    body: Some(Duration::from_secs(10)),
    request: None,
};

impl Admin {
    /// Binds the socket, or takes the one that was handed over. Nothing is accepted before [`Admin::run`].
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(desk: Desk, handed_over: Option<std::net::TcpListener>) -> io::Result<Self> {
        let sites = desk.sites.clone();
        let door = Door::bind(sites.now().config.admin.address, handed_over).await?;
        Ok(Self { door, router: router(Arc::new(desk)), sites })
    }

    /// The bound address, with the port that the system chose.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.door.address()
    }

    /// Accepts until `tasks` stop. Every connection is one of the tasks.
    pub async fn run(self, tasks: Tasks) {
        let Self { door, router, sites } = self;
        let http = Http::new(PACE, MAX_HEADER_BYTES);
        let stop = tasks.stopping();
        let patience = Arc::new(auth::Patience::default());
        let serve = |stream: TcpStream, from: SocketAddr, slot: Slot| {
            let (http, router, sites, stop) = (http.clone(), router.clone(), sites.clone(), stop.clone());
            let guard = Guard { patience: Arc::clone(&patience), from: from.ip() };
            tasks.spawn("admin connection", async move {
                let _slot = slot;
                let service = |watch| OneConnection { router, sites, guard, watch };
                http.serve(stream, stop, service, problem::head_fault).await;
            });
        };
        door.accept(pin!(stop.cancelled()), || MAX_CONNECTIONS, serve, |_| problem::too_many_connections()).await;
    }
}

fn router(desk: Shared) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/api/v1/events", get(feed::events))
        .route("/api/v1/notifications", get(api::notifications))
        .route("/api/v1/notifications/{id}", get(api::notification))
        .route("/api/v1/events/{id}/settle", post(settle::settle))
        .route("/api/v1/replays", get(replays::list).post(replays::start))
        .route("/api/v1/replays/reparse", post(reparse::reparse))
        .route("/api/v1/replays/{id}", get(replays::show).delete(replays::cancel))
        .route("/api/v1/dead-letters", get(dead_letters::list))
        .route("/api/v1/dead-letters/{id}", get(dead_letters::show))
        .route("/api/v1/dead-letters/{id}/retry", post(dead_letters::retry))
        .route("/api/v1/quarantine", get(quarantine::list))
        .route("/api/v1/quarantine/reverify", post(quarantine::reverify))
        .route("/api/v1/quarantine/{id}", get(quarantine::show))
        .route("/api/v1/quarantine/{id}/release", post(quarantine::release))
        .route("/api/v1/consumers", get(consumers::list))
        .route("/api/v1/consumers/{name}", delete(consumers::forget))
        .route("/api/v1/orders/{source}/{order_id}", get(api::order))
        .route("/api/v1/expectations", post(expectations::register))
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/openapi.json", get(openapi::openapi))
        .fallback(async || Problem::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            Problem::new(http::StatusCode::METHOD_NOT_ALLOWED, "this path takes another method")
        })
        .with_state(desk)
}

impl Desk {
    /// Reads the store where waiting for a disk holds up nobody.
    async fn read<T, F>(&self, what: &'static str, read: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    {
        if self.store.id() == NOT_OPEN {
            return Err(Unavailable::NotReady.into());
        }
        let store = Arc::clone(&self.store);
        let read = self.tasks.spawn_blocking(what, move || read(&*store));
        Ok(read.await.map_err(|_| Problem::internal())??)
    }
}

/// Who asks, and how long he waits after a wrong token.
#[derive(Clone)]
struct Guard {
    patience: Arc<auth::Patience>,
    from: IpAddr,
}

impl Guard {
    /// Lets a request pass, or says why not; a wrong token hears it later.
    async fn check(&self, parts: &Parts, token: Option<&Secret>) -> Result<(), Problem> {
        let Err(problem) = auth::check(parts, token) else { return Ok(()) };
        if !(problem.is_unauthorized() && auth::guesses(parts)) {
            return Err(problem);
        }
        let Some(wait) = self.patience.wrong(self.from, Instant::now()) else {
            return Err(Problem::new(http::StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens"));
        };
        tokio::time::sleep(wait).await;
        Err(problem)
    }
}

/// The service of one connection.
struct OneConnection {
    router: Router,
    sites: Sites,
    guard: Guard,
    watch: Watch,
}

impl Service<Request<Incoming>> for OneConnection {
    type Response = Response<Tracked<Body>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (router, site, watch) = (self.router.clone(), self.sites.now(), self.watch.clone());
        let guard = self.guard.clone();
        Box::pin(async move {
            let response = answer(router, &site, &guard, request, &watch).await.unwrap_or_else(|(problem, whole)| {
                let mut response = problem.into_response();
                if !whole {
                    let close = http::HeaderValue::from_static("close");
                    response.headers_mut().insert(http::header::CONNECTION, close);
                    watch.linger();
                }
                response
            });
            Ok(response.map(|body| Tracked::new(body, watch)))
        })
    }
}

/// The router's answer, or a problem and whether the request's body was read whole before it.
async fn answer(
    router: Router,
    site: &Site,
    guard: &Guard,
    request: Request<Incoming>,
    watch: &Watch,
) -> Result<Response, (Problem, bool)> {
    let arrival = watch.begin();
    let (parts, body) = request.into_parts();
    if let Some(why) = arrival.flaw {
        return Err((Problem::bad_request(why), false));
    }
    let checked = guard.check(&parts, site.config.admin.token.as_ref()).await;
    checked.map_err(|problem| (problem, hyper::body::Body::is_end_stream(&body)))?;
    let body = body::collect(body, MAX_BODY_BYTES, watch).await.map_err(|rejection| (rejection.into(), false))?;
    watch.body_read();
    let request = Request::from_parts(parts, Full::new(body));
    match TowerToHyperService::new(router).call(request).await {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}
