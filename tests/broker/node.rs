//! A RabbitMQ node of the tests' own: own name, ports, cookie, data, plugins and epmd, so that neither a broker of the
//! machine nor another run of the tests is ever touched.
//!
//! The node is shared by all tests of a run, each in a virtual host of its own; who disturbs the node itself takes it
//! alone. A small shell holds the other end of a pipe and removes node, epmd and folder when the test process is
//! gone, whatever it died of.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use crate::certificates::Certificates;

/// Debian's wrappers in /usr/sbin work in /var/lib/rabbitmq and switch to the user rabbitmq; these do not.
const BIN: &str = "/usr/lib/rabbitmq/bin";
/// A start takes 4 s on an idle machine.
const START: Duration = Duration::from_secs(120);
/// The longest message that the node takes: longer than any ordinary event, shorter than what a source can send.
pub const MAX_MESSAGE_BYTES: usize = 24 * 1024;
/// A quorum queue whose node is killed within about a second of its declaration does not come back (RabbitMQ 3.10).
pub const SETTLED_QUEUE: Duration = Duration::from_secs(3);

/// A node; [`shared`] and [`alone`] give it out.
pub struct Node {
    folder: PathBuf,
    /// Where its cookie is: those of a cluster have one.
    home: PathBuf,
    name: String,
    port: u16,
    tls_port: u16,
    dist_port: u16,
    epmd_port: u16,
    server: Mutex<Option<Child>>,
    vhosts: AtomicU64,
    certificates: Certificates,
    /// Ended by the cleaner. Those of a cluster share one.
    _epmd: Option<Child>,
    /// Its end tells the shell to clean up.
    _cleaner: Child,
}

static NODE: OnceLock<Node> = OnceLock::new();
static TURN: RwLock<()> = RwLock::new(());

