//! The configuration: any text gives a tree or a list of problems, each with a place and a remedy.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(problems) = quittance::config::Config::parse(text, std::path::Path::new("/nowhere"), &|_| None) {
        assert!(!problems.to_string().is_empty());
    }
});
