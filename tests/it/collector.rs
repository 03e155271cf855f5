//! A collector of spans: takes OTLP as JSON over HTTP, and holds it against what OTLP's documents say.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

/// One span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub trace: String,
    pub id: String,
    /// Empty: the first of its trace, or a repeat.
    pub parent: String,
    pub name: String,
    /// OTLP's number: 1 internal, 2 server, 4 producer.
    pub kind: u64,
    /// Nanoseconds since 1970.
    pub began: u64,
    pub ended: u64,
    /// As texts.
    pub attributes: BTreeMap<String, String>,
    pub failed: bool,
}

/// Listens until it is dropped.
pub struct Collector {
    address: SocketAddr,
    taken: Arc<Mutex<Taken>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Taken {
    spans: Vec<Span>,
    text: String,
    wrong: Vec<String>,
}

impl Collector {
    /// On a port of its own.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound");
        let (taken, over) = (Arc::<Mutex<Taken>>::default(), Arc::new(AtomicBool::new(false)));
        let (into, until) = (Arc::clone(&taken), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten().take_while(|_| !until.load(Ordering::SeqCst)) {
                let told = request(stream).and_then(|body| Ok((read(&body)?, body)));
                let mut taken = lock(&into);
                match told {
                    Ok((spans, text)) => {
                        taken.spans.extend(spans);
                        taken.text += &text;
                    }
                    Err(why) => taken.wrong.push(why),
                }
            }
        });
        Self { address, taken, over, thread: Some(thread) }
    }

    /// `[traces]` for it.
    pub fn table(&self) -> String {
        format!("[traces]\nendpoint = \"http://{}\"\n", self.address)
    }

    /// What came.
    #[track_caller]
    pub fn spans(&self) -> Vec<Span> {
        let taken = lock(&self.taken);
        assert!(taken.wrong.is_empty(), "not OTLP: {:?}", taken.wrong);
        taken.spans.clone()
    }

    /// The same as it came.
    pub fn text(&self) -> String {
        lock(&self.taken).text.clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes it
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The body of one request, which is answered.
fn request(mut stream: TcpStream) -> Result<String, String> {
    let wrong = |error: std::io::Error| error.to_string();
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(wrong)?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).map_err(wrong)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    if !head.starts_with("post /v1/traces http/1.1\r\n") || !head.contains("\r\ncontent-type: application/json\r\n") {
        return Err(head);
    }
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<usize>().ok());
    let length = header("content-length:").ok_or("no length")?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).map_err(wrong)?;
    let answer =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    stream.write_all(answer.as_bytes()).map_err(wrong)?;
    String::from_utf8(body).map_err(|error| error.to_string())
}

/// An `ExportTraceServiceRequest` in protobuf's JSON, as OTLP 1.x changes it: ids are hexadecimal, numbers of 64 bits texts.
fn read(body: &str) -> Result<Vec<Span>, String> {
    let document: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let mut spans = Vec::new();
    for resource in list(&document, "resourceSpans")? {
        let service = attributes(&resource["resource"])?;
        if service.get("service.name").map(String::as_str) != Some("quittance") {
            return Err(format!("whose spans? {service:?}"));
        }
        for scope in list(resource, "scopeSpans")? {
            for one in list(scope, "spans")? {
                spans.push(span(one)?);
            }
        }
    }
    Ok(spans)
}

fn span(one: &Value) -> Result<Span, String> {
    let known = [
        "traceId",
        "spanId",
        "parentSpanId",
        "name",
        "kind",
        "startTimeUnixNano",
        "endTimeUnixNano",
        "attributes",
        "status",
    ];
    let members = one.as_object().ok_or("a span is an object")?;
    if let Some(other) = members.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("a span has no {other}"));
    }
    let time = |name: &str| one[name].as_str().and_then(|text| text.parse().ok()).ok_or(format!("{name} in {one}"));
    let parent = if one["parentSpanId"].is_null() { String::new() } else { hex(&one["parentSpanId"], 16)? };
    let span = Span {
        trace: hex(&one["traceId"], 32)?,
        id: hex(&one["spanId"], 16)?,
        parent,
        name: one["name"].as_str().filter(|name| !name.is_empty()).ok_or("a span has a name")?.to_owned(),
        kind: one["kind"].as_u64().filter(|kind| (1..=5).contains(kind)).ok_or("a span has a kind")?,
        began: time("startTimeUnixNano")?,
        ended: time("endTimeUnixNano")?,
        attributes: attributes(one)?,
        failed: one["status"]["code"] == 2,
    };
    if span.began > span.ended { Err(format!("it ends before it begins: {span:?}")) } else { Ok(span) }
}

fn list<'v>(value: &'v Value, name: &str) -> Result<&'v Vec<Value>, String> {
    value[name].as_array().ok_or_else(|| format!("{name} is a list: {value}"))
}

/// Of so many digits, not all of them 0.
fn hex(value: &Value, digits: usize) -> Result<String, String> {
    let text = value.as_str().unwrap_or_default();
    let is_hex = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex && text.bytes().any(|byte| byte != b'0') {
        Ok(text.to_owned())
    } else {
        Err(format!("not an id of {digits} digits: {value}"))
    }
}

fn attributes(of: &Value) -> Result<BTreeMap<String, String>, String> {
    let one = |attribute: &Value| {
        let (key, value) = (attribute["key"].as_str()?, attribute["value"].as_object()?);
        let (kind, value) = value.iter().next().filter(|_| value.len() == 1)?;
        let text = match kind.as_str() {
            "stringValue" => value.as_str()?.to_owned(),
            "intValue" => value.as_str()?.parse::<i64>().ok()?.to_string(),
            "boolValue" => value.as_bool()?.to_string(),
            _ => return None,
        };
        Some((key.to_owned(), text))
    };
    list(of, "attributes")?.iter().map(|it| one(it).ok_or_else(|| format!("not an attribute: {it}"))).collect()
}
