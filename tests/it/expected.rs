//! What a person sees, compared with the files of `tests/it/expected`.
//!
//! Plain files and a comparison, no snapshot library: a reviewer reads the page itself, and `QUITTANCE_BLESS=1` writes it
//! anew. What differs from run to run (ids, times, ports, folders) is replaced before.

use std::path::Path;

/// Compares with `tests/it/expected/<name>`.
#[track_caller]
pub fn same(name: &str, seen: &str) {
    let seen = steady(seen);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/expected").join(name);
    if std::env::var_os("QUITTANCE_BLESS").is_some() {
        std::fs::write(&file, &seen).expect("written");
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        expected == seen,
        "{name} is not what was expected.\n--- expected\n{expected}\n--- seen\n{seen}\n--- QUITTANCE_BLESS=1 takes it"
    );
}

/// The text without what differs from run to run.
fn steady(text: &str) -> String {
    let replacements = [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
        (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{3})?(Z|[+-]\d\d:\d\d)", "<time>"),
        (r"\b[0-9a-f]{64}\b", "<hash>"),
        (r"127\.0\.0\.1:[1-9]\d*", "127.0.0.1:<port>"),
        (r"/tmp/quittance-it-\w+", "<folder>"),
        (r"\bA[A-Za-z0-9_-]{38}\b", "<cursor>"),
    ];
    replacements.into_iter().fold(text.to_owned(), |text, (pattern, to)| {
        regex::Regex::new(pattern).expect("a pattern").replace_all(&text, to).into_owned()
    })
}
