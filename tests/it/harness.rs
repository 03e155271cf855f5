//! The real executable in a folder of its own, and everything a test asks it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fixtures::{self, GEM_API_SIGNATURE, GEM_RETURN_SECRET, KW_RETURN_SECRET, LEGACY_SECRET, PAYGOL_SECRET};
use crate::http::{self, Answer};

/// How long a predicate may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

/// The sources that every test finds: all five providers, and those that stand beside them in one account or
/// without grammars.
pub fn sources() -> String {
    let keys = fixtures::folder().join("keys");
    let (key, key_2048) = (keys.join("clickpay-1024.pem"), keys.join("clickpay-2048.pem"));
    let (key, key_2048) = (key.display(), key_2048.display());
    let pages = r#"success_url = "https://shop.example.com/thanks?order={order_id}"
failure_url = "https://shop.example.com/sorry?order={order_id}""#;
    format!(
        r#"
[[source]]
name = "clickpay-id"
provider = "clickpay"
path = "/clickpay"
currency = "IDR"
order_pattern = "^T[0-9]{{13}}$"
amount_pattern = "^[0-9]+\\.[0-9]{{2}}$"
public_keys = [{{ file = "{key_2048}" }}, {{ file = "{key}" }}]

[[source]]
name = "clickpay-out"
provider = "clickpay"
path = "/clickpay/out"
currency = "IDR"
order_pattern = "^W[0-9]{{4}}$"
amount_pattern = "^[1-9][0-9]{{3,}}$"
public_keys = [{{ file = "{key}" }}]

[[source]]
name = "clickpay-twin"
provider = "clickpay"
path = "/clickpay/twin"
account = "clickpay-id"
currency = "IDR"
order_pattern = "^T[0-9]{{13}}$"
amount_pattern = "^[0-9]+\\.[0-9]{{2}}$"
public_keys = [{{ file = "{key}" }}]

[[source]]
name = "clickpay-strict"
provider = "clickpay"
path = "/clickpay/strict"
currency = "IDR"
order_pattern = "^T[0-9]{{13}}$"
amount_pattern = "^[0-9]+\\.[0-9]{{2}}$"
public_keys = [{{ file = "{key}" }}]

[[source]]
name = "clickpay-loose"
provider = "clickpay"
path = "/clickpay/loose"
currency = "IDR"
public_keys = [{{ file = "{key}" }}]

[[source]]
name = "paygol"
provider = "paygol"
path = "/paygol"
service_id = "123"
secrets = ["{PAYGOL_SECRET}"]

[[source]]
name = "paygol-ipn"
provider = "paygol-legacy"
path = "/paygol/ipn"
service_id = "124"
secrets = ["{LEGACY_SECRET}"]

[[source]]
name = "clickkw"
provider = "clickkw"
path = "/clickkw"
currency = "KWD"
return_secret = "{KW_RETURN_SECRET}"
{pages}

[[source]]
name = "clickkw-trust"
provider = "clickkw"
path = "/kw"
currency = "KWD"
accept_indicator = true
return_secret = "{KW_RETURN_SECRET}"
{pages}

[[source]]
name = "clickgem"
provider = "clickgem"
path = "/clickgem"
api_signature = "{GEM_API_SIGNATURE}"
return_secret = "{GEM_RETURN_SECRET}"
{pages}
"#
    )
}

/// What stands in the configuration file, table by table.
#[derive(Clone, Debug)]
pub struct Config {
    /// Lines of `[listener]` besides the addresses.
    pub listener: String,
    /// Lines of `[admin]` besides the address.
    pub admin: String,
    /// Lines of `[store]`; `path` is added.
    pub store: String,
    /// Tables before the sources.
    pub tables: String,
    /// The `[[source]]` tables.
    pub sources: String,
    /// Arguments behind `serve`.
    pub arguments: Vec<String>,
    /// The store's folder; within the test's own where relative.
    pub store_path: PathBuf,
    /// Variables of the daemon's environment besides the test's own.
    pub environment: Vec<(String, String)>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listener: String::new(),
            admin: String::new(),
            store: String::new(),
            tables: String::new(),
            sources: sources(),
            arguments: Vec::new(),
            store_path: "store".into(),
            environment: Vec::new(),
        }
    }
}