/// The node, for a test that changes nothing outside its own virtual host.
pub struct Shared(RwLockReadGuard<'static, ()>);
/// The node, for a test that may stop, kill or strangle it.
pub struct Alone(RwLockWriteGuard<'static, ()>);

/// Waits while another test has it alone.
pub fn shared() -> Shared {
    Shared(TURN.read().unwrap_or_else(PoisonError::into_inner))
}

/// Waits until no other test uses it.
pub fn alone() -> Alone {
    let turn = TURN.write().unwrap_or_else(PoisonError::into_inner);
    // What a failed test left behind must not fail the next one.
    let node = node();
    if !node.is_running() {
        node.start();
    }
    Alone(turn)
}

fn node() -> &'static Node {
    NODE.get_or_init(|| {
        let node = Node::new();
        node.start();
        node
    })
}

impl std::ops::Deref for Shared {
    type Target = Node;
    fn deref(&self) -> &Node {
        node()
    }
}

impl std::ops::Deref for Alone {
    type Target = Node;
    fn deref(&self) -> &Node {
        node()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = &self.0;
        if !node().is_running() {
            node().start();
        }
        if std::thread::panicking() {
            node().free_memory_alarm();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = &self.0;
    }
}

impl Node {
    fn new() -> Self {
        Self::named(&format!("quittance{}", std::process::id()), None)
    }

    /// Three that are one broker, started; nobody else uses them, and they are gone when they are dropped.
    #[track_caller]
    pub fn cluster() -> Vec<Self> {
        let name = |number: u8| format!("quittance{}-{number}", std::process::id());
        let first = Self::named(&name(1), None);
        let others = [2, 3].map(|number| Self::named(&name(number), Some(&first)));
        first.start();
        for other in &others {
            other.start();
            for arguments in [&["stop_app"][..], &["join_cluster", first.name()], &["start_app"]] {
                other.must(arguments);
            }
        }
        std::iter::once(first).chain(others).collect()
    }

    /// Not started. `beside`: with the cookie and the epmd of another.
    fn named(name: &str, beside: Option<&Self>) -> Self {
        let folder = tempfile::Builder::new().prefix("quittance-broker-").tempdir().expect("a folder").keep();
        let [port, tls_port, dist_port, epmd_port] = free_ports();
        let epmd_port = beside.map_or(epmd_port, |other| other.epmd_port);
        let home = beside.map_or_else(|| folder.join("home"), |other| other.home.clone());
        let name = format!("{name}@localhost");
        for sub in ["mnesia", "log", "home", "generated"] {
            fs::create_dir(folder.join(sub)).expect("made");
        }
        fs::write(folder.join("plugins"), "[].").expect("written");
        fs::write(folder.join("env"), "").expect("written");
        let certificates = Certificates::in_folder(&folder.join("tls"));
        let settings = format!(
            "listeners.tcp.default = 127.0.0.1:{port}\nmax_message_size = {MAX_MESSAGE_BYTES}\n\
             listeners.ssl.default = 127.0.0.1:{tls_port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\nssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false\n",
            certificates.authority().display(),
            certificates.good().certificate.display(),
            certificates.good().key.display(),
        );
        fs::write(folder.join("rabbitmq.conf"), settings).expect("written");
        let epmd = beside.is_none().then(|| {
            let epmd = Command::new("epmd")
                .args(["-address", "127.0.0.1", "-port", &epmd_port.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("epmd runs: is rabbitmq-server installed?");
            fs::write(folder.join("epmd.pid"), epmd.id().to_string()).expect("written");
            epmd
        });
        let clean = "cat >/dev/null; for file in node.pid epmd.pid; do kill -9 $(cat \"$1/$file\") 2>/dev/null; done; \
                     rm -rf \"$1\"";
        let cleaner = Command::new("sh")
            .args(["-c", clean, "sh"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("sh runs");
        Self {
            folder,
            home,
            name,
            port,
            tls_port,
            dist_port,
            epmd_port,
            server: Mutex::new(None),
            vhosts: AtomicU64::new(0),
            certificates,
            _epmd: epmd,
            _cleaner: cleaner,
        }
    }

    /// What other nodes call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens for AMQP, whether it runs or not.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Where it listens for AMQP over TLS, as `localhost`: no other name is in its certificate.
    pub fn tls_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.tls_port).into()
    }

    /// Whose certificate it shows, and others.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Starts it with what it kept, and waits until it serves.
    #[track_caller]
    pub fn start(&self) {
        let mut server = self.server();
        assert!(server.is_none(), "it runs already");
        let out = File::options().create(true).append(true).open(self.folder.join("out")).expect("opened");
        let mut command = self.command("rabbitmq-server");
        command.stdout(out.try_clone().expect("cloned")).stderr(out).process_group(0);
        *server = Some(command.spawn().expect("rabbitmq-server runs: is it installed?"));
        drop(server);
        let end = Instant::now() + START;
        while TcpStream::connect(self.address()).is_err() || !self.ctl(&["await_startup"]).status.success() {
            assert!(Instant::now() < end, "the broker does not start; it said:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(100));
        }
        // The server is the shell that began it; what the shell became is in the node's own file.
        let pid = fs::read_to_string(self.folder.join("node.pid")).expect("the node's pid");
        assert!(pid.trim().parse::<u32>().is_ok(), "a pid, not {pid}");
    }

    /// SIGKILL of the Erlang machine: what is not on the disk is gone.
    pub fn kill(&self) {
        let Some(mut server) = self.server().take() else { return };
        let pid = fs::read_to_string(self.folder.join("node.pid")).unwrap_or_default();
        if let Some(pid) = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = server.wait();
        self.forget_pid();
    }

    /// A clean stop.
    #[track_caller]
    pub fn stop(&self) {
        let Some(mut server) = self.server().take() else { return };
        self.must(&["stop"]);
        let _ = server.wait();
        self.forget_pid();
    }

    /// The number may be another process's soon, and the cleaner kills what the file names.
    fn forget_pid(&self) {
        let _ = fs::remove_file(self.folder.join("node.pid"));
        self.wait_until_silent();
    }

    fn wait_until_silent(&self) {
        while TcpStream::connect(self.address()).is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it was started and not ended by the tests.
    pub fn is_running(&self) -> bool {
        self.server().is_some()
    }

    fn server(&self) -> MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A virtual host of the test's own that the user `guest` may use; its name.
    #[track_caller]
    pub fn new_vhost(&self) -> String {
        let name = format!("test{}", self.vhosts.fetch_add(1, Ordering::Relaxed));
        self.must(&["add_vhost", &name]);
        self.must(&["set_permissions", "-p", &name, "guest", ".*", ".*", ".*"]);
        name
    }

    /// `rabbitmqctl` with these arguments.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        self.command("rabbitmqctl").args(["--quiet"]).args(arguments).output().expect("rabbitmqctl runs")
    }

    /// `rabbitmqctl` that must succeed; what it printed.
    #[track_caller]
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {said}\nthe node said:\n{}", self.said());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// One line for each queue of a virtual host, its columns separated by tabs.
    #[track_caller]
    pub fn queues(&self, vhost: &str, columns: &[&str]) -> Vec<Vec<String>> {
        let listed = self.must(&[&["list_queues", "-p", vhost, "--no-table-headers"], columns].concat());
        listed.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    /// Closes every client's connection.
    #[track_caller]
    pub fn close_connections(&self, vhost: &str) {
        self.must(&["close_all_connections", "-p", vhost, "--global", "a test says so"]);
    }

    /// Closes a user's connections.
    #[track_caller]
    pub fn close_connections_of(&self, user: &str) {
        self.must(&["close_all_user_connections", user, "a test says so"]);
    }

    /// Any use of memory is too much from now on: publishers are blocked.
    #[track_caller]
    pub fn raise_memory_alarm(&self) {
        self.must(&["set_vm_memory_high_watermark", "0.00001"]);
    }

    /// The end of [`Node::raise_memory_alarm`].
    #[track_caller]
    pub fn free_memory_alarm(&self) {
        self.must(&["set_vm_memory_high_watermark", "0.4"]);
    }

    /// The end of its log.
    pub fn said(&self) -> String {
        let mut text = fs::read_to_string(self.folder.join("out")).unwrap_or_default();
        for entry in fs::read_dir(self.folder.join("log")).into_iter().flatten().flatten() {
            text += &fs::read_to_string(entry.path()).unwrap_or_default();
        }
        text.split_off(text.char_indices().rev().nth(4000).map_or(0, |(at, _)| at))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(Path::new(BIN).join(program));
        let file = |name: &str| self.folder.join(name);
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .env("HOME", &self.home)
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", &self.name)
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", file("mnesia"))
            .env("RABBITMQ_LOG_BASE", file("log"))
            .env("RABBITMQ_PID_FILE", file("node.pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("plugins"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", file("generated"))
            .env("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced.config"))
            .env("RABBITMQ_CONF_ENV_FILE", file("env"))
            // Schedulers that wait without spinning leave the cores to what is tested.
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-start_epmd false +sbwt none +sbwtdcpu none +sbwtdio none");
        command
    }
}

/// Ports that nothing uses now. The node names them in its settings, so they are chosen before it binds them.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound").port())
}
