//! A whole daemon on loopback over a store in memory, for the tests of `listener` and `admin`. The store here is no
//! model of the real one: it keeps, tells duplicates, and can be made to wait or to refuse.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::App;
use crate::clock;
use crate::config::Config;
use crate::drain::Tasks;
use crate::event::{Digest, EventId, NotificationId, OrderId, Position, SourceName, Status, Verdict};
use crate::provider::{Received, Reverified, Verified};
use crate::seal::Scar;
use crate::store::operate::{ByHand, Operate, Released, Ruling, SettleError, Settlement};
use crate::store::replaying::{Consumer, DeadLetter, Found, KeptWhole, Preview, Replay, Selection};
use crate::store::{
    Committed, Due, ExpectError, FeedEntry, Figures, Filter, Kept, NOT_OPEN, Outcome, Page, Pending, Readiness,
    Registered, Registration, Settled, Store, StoreError, Terms, Timeline, TimelineEntry, Unavailable,
};

/// The secret of the legacy source.
pub const KEY: &str = "7c1a6a24-7943-102d-92f8-29573711ad31";

/// A running daemon.
pub struct Stage {
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub store: Arc<Memory>,
    shutdown: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<Result<(), super::AppError>>>,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// With lines for `[listener]` and `[admin]`.
    pub async fn start(listener: &str, admin: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!(
            r#"
[listener]
address = "127.0.0.1:0"
public_url = "https://pay.example.com"
{listener}
[admin]
address = "127.0.0.1:0"
{admin}
[store]
path = "{path}"
[[source]]
name = "ipn"
provider = "paygol-legacy"
path = "/ipn"
service_id = "124"
secrets = ["{KEY}"]
[[source]]
name = "kw"
provider = "clickkw"
path = "/kw"
currency = "KWD"
return_secret = "9d2c31cf5a8e47b0a1f6"
success_url = "https://shop.example.com/thanks?order={{order_id}}"
failure_url = "https://shop.example.com/sorry?order={{order_id}}"
"#,
            path = folder.path().display()
        );
        let config = Config::parse(&text, Path::new(""), &|_| None).expect("the stage's config");
        let store = Arc::new(Memory::default());
        let app = App::with_store(config, store.clone(), Arc::new(clock::System)).await.expect("it binds");
        let (public, admin) = (app.public_addr(), app.admin_addr());
        let (shutdown, asked) = oneshot::channel();
        let shutdown_asked = async {
            let _ = asked.await;
        };
        let running = Tasks::new(Handle::current()).spawn("the stage", app.run(shutdown_asked));
        Self { public, admin, store, shutdown: Some(shutdown), running: Some(running), _folder: folder }
    }

    /// Asks it to stop, without waiting.
    pub fn stop(&mut self) {
        let _ = self.shutdown.take().map(|shutdown| shutdown.send(()));
    }
    /// Waits for its end.
    pub async fn end(&mut self) {
        self.running.take().expect("once").await.expect("it ends without a panic").expect("it ends well");
    }

    /// A value from the metrics page.
    pub async fn metric(&self, series: &str) -> f64 {
        let page = exchange(self.admin, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("quittance_{series} ")));
        line.unwrap_or_else(|| panic!("no {series} in {page}")).parse().expect("a number")
    }
    /// Waits until a value is reached.
    pub async fn metric_becomes(&self, series: &str, value: f64) {
        for _ in 0..200 {
            if self.metric(series).await == value {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{series} never became {value}");
    }
}

/// A genuine legacy notification's request target.
pub fn genuine(transaction: &str) -> String {
    format!(
        "/ipn?transaction_id={transaction}&service_id=124&country=ES&custom=100042&price=6800.00&currency=CLP&key={KEY}"
    )
}
/// A GET as HTTP.
pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Sends bytes and reads until the peer closes.
pub async fn exchange(to: SocketAddr, bytes: &[u8]) -> String {
    let mut client = Client::connect(to).await;
    client.send(bytes).await;
    client.rest().await
}

/// One connection.
pub struct Client(pub TcpStream);

impl Client {
    pub async fn connect(to: SocketAddr) -> Self {
        Self(TcpStream::connect(to).await.expect("it listens"))
    }
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await; // the peer may have closed: what it said is looked at
    }
    /// Everything until the peer closes.
    pub async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), self.0.read_to_end(&mut all)).await;
        read.expect("it closes").expect("it closes without a reset");
        String::from_utf8(all).expect("text")
    }
    /// One answer with its body, by its content-length.
    pub async fn answer(&mut self) -> String {
        let mut all = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&all).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.map_or(0, |length| length.parse().expect("a length")) {
                    return text;
                }
            }
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_secs(20), self.0.read(&mut byte)).await;
            assert_eq!(read.expect("it answers").expect("no reset"), 1, "closed after {text:?}");
            all.push(byte[0]);
        }
    }
}

