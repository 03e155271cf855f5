//! What is measured and what it is measured beside, each a process of its own, ended when dropped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::material::{Material, PAYGOL_SECRET};

/// How long a server may take to listen; a daemon that builds its index first says by itself how long.
const PATIENCE: Duration = Duration::from_secs(60);
/// PHP's workers: as many as keep two cores busy, since none of them waits for anything.
const PHP_WORKERS: usize = 8;

/// A process that answers over HTTP.
pub struct Server {
    child: Child,
    /// Where it answers.
    pub address: SocketAddr,
    /// Quittance: where its admin listener is.
    pub admin: Option<SocketAddr>,
    folder: Option<PathBuf>,
    group: bool,
    others: Vec<Child>,
}

/// How the daemon is to be run.
#[derive(Clone, Debug, Default)]
pub struct Daemon {
    /// Its store; a fresh one that is removed afterwards where `None`.
    pub store: Option<PathBuf>,
    /// The broker's URL.
    pub broker: Option<String>,
    /// More lines of `[listener]`.
    pub listener: String,
    /// More lines of `[store]`.
    pub store_lines: String,
}

impl Daemon {
    /// Starts it in `folder` and waits until it is ready to take notifications.
    pub fn start(&self, folder: &Path, material: &Material) -> Server {
        let server = self.launch(folder, material, &[]);
        server.until_ready(Duration::from_secs(3600));
        server
    }

    /// The configuration, written; the path of its file.
    pub fn configure(&self, folder: &Path, material: &Material) -> PathBuf {
        let store = self.store.clone().unwrap_or_else(|| folder.join("store"));
        let relay = self.broker.as_ref().map(|url| format!("[relay.amqp]\nurl = \"{url}\"\nstart = \"beginning\"\n"));
        let text = format!(
            "[listener]\naddress = \"127.0.0.1:0\"\npublic_url = \"https://pay.example.com\"\n{}\n\
             [admin]\naddress = \"127.0.0.1:0\"\n[store]\npath = \"{}\"\n{}\n{}\
             [[source]]\nname = \"clickpay\"\nprovider = \"clickpay\"\npath = \"/clickpay\"\ncurrency = \"IDR\"\n\
             order_pattern = \"^T[0-9]{{13}}$\"\namount_pattern = \"^[0-9]+\\\\.[0-9]{{2}}$\"\n\
             public_keys = [{{ file = \"{}\" }}]\n\
             [[source]]\nname = \"paygol\"\nprovider = \"paygol\"\npath = \"/paygol\"\nservice_id = \"123\"\n\
             secrets = [\"{PAYGOL_SECRET}\"]\n\
             [[source]]\nname = \"paygol-ipn\"\nprovider = \"paygol-legacy\"\npath = \"/ipn\"\nservice_id = \"124\"\n\
             secrets = [\"{LEGACY_SECRET}\"]\n\
             [[source]]\nname = \"clickkw\"\nprovider = \"clickkw\"\npath = \"/clickkw\"\ncurrency = \"KWD\"\n\
             return_secret = \"{RETURN_SECRET}\"\n{PAGES}\
             [[source]]\nname = \"clickgem\"\nprovider = \"clickgem\"\npath = \"/clickgem\"\n\
             api_signature = \"{GEM_SIGNATURE}\"\nreturn_secret = \"{RETURN_SECRET}\"\n{PAGES}",
            self.listener,
            store.display(),
            self.store_lines,
            relay.unwrap_or_default(),
            material.public_key().display(),
        );
        let file = folder.join("config.toml");
        fs::write(&file, text).expect("written");
        file
    }

