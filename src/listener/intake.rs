//! What happens to one request between its head and its answer.
//!
//! The shell around the pure providers: takes the body in, has it verified, has it kept, counts and logs. A refusal's
//! reason ends here; only [`super::respond`] decides what is said to the sender.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::Poll;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use jiff::Timestamp;

use super::body;
use super::budget::LogBudget;
use super::commit::{Commit, Note, Slot};
use super::connection::{HeadFault, Tracked};
use super::respond::{self, Rejection};
use super::routes::Endpoint;
use super::site::{Site, Sites};
use super::watch::{Arrival, Watch};
use crate::clock::Clock;
use crate::drain::Tasks;
use crate::failpoint;
use crate::metrics::SourceMetrics;
use crate::provider::{Received, RefusalStyle};
use crate::quarantine::Quarantine;
use crate::store::{Store, Unavailable};
use crate::traces::{Receiving, Traces};

/// What every connection shares. A cheap clone.
#[derive(Clone)]
pub struct Intake(Arc<Inner>);

struct Inner {
    sites: Sites,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    nowhere: SourceMetrics,
    quarantine: Option<Quarantine>,
    traces: Traces,
    in_flight: Arc<AtomicUsize>,
    budget: LogBudget,
}

/// Lines about refusals a second: an outsider decides how many there could be.
const REFUSALS_LOGGED_PER_SECOND: u32 = 20;

/// The service of one connection.
pub struct OneConnection {
    intake: Intake,
    watch: Watch,
    remote: IpAddr,
}

impl Intake {
    /// With everything that requests touch; `nowhere` counts what is at no source's path. `quarantine` is `None` where
    /// it could not be opened: receiving does not depend on it.
    pub fn new(
        sites: Sites,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
        nowhere: SourceMetrics,
        quarantine: Option<Quarantine>,
        traces: Traces,
    ) -> Self {
        let (in_flight, budget) = (Arc::default(), LogBudget::new(REFUSALS_LOGGED_PER_SECOND));
        Self(Arc::new(Inner { sites, store, clock, tasks, nowhere, quarantine, traces, in_flight, budget }))
    }

    /// The service for one connection.
    pub fn connection(&self, watch: Watch, remote: IpAddr) -> OneConnection {
        OneConnection { intake: self.clone(), watch, remote }
    }

    /// The answer to a head that never became a request.
    pub fn head_fault(&self, fault: HeadFault, remote: IpAddr) -> Bytes {
        let rejection = match fault {
            HeadFault::Malformed => Rejection::Malformed("not HTTP/1.1"),
            HeadFault::TooLarge => Rejection::HeadTooLarge,
            HeadFault::TooSlow => Rejection::TooSlow,
        };
        self.note_refusal(rejection, None, remote);
        respond::refused_raw(rejection)
    }

    /// The answer to a connection above the limit.
    pub fn too_many_connections(&self, remote: IpAddr) -> Bytes {
        self.note_refusal(Rejection::Connections, None, remote);
        respond::refused_raw(Rejection::Connections)
    }

    async fn handle(self, request: Request<Incoming>, watch: Watch, remote: IpAddr) -> (Response<Bytes>, Receiving) {
        let arrival = watch.begin();
        let mut receiving = self.0.traces.receiving(arrival.first_byte);
        let site = self.0.sites.now();
        let (parts, body) = request.into_parts();
        let bodiless = body.is_end_stream();
        let chunked = parts.headers.contains_key(header::TRANSFER_ENCODING);
        let path = parts.uri.path().to_owned();
        let found = site.routes.find(&path).map(|(endpoint, rest)| (Arc::clone(endpoint), rest));
        let endpoint = found.as_ref().map(|(endpoint, _)| Arc::clone(endpoint));

        if let Some(endpoint) = &endpoint {
            receiving.at(&endpoint.source, endpoint.provider.word());
        }

        let mut body_read = bodiless;
        let result = async {
            admit(&parts, arrival, endpoint.as_deref())?;
            let (endpoint, rest) = found.ok_or(Rejection::NoSuchPath)?;
            let body = body::collect(body, site.config.listener.max_body_bytes, &watch).await?;
            body_read = true;
            watch.body_read();
            receiving.did("read");
            failpoint::reach("after-read");
            let at = self.arrived(arrival);
            let Parts { method, uri, headers, .. } = parts;
            let query = uri.query().map(str::to_owned);
            let (path, rest) = (uri.path().to_owned(), rest.to_owned());
            let received = Received { method, path, rest, query, headers, body, remote, at };
            self.keep(&site, endpoint, received, arrival, &watch, &mut receiving).await
        }
        .await;

        let doubtful = matches!(result, Err(Rejection::Malformed(_)));
        let mut response = result.unwrap_or_else(|rejection| {
            self.note_refusal(rejection, endpoint.as_deref(), remote);
            receiving.refused(rejection.reason().map_or("path", |reason| reason.as_str()));
            respond::refused(rejection, endpoint.as_deref().map(|endpoint| &endpoint.style))
        });
        if !body_read || chunked || doubtful {
            // What follows on this connection cannot be told from this request's body with certainty.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            watch.linger();
        }
        receiving.answered(response.status().as_u16());
        (response, receiving)
    }