impl Config {
    /// The file's text.
    pub fn render(&self) -> String {
        let mut text =
            String::from("[listener]\naddress = \"127.0.0.1:0\"\npublic_url = \"https://pay.example.com\"\n");
        let _ = write!(text, "{}\n[admin]\naddress = \"127.0.0.1:0\"\n{}\n", self.listener, self.admin);
        let _ = write!(text, "[store]\npath = \"{}\"\n{}\n", self.store_path.display(), self.store);
        let _ = write!(text, "{}\n{}\n", self.tables, self.sources);
        text
    }
}

/// A folder that is removed unless the test failed.
#[derive(Debug)]
pub struct Folder(Option<tempfile::TempDir>);

impl Folder {
    /// A new, empty one.
    pub fn new() -> Self {
        Self(Some(tempfile::Builder::new().prefix("quittance-it-").tempdir().expect("a folder for the test")))
    }
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.as_ref().expect("there until it is dropped").path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.0.take()
        {
            eprintln!("kept for a look: {}", folder.keep().display());
        }
    }
}

/// A running `quittance serve`.
#[derive(Debug)]
pub struct Daemon {
    config: Config,
    child: Child,
    log: Arc<Mutex<String>>,
    /// The public listener.
    pub public: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    folder: Folder,
}

impl Daemon {
    /// With the sources of [`sources`], ready.
    #[track_caller]
    pub fn start() -> Self {
        Self::with(Config::default())
    }

    /// With a configuration of its own, ready.
    #[track_caller]
    pub fn with(config: Config) -> Self {
        let folder = Folder::new();
        std::fs::write(folder.path().join("quittance.toml"), config.render()).expect("written");
        let (child, log) = launch(folder.path(), &config);
        let nowhere: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut daemon = Self { config, child, log, public: nowhere, admin: nowhere, folder };
        daemon.wait_for_addresses();
        daemon.wait_until_ready();
        daemon
    }

