//! The relay against a real RabbitMQ: a node of the tests' own that is killed, strangled and cut off on purpose, a
//! consumer in another language, and one sentence to prove: whatever was acknowledged arrives, in the order of its
//! order, and comes again only as itself.
//!
//! Debian's packages rabbitmq-server and python3-pika must be there; a broker of the machine is never touched. The storm
//! of all these faults at once is a section of `./prove` (`tests/prove/broker.rs`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it expected by panicking")]

mod bulk;
mod certificates;
#[allow(dead_code, reason = "the black-box tests use more of it")]
#[path = "../it/collector.rs"]
mod collector;
#[allow(dead_code, reason = "`./prove` uses more of it")]
mod consumer;
#[allow(dead_code, reason = "the black-box tests use more of it")]
#[path = "../it/fixtures.rs"]
mod fixtures;
mod frames;
#[allow(dead_code, reason = "the black-box tests use more of it")]
#[path = "../it/harness.rs"]
mod harness;
#[allow(dead_code, reason = "the black-box tests use more of it")]
#[path = "../it/http.rs"]
mod http;
#[allow(dead_code, reason = "`./prove` uses more of it")]
mod node;
#[allow(dead_code, reason = "the black-box tests use more of it")]
#[path = "../it/pages.rs"]
mod pages;
#[allow(dead_code, reason = "`./prove` uses more of it")]
mod proxy;
#[allow(dead_code, reason = "the power tests use more of it")]
#[path = "../power/rng.rs"]
mod rng;
mod scene;
#[path = "../it/schema.rs"]
mod schema;

mod by_hand;
mod cuts;
mod documents;
mod outages;
mod refusals;
mod rights;
mod tls;
mod topology;
mod wire;