    /// Starts it and waits until it listens, with `before` in front of the command line.
    pub fn launch(&self, folder: &Path, material: &Material, before: &[&str]) -> Server {
        fs::create_dir_all(folder).expect("made");
        let config = self.configure(folder, material);
        let log = folder.join("log");
        let out = File::create(&log).expect("made");
        let mut line: Vec<&str> = before.to_vec();
        line.push(env!("CARGO_BIN_EXE_quittance"));
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).args(["serve", "--config"]).arg(&config);
        // The log goes to a file, at its default level: it is part of what is measured.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out).env_remove("QUITTANCE_LOG");
        let mut child = command.spawn().expect("the daemon runs");
        let end = Instant::now() + PATIENCE * if before.is_empty() { 1 } else { 5 };
        let (address, admin) = loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let find = |what: &str| said.lines().find_map(|line| line.strip_prefix(what)?.trim().parse().ok());
            if let (Some(address), Some(admin)) = (find("listening on http://"), find("admin listener on http://")) {
                break (address, admin);
            }
            let gone = child.try_wait().expect("asked").is_some();
            assert!(!gone && Instant::now() < end, "the daemon does not start; it said:\n{said}");
            std::thread::sleep(Duration::from_millis(2));
        };
        Server { child, address, admin: Some(admin), folder: Some(folder.to_owned()), group: false, others: vec![] }
    }
}

/// The legacy `key` of the measured source.
pub const LEGACY_SECRET: &str = "5d0f9c3e-legacy-4b1a-8c2d-7e6f5a4b3c2d";
/// Signs the return URLs of the measured browser sources.
pub const RETURN_SECRET: &str = "return-4f8a2c6e1b9d7305-bench";
/// ClickGem's static secret.
pub const GEM_SIGNATURE: &str = "gem-api-0c7e5a3f9b1d2846";
const PAGES: &str =
    "success_url = \"https://shop.example.com/thanks\"\nfailure_url = \"https://shop.example.com/sorry\"\n";

/// A bare hyper server that reads the request and answers `SUCCESS`.
pub fn bare() -> Server {
    let this = std::env::current_exe().expect("this program");
    let mut child = Command::new(this).arg("serve-bare").stdout(Stdio::piped()).spawn().expect("runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it says where");
    let address = line.trim().parse().expect("an address");
    Server { child, address, admin: None, folder: None, group: false, others: vec![] }
}

/// What `serve-bare` runs: hyper as hyper-util's users write it.
pub fn serve_bare() {
    use http_body_util::{BodyExt, Full};
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        println!("{}", listener.local_addr().expect("bound"));
        let _ = std::io::stdout().flush();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async {
                let _ = request.into_body().collect().await;
                let body = Full::new(bytes::Bytes::from_static(b"SUCCESS"));
                Ok::<_, std::convert::Infallible>(hyper::Response::new(body))
            });
            #[expect(clippy::disallowed_methods, reason = "the yardstick is as bare as it gets")]
            tokio::spawn(async move {
                let io = hyper_util::rt::TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            });
        }
    });
}

