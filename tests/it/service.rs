//! The daemon under a service manager: what it tells it, and the socket that stays open while it restarts.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fixtures::{self, PAYGOL_SECRET};
use crate::harness::{Config, Folder, eventually, signal};
use crate::http;

/// A stand-in for the service manager: the socket that it is told things on, and one that it keeps open.
struct Manager {
    folder: Folder,
    told: UnixDatagram,
    socket: TcpListener,
}

/// Opens its standard input as the third file, and becomes the daemon: `LISTEN_PID` has to be its own.
const HAND_OVER: &str = r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" "$@" 3<&0 </dev/null"#;

impl Manager {
    fn new(store: &str) -> Self {
        let folder = Folder::new();
        let config = Config { store: store.to_owned(), ..Config::default() };
        std::fs::write(folder.path().join("quittance.toml"), config.render()).expect("written");
        let told = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        told.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
        Self { folder, told, socket }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("an address")
    }

    fn start(&self, watchdog: Option<Duration>) -> Child {
        let mut shell = Command::new("sh");
        shell.args(["-c", HAND_OVER, env!("CARGO_BIN_EXE_quittance"), "--config", "quittance.toml", "serve"]);
        shell.current_dir(self.folder.path()).env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        if let Some(time) = watchdog {
            shell.env("WATCHDOG_USEC", time.as_micros().to_string());
        }
        let socket = self.socket.try_clone().expect("a second hold on it");
        assert!(socket.as_raw_fd() > 2);
        shell.stdin(std::os::fd::OwnedFd::from(socket)).stderr(Stdio::piped()).spawn().expect("it runs")
    }

    /// What it is told next.
    #[track_caller]
    fn hear(&self) -> String {
        let mut text = [0; 4096];
        let length = self.told.recv(&mut text).expect("it is told something");
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    #[track_caller]
    fn wait_for(&self, word: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.hear().lines().any(|line| line == word) {
            assert!(Instant::now() < end, "{word} never came");
        }
    }
}

fn notification(number: usize) -> Vec<u8> {
    let fields = fixtures::paygol(serde_json::json!({ "transaction_id": format!("T{number}") }));
    let signature = fixtures::paygol_signature(&fields, PAYGOL_SECRET);
    let headers = [("Content-Type", "application/json"), ("X-Pg-Sig", signature.as_str())];
    http::request("POST", "/paygol", &headers, fields.to_string().as_bytes())
}

fn end(mut child: Child) {
    signal(child.id(), Signal::TERM);
    let status = child.wait().expect("ours");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_service_manager_hears_when_it_is_ready_when_it_stops_and_that_it_lives() {
    let manager = Manager::new("");
    let mut child = manager.start(Some(Duration::from_millis(600)));
    let lines = BufReader::new(child.stderr.take().expect("piped"));
    let address = manager.address().to_string();
    let first = manager.hear();
    assert!(first.lines().any(|line| line == "READY=1"), "{first}");
    assert!(first.contains(&address), "it listens on the socket that it was given: {first}");
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    signal(child.id(), Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    signal(child.id(), Signal::TERM);
    manager.wait_for("STOPPING=1");
    assert_eq!(child.wait().expect("ours").code(), Some(0));
    let said: Vec<String> = lines.lines().map_while(Result::ok).collect();
    assert!(said.iter().any(|line| line.contains("listening on") && line.contains(&address)), "{said:?}");
}

#[test]
fn a_committer_that_is_stuck_starves_the_watchdog() {
    let manager = Manager::new("");
    let child = manager.start(Some(Duration::from_secs(1)));
    manager.wait_for("WATCHDOG=1");
    // Stopped as a whole it can tell nothing; this is the coarsest way to be stuck, and needs no door into the program.
    signal(child.id(), Signal::STOP);
    while manager.told.set_read_timeout(Some(Duration::from_millis(1500))).is_ok() {
        let mut text = [0; 4096];
        match manager.told.recv(&mut text) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    signal(child.id(), Signal::CONT);
    manager.told.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
    manager.wait_for("WATCHDOG=1");
    end(child);
}

#[test]
fn ten_restarts_under_load_refuse_no_connection_and_lose_nothing() {
    const SENDERS: usize = 4;
    let manager = Manager::new("");
    let address = manager.address();
    let (stop, sent, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    // Signed before: the senders are to send.
    let acknowledged = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut acknowledged = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let number = sent.fetch_add(1, Ordering::Relaxed);
                        let bytes = notification(number);
                        // What was accepted and is asked to come again comes again, as a provider's would; a connection
                        // that is refused or broken is what must not be.
                        loop {
                            match http::send(address, &bytes) {
                                Ok(answer) if answer.status == 200 => break acknowledged.push(number),
                                Ok(answer) if answer.status == 503 => std::thread::sleep(Duration::from_millis(5)),
                                Ok(answer) => panic!("{answer:?}"),
                                Err(error) => {
                                    eprintln!("{number}: {error}");
                                    refused.fetch_add(1, Ordering::Relaxed);
                                    break;
                                }
                            }
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        let mut child = manager.start(None);
        for _ in 0..10 {
            manager.wait_for("READY=1");
            let before = sent.load(Ordering::Relaxed);
            eventually("it takes some", || if sent.load(Ordering::Relaxed) > before + 20 { Ok(()) } else { Err(()) });
            end(child);
            child = manager.start(None);
        }
        manager.wait_for("READY=1");
        stop.store(true, Ordering::Relaxed);
        let acknowledged: Vec<usize> =
            senders.into_iter().flat_map(|sender| sender.join().expect("no panic")).collect();
        end(child);
        acknowledged
    });
    assert_eq!(refused.load(Ordering::Relaxed), 0);
    assert!(acknowledged.len() > 200, "{}", acknowledged.len());
    let arguments = ["--config", "quittance.toml", "list", "--all", "--json"];
    let output = crate::harness::quittance(manager.folder.path(), &arguments).output().expect("it runs");
    let kept = String::from_utf8(output.stdout).expect("UTF-8");
    let kept: std::collections::HashSet<&str> = kept.split('"').filter(|word| word.starts_with('T')).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|number| !kept.contains(format!("T{number}").as_str())).collect();
    assert!(lost.is_empty(), "{lost:?}");
}
