//! A TCP proxy between daemon and broker that understands enough AMQP to fail in a chosen moment.
//!
//! Threads and blocking sockets: four for each connection. The broker's address can be given anew, so that a proxy
//! also stands for a broker that was absent or moved.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::frames::{self, Frame, Method, Splitter, What};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing: all passes.
    None,
    /// A connection is ended as soon as it is accepted.
    Refuse,
    /// Nothing passes in either direction and nobody hears of it. What was sent arrives when it is over.
    BlackHole,
    /// What goes that way is gone; the other way is open. Such a connection ends with the fault.
    HalfOpen(Towards),
    /// Ended when this method comes, which does not pass.
    CutAt(Method),
    /// Ended in the middle of the n-th published message from then on, counted from 1.
    CutInPublish(u64),
    /// Ended when a confirm comes for what was published since, n messages at least: the broker has them.
    CutBeforeConfirm(u64),
    /// Everything takes so long in each direction.
    Slow(Duration),
    /// Confirms that came together are passed as one that settles them all, as a broker may at any time. Only for
    /// messages that are confirmed in their order.
    OneConfirmForAll,
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    Broker,
    Daemon,
}

/// The proxy; ends its connections when it goes.
pub struct Proxy {
    address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    connections: AtomicU64,
    hits: AtomicU64,
    published: AtomicU64,
    channel_errors: AtomicU64,
    closed: AtomicBool,
}

struct State {
    broker: SocketAddr,
    /// What passes is not AMQP in the clear: it is not looked into.
    opaque: bool,
    fault: Fault,
    /// How often it still strikes before it is over; faults that do not end a connection last until they are changed.
    left: u64,
    /// Messages published since the fault was set.
    published: u64,
    links: Vec<Arc<Link>>,
}

/// A connection on both sides.
struct Link {
    client: TcpStream,
    broker: TcpStream,
    /// Bytes are missing in it: nothing that comes later would make sense.
    tainted: AtomicBool,
}

/// What to do with a frame.
enum Judgement {
    Pass,
    Swallow,
    Cut,
    /// Half of it passes, and that is all.
    CutInHalf,
}

impl Proxy {
    /// Before the broker at that address, everything passes.
    pub fn before(broker: SocketAddr) -> Self {
        Self::new(broker, false)
    }

    /// The same for what is encrypted: only faults that need no look into it strike.
    pub fn opaque(broker: SocketAddr) -> Self {
        Self::new(broker, true)
    }

    fn new(broker: SocketAddr, opaque: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of its own");
        let address = listener.local_addr().expect("bound");
        let state = State { broker, opaque, fault: Fault::None, left: 0, published: 0, links: Vec::new() };
        let inner = Arc::new(Inner {
            state: Mutex::new(state),
            changed: Condvar::new(),
            connections: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            published: AtomicU64::new(0),
            channel_errors: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        let accepting = inner.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.closed.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(client) = client {
                    let inner = accepting.clone();
                    thread::spawn(move || inner.serve(client));
                }
            }
        });
        Self { address, inner }
    }

    /// Where the daemon connects to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this goes wrong, until it is changed.
    pub fn set(&self, fault: Fault) {
        self.set_times(fault, u64::MAX);
    }

    /// From now on this goes wrong, so often; then everything passes.
    pub fn set_times(&self, fault: Fault, times: u64) {
        let mut state = self.inner.lock();
        (state.fault, state.left, state.published) = (fault, times, 0);
        state.links.retain(|link| {
            let tainted = link.tainted.load(Ordering::SeqCst);
            if tainted {
                link.end();
            }
            !tainted
        });
        self.inner.changed.notify_all();
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.set(Fault::None);
    }

    /// Ends every connection there is.
    pub fn cut(&self) {
        self.inner.lock().links.drain(..).for_each(|link| link.end());
    }

    /// New connections go to another broker.
    pub fn redirect(&self, broker: SocketAddr) {
        self.inner.lock().broker = broker;
    }

    /// Connections that were accepted so far.
    pub fn connections(&self) -> u64 {
        self.inner.connections.load(Ordering::SeqCst)
    }

    /// Messages that the daemon published so far.
    pub fn published(&self) -> u64 {
        self.inner.published.load(Ordering::SeqCst)
    }

    /// Channels that the broker closed so far.
    pub fn channel_errors(&self) -> u64 {
        self.inner.channel_errors.load(Ordering::SeqCst)
    }

    /// How often a fault struck so far.
    pub fn hits(&self) -> u64 {
        self.inner.hits.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.inner.closed.store(true, Ordering::SeqCst);
        self.heal();
        self.cut();
        let _ = TcpStream::connect(self.address); // wakes the accepting thread up
    }
}

