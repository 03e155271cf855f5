//! `quittance serve` with its store on the test's disk, in a machine that believes it was booted anew.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::http::{self, Answer};
use crate::mount::Mounted;

const SECRET: &str = "7c1a6a24-7943-102d-92f8-29573711ad31";
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine: the folder with the configuration, which no power cut touches, and the boot id.
pub struct Machine {
    folder: tempfile::TempDir,
    boots: u64,
}

/// A running daemon; killed when it goes.
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    pub public: SocketAddr,
    pub admin: SocketAddr,
}

impl Machine {
    pub fn new(mounted: &Mounted, bodies: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = mounted.path().join("store");
        let config = format!(
            "[listener]\naddress = \"127.0.0.1:0\"\npublic_url = \"https://pay.example.com\"\nmax_body = \"4KiB\"\nmax_header = \"8KiB\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
             [store]\npath = \"{}\"\nsegment = \"64KiB\"\n[retention]\nbodies = \"{bodies}\"\n\
             [[source]]\nname = \"paygol\"\nprovider = \"paygol\"\npath = \"/paygol\"\nservice_id = \"123\"\nsecrets = [\"{SECRET}\"]\n",
            store.display()
        );
        std::fs::write(folder.path().join("quittance.toml"), config).expect("written");
        let mut machine = Self { folder, boots: 0 };
        machine.boot();
        machine
    }

    /// The machine comes up again after its power was gone.
    pub fn boot(&mut self) {
        self.boots += 1;
        std::fs::write(self.boot_id(), format!("00000000-0000-4000-8000-{:012}\n", self.boots)).expect("written");
    }

    fn boot_id(&self) -> PathBuf {
        self.folder.path().join("boot_id")
    }

