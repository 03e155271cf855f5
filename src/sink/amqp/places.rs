//! Where the brokers are, and what is wrong when one cannot be used, in words for an operator. No password enters.

use crate::sink::Trouble;

/// At which step a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Looking up the host's name.
    Resolve,
    /// Reaching host and port.
    Reach,
    /// The TLS handshake.
    Tls,
    /// AMQP's own handshake: version, user, virtual host.
    Login,
    /// Opening a channel.
    Channel,
    /// Exchange and queues.
    Topology,
}

/// A failed step as an operator should read it. `said` is what the system or the broker said; `code` the broker's
/// reply code, where it gave one (AMQP 0-9-1, section 1.2).
pub(super) fn trouble(at: &str, step: Step, code: Option<u16>, said: &str) -> Trouble {
    let (what, remedy) = match (step, code) {
        (Step::Resolve, _) => ("the host's name cannot be resolved", "check the host in relay.amqp.url"),
        (Step::Reach, _) => ("cannot be reached", "check host and port in relay.amqp.url, and that the broker runs"),
        (Step::Tls, _) => (
            "the TLS handshake failed",
            "check that this is the broker's amqps port, that its certificate names this host and has not expired, and \
             that the system trusts its issuer (or SSL_CERT_FILE names a file with the certificate of one)",
        ),
        (Step::Login, Some(403)) => ("the broker refuses the user or password", "check both in relay.amqp.url"),
        (Step::Login, Some(530)) => (
            "the broker refuses the virtual host",
            "check the path of relay.amqp.url (percent-encoded; none means /), and that the user may use it",
        ),
        (Step::Login, Some(_)) => ("the broker refuses the connection", "see the broker's log"),
        (Step::Login, None) => (
            "what answers does not finish the AMQP handshake",
            "check that the port is the broker's, and amqp or amqps as the port wants it; see the broker's log",
        ),
        (Step::Channel, _) => ("no channel can be opened", "see the broker's log and its limits"),
        (Step::Topology, Some(403)) => (
            "the user may not declare or use exchange and queue",
            "give the user configure, write and read rights, or set relay.amqp.declare = false",
        ),
        (Step::Topology, Some(404)) => (
            "the exchange does not exist",
            "declare it at the broker, set relay.amqp.exchange, or set relay.amqp.declare = true",
        ),
        (Step::Topology, Some(406)) => (
            "the exchange or queue exists with another type or other arguments",
            "name another one in relay.amqp.exchange and relay.amqp.queue, delete the old one, or set \
             relay.amqp.declare = false",
        ),
        (Step::Topology, _) => ("exchange and queue cannot be declared", "see the broker's log"),
    };
    let what = if said.is_empty() { what.to_owned() } else { format!("{what} ({said})") };
    Trouble { at: at.to_owned(), what, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mistake_has_its_own_remedy() {
        let remedy = |step, code| trouble("mq:5672", step, code, "").remedy;
        let all = [
            remedy(Step::Resolve, None),
            remedy(Step::Reach, None),
            remedy(Step::Tls, None),
            remedy(Step::Login, Some(403)),
            remedy(Step::Login, Some(530)),
            remedy(Step::Login, None),
            remedy(Step::Topology, Some(403)),
            remedy(Step::Topology, Some(404)),
            remedy(Step::Topology, Some(406)),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn what_the_broker_said_is_told_with_the_place() {
        let told = trouble("mq:5672", Step::Login, Some(403), "ACCESS_REFUSED").to_string();
        assert_eq!(told, "mq:5672: the broker refuses the user or password (ACCESS_REFUSED)");
    }
}