impl Link {
    fn end(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.broker.shutdown(Shutdown::Both);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(self: Arc<Self>, client: TcpStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        self.wait_out_black_hole();
        let broker = {
            let mut state = self.lock();
            if state.fault == Fault::Refuse {
                self.strike(&mut state);
                return;
            }
            state.broker
        };
        let Ok(broker) = TcpStream::connect_timeout(&broker, Duration::from_secs(5)) else { return };
        let _ = (client.set_nodelay(true), broker.set_nodelay(true));
        let link = Arc::new(Link { client, broker, tainted: AtomicBool::new(false) });
        self.lock().links.push(link.clone());
        let other = (self.clone(), link.clone());
        let back = thread::spawn(move || other.0.pump(&other.1, Towards::Daemon));
        self.pump(&link, Towards::Broker);
        let _ = back.join();
        self.lock().links.retain(|other| !Arc::ptr_eq(other, &link));
    }

    /// Carries one direction until one side ends it, then ends both.
    fn pump(&self, link: &Arc<Link>, towards: Towards) {
        let mut from = match towards {
            Towards::Broker => &link.client,
            Towards::Daemon => &link.broker,
        };
        let (late, due) = sync_channel(1024);
        let writer = {
            let link = link.clone();
            thread::spawn(move || write_when_due(&due, &link, towards))
        };
        let mut splitter = Splitter::default();
        // Bytes of the body that each channel has announced and not sent yet.
        let mut bodies = HashMap::new();
        let mut buffer = vec![0; 64 * 1024];
        let mut whole = true;
        let opaque = self.lock().opaque;
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            self.wait_out_black_hole();
            let mut out = Vec::with_capacity(len);
            if opaque {
                out.extend_from_slice(&buffer[..len]);
            }
            let mut frames = splitter.push(if opaque { &[] } else { &buffer[..len] });
            if towards == Towards::Daemon && self.lock().fault == Fault::OneConfirmForAll {
                let merged = merge_confirms(&mut frames);
                self.hits.fetch_add(merged, Ordering::SeqCst);
            }
            for frame in frames {
                match self.judge(towards, &frame, &mut bodies) {
                    Judgement::Pass => out.extend_from_slice(&frame.bytes),
                    Judgement::Swallow => link.tainted.store(true, Ordering::SeqCst),
                    Judgement::Cut => whole = false,
                    Judgement::CutInHalf => {
                        out.extend_from_slice(half(&frame));
                        whole = false;
                    }
                }
                if !whole {
                    break;
                }
            }
            let delay = match self.lock().fault {
                Fault::Slow(delay) => {
                    self.hits.fetch_add(1, Ordering::SeqCst);
                    delay
                }
                _ => Duration::ZERO,
            };
            if late.send((Instant::now() + delay, out)).is_err() || !whole {
                break;
            }
        }
        drop(late);
        let _ = writer.join();
        link.end();
    }

    fn judge(&self, towards: Towards, frame: &Frame, bodies: &mut HashMap<u16, u64>) -> Judgement {
        let what = frame.what;
        let mut state = self.lock();
        let to_broker = towards == Towards::Broker;
        // A message is published when its body is whole; one without a body when its properties are.
        let mut whole = false;
        match what {
            What::Header(len) if to_broker => {
                bodies.insert(frame.channel, len);
                whole = len == 0;
            }
            What::Body(len) if to_broker => {
                let left = bodies.entry(frame.channel).or_default();
                *left = left.saturating_sub(len);
                whole = *left == 0;
            }
            _ => {}
        }
        if whole {
            state.published += 1;
            self.published.fetch_add(1, Ordering::SeqCst);
        }
        if what == What::Method(frames::CHANNEL_CLOSE) && !to_broker {
            self.channel_errors.fetch_add(1, Ordering::SeqCst);
        }
        let confirm = matches!(what, What::Method(frames::BASIC_ACK)) && !to_broker;
        match state.fault {
            Fault::CutAt(method) if what == What::Method(method) => {
                self.strike(&mut state);
                Judgement::Cut
            }
            Fault::CutInPublish(n) if whole && state.published >= n => {
                self.strike(&mut state);
                Judgement::CutInHalf
            }
            Fault::CutBeforeConfirm(n) if confirm && state.published >= n => {
                self.strike(&mut state);
                Judgement::Cut
            }
            Fault::HalfOpen(gone) if gone == towards => {
                self.hits.fetch_add(1, Ordering::SeqCst);
                Judgement::Swallow
            }
            Fault::None
            | Fault::Refuse
            | Fault::BlackHole
            | Fault::HalfOpen(_)
            | Fault::CutAt(_)
            | Fault::CutInPublish(_)
            | Fault::CutBeforeConfirm(_)
            | Fault::OneConfirmForAll
            | Fault::Slow(_) => Judgement::Pass,
        }
    }