/// Keeps in memory.
pub struct Memory {
    kept: Mutex<Vec<Held>>,
    head: watch::Sender<Position>,
    /// What every commit waits for: `true` lets it pass.
    pub open: watch::Sender<bool>,
    /// What every commit answers instead.
    pub refuse: Mutex<Option<Unavailable>>,
    pub readiness: Mutex<Readiness>,
    pub horizon: Mutex<Position>,
    pub acknowledged: Mutex<Vec<(String, Position)>>,
    pub closed: AtomicUsize,
    pub expected: Mutex<Vec<(OrderId, String)>>,
    pub id: Mutex<[u8; 16]>,
}

struct Held {
    idempotency: Digest,
    notification: NotificationId,
    event: EventId,
    body: Bytes,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            head: watch::Sender::new(Position(0)),
            open: watch::Sender::new(true),
            refuse: Mutex::default(),
            readiness: Mutex::new(Readiness::Ready),
            horizon: Mutex::default(),
            acknowledged: Mutex::default(),
            closed: AtomicUsize::new(0),
            expected: Mutex::default(),
            id: Mutex::new([9; 16]),
        }
    }
}

impl Memory {
    pub fn count(&self) -> usize {
        self.kept.lock().expect("no panic").len()
    }

    /// Keeps it, as everybody can see at once.
    fn keep(kept: &Mutex<Vec<Held>>, head: &watch::Sender<Position>, verified: &Verified) -> Committed {
        let mut kept = kept.lock().expect("no panic");
        let known = kept.iter().find(|held| held.idempotency == verified.idempotency);
        let (outcome, notification, event) = match known {
            Some(held) => (Outcome::Duplicate, held.notification, held.event),
            None => {
                let (at, position) = (verified.received.at, Position(kept.len() as u64 + 1));
                let (notification, event) = (NotificationId::new(at, position), EventId::new(at, position));
                let order = verified.details.order_id.as_ref().map_or("", |order| order.as_str());
                let body = Bytes::from(format!(r#"{{"id":"{event}","subject":"{order}"}}"#));
                kept.push(Held { idempotency: verified.idempotency, notification, event, body });
                head.send_replace(Position(kept.len() as u64));
                (Outcome::New, notification, event)
            }
        };
        Committed {
            outcome,
            notification,
            event: Some(event),
            order: verified.details.order_id.clone(),
            kind: verified.kind,
            status: Status::Paid,
            verdict: Verdict::Hold,
            indicator_right: false,
            order_paid: false,
            alarms: Vec::new(),
        }
    }
}

impl Operate for Memory {
    fn settle_by_hand(
        &self,
        event: EventId,
        _: Ruling,
        _: ByHand,
    ) -> Pending<'static, Result<Settlement, SettleError>> {
        let kept = self.kept.lock().expect("no panic");
        let known = kept.iter().any(|held| held.event == event);
        let refusal = if known { SettleError::NotHeld(Verdict::Compare) } else { SettleError::NoSuchEvent };
        Box::pin(std::future::ready(Err(refusal)))
    }
    fn readmit(&self, reverified: Reverified, _: ByHand) -> Pending<'static, Result<Committed, Unavailable>> {
        self.commit(reverified.into_verified())
    }
    fn release_by_hand(&self, _: Released, _: ByHand) -> Pending<'static, Result<Committed, Unavailable>> {
        Box::pin(std::future::ready(Err(Unavailable::Storage)))
    }
    fn dead_letters(&self, _: Position, _: usize) -> Result<Vec<DeadLetter>, StoreError> {
        Ok(Vec::new())
    }
    fn dead_letters_of(&self, _: EventId) -> Result<Vec<DeadLetter>, StoreError> {
        Ok(Vec::new())
    }
    fn find(&self, _: &Selection, _: Position, up_to: Position, _: usize) -> Result<Found, StoreError> {
        Ok(Found { looked_up_to: up_to, ..Found::default() })
    }
    fn preview(&self, _: &Selection, _: Position) -> Result<Preview, StoreError> {
        Ok(Preview::default())
    }
    fn handed(&self, _: &[Position], _: &Replay) -> Result<Vec<Due>, StoreError> {
        Ok(Vec::new())
    }
    fn kept_whole(&self, _: Position) -> Result<Option<KeptWhole>, StoreError> {
        Ok(None)
    }
    fn heal(&self, kept: &Received, _: &[Scar], _: &[Zeroizing<Vec<u8>>]) -> Option<Received> {
        Some(kept.clone())
    }
    fn note_replay(
        &self,
        _: Replay,
        _: &[Position],
        _: &str,
        _: Option<ByHand>,
    ) -> Pending<'static, Result<Vec<Position>, Unavailable>> {
        Box::pin(std::future::ready(Err(Unavailable::Storage)))
    }
    fn audit(&self, _: &str, _: ByHand) -> Pending<'static, Result<(), Unavailable>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn replays(&self) -> Vec<Replay> {
        Vec::new()
    }
    fn replay(&self, _: &str) -> Option<Replay> {
        None
    }
    fn unsettled(&self, _: &str, _: &[Position]) -> Vec<Position> {
        Vec::new()
    }
    fn outstanding(&self, _: &str, _: &str) -> Result<Vec<Position>, StoreError> {
        Ok(Vec::new())
    }
    fn consumers(&self) -> Vec<Consumer> {
        Vec::new()
    }
    fn forget_consumer(&self, _: &str, _: ByHand) -> Pending<'static, Result<bool, Unavailable>> {
        Box::pin(std::future::ready(Ok(false)))
    }
}

