//! Which of two configurations' differences a running daemon can take.

use super::{Admin, Amqp, Config, Listener, Problem, Source, StoreSettings};

const RESTART: &str = "a reload cannot change it: put it back, or restart";

/// What a daemon that runs with `running` would have to be restarted for before `wanted` can be in force. Empty: a
/// reload is enough. `queue` is how many requests the daemon made room for at its start.
///
/// Everything is named here, so that what is added to the configuration has to be decided on.
pub fn needs_restart(running: &Config, wanted: &Config, queue: usize) -> Vec<Problem> {
    let Config {
        listener:
            Listener {
                address,
                max_in_flight,
                // Taken by the next connection or the next request.
                public_url: _,
                max_connections: _,
                max_body_bytes: _,
                max_header_bytes: _,
                header_timeout: _,
                body_timeout: _,
                request_timeout: _,
                idle_timeout: _,
            },
        admin: Admin { address: admin, token: _ },
        store: StoreSettings { path, segment_bytes, index_lag: _ },
        retention: _,
        quarantine: _,
        fulfil_never: _,
        amqp,
        feed_consumers: _,
        traces,
        sources,
    } = wanted;
    let mut problems = Vec::new();
    let mut note = |path: &str, differs: bool, message: &str| {
        if differs {
            let (path, message, remedy) = (path.to_owned(), message.to_owned(), RESTART.to_owned());
            problems.push(Problem { path, line: None, message, remedy });
        }
    };
    note("listener.address", *address != running.listener.address, "is another than the one that is bound");
    let message = format!("is more than the {queue} that room was made for at the start");
    note("listener.max_in_flight", *max_in_flight > queue, &message);
    note("admin.address", *admin != running.admin.address, "is another than the one that is bound");
    note("store.path", *path != running.store.path, "is another than the store that is open");
    note("store.segment", *segment_bytes != running.store.segment_bytes, "is another than the open store's");
    note("relay.amqp", !same_relay(amqp.as_ref(), running.amqp.as_ref()), "is not what the relay was started with");
    note("traces", *traces != running.traces, "is not what the daemon was started with");
    for (at, source) in sources.iter().enumerate() {
        let former = running.sources.iter().find(|former| former.name == source.name);
        let Some(former) = former else { continue };
        // What is told once is told once for an account, and a notification in flight belongs to the former one.
        note(&format!("source[{at}].account"), former.account != source.account, "belongs to another account now");
        note(&format!("source[{at}].provider"), !same_provider(former, source), "is another provider's now");
    }
    problems
}

fn same_provider(one: &Source, other: &Source) -> bool {
    std::mem::discriminant(&one.provider) == std::mem::discriminant(&other.provider)
}

fn same_relay(one: Option<&Amqp>, other: Option<&Amqp>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return one.is_none() && other.is_none() };
    // `start` says where a new sink begins: to one that has begun it means nothing.
    let Amqp { urls, exchange, queue, declare, window, attempts, start: _ } = one;
    let same_urls = urls.len() == other.urls.len() && urls.iter().zip(&other.urls).all(|(one, other)| one.same(other));
    same_urls
        && (exchange, queue, declare, window, attempts)
            == (&other.exchange, &other.queue, &other.declare, &other.window, &other.attempts)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const RUNNING: &str = r#"
[listener]
address = "127.0.0.1:8080"
public_url = "https://pay.example.com"
[admin]
address = "127.0.0.1:9090"
[store]
path = "store"
[relay.amqp]
url = "amqp://quittance:a-password-of-it@127.0.0.1/"
[[source]]
name = "paygol"
provider = "paygol"
path = "/paygol"
service_id = "123"
secrets = ["7c1a6a24-7943-102d-92f8-29573711ad31"]
"#;

    #[track_caller]
    fn paths(change: impl Fn(&str) -> String) -> Vec<String> {
        let read = |text: &str| Config::parse(text, Path::new(""), &|_| None).expect("a configuration");
        let problems = needs_restart(&read(RUNNING), &read(&change(RUNNING)), 1024);
        assert!(problems.iter().all(|problem| problem.remedy.contains("restart")));
        assert!(!format!("{problems:?}").contains("password"));
        problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn keys_sources_and_limits_need_no_restart() {
        for (from, to) in [
            ("7c1a6a24", "8d2b7b35"),
            ("path = \"/paygol\"", "path = \"/elsewhere\""),
            ("name = \"paygol\"", "name = \"another\""),
            (
                "[admin]",
                "max_connections = 7\nmax_in_flight = 1000\nidle_timeout = \"9s\"\n[admin]\ntoken = \"0123456789abcdef\"",
            ),
            (
                "[store]",
                "[retention]\nbodies = \"7d\"\n[quarantine]\nage = \"7d\"\n[policy]\nfulfil = \"never\"\n[store]\nindex_lag = 5",
            ),
            ("\nurl =", "\nstart = \"now\"\nurl ="),
            ("[relay.amqp]", "[relay.feed]\nconsumers = [\"shop\"]\n[relay.amqp]"),
        ] {
            assert_eq!(paths(|text| text.replace(from, to)), Vec::<String>::new(), "{to}");
        }
    }

    #[test]
    fn sockets_the_store_the_relay_and_what_a_source_is_need_one() {
        for (from, to, path) in [
            ("127.0.0.1:8080", "127.0.0.1:8081", "listener.address"),
            ("127.0.0.1:9090", "127.0.0.1:9091", "admin.address"),
            ("[admin]", "max_in_flight = 1025\n[admin]", "listener.max_in_flight"),
            ("path = \"store\"", "path = \"other\"", "store.path"),
            ("[store]", "[store]\nsegment = \"1MiB\"", "store.segment"),
            ("a-password-of-it", "another-password", "relay.amqp"),
            ("\nurl =", "\nwindow = 7\nurl =", "relay.amqp"),
            ("[relay.amqp]\nurl = \"amqp://quittance:a-password-of-it@127.0.0.1/\"\n", "", "relay.amqp"),
            ("[store]", "[traces]\nendpoint = \"http://127.0.0.1:4318\"\n[store]", "traces"),
            ("name = \"paygol\"", "name = \"paygol\"\naccount = \"other\"", "source[0].account"),
            ("provider = \"paygol\"", "provider = \"paygol-legacy\"", "source[0].provider"),
        ] {
            assert_eq!(paths(|text| text.replace(from, to)), [path], "{to}");
        }
        let both = paths(|text| text.replace("8080", "8082").replace("\"store\"", "\"other\""));
        assert_eq!(both, ["listener.address", "store.path"], "all at once");
    }
}