    fn strike(&self, state: &mut State) {
        self.hits.fetch_add(1, Ordering::SeqCst);
        state.left = state.left.saturating_sub(1);
        state.published = 0;
        if state.left == 0 {
            state.fault = Fault::None;
        }
    }

    fn wait_out_black_hole(&self) {
        let mut state = self.lock();
        if state.fault == Fault::BlackHole {
            self.hits.fetch_add(1, Ordering::SeqCst);
        }
        while state.fault == Fault::BlackHole {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Of the confirms of a channel only the last is left, and settles all before it; how many went. A `basic.ack` is a
/// tag of 8 bytes and a byte whose lowest bit says `multiple`.
fn merge_confirms(frames: &mut Vec<Frame>) -> u64 {
    let is_confirm = |frame: &Frame| frame.what == What::Method(frames::BASIC_ACK);
    let last: HashMap<u16, usize> = frames
        .iter()
        .enumerate()
        .filter(|(_, frame)| is_confirm(frame))
        .map(|(at, frame)| (frame.channel, at))
        .collect();
    let (before, mut at) = (frames.len(), 0);
    frames.retain_mut(|frame| {
        let is_last = last.get(&frame.channel) == Some(&at);
        at += 1;
        if is_confirm(frame) && is_last {
            frame.bytes[7 + 4 + 8] |= 1;
        }
        is_last || !is_confirm(frame)
    });
    (before - frames.len()) as u64
}

/// Writes each piece at its time; ends with the connection or when no more will come.
fn write_when_due(due: &Receiver<(Instant, Vec<u8>)>, link: &Link, towards: Towards) {
    let mut to = match towards {
        Towards::Broker => &link.broker,
        Towards::Daemon => &link.client,
    };
    for (at, bytes) in due {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            link.end();
            return;
        }
    }
}

fn half(frame: &Frame) -> &[u8] {
    &frame.bytes[..frame.bytes.len() / 2]
}

/// What a client of another make sees through the proxy: how many confirms, and how many messages the broker has.
#[test]
fn each_fault_strikes_where_it_says() {
    let node = crate::node::shared();
    let vhost = node.new_vhost();
    let script = "import pika, sys\n\
        confirmed = 0\n\
        try:\n\
        \x20   c = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', int(sys.argv[1]), sys.argv[2]))\n\
        \x20   ch = c.channel()\n\
        \x20   ch.confirm_delivery()\n\
        \x20   ch.queue_declare(sys.argv[3], durable=True)\n\
        \x20   for n in range(5):\n\
        \x20       ch.basic_publish('', sys.argv[3], b'x' * 500)\n\
        \x20       confirmed += 1\n\
        except pika.exceptions.AMQPError:\n\
        \x20   pass\n\
        print(confirmed)\n";
    for (at, (fault, confirmed, kept)) in [
        (Fault::None, 5, Some(5)),
        (Fault::Refuse, 0, None),
        (Fault::CutAt(frames::CONNECTION_OPEN), 0, None),
        (Fault::CutAt(frames::CONFIRM_SELECT), 0, None),
        (Fault::CutAt(frames::QUEUE_DECLARE), 0, None),
        (Fault::CutInPublish(3), 2, Some(2)),
        (Fault::CutBeforeConfirm(3), 2, Some(3)),
        (Fault::Slow(Duration::from_millis(30)), 5, Some(5)),
    ]
    .into_iter()
    .enumerate()
    {
        let proxy = Proxy::before(node.address());
        proxy.set_times(fault, u64::MAX);
        let queue = format!("q{at}");
        let arguments = ["-c", script, &proxy.address().port().to_string(), &vhost, &queue];
        let output = std::process::Command::new("/usr/bin/python3").args(arguments).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert_eq!(said, confirmed.to_string(), "{fault:?}: {}", String::from_utf8_lossy(&output.stderr));
        crate::harness::eventually("the broker has what it has", || {
            let rows = node.queues(&vhost, &["name", "messages"]);
            let row = rows.into_iter().find(|row| row[0] == queue);
            let now = row.map(|row| row[1].parse::<u64>().expect("a number"));
            if now == kept { Ok(()) } else { Err((fault, now)) }
        });
        assert_eq!(proxy.hits() == 0, fault == Fault::None, "{fault:?} struck {} times", proxy.hits());
    }
}