    /// Starts the daemon. It sees another boot id after every power cut, as it would: only it, in a namespace of its own.
    pub fn launch(&self) -> (Child, Arc<Mutex<String>>) {
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c"])
            .arg("mount --bind \"$1\" /proc/sys/kernel/random/boot_id && exec \"$2\" --config \"$3\" serve")
            .arg("sh")
            .arg(self.boot_id())
            .arg(std::env::var_os("QUITTANCE_EXECUTABLE").unwrap_or(env!("CARGO_BIN_EXE_quittance").into()))
            .arg(self.folder.path().join("quittance.toml"))
            .current_dir(self.folder.path())
            .env_remove("QUITTANCE_CONFIG")
            .env_remove("QUITTANCE_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare of util-linux is there");
        let log = Arc::new(Mutex::new(String::new()));
        let (from, into) = (child.stderr.take().expect("piped"), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let mut log = into.lock().expect("nobody panics with it");
                log.push_str(&line);
                log.push('\n');
            }
        });
        (child, log)
    }

    /// Starts it and waits until it takes notifications.
    pub fn start(&self, mounted: &Mounted) -> Result<Daemon, String> {
        let (child, log) = self.launch();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut daemon = Daemon { child, log, public: nowhere, admin: nowhere };
        let until = Instant::now() + PATIENCE;
        while !daemon.is_ready(mounted.path()) {
            let ended = daemon.child.try_wait().expect("ours");
            if ended.is_some() || Instant::now() > until {
                return Err(format!("does not get ready ({ended:?}); it said:\n{}", daemon.said()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(daemon)
    }
}

impl Daemon {
    pub fn said(&self) -> String {
        self.log.lock().expect("nobody panics with it").clone()
    }

    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    fn is_ready(&mut self, mount: &Path) -> bool {
        let Some(admin) = self.announced(mount) else { return false };
        let said = self.said();
        let public = said.split("127.0.0.1:").skip(1).filter_map(|rest| {
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?))).filter(|address| *address != admin)
        });
        let Some(public) = public.last() else { return false };
        (self.admin, self.public) = (admin, public);
        http::send(admin, &http::request("GET", "/readyz", &[], b"")).is_ok_and(|answer| answer.status == 200)
    }

    /// The admin address, as the lock file tells it.
    fn announced(&self, mount: &Path) -> Option<SocketAddr> {
        let lock: Value = serde_json::from_reader(File::open(mount.join("store/lock")).ok()?).ok()?;
        let admin = lock["admin"].as_str().filter(|_| lock["pid"] == self.child.id())?;
        admin.rsplit('/').find(|part| !part.is_empty())?.parse().ok()
    }

    fn ask(&self, target: &str) -> Result<Value, String> {
        let answer =
            http::send(self.admin, &http::request("GET", target, &[], b"")).map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer.json()) } else { Err(format!("{target}: {answer:?}")) }
    }

    /// What the feed holds, oldest first.
    pub fn feed(&self) -> Result<Vec<Value>, String> {
        let mut events = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.ask(&format!("/api/v1/events?limit=1000{after}"))?;
            let entries = page["entries"].as_array().ok_or("no entries")?;
            if entries.is_empty() {
                return Ok(events);
            }
            events.extend(entries.iter().map(|entry| entry["event"].clone()));
            let next = format!("&after={}", page["next"].as_str().ok_or("no next")?);
            if next == after {
                return Err(format!("the feed does not go on: {after}"));
            }
            after = next;
        }
    }

    /// What the list of notifications holds, newest first.
    pub fn list(&self) -> Result<Vec<Value>, String> {
        let mut items = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.ask(&format!("/api/v1/notifications?limit=1000{after}"))?;
            items.extend(page["notifications"].as_array().ok_or("no notifications")?.iter().cloned());
            match page["next"].as_str() {
                Some(next) if after.ends_with(&format!("={next}")) => {
                    return Err(format!("the list does not go on: {after}"));
                }
                Some(next) => after = format!("&after={next}"),
                None => return Ok(items),
            }
        }
    }

    /// A series of the metrics page.
    pub fn metric(&self, name: &str) -> Result<f64, String> {
        let answer = http::send(self.admin, &http::request("GET", "/metrics", &[], b"")).map_err(|e| e.to_string())?;
        let text = answer.text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).ok_or(format!("no {name} in the metrics"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// SIGKILL, and waits until the process is gone. Its disk is this process's own: one that waits for an answer that never
/// comes would not go, and where it waits is then told.
pub fn end(child: &mut Child) {
    let _ = child.kill();
    let until = Instant::now() + PATIENCE;
    while child.try_wait().is_ok_and(|ended| ended.is_none()) {
        if Instant::now() > until {
            let where_it_is = threads_of(&child.id().to_string());
            if std::thread::panicking() {
                return eprintln!("killed, and not gone:\n{where_it_is}");
            }
            panic!("killed, and not gone after {PATIENCE:?}:\n{where_it_is}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Where in the kernel each thread of a process is.
pub fn threads_of(process: &str) -> String {
    let mut text = String::new();
    for task in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let state = read("status").lines().find(|line| line.starts_with("State:")).unwrap_or_default().to_owned();
        let stack = read("stack").replace('\n', " ");
        text += &format!("{} {} in {}: {stack}\n", read("comm").trim(), state, read("wchan"));
    }
    text
}

/// The price of a notification of this number, so that an event can be told to be its own.
pub fn price(number: u64) -> String {
    format!("{}.00", number % 9_000 + 1)
}

/// A genuine Paygol notification, signed over its raw body.
pub fn post(to: SocketAddr, number: u64) -> std::io::Result<Answer> {
    let padding = "x".repeat((number * 37 % 1500) as usize);
    let fields = json!({
        "transaction_id": format!("T-{number}"), "service_id": "123", "custom": format!("order-{number}"), "status": "completed",
        "price": price(number), "currency": "CLP", "country": "CL", "method": "webpay", "note": padding,
    });
    let body = fields.to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(body.as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let headers = [("Content-Type", "application/json"), ("X-Pg-Sig", signature.as_str())];
    http::send(to, &http::request("POST", "/paygol", &headers, body.as_bytes()))
}
