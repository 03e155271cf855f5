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

pub mod event;
pub mod verdict;
pub mod config;
pub mod quarantine;
pub mod provider;
pub mod expectation;
pub mod store;
pub mod clock;
pub mod metrics;
pub mod telemetry;
pub mod cli;
pub mod cmd;
pub mod drain;
pub mod listener;
pub mod sink;
pub mod admin;