    /// The folder with configuration and store.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.folder().join(&self.config.store_path)
    }
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
    /// Everything it wrote to stderr and stdout so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts it again in the same folder, ready. The former process must have ended.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.launch_only();
        self.wait_for_start();
    }

    /// Like [`Daemon::start_again`], without waiting for readiness.
    #[track_caller]
    pub fn launch_again(&mut self) {
        self.launch_only();
        self.wait_for_addresses();
    }

    /// Starts the process again and waits for nothing.
    pub fn launch_only(&mut self) {
        (self.child, self.log) = launch(self.folder.path(), &self.config);
    }

    /// Waits until what was launched is ready.
    #[track_caller]
    pub fn wait_for_start(&mut self) {
        self.wait_for_addresses();
        self.wait_until_ready();
    }

    /// Starts it again where it may not live long enough to become ready; whether it did.
    #[track_caller]
    pub fn start_unless_it_ends(&mut self) -> bool {
        self.launch_only();
        let ready = eventually_within(PATIENCE, "it is ready or ends", || {
            if self.child.try_wait().expect("ours").is_some() {
                return Ok(false);
            }
            (self.admin, self.public) = self.announced().ok_or(())?;
            let answer = http::send(self.admin, &http::request("GET", "/readyz", &[], b""));
            if answer.is_ok_and(|answer| answer.status == 200) { Ok(true) } else { Err(()) }
        });
        ready.unwrap_or_else(|()| panic!("neither ready nor at its end; it said:\n{}", self.log()))
    }

    /// Whether the process has ended, and how.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("ours")
    }

    /// Other arguments behind `serve` from the next start on.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.config.arguments = arguments.iter().map(|&a| a.to_owned()).collect();
    }

    /// Other variables of its environment from the next start on.
    pub fn set_environment(&mut self, environment: &[(&str, &str)]) {
        self.config.environment = environment.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGTERM without waiting.
    pub fn sigterm(&self) {
        signal(self.pid(), rustix::process::Signal::TERM);
    }

    /// SIGTERM, and its exit status; it has 10 s by its own promise.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.sigterm();
        self.wait_for_end(Duration::from_secs(15))
    }

    /// SIGKILL and a new start on the same store.
    #[track_caller]
    pub fn crash_and_restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        let Self { child, log, .. } = self;
        eventually_within(limit, "the process ends", || child.try_wait().expect("ours").ok_or(()))
            .unwrap_or_else(|()| panic!("it did not end within {limit:?}; it said:\n{}", log.lock().expect("ours")))
    }

    // --- what the world does ---

    /// Sends bytes to the public listener.
    #[track_caller]
    pub fn send(&self, bytes: &[u8]) -> Answer {
        http::send(self.public, bytes).unwrap_or_else(|e| panic!("{e}; it said:\n{}", self.log()))
    }

    /// POST with a content type.
    #[track_caller]
    pub fn post(&self, target: &str, content_type: &str, body: &[u8]) -> Answer {
        self.send(&http::request("POST", target, &[("Content-Type", content_type)], body))
    }

    /// GET.
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        self.send(&http::request("GET", target, &[], b""))
    }

    /// A ClickPay notification in JSON, signed with the first throw-away key.
    #[track_caller]
    pub fn clickpay(&self, path: &str, fields: &Value) -> Answer {
        let body = fixtures::clickpay_body(fields, "clickpay-1024");
        self.post(path, "application/json", body.to_string().as_bytes())
    }

    /// A Paygol notification, signed over PHP's canonical form.
    #[track_caller]
    pub fn paygol(&self, fields: &Value) -> Answer {
        let signature = fixtures::paygol_signature(fields, PAYGOL_SECRET);
        self.paygol_with(&fields.to_string(), &signature)
    }

    /// A Paygol notification with that signature.
    #[track_caller]
    pub fn paygol_with(&self, body: &str, signature: &str) -> Answer {
        let headers = [("Content-Type", "application/json"), ("X-Pg-Sig", signature)];
        self.send(&http::request("POST", "/paygol", &headers, body.as_bytes()))
    }

    /// A legacy Paygol notification by GET.
    #[track_caller]
    pub fn legacy(&self, fields: &Value) -> Answer {
        self.get(&format!("/paygol/ipn?{}", fixtures::form(fields)))
    }

    /// Registers an expectation and gives the answer.
    #[track_caller]
    pub fn expect(&self, registration: &Value) -> Answer {
        self.admin_post("/api/v1/expectations", registration)
    }

    /// Registers an expectation that must be new; the path of its return URL, where there is one.
    #[track_caller]
    pub fn expects(&self, source: &str, order: &str, amount: (&str, &str), more: Value) -> String {
        let registration = json!({ "source": source, "order_id": order,
            "amount": { "value": amount.0, "currency": amount.1 } });
        let answer = self.expect(&fixtures::with(registration, more));
        assert_eq!(answer.status, 201, "{answer:?}");
        let url = answer.json()["return_url"].as_str().unwrap_or_default().to_owned();
        url.strip_prefix("https://pay.example.com").unwrap_or_default().to_owned()
    }

    // --- what the order system and the operator ask ---

    /// GET at the admin listener.
    #[track_caller]
    pub fn admin_get(&self, target: &str) -> Answer {
        self.admin_send(&http::request("GET", target, &[], b""))
    }

    /// POST of JSON at the admin listener.
    #[track_caller]
    pub fn admin_post(&self, target: &str, body: &Value) -> Answer {
        let headers = [("Content-Type", "application/json")];
        self.admin_send(&http::request("POST", target, &headers, body.to_string().as_bytes()))
    }

    /// Bytes to the admin listener.
    #[track_caller]
    pub fn admin_send(&self, bytes: &[u8]) -> Answer {
        http::send(self.admin, bytes).unwrap_or_else(|e| panic!("{e}; it said:\n{}", self.log()))
    }

    /// JSON of a GET that must be 200.
    #[track_caller]
    pub fn ask(&self, target: &str) -> Value {
        let answer = self.admin_get(target);
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        answer.json()
    }

    /// Every event of the feed from its beginning, each checked against the schema and against repeated ids.
    #[track_caller]
    pub fn feed(&self) -> Vec<Value> {
        let mut events = Vec::new();
        let mut ids = std::collections::HashSet::new();
        let mut after = String::new();
        loop {
            let page = self.ask(&format!("/api/v1/events?limit=500{after}"));
            let entries = page["entries"].as_array().expect("a list");
            if entries.is_empty() {
                return events;
            }
            for entry in entries {
                let event = &entry["event"];
                crate::schema::check(event);
                assert!(ids.insert(event["id"].clone()), "the feed tells {} twice", event["id"]);
                events.push(event.clone());
            }
            after = format!("&after={}", fixtures::text(&page["next"]));
        }
    }

    /// The `data` of the feed's only event.
    #[track_caller]
    pub fn only_event(&self) -> Value {
        let feed = self.feed();
        assert_eq!(feed.len(), 1, "{feed:#?}");
        feed[0]["data"].clone()
    }

    /// The `data` of the feed's newest event.
    #[track_caller]
    pub fn last_event(&self) -> Value {
        self.feed().last().expect("an event")["data"].clone()
    }

    /// The `data` of every event, oldest first.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        self.feed().iter().map(|event| event["data"].clone()).collect()
    }

    /// Verdicts of every event, oldest first.
    #[track_caller]
    pub fn verdicts(&self) -> Vec<String> {
        self.events().iter().map(|data| fixtures::text(&data["verdict"])).collect()
    }

    /// The value of one series as the metrics page writes it (`name{label="value"}`), 0 where it is not there.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        let page = self.admin_get("/metrics").text();
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    // --- waiting ---

    /// Where it listens, admin and public, as far as it has said so: the one in its lock file, the other in its log.
    fn announced(&self) -> Option<(SocketAddr, SocketAddr)> {
        let text = std::fs::read(self.store().join("lock")).ok()?;
        let noted: Value = serde_json::from_slice(&text).ok()?;
        let url = noted["admin"].as_str().filter(|_| noted["pid"] == self.pid())?;
        let admin = url.rsplit('/').find(|part| !part.is_empty())?.parse().ok()?;
        let mut others = bound_addresses(&self.log()).into_iter().filter(|address| *address != admin);
        Some((admin, others.next_back()?))
    }

    #[track_caller]
    fn wait_for_addresses(&mut self) {
        let found = eventually_within(PATIENCE, "it says where it listens", || {
            if let Some(status) = self.has_ended() {
                panic!("it ended with {status} and said:\n{}", self.log());
            }
            self.announced().ok_or(())
        });
        match found {
            Ok((admin, public)) => (self.admin, self.public) = (admin, public),
            Err(()) => panic!("no addresses; it said:\n{}", self.log()),
        }
    }

    /// Waits for 200 from `/readyz`.
    #[track_caller]
    pub fn wait_until_ready(&self) {
        eventually("it is ready", || {
            let answer = http::send(self.admin, &http::request("GET", "/readyz", &[], b""));
            answer.ok().filter(|answer| answer.status == 200).ok_or_else(|| self.log())
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.char_indices().rev().nth(4000).map_or(0, |(at, _)| at);
            eprintln!("--- the daemon's last words ---\n{}", &log[tail..]);
        }
    }
}

