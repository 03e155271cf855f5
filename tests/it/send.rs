//! What `send` makes is judged by code that is not ours, and is what the listener takes.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::fixtures::{self, GEM_API_SIGNATURE, GEM_RETURN_SECRET, KW_RETURN_SECRET, LEGACY_SECRET, PAYGOL_SECRET};
use crate::harness::{self, Daemon, Folder, eventually};

/// php's built-in server with one handler.
struct Php(Child, SocketAddr);

impl Php {
    fn serve(handler: &str, variable: &str, value: &str) -> Self {
        // Between here and there another process could take the port: then php says so and the test fails loudly.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let file = fixtures::folder().join("php").join(handler);
        let mut php = Command::new("php");
        php.args(["-n", "-d", "extension=openssl", "-S", &address.to_string()]).arg(file).env(variable, value);
        let child = php.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("php-cli is installed");
        eventually("php answers", || TcpStream::connect(address));
        Self(child, address)
    }
}

impl Drop for Php {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn send(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = harness::quittance(folder, &["--config", "quittance.toml", "send", "--json"]);
    command.args(arguments).output().expect("it runs")
}

/// The answers, one a line; the exit status must be `status`.
#[track_caller]
fn answers(folder: &Path, arguments: &[&str], status: i32) -> Vec<Value> {
    let output = send(folder, arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {told}");
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    for secret in [PAYGOL_SECRET, LEGACY_SECRET, KW_RETURN_SECRET, GEM_RETURN_SECRET, GEM_API_SIGNATURE] {
        assert!(!lines.contains(secret) && !told.contains(secret), "a secret is shown: {lines}{told}");
    }
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn key(name: &str) -> String {
    fixtures::folder().join("keys").join(name).display().to_string()
}

fn configured() -> Folder {
    let folder = Folder::new();
    std::fs::write(folder.path().join("quittance.toml"), harness::Config::default().render()).expect("written");
    folder
}

#[test]
fn php_written_after_paygols_document_accepts_what_send_makes_and_nothing_forged() {
    let php = Php::serve("paygol.php", "SECRET", PAYGOL_SECRET);
    let folder = configured();
    let to = format!("http://{}/notify?shop=1", php.1);
    for order in ["100042", "Größe/é😀\"\\ \u{7f}", "<a href='x'>&</a>", "\t\n\u{1}"] {
        let answered = answers(folder.path(), &["paygol", "--to", &to, "--order", order, "--amount", "7500.00"], 0);
        assert_eq!(
            (answered[0]["status"].as_u64(), answered[0]["answer"].as_str()),
            (Some(200), Some(order.trim_end()))
        );
    }
    let pending = answers(folder.path(), &["paygol", "--to", &to, "--status", "pending"], 0);
    assert_eq!(pending[0]["status"], 202, "the handler reads the status that was asked for");
    let forged = answers(folder.path(), &["paygol", "--to", &to, "--forge"], 1);
    assert_eq!((&forged[0]["status"], &forged[0]["accepted"]), (&json!(401), &json!(false)));
}

#[test]
fn php_written_after_clickpays_document_accepts_what_send_makes_and_nothing_forged() {
    for name in ["clickpay-1024", "clickpay-2048"] {
        let public = std::fs::read_to_string(key(&format!("{name}.pem"))).expect("the key");
        let php = Php::serve("clickpay.php", "PUBLIC_KEY", &public);
        let folder = configured();
        let (to, private) = (format!("http://{}", php.1), key(&format!("{name}.private.pem")));
        let base = ["clickpay", "--source", "clickpay-loose", "--to", &to, "--private-key", &private];
        let sent = |more: &[&str], status| answers(folder.path(), &[&base, more].concat(), status);
        assert_eq!(sent(&[], 0)[0]["answer"], "SUCCESS");
        // Longer than one block, and with characters of several bytes where blocks may be cut.
        assert_eq!(sent(&["--order", &"Ö😀".repeat(90)], 0)[0]["answer"], "SUCCESS");
        assert_eq!(sent(&["--status", "failed"], 1)[0]["answer"], "FAIL", "the handler reads code and msg");
        assert_eq!(sent(&["--forge"], 1)[0]["answer"], "FAIL");
    }
}

#[test]
fn every_provider_is_sent_as_the_listener_takes_it_and_a_repeat_is_no_second_event() {
    let daemon = Daemon::start();
    let (folder, base) = (daemon.folder(), format!("http://{}", daemon.public));
    let private = key("clickpay-2048.private.pem");
    let sent = |arguments: &[&str], status| {
        let to = ["--to", base.as_str(), "--repeat", "2"];
        let answered = answers(folder, &[arguments, &to].concat(), status);
        assert_eq!(answered.len(), 2);
        assert_eq!(answered[0], answered[1], "a repeat gets the original's answer");
        answered[0].clone()
    };
    sent(&["paygol", "--order", "1", "--amount", "12.50", "--currency", "EUR"], 0);
    sent(&["paygol", "--order", "2", "--status", "failed"], 0);
    sent(&["clickpay", "--source", "clickpay-id", "--private-key", &private], 0);
    sent(&["clickpay", "--source", "clickpay-id", "--private-key", &private, "--status", "canceled"], 0);
    sent(&["paygol-legacy", "--order", "3"], 0);
    daemon.expects(
        "clickkw-trust",
        "4",
        ("6.00", "KWD"),
        json!({ "session_id": "s", "indicator_status": "right-one" }),
    );
    sent(&["clickkw", "--source", "clickkw-trust", "--order", "4", "--indicator", "right-one"], 0);
    sent(&["clickgem", "--order", "5", "--status", "partially_paid"], 0);
    let told: Vec<String> = daemon
        .events()
        .iter()
        .map(|data| {
            let text = |name: &str| data[name].as_str().unwrap_or("-").to_owned();
            let amount = data["amount"]["value"].as_str().unwrap_or("-");
            format!("{} {} {amount} {}", text("provider"), text("status"), text("verdict"))
        })
        .collect();
    let expected = [
        "paygol paid 12.50 compare",
        "paygol failed 10.00 none",
        "clickpay paid 10000.00 compare",
        "clickpay canceled 10000.00 none",
        "paygol-legacy paid 10.00 hold",
        "clickkw paid - fulfil",
        "clickgem partially_paid - none",
    ];
    assert_eq!(told, expected);
    for forged in [
        ["paygol", "--forge"].as_slice(),
        &["clickpay", "--source", "clickpay-id", "--forge"],
        &["paygol-legacy", "--forge"],
        &["clickkw", "--source", "clickkw", "--forge"],
        &["clickgem", "--forge"],
    ] {
        assert_eq!(sent(forged, 1)["accepted"], false, "{forged:?}");
    }
    assert_eq!(daemon.events().len(), expected.len());
    assert_eq!(daemon.metric("quittance_notifications_total{outcome=\"refused\",source=\"paygol\"}"), 2.0);
}

/// What terminates TLS before a listener, and the authority that it is believed by.
struct TlsProxy {
    child: Child,
    port: u16,
    authority: PathBuf,
    _folder: Folder,
}

impl TlsProxy {
    fn before(upstream: SocketAddr) -> Self {
        let folder = Folder::new();
        let openssl = |line: &str| {
            let output = Command::new("openssl").current_dir(folder.path()).args(line.split(' ')).output();
            let output = output.expect("openssl runs");
            assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=test-authority -days 3650"));
        openssl(&format!("req {key} -keyout own.key -out own.csr -subj /CN=localhost"));
        std::fs::write(folder.path().join("own.ext"), "subjectAltName=DNS:localhost\n").expect("written");
        openssl(
            "x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out own.pem -days 365 -extfile own.ext",
        );
        let mut proxy = Command::new("/usr/bin/python3");
        proxy.arg(fixtures::folder().join("tls_proxy.py")).args(["own.pem", "own.key", &upstream.to_string()]);
        proxy.current_dir(folder.path()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = proxy.spawn().expect("python3 runs");
        let mut port = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut port).expect("it says its port");
        let authority = folder.path().join("ca.pem");
        Self { child, port: port.trim().parse().expect("a port"), authority, _folder: folder }
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_terminates_tls_is_sent_to_when_its_certificate_is_trusted_and_else_not() {
    let daemon = Daemon::start();
    let proxy = TlsProxy::before(daemon.public);
    let send = |host: &str, trust: Option<&Path>| {
        let to = format!("https://{host}:{}", proxy.port);
        let mut command =
            harness::quittance(daemon.folder(), &["--config", "quittance.toml", "send", "paygol", "--to", &to]);
        command.args(["--order", "TLS"]).env_remove("SSL_CERT_DIR").env_remove("SSL_CERT_FILE");
        command.envs(trust.map(|file| ("SSL_CERT_FILE", file)));
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let empty = daemon.folder().join("empty.pem");
    std::fs::write(&empty, "").expect("written");
    for (host, trust, why) in [
        ("localhost", None, "certificate"),
        ("127.0.0.1", Some(proxy.authority.as_path()), "certificate"),
        ("localhost", Some(empty.as_path()), "SSL_CERT_FILE"),
    ] {
        let (status, told) = send(host, trust);
        assert!(status == Some(1) && told.contains(why), "{host} {trust:?}: {status:?} {told}");
    }
    assert_eq!(daemon.events().len(), 0, "nothing was sent to who cannot be believed");
    assert_eq!(send("localhost", Some(&proxy.authority)), (Some(0), String::new()));
    assert_eq!(daemon.only_event()["order_id"], "TLS");
}

#[test]
fn a_return_url_that_expect_printed_is_called_as_it_is() {
    let daemon = Daemon::start();
    let path = daemon.expects("clickgem", "77", ("5.00", "USD"), json!({}));
    let to = format!("http://{}{path}", daemon.public);
    let answered = answers(daemon.folder(), &["clickgem", "--to", &to], 0);
    assert_eq!(answered[0]["status"], 303);
    assert_eq!(daemon.only_event()["order_id"], "77");
}

#[test]
fn what_cannot_be_sent_is_refused_with_what_to_do_and_nothing_arrives() {
    let daemon = Daemon::start();
    let base = format!("http://{}", daemon.public);
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let nobody = format!("http://{nobody}");
    let public = key("clickpay-1024.pem");
    let private = key("clickpay-1024.private.pem");
    let loose = ["clickpay", "--source", "clickpay-loose", "--to", &base];
    let cases: Vec<(Vec<&str>, i32, &str)> = vec![
        (vec!["nobody"], 2, "possible values: clickpay, paygol, paygol-legacy, clickkw, clickgem"),
        (vec!["paygol"], 2, "--to"),
        (vec!["paygol", "--to", "ftp://x"], 2, "http://HOST:PORT"),
        (vec!["paygol", "--to", "https://a:b@pay.example.com"], 2, "no http URL"),
        (vec!["paygol", "--to", "not a url"], 2, "no URL"),
        (vec!["paygol", "--to", &nobody], 1, "is the daemon running"),
        (vec!["paygol", "--to", &base, "--amount", "1,5"], 2, "decimal"),
        (vec!["paygol", "--to", &base, "--repeat", "0"], 2, "0"),
        (vec!["paygol", "--to", &base, "--source", "clickgem"], 2, "is a source of clickgem"),
        (vec!["paygol", "--to", &base, "--source", "gone"], 2, "no source gone"),
        (vec!["clickpay", "--to", &base], 2, "--source clickpay-id or --source clickpay-out"),
        (loose.to_vec(), 2, "--private-key"),
        ([&loose[..], &["--private-key", "/nowhere"]].concat(), 2, "/nowhere"),
        ([&loose[..], &["--private-key", &public]].concat(), 2, "private half"),
        ([&loose[..], &["--private-key", "quittance.toml"]].concat(), 2, "neither PEM nor base64"),
        ([&loose[..], &["--private-key", &private, "--status", "odd"]].concat(), 2, "CODE/MSG"),
        (vec!["clickpay", "--source", "clickpay-out", "--to", &base, "--private-key", &private], 2, "order_pattern"),
        (vec!["paygol-legacy", "--to", &base, "--status", "failed"], 2, "completed payments only"),
        (vec!["clickkw", "--source", "clickkw", "--to", &base, "--order", "a/b"], 2, "[A-Za-z0-9_-]"),
    ];
    for (arguments, status, why) in cases {
        let output = send(daemon.folder(), &arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {told}");
        assert!(told.contains(why), "{arguments:?}: {told}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    assert!(daemon.events().is_empty());
}