    /// Verified, committed and answered, or why not.
    async fn keep(
        &self,
        site: &Site,
        endpoint: Arc<Endpoint>,
        received: Received,
        arrival: Arrival,
        watch: &Watch,
        receiving: &mut Receiving,
    ) -> Result<Response<Bytes>, Rejection> {
        let at = received.at;
        let slot = Slot::take(&self.0.in_flight, site.config.listener.max_in_flight)
            .ok_or(Rejection::Unavailable(Unavailable::Overloaded))?;
        // A few dozen microseconds at most: handing it to another thread would cost more.
        let verified = endpoint.provider.verify(received);
        receiving.did("verify");
        let verified = match verified {
            Ok(verified) => verified,
            Err(refused) => {
                if let Some(quarantine) = self.0.quarantine.as_ref().filter(|_| refused.may_be_genuine) {
                    let reason = refused.refusal.label();
                    quarantine.offer(&endpoint.source, reason, &refused.received, &refused.cuts);
                }
                return Err(Rejection::Provider(refused.refusal));
            }
        };
        failpoint::reach("after-verify");
        let note = Note::new(Arc::clone(&endpoint), at, verified.key, slot);
        let mut commit = Commit::new(self.0.store.commit(verified), note, self.0.tasks.clone());
        let committed = poll_fn(|cx| match Pin::new(&mut commit).poll(cx) {
            Poll::Ready(result) => Poll::Ready(result.map_err(Rejection::Unavailable)),
            // The commit goes on, but this sender has waited long enough.
            Poll::Pending if watch.overdue() => Poll::Ready(Err(Rejection::Unavailable(Unavailable::Overloaded))),
            Poll::Pending => Poll::Pending,
        })
        .await;
        receiving.did("commit");
        let committed = committed?;
        receiving.committed(&committed);
        failpoint::reach("before-answer");
        endpoint.metrics.answered_after(arrival.first_byte.elapsed());
        Ok(respond::accepted(endpoint.provider.answer(&committed)))
    }

    /// The time of day at which the first byte came.
    fn arrived(&self, arrival: Arrival) -> Timestamp {
        let now = self.0.clock.now();
        let elapsed = i64::try_from(arrival.first_byte.elapsed().as_millis()).unwrap_or_default();
        Timestamp::from_millisecond(now.as_millisecond().saturating_sub(elapsed)).unwrap_or(now)
    }

    fn note_refusal(&self, rejection: Rejection, endpoint: Option<&Endpoint>, remote: IpAddr) {
        let metrics = endpoint.map_or(&self.0.nowhere, |endpoint| &endpoint.metrics);
        let reason = rejection.reason();
        metrics.refused(reason);
        let Some(left_out) = self.0.budget.take(self.0.clock.now()) else { return };
        let source = endpoint.map_or("none", |endpoint| endpoint.source.as_str());
        // A buyer's address is personal data; a provider's is what an operator needs to see.
        let buyer = endpoint.is_some_and(|endpoint| matches!(endpoint.style, RefusalStyle::Browser(_)));
        let remote = (!buyer).then(|| tracing::field::display(remote));
        let reason = reason.map_or("path", |reason| reason.as_str());
        match rejection {
            Rejection::Unavailable(_) | Rejection::Connections => {
                tracing::warn!(source, reason, why = %rejection, remote, left_out, "turned away for now");
            }
            _ => tracing::info!(source, reason, why = %rejection, remote, left_out, "refused"),
        }
    }
}

impl Service<Request<Incoming>> for OneConnection {
    type Response = Response<Tracked<Full<Bytes>>>;
    type Error = Infallible;
    /// Boxed, so that a connection between two requests does not hold the room that a request needs.
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (intake, watch, remote) = (self.intake.clone(), self.watch.clone(), self.remote);
        Box::pin(async move {
            let (response, receiving) = intake.handle(request, watch.clone(), remote).await;
            Ok(response.map(|body| Tracked::traced(Full::new(body), watch, receiving)))
        })
    }
}

/// Everything that is checked before the body is read.
fn admit(parts: &Parts, arrival: Arrival, endpoint: Option<&Endpoint>) -> Result<(), Rejection> {
    if let Some(why) = arrival.flaw {
        return Err(Rejection::Malformed(why));
    }
    let headers = &parts.headers;
    let hosts = headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && parts.version >= Version::HTTP_11) {
        return Err(Rejection::Malformed("not exactly one host"));
    }
    if parts.uri.path().is_empty() {
        return Err(Rejection::Malformed("a target without a path"));
    }
    let endpoint = endpoint.ok_or(Rejection::NoSuchPath)?;
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::TRANSFER_ENCODING] {
        if headers.get_all(name).iter().count() > 1 {
            return Err(Rejection::Malformed("a header that may stand once is repeated"));
        }
    }
    if single(headers, header::TRANSFER_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
        return Err(Rejection::Malformed("a transfer-encoding other than chunked"));
    }
    let methods = endpoint.provider.methods();
    if !methods.contains(&parts.method) {
        return Err(Rejection::Method(methods));
    }
    if single(headers, header::CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(Rejection::Encoding);
    }
    Ok(())
}

fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&[u8]> {
    headers.get(name).map(|value| value.as_bytes().trim_ascii())
}
