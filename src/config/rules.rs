//! What sources must be to each other: names, paths, accounts and secrets.

use super::Admin;
use super::secret::Secret;
use super::source::{Parsed, Use};

/// Notes everything that only shows between sources.
pub(super) fn check(sources: &[Parsed<'_>], admin: Option<&Admin>) {
    for (index, source) in sources.iter().enumerate() {
        for (earlier, other) in sources.iter().enumerate().take(index) {
            names(source, earlier, other);
            paths(source, earlier, other);
            accounts(source, earlier, other);
        }
    }
    secrets(sources, admin);
}

fn names(source: &Parsed<'_>, earlier: usize, other: &Parsed<'_>) {
    if let (Some(name), Some(theirs)) = (&source.name, &other.name)
        && name == theirs
    {
        let message = format!("{:?} is source[{earlier}]'s name too", name.as_str());
        source.section.problem("name", message, "journal and metrics tell sources by their names: choose another");
    }
}

fn paths(source: &Parsed<'_>, earlier: usize, other: &Parsed<'_>) {
    let (Some(path), Some(theirs)) = (&source.path, &other.path) else { return };
    if path == theirs {
        let message = format!("{path:?} is source[{earlier}]'s path too");
        source.section.problem("path", message, "give every source a path of its own");
        return;
    }
    let below = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
    let remedy = "return URLs arrive below such a path: move one of the two";
    if other.has_return_url() && below(path, theirs) {
        source.section.problem("path", format!("{path:?} lies below {theirs:?} of source[{earlier}]"), remedy);
    }
    if source.has_return_url() && below(theirs, path) {
        source.section.problem("path", format!("{theirs:?} of source[{earlier}] lies below {path:?}"), remedy);
    }
}

/// Single use counts per account, by the provider's transaction numbers: two providers' numbers must not meet.
fn accounts(source: &Parsed<'_>, earlier: usize, other: &Parsed<'_>) {
    let family = |word: &'static str| word.strip_suffix("-legacy").unwrap_or(word);
    let (Some(word), Some(theirs)) = (source.word, other.word) else { return };
    if let (Some(account), Some(other)) = (&source.account, &other.account)
        && account == other
        && family(word) != family(theirs)
    {
        let message = format!("{:?} is source[{earlier}]'s account too, at {theirs}", account.as_str());
        source.section.problem("account", message, "an account is one merchant's at one provider: choose another");
    }
}

/// A configured secret: what it is for, the source that has it, and its path.
struct Known<'s> {
    purpose: Use,
    source: Option<&'s Parsed<'s>>,
    path: String,
    secret: &'s Secret,
}

fn secrets(sources: &[Parsed<'_>], admin: Option<&Admin>) {
    let mut seen: Vec<Known<'_>> = Vec::new();
    if let Some(token) = admin.and_then(|admin| admin.token.as_ref()) {
        seen.push(Known { purpose: Use::AdminToken, source: None, path: "admin.token".to_owned(), secret: token });
    }
    for source in sources {
        for (purpose, key, secret) in &source.secrets {
            let path = source.section.path_of(key);
            for other in seen.iter().filter(|other| other.secret.same(secret)) {
                match (purpose, other.purpose) {
                    // Two services of one merchant may have one secret; what it proves stays the same.
                    (own, theirs) if *own == theirs => {}
                    (Use::Paygol, Use::PaygolLegacy) | (Use::PaygolLegacy, Use::Paygol) => {
                        shared(source, &other.path);
                        if let Some(other) = other.source {
                            shared(other, &path);
                        }
                    }
                    _ => {
                        let message = format!("is the same secret as {}", other.path);
                        let remedy = "who learns one of them could forge with the other: give each its own";
                        source.section.problem(key, message, remedy);
                    }
                }
            }
            seen.push(Known { purpose: *purpose, source: Some(source), path, secret });
        }
    }
}

/// A v2 signature is worth no more than the key in a legacy URL where the two are one: the operator must say so.
fn shared(source: &Parsed<'_>, other: &str) {
    if !source.shared_secret {
        let message = format!("has to be true: {other} is the same secret, and legacy URLs carry it openly");
        let remedy = "use two secrets, or set it on both: their notifications then need a matching expectation";
        source.section.problem("shared_secret", message, remedy);
    }
}
