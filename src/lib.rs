//! Quittance stands between payment providers and a merchant's order system.
//!
//! ```text
//! provider --HTTP--> listener -> provider.verify -> store.commit (journal, fdatasync) -> answer
//!                                                      |
//!                    order system <-- sink (feed, AMQP) <-- relay
//! ```
//!
//! In reading order: the vocabulary ([`event`], [`verdict`]), the pure core ([`provider`]), what keeps
//! ([`store`]), what receives ([`listener`]), what is asked ([`admin`]), and what puts it together ([`app`],
//! [`cmd`]). ARCHITECTURE.md draws the map.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod cmd;
pub mod config;
pub mod drain;
pub mod event;
pub mod expectation;
pub mod failpoint;
pub mod listener;
pub mod metrics;
pub mod provider;
pub mod quarantine;
pub mod relay;
pub mod replay;
pub mod seal;
pub mod service_manager;
pub mod sink;
pub mod store;
pub mod telemetry;
pub mod traces;
pub mod verdict;
