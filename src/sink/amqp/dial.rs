//! A connection to a broker: a socket that is opened here, TLS, and the login.

use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_compat::{Compat, CompatExt};
use futures_util::FutureExt;
use lapin::tcp::TLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, ErrorKind};
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::places::{Step, trouble};
use crate::sink::Trouble;

/// How long one address may take to be reached, and a broker for each step after that.
const REACH: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
/// How long sent bytes may stay unacknowledged by the peer's system: a cable that was pulled.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

type Socket = AsyncTcpStream<Compat<TcpStream>>;

/// Cuts the socket when dropped, so that nothing in lapin waits on it for ever.
pub(super) struct Cut(std::net::TcpStream);

impl Drop for Cut {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both); // it may have ended by itself
    }
}
/// `host:port`, without user and password.
pub(super) fn place(uri: &AMQPUri) -> String {
    format!("{}:{}", uri.authority.host, uri.authority.port)
}

/// The host; an IPv6 address without the brackets that a URL puts around it.
fn host(uri: &AMQPUri) -> &str {
    uri.authority.host.trim_matches(['[', ']'])
}

pub(super) async fn bounded<T>(
    at: &str,
    step: Step,
    what: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    timeout(ANSWER, what).await.unwrap_or_else(|_| Err(trouble(at, step, None, "no answer in time")))
}

/// The broker's reply code and words, or what else there is to say.
pub(super) fn said(error: &lapin::Error) -> (Option<u16>, String) {
    match error.kind() {
        ErrorKind::ProtocolError(error) => (Some(error.get_id()), error.get_message().to_string()),
        ErrorKind::IOError(error) => (None, error.to_string()),
        _ => (None, error.to_string()),
    }
}

pub(super) fn failed(at: &str, step: Step) -> impl Fn(lapin::Error) -> Trouble {
    move |error| {
        let (code, said) = said(&error);
        trouble(at, step, code, &said)
    }
}

/// A socket that notices when its peer has gone, and what cuts it.
async fn reach(uri: &AMQPUri, at: &str) -> Result<(TcpStream, Cut), Trouble> {
    let authority = (host(uri), uri.authority.port);
    let addresses = timeout(ANSWER, tokio::net::lookup_host(authority)).await;
    let addresses = addresses.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let addresses = addresses.map_err(|error| trouble(at, Step::Resolve, None, &error.to_string()))?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let connected = timeout(REACH, TcpStream::connect(address)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).and_then(prepare) {
            Ok(ready) => return Ok(ready),
            Err(error) => last = error,
        }
    }
    Err(trouble(at, Step::Reach, None, &last.to_string()))
}

fn prepare(stream: TcpStream) -> io::Result<(TcpStream, Cut)> {
    stream.set_nodelay(true)?;
    let millis = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(&stream, millis)?;
    let twin = stream.as_fd().try_clone_to_owned()?;
    Ok((stream, Cut(twin.into())))
}

/// A connection that is logged in.
pub(super) async fn open(uri: &AMQPUri) -> Result<(Connection, Cut), Trouble> {
    let at = place(uri);
    let (stream, cut) = reach(uri, &at).await?;
    let mut socket: Socket = AsyncTcpStream::Plain(stream.compat());
    if uri.scheme == AMQPScheme::AMQPS {
        let failed = |error: io::Error| trouble(&at, Step::Tls, None, &error.to_string());
        let shaken = socket.into_tls(host(uri), TLSConfig::default());
        socket = bounded(&at, Step::Tls, shaken.map(|result| result.map_err(failed))).await?;
    }
    // lapin asks for a socket once, and again only for what is not wanted here: it gets this one or none.
    let socket = Arc::new(Mutex::new(Some(socket)));
    let hand_over = async move |_, _| {
        let socket = socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        socket.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
    };
    let runtime = lapin::runtime::default_runtime().map_err(failed(&at, Step::Login))?;
    let options = ConnectionProperties::default()
        .with_connection_name("quittance".into())
        .with_client_property("product".into(), "quittance".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let connecting = Connection::connector(uri.clone(), runtime, hand_over, options);
    let connection =
        bounded(&at, Step::Login, connecting.map(|result| result.map_err(failed(&at, Step::Login)))).await?;
    Ok((connection, cut))
}
