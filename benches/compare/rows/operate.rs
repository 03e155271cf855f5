//! What operators ask for over a store of a million notifications, through the released executable: `looks` at lists and
//! pages, `sending` again what was sent, `whole` for what reads the journal from end to end.

mod looks;
mod sending;
mod whole;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::relay;
use crate::node::{self, Node};
use crate::servers::{Daemon, Server};
use crate::{Bench, prefill};

/// Longer than anything here takes on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(600);

/// The store's copy, its daemon's configuration, and the broker.
struct Scene {
    folder: PathBuf,
    daemon: Daemon,
    node: node::Alone,
    vhost: String,
}

pub fn operate(bench: &mut Bench, row: &str) {
    let full = prefill::operated(&bench.cache, &bench.material);
    let node = node::alone();
    let vhost = node.new_vhost();
    let folder = bench.folder("operate");
    let store = folder.join("store");
    relay::copy(&full, &store);
    let daemon = Daemon { store: Some(store), broker: Some(relay::url(&node, &vhost)), ..Daemon::default() };
    daemon.configure(&folder, &bench.material);
    let scene = Scene { folder, daemon, node, vhost };

    let noted = whole::before_the_daemon(bench, row, &scene);
    let server = scene.start(bench);
    looks::pages(bench, row, &server);
    looks::reloads(bench, row, &scene, &server);
    whole::beside_the_daemon(bench, row, &scene);
    let newest = sending::newest(&server);
    // First: what is sent again is a dead letter no more.
    sending::dead_letters(bench, row, &scene, &server);
    sending::replays(bench, row, &scene, &server, newest);
    let server = sending::interrupted(bench, row, &scene, server, newest);
    sending::forged(bench, row, &scene, &server);
    server.stop();
    whole::since(bench, row, &scene, &noted);
    scene.node.must(&["delete_vhost", &scene.vhost]);
    let _ = fs::remove_dir_all(&scene.folder);
}

impl Scene {
    fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// The daemon, ready and at its broker.
    fn start(&self, bench: &Bench) -> Server {
        let server = self.daemon.start(&self.folder, &bench.material);
        relay::reach(&server);
        server
    }

    /// A command of the released executable, and how long it took.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> (Vec<u8>, Duration) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quittance"));
        command.args(arguments).arg("--config").arg(self.config()).stdin(Stdio::null());
        let began = Instant::now();
        let Output { status, stdout, stderr } = command.output().expect("it runs");
        assert!(status.success(), "{arguments:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
        (stdout, began.elapsed())
    }

    /// The same of one that prints JSON, a line of it.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> (Value, Duration) {
        let (out, took) = self.run(&[arguments, &["--json"]].concat());
        (serde_json::from_slice(&out).unwrap_or_else(|_| panic!("one line of JSON from {arguments:?}")), took)
    }

    /// Takes what was sent out of the broker, which would only grow.
    fn purge(&self) {
        self.node.must(&["purge_queue", "-p", &self.vhost, "payments"]);
    }

    /// Changes the configuration and has it taken; how long until it is in force.
    #[track_caller]
    fn reload(&self, server: &Server, from: &str, to: &str) -> Duration {
        let text = fs::read_to_string(self.config()).expect("read");
        assert!(text.contains(from), "the configuration says {from}");
        fs::write(self.config(), text.replace(from, to)).expect("written");
        let before = get(server, "/api/v1/status")["config"]["loaded_at"].clone();
        let began = Instant::now();
        kill_process(Pid::from_raw(server.pid().cast_signed()).expect("a pid"), Signal::HUP).expect("told");
        until("the new configuration is in force", Duration::from_millis(1), || {
            let config = &get(server, "/api/v1/status")["config"];
            assert_eq!(config["last_reload_error"], Value::Null);
            config["loaded_at"] != before
        });
        began.elapsed()
    }
}

/// Asks the admin API, over a connection of its own. Status and document.
fn ask(server: &Server, method: &str, path: &str, document: Option<&Value>) -> (u16, Value) {
    let body = document.map(Value::to_string).unwrap_or_default();
    let mut stream = TcpStream::connect(server.admin.expect("a daemon")).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[track_caller]
fn get(server: &Server, path: &str) -> Value {
    let (status, document) = ask(server, "GET", path, None);
    assert_eq!(status, 200, "{path}: {document}");
    document
}

#[track_caller]
fn until(what: &str, look: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never came true: {what}");
        thread::sleep(look);
    }
}

/// Lines of what a command printed.
fn lines(out: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', out).count()
}

/// Bytes on the disk.
fn size(store: &Path) -> f64 {
    super::store::size(&store.join("journal"))
}

/// What a node's broker holds is told by nobody else.
fn queued(node: &Node, vhost: &str) -> u64 {
    let queues = node.queues(vhost, &["name", "messages"]);
    let of = queues.iter().find(|row| row.first().is_some_and(|name| name == "payments"));
    of.and_then(|row| row.get(1)?.parse().ok()).unwrap_or_default()
}
