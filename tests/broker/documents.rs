//! The pages for people, followed to where an event is in RabbitMQ, and is consumed.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::eventually_within;
use crate::node;
use crate::pages::{Reader, follow, page};
use crate::scene::{PATIENCE, url};

#[test]
fn the_quick_start_ends_with_an_event_in_rabbitmq() {
    let node = node::shared();
    let broker = url("guest:guest", node.address(), &node.new_vhost());
    follow("docs/quickstart.md", Reader::new(Some(broker)));
}

/// The program of a page while it runs; it ends as a crash ends it.
struct Program(Child);

impl Program {
    fn start(folder: &Path, broker: &str) -> Self {
        let mut python = Command::new("/usr/bin/python3");
        python.args(["consumer.py", "shop.json"]).current_dir(folder).env("QUITTANCE_AMQP_URL", broker);
        Self(python.stdin(Stdio::null()).spawn().expect("python3 runs"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The feed's consumers are tried in tests/it; this one gets the same events, and then each a second time.
#[test]
fn the_consumer_for_rabbitmq_books_once_and_obeys_the_verdict() {
    let node = node::shared();
    let broker = url("guest:guest", node.address(), &node.new_vhost());
    let (_, blocks) = page("docs/consuming.md");
    let block = |language: &str, mark: &str| {
        &blocks.iter().find(|block| block.language == language && block.mark == mark).expect(language).text
    };
    let (obey, _) = block("python", "").split_once("feed, file").expect("what reads the feed stands behind `obey`");
    let mut reader = Reader::new(Some(broker.clone()));
    let folder = reader.folder.path().to_owned();
    let file = folder.join("shop.json");
    std::fs::write(folder.join("consumer.py"), obey.to_owned() + block("python", "broker")).expect("written");
    std::fs::write(&file, block("json", "")).expect("written");
    let (_, operations) = page("docs/operations.md");
    let config = &operations.iter().find(|block| block.language == "toml").expect("one").text;
    reader.configure(&format!("{config}\n[relay.amqp]\nurl = {{ env = \"QUITTANCE_AMQP_URL\" }}\n"));
    reader.start();
    let run = |script: &str| {
        let output = reader.bash(script);
        assert!(output.status.success(), "{output:?}");
    };
    let seen = |count: usize| -> Value {
        let shop = || {
            let shop: Value = serde_json::from_slice(&std::fs::read(&file).expect("there")).expect("JSON");
            let events = shop["seen"].as_object().expect("an object").len();
            if events == count { Ok(shop) } else { Err(shop) }
        };
        eventually_within(PATIENCE, "", shop).unwrap_or_else(|shop| panic!("not {count} events: {shop}"))
    };
    run("quittance expect --source paygol --order F --amount 5.00 --currency USD
         quittance send paygol --order F --amount 5.00
         quittance send paygol --order 100042 --amount 10.00
         quittance send paygol --order OTHER --amount 10.00
         quittance expect --source paygol --order H --amount 9.00 --currency USD
         quittance send paygol --order H --amount 1.00
         quittance send paygol --order N --status failed");
    // Each order's events come in their order, the orders' in any.
    let program = Program::start(&folder, &broker);
    let mut first = seen(5);
    drop(program);
    assert_eq!(first["booked"], json!({ "F": "payment.paid", "100042": "payment.paid" }));
    let look = first["look"].as_object().expect("an object");
    assert!(look.len() == 2 && ["OTHER", "H"].iter().all(|order| look.values().any(|o| o == order)), "{look:?}");

    // Every event again under its id, and one more behind them: when that was seen, so were they.
    first["booked"] = json!({ "x": "y" });
    std::fs::write(&file, first.to_string()).expect("written");
    run("quittance replay --all --rate max --yes && quittance send paygol --order LAST");
    let _program = Program::start(&folder, &broker);
    assert_eq!(seen(6)["booked"], json!({ "x": "y" }), "it books again what it has seen");
}
