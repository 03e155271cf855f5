//! Quittance from outside: the real executable, real sockets, a real disk. One file for each promise.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it expected by panicking")]

#[allow(dead_code, reason = "the relay's tests use more of it")]
mod collector;
mod expected;
mod fixtures;
#[allow(dead_code, reason = "`./prove` uses more of it")]
mod harness;
mod http;
mod pages;

mod admin_api;
mod audit;
mod bad_arguments;
mod browser_returns;
mod by_hand;
mod commands;
mod demo;
mod docs;
mod doctor;
mod durability;
mod expectations;
mod export;
mod feed;
mod http_rules;
mod logs;
mod main_job;
mod monitoring;
mod openapi;
mod packaging;
mod process;
mod quarantine;
mod reload;
mod reparse;
mod restored;
mod schema;
mod secrets;
mod send;
mod service;
mod shifted;
mod signatures;
mod single_use;
mod tamper;
mod terminal;
mod tidy;
mod traces;