/// Loopback addresses with a port that a log names as a place that speaks HTTP; a broker's is none.
fn bound_addresses(log: &str) -> Vec<SocketAddr> {
    static ADDRESS: OnceLock<regex::Regex> = OnceLock::new();
    let address = ADDRESS.get_or_init(|| regex::Regex::new(r"http://(127\.0\.0\.1:[1-9][0-9]*)").expect("a pattern"));
    address.captures_iter(log).filter_map(|found| found[1].parse().ok()).collect()
}

/// The executable: this build's, or the copy of it that `QUITTANCE_EXECUTABLE` names.
pub fn executable() -> PathBuf {
    std::env::var_os("QUITTANCE_EXECUTABLE").map_or_else(|| env!("CARGO_BIN_EXE_quittance").into(), PathBuf::from)
}

/// `quittance` with these arguments in `folder`, nothing of the test's own environment that it would listen to.
pub fn quittance(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(executable());
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command.env_remove("QUITTANCE_CONFIG").env_remove("QUITTANCE_LOG").env_remove("NO_COLOR");
    command
}

fn launch(folder: &Path, config: &Config) -> (Child, Arc<Mutex<String>>) {
    let mut command = quittance(folder, &["--config", "quittance.toml", "serve"]);
    command.args(&config.arguments).envs(config.environment.iter().cloned());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the executable runs");
    let log = Arc::new(Mutex::new(String::new()));
    let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    collect(out, log.clone());
    collect(err, log.clone());
    (child, log)
}

fn collect(from: impl std::io::Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { return };
            let mut log = into.lock().expect("no reader panics");
            log.push_str(&String::from_utf8_lossy(&line));
            log.push('\n');
        }
    });
}

/// Sends a signal to a process that a test started.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    let _ = rustix::process::kill_process(pid, signal);
}

/// Asks again until it is `Ok`, and fails the test with the last error when patience is over.
#[track_caller]
pub fn eventually<T, E: std::fmt::Debug>(what: &str, probe: impl FnMut() -> Result<T, E>) -> T {
    eventually_within(PATIENCE, what, probe).unwrap_or_else(|last| panic!("never came true: {what}; last: {last:?}"))
}

/// Asks again until it is `Ok` or the time is over.
///
/// # Errors
/// The last one.
pub fn eventually_within<T, E>(limit: Duration, _what: &str, mut probe: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let end = Instant::now() + limit;
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
