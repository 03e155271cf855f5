//! How a store of the model is made, and what is kept in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use quittance::clock::Manual;
use quittance::config::{OrderIdFrom, Paygol, ProviderSettings, Retention, Secret, Source};
use quittance::event::{AccountName, SourceName};
use quittance::provider::{Received, Verified, build_all};
use quittance::store::embedded::{AMQP, Embedded, Options, RelaySink};
use quittance::store::{Readiness, Store, Terms};
use sha2::Sha256;

use crate::mount::Mounted;

const SECRET: &str = "0123456789abcdef-of-the-model";
/// Bodies may go after this; ten days pass at once.
pub const BODIES: Duration = Duration::from_secs(5 * 86_400);
/// How long retention, or a start, may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Proven by its provider, as nothing else can be.
pub fn verified(body: String, at: Timestamp) -> Verified {
    let settings = Paygol {
        service_id: "123".into(),
        order_id_from: OrderIdFrom::Custom,
        secrets: vec![Secret::new(SECRET.into())],
        bearer: false,
    };
    let source = Source {
        name: source(),
        account: AccountName::new("paygol").expect("a name"),
        path: "/paygol".into(),
        provider: ProviderSettings::Paygol(settings),
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(body.as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-pg-sig", HeaderValue::from_str(&signature).expect("hex"));
    let received = Received {
        method: Method::POST,
        path: "/paygol".into(),
        rest: String::new(),
        query: None,
        headers,
        body: Bytes::from(body),
        remote: [127, 0, 0, 1].into(),
        at,
    };
    let provider = build_all(&[source]).remove(0);
    provider.verify(received).map_err(|refused| refused.refusal).expect("genuine")
}

pub fn source() -> SourceName {
    SourceName::new("paygol").expect("a name")
}

pub fn options(mounted: &Mounted, clock: &Manual, boots: u64) -> Options {
    let day = Duration::from_secs(86_400);
    Options {
        path: mounted.path().join("store"),
        segment_bytes: 8 << 10,
        terms: Terms {
            accounts: BTreeMap::from([(source(), AccountName::new("paygol").expect("a name"))]),
            max_in_flight: 1024,
            index_lag: 65_536,
            retention: Retention { bodies: BODIES, keys: 4_000 * day },
            fulfil_never: false,
        },
        retention_tick: Duration::from_millis(20),
        restored: false,
        restored_ended: false,
        confirm_clock: false,
        boot: format!("boot {boots}"),
        clock: Arc::new(clock.clone()),
        metrics: None,
        progress_bar: false,
        sink: Some(RelaySink { name: AMQP.to_owned(), start: None }),
    }
}

pub fn opened(mounted: &Mounted, clock: &Manual, boots: u64) -> Embedded {
    let store = Embedded::open(options(mounted, clock, boots)).expect("not in use");
    let until = Instant::now() + PATIENCE;
    while store.readiness() != Readiness::Ready {
        assert!(Instant::now() < until, "not ready: {:?}", store.readiness());
        std::thread::sleep(Duration::from_millis(3));
    }
    store
}
