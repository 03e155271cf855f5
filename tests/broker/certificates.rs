//! Certificates of the tests' own, made by openssl: an authority, a server it vouches for, and servers that nobody
//! should believe.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::eventually;

/// The authority, by which a test trusts, and what servers show.
pub struct Certificates {
    folder: PathBuf,
}

/// A certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub struct Shown {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// `openssl ca` can date a certificate back, `openssl x509` of Debian 12 cannot.
const CA_CONFIG: &str = "[ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\nserial = serial\nnew_certs_dir = .\n\
                         default_md = sha256\npolicy = any\ncopy_extensions = copy\nunique_subject = no\n\
                         [any]\ncommonName = supplied\n";

impl Certificates {
    /// Makes all of them in a new folder.
    #[track_caller]
    pub fn in_folder(folder: &Path) -> Self {
        fs::create_dir(folder).expect("made");
        fs::write(folder.join("ca.cnf"), CA_CONFIG).expect("written");
        fs::write(folder.join("index.txt"), "").expect("written");
        fs::write(folder.join("serial"), "1000\n").expect("written");
        let made = Self { folder: folder.to_owned() };
        made.authority_named("ca");
        made.authority_named("other-ca");
        made.server("good", "ca", "localhost", ("20250101000000Z", "20491231000000Z"));
        made.server("expired", "ca", "localhost", ("20200101000000Z", "20200201000000Z"));
        made.server("elsewhere", "ca", "broker.example.net", ("20250101000000Z", "20491231000000Z"));
        made.server("unknown", "other-ca", "localhost", ("20250101000000Z", "20491231000000Z"));
        made
    }

    /// The certificate of the authority that `good`, `expired` and `elsewhere` come from.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// For `localhost`, from the authority.
    pub fn good(&self) -> Shown {
        self.shown("good")
    }

    /// `good`, `expired`, `elsewhere` (for another host), or `unknown` (from another authority).
    pub fn shown(&self, name: &str) -> Shown {
        let file = |ending| self.folder.join(format!("{name}.{ending}"));
        Shown { certificate: file("pem"), key: file("key") }
    }

    fn authority_named(&self, name: &str) {
        let subject = format!("/CN=quittance test {name}");
        let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &certificate,
            "-subj",
            &subject,
            "-days",
            "3650",
            "-addext",
            "keyUsage=critical,keyCertSign",
        ]);
    }

    fn server(&self, name: &str, authority: &str, host: &str, (from, to): (&str, &str)) {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let (subject, host) = (format!("/CN={host}"), format!("subjectAltName=DNS:{host}"));
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &request,
            "-subj",
            &subject,
            "-addext",
            &host,
            "-addext",
            "extendedKeyUsage=serverAuth",
        ]);
        let (by, by_key) = (format!("{authority}.pem"), format!("{authority}.key"));
        self.openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-config",
            "ca.cnf",
            "-cert",
            &by,
            "-keyfile",
            &by_key,
            "-startdate",
            from,
            "-enddate",
            to,
            "-in",
            &request,
            "-out",
            &certificate,
        ]);
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").current_dir(&self.folder).args(arguments).output().expect("openssl runs");
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A server that shows a certificate and speaks no AMQP behind it; ends with its value.
pub struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Listening.
    #[track_caller]
    pub fn showing(shown: &Shown) -> Self {
        let [port] = crate::node::free_ports();
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        let child = Command::new("openssl")
            .args(["s_server", "-quiet", "-accept", &address.to_string(), "-cert"])
            .arg(&shown.certificate)
            .arg("-key")
            .arg(&shown.key)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let server = Self { child, address };
        eventually("it listens", || TcpStream::connect(address).map(drop));
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