impl Store for Memory {
    fn commit(&self, verified: Verified) -> Pending<'static, Result<Committed, Unavailable>> {
        let refusal = *self.refuse.lock().expect("no panic");
        let committed = refusal.map_or_else(|| Ok(Self::keep(&self.kept, &self.head, &verified)), Err);
        let mut open = self.open.subscribe();
        Box::pin(async move {
            let _ = open.wait_for(|open| *open).await;
            committed
        })
    }
    fn expect(&self, registration: Registration) -> Pending<'static, Result<Registered, ExpectError>> {
        let mut expected = self.expected.lock().expect("no panic");
        let amount = registration.amount.to_string();
        let known = expected.iter().find(|(order, _)| *order == registration.order);
        let result = match known {
            Some((_, known)) if *known == amount => Ok(true),
            Some(_) => Err(ExpectError::Contradicts),
            None if registration.unfit.is_some() => Err(ExpectError::Unfit(registration.unfit.unwrap_or_default())),
            None => {
                expected.push((registration.order, amount));
                Ok(false)
            }
        };
        Box::pin(async move { result.map(|existed| Registered { existed, expires_at: registration.expires_at }) })
    }
    fn due(&self, _: &str, _: usize) -> Result<Vec<Due>, StoreError> {
        Ok(Vec::new())
    }
    fn settle(&self, _: &str, _: Position, _: Settled) {}
    fn release(&self, _: &str) {}
    fn events(&self, after: Position, limit: usize) -> Result<Vec<FeedEntry>, StoreError> {
        let kept = self.kept.lock().expect("no panic");
        let entries = kept.iter().enumerate().skip(after.0 as usize).take(limit);
        let entry = |(at, held): (usize, &Held)| FeedEntry {
            position: Position(at as u64 + 1),
            replay: None,
            event: held.body.clone(),
        };
        Ok(entries.map(entry).collect())
    }
    fn acknowledge(&self, consumer: &str, position: Position) {
        self.acknowledged.lock().expect("no panic").push((consumer.to_owned(), position));
    }
    fn head(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }
    fn horizon(&self) -> Position {
        *self.horizon.lock().expect("no panic")
    }
    fn id(&self) -> [u8; 16] {
        *self.id.lock().expect("no panic")
    }
    fn timelines(&self) -> Vec<Timeline> {
        let id = *self.id.lock().expect("no panic");
        if id == NOT_OPEN { Vec::new() } else { vec![Timeline { id, until: Position(u64::MAX) }] }
    }
    fn notifications(&self, _: &Filter, _: Option<Position>, _: usize) -> Result<Page, StoreError> {
        Ok(Page::default())
    }
    fn notification(&self, _: NotificationId) -> Result<Option<Kept>, StoreError> {
        Ok(None)
    }
    fn order(&self, _: &SourceName, _: &OrderId) -> Result<Vec<TimelineEntry>, StoreError> {
        Ok(Vec::new())
    }
    fn adopt(&self, _: Terms) {}
    fn readiness(&self) -> Readiness {
        self.readiness.lock().expect("no panic").clone()
    }
    fn figures(&self) -> Figures {
        Figures { head: self.count() as u64, ..Figures::default() }
    }
    fn close(&self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

/// A time to come.
pub fn tomorrow() -> Timestamp {
    use crate::clock::Clock as _;
    clock::System.now() + Duration::from_secs(86_400)
}