/// nginx with php-fpm, and a handler that does what ClickPay's documentation shows.
pub fn php(folder: &Path, material: &Material) -> Server {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).expect("made");
    fs::copy(material.public_key(), folder.join("clickpay.pem")).expect("copied");
    let script = folder.join("clickpay.php");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/compare/php/clickpay.php"), &script).expect("copied");
    let (socket, address) = (folder.join("fpm.sock"), free_port());
    // As root both would change to a user of their own that may not read here.
    let root = rustix::process::geteuid().is_root();
    let user = if root { "user = root\ngroup = root\n" } else { "" };
    let fpm = format!(
        "[global]\nerror_log = {0}/fpm.log\ndaemonize = no\n[www]\n{user}listen = {1}\npm = static\n\
         pm.max_children = {PHP_WORKERS}\n",
        folder.display(),
        socket.display()
    );
    fs::write(folder.join("fpm.conf"), fpm).expect("written");
    let nginx_user = if root { "user root;\n" } else { "" };
    let nginx = format!(
        "{nginx_user}daemon off;\nworker_processes 2;\npid {0}/nginx.pid;\nerror_log {0}/nginx.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {0}/t1; proxy_temp_path {0}/t2;\n\
         fastcgi_temp_path {0}/t3; uwsgi_temp_path {0}/t4; scgi_temp_path {0}/t5;\n\
         server {{ listen {address}; location / {{ fastcgi_pass unix:{1};\n\
         include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME {2}; }} }} }}\n",
        folder.display(),
        socket.display(),
        script.display()
    );
    fs::write(folder.join("nginx.conf"), nginx).expect("written");
    let quiet = || (Stdio::null(), Stdio::null(), Stdio::null());
    let program = php_fpm();
    let mut fpm = Command::new(&program);
    fpm.arg("-F").arg("-y").arg(folder.join("fpm.conf")).args(root.then_some("-R"));
    let (input, output, error) = quiet();
    let fpm = fpm.stdin(input).stdout(output).stderr(error).process_group(0).spawn().expect("php-fpm runs");
    until("php-fpm", || socket.exists());
    let (input, output, error) = quiet();
    let mut nginx = Command::new("/usr/sbin/nginx");
    nginx.arg("-c").arg(folder.join("nginx.conf")).stdin(input).stdout(output).stderr(error).process_group(0);
    let child = nginx.spawn().expect("nginx runs");
    until("nginx", || TcpStream::connect(address).is_ok());
    Server { child, address, admin: None, folder: Some(folder.to_owned()), group: true, others: vec![fpm] }
}

fn php_fpm() -> PathBuf {
    let entries = fs::read_dir("/usr/sbin").expect("listed").flatten().map(|entry| entry.path());
    let mut found: Vec<_> = entries.filter(|path| path.display().to_string().contains("php-fpm")).collect();
    found.sort();
    found.pop().expect("php-fpm is installed")
}

/// adnanh/webhook with a rule that checks the HMAC of the raw body and runs `/bin/true`.
pub fn webhook(folder: &Path) -> Server {
    fs::create_dir_all(folder).expect("made");
    let hooks = serde_json::json!([{
        "id": "paygol",
        "execute-command": "/bin/true",
        "response-message": "OK",
        "trigger-rule": { "match": {
            "type": "payload-hmac-sha256", "secret": PAYGOL_SECRET,
            "parameter": { "source": "header", "name": "X-Pg-Sig" },
        } },
        "trigger-rule-mismatch-http-response-code": 401,
    }]);
    fs::write(folder.join("hooks.json"), hooks.to_string()).expect("written");
    let address = free_port();
    let mut command = Command::new("webhook");
    command.arg("-hooks").arg(folder.join("hooks.json")).args([
        "-ip",
        "127.0.0.1",
        "-port",
        &address.port().to_string(),
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let child = command.spawn().expect("webhook runs");
    until("webhook", || TcpStream::connect(address).is_ok());
    Server { child, address, admin: None, folder: Some(folder.to_owned()), group: true, others: vec![] }
}

impl Server {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `/readyz` says yes.
    pub fn until_ready(&self, patience: Duration) {
        let end = Instant::now() + patience;
        while !self.ask("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            assert!(Instant::now() < end, "not ready in time");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What the admin listener answers.
    pub fn ask(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin?).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// A metric; 0 where it is not shown.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.ask("/metrics").unwrap_or_default();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        line.unwrap_or(0.0)
    }

    /// Resident bytes.
    pub fn resident(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        kib << 10
    }

    /// Bytes it had the system write to disks.
    pub fn written(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/io", self.pid())).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or(0)
    }

    /// Seconds of processor time, user and system.
    pub fn busy(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let fields: Vec<f64> = text
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse().ok())
            .collect();
        fields.iter().sum::<f64>() / 100.0
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }

    /// Removes what it kept when it ends.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in self.others.iter_mut().chain([&mut self.child]) {
            if let (true, Some(pid)) = (self.group, Pid::from_raw(child.id().cast_signed())) {
                let _ = kill_process_group(pid, Signal::KILL);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < end, "{what} does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}
