//! A secret that cannot be printed or serialized by accident, and the rules for what may be one.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeValue;
use zeroize::Zeroizing;

use super::raw::{Document, kind};

/// Secret text; wiped when the last copy is dropped. Equality is not offered: compare with `subtle`.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Keeps `text`. The rules for what may be a secret are the config's.
    pub fn new(text: String) -> Self {
        Self(Arc::new(Zeroizing::new(text)))
    }
    /// The secret itself, to be compared, hashed or handed to a broker, never printed.
    pub fn expose(&self) -> &str {
        &self.0
    }
    /// Whether two configured secrets are one. Nobody outside can time this.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

/// For the command line, where any text is a secret and none can be refused.
impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a value must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// A shared secret: long enough, no placeholder, in a file that others cannot read.
    Secret,
    /// A public key: anybody may read it; its form is checked by whoever parses it.
    PublicKey,
    /// A broker's URL, which carries a password but is not one.
    BrokerUrl,
}

/// Why a secret cannot be had. Never says anything about its value.
pub(super) struct Fault {
    pub message: String,
    pub remedy: String,
}

/// No key or secret is longer; what is, is another file than was meant.
const MAX_BYTES: u64 = 64 * 1024;
/// interface.md, section 3.
const MIN_BYTES: usize = 16;
const FORMS: &str = "write { file = \"..\" }, { env = \"..\" }, { credential = \"..\" } or the text itself";
const MAKE_ONE: &str = "make one with `openssl rand -hex 32`, or copy it from the provider's panel";

/// The secret that a TOML value stands for.
pub(super) fn load(value: &DeValue<'_>, document: &Document<'_>, rule: Rule) -> Result<Secret, Fault> {
    let text = match value {
        DeValue::String(text) => Zeroizing::new(text.to_string()),
        DeValue::Table(table) => {
            let mut entries = table.iter();
            let (Some((form, place)), None) = (entries.next(), entries.next()) else {
                return Err(fault("names no place, or several", FORMS));
            };
            let DeValue::String(place) = place.get_ref() else {
                return Err(fault(format!("the place is {}, not a text", kind(place.get_ref())), FORMS));
            };
            match form.get_ref().as_ref() {
                "file" => {
                    from_file(&document.base.join(place.as_ref()), rule == Rule::Secret || rule == Rule::BrokerUrl)?
                }
                "env" => from_env(place, document)?,
                "credential" => from_file(&credential(place, document)?, false)?,
                other => return Err(fault(format!("{other:?} is no place for a secret"), FORMS)),
            }
        }
        other => return Err(fault(format!("is {}, not a secret", kind(other)), FORMS)),
    };
    let trimmed = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    judge(trimmed, rule)?;
    Ok(Secret::new(trimmed.to_owned()))
}

/// Whether a text may be what `rule` says.
fn judge(text: &str, rule: Rule) -> Result<(), Fault> {
    if text.trim().is_empty() {
        return Err(fault("is empty", MAKE_ONE));
    }
    if is_unexpanded(text) {
        return Err(fault("is a template that nobody filled in", "nothing is expanded here: use { env = \"..\" }"));
    }
    if rule != Rule::Secret {
        return Ok(());
    }
    if is_placeholder(text) {
        return Err(fault("is a placeholder", MAKE_ONE));
    }
    if text.len() < MIN_BYTES {
        return Err(fault(format!("is {} bytes long, shorter than {MIN_BYTES}", text.len()), MAKE_ONE));
    }
    if text.chars().any(char::is_control) || text.trim() != text {
        return Err(fault("has a control character inside, or a space at an end", "keep the secret alone on one line"));
    }
    Ok(())
}

fn from_env(name: &str, document: &Document<'_>) -> Result<Zeroizing<String>, Fault> {
    let text = (document.env)(name).map(Zeroizing::new);
    text.ok_or_else(|| fault(format!("the environment has no {name:?} in UTF-8"), "set it where the daemon is started"))
}

/// A file that systemd made: `$CREDENTIALS_DIRECTORY/<name>`. Who may read it is systemd's business; the bits of
/// its mode say nothing, since it grants the service's user by an access list.
fn credential(name: &str, document: &Document<'_>) -> Result<PathBuf, Fault> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(fault(format!("{name:?} is not a credential's name"), "write the name of LoadCredential="));
    }
    let folder = (document.env)("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty()).ok_or_else(|| {
        fault("there is no $CREDENTIALS_DIRECTORY", "start the daemon by systemd with LoadCredential=")
    })?;
    Ok(Path::new(&folder).join(name))
}

fn from_file(path: &Path, private: bool) -> Result<Zeroizing<String>, Fault> {
    let shown = path.display().to_string().escape_debug().to_string();
    let unreadable = |error: std::io::Error| {
        fault(
            format!("cannot read {shown}: {error}"),
            "check the path and who may read it; relative to the config file",
        )
    };
    // Looked at before it is opened: opening a pipe would wait for its writer.
    let wrong_kind = || fault(format!("{shown} is not a regular file"), "name a file that holds nothing else");
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(wrong_kind());
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if private && mode & 0o066 != 0 {
        let message = format!("{shown} can be read or written by others (mode {:03o})", mode & 0o777);
        return Err(fault(message, format!("chmod 600 {shown}")));
    }
    let mut text = Zeroizing::new(String::new());
    match file.take(MAX_BYTES + 1).read_to_string(&mut text) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(fault(format!("{shown} is not text"), "name a file that holds the secret as text"))
        }
        Err(error) => Err(unreadable(error)),
        Ok(read) if read as u64 > MAX_BYTES => {
            Err(fault(format!("{shown} is larger than 64 KiB"), "name a file that holds nothing else"))
        }
        Ok(_) => Ok(text),
    }
}

fn fault(message: impl Into<String>, remedy: impl Into<String>) -> Fault {
    Fault { message: message.into(), remedy: remedy.into() }
}

/// `${X}`, `$(x)`, `{{ x }}`, `$X`, `%{x}`, `<x>`: what templates and shells leave behind when nobody ran them.
fn is_unexpanded(text: &str) -> bool {
    let shell_word = text.strip_prefix('$').is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    });
    let angled = text.starts_with('<') && text.ends_with('>');
    shell_word || angled || ["${", "$(", "{{", "%{"].iter().any(|mark| text.contains(mark))
}

/// Words of which placeholders are made.
const PLACEHOLDER_WORDS: &[&str] = &[
    "a",
    "admin",
    "api",
    "change",
    "default",
    "dummy",
    "example",
    "fixme",
    "foo",
    "bar",
    "goes",
    "here",
    "hmac",
    "insecure",
    "insert",
    "it",
    "key",
    "me",
    "my",
    "now",
    "passphrase",
    "passwd",
    "password",
    "placeholder",
    "please",
    "replace",
    "sample",
    "secret",
    "signature",
    "string",
    "test",
    "testing",
    "the",
    "this",
    "to",
    "todo",
    "token",
    "value",
    "with",
    "x",
    "you",
    "your",
];

/// Made of nothing but such words and a few digits, or of hardly any different characters.
fn is_placeholder(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let mut different: Vec<char> = lower.chars().collect();
    different.sort_unstable();
    different.dedup();
    if different.len() < 4 || ["changeme", "change-me", "change_me", "placeholder"].iter().any(|w| lower.contains(w)) {
        return true;
    }
    let mut tokens = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|token| !token.is_empty());
    tokens.all(|token| {
        let word = token.trim_matches(|c: char| c.is_ascii_digit());
        token.len() - word.len() <= 4 && is_made_of_words(word)
    })
}

/// Whether a text can be cut into placeholder words.
fn is_made_of_words(text: &str) -> bool {
    let mut reached = vec![false; text.len() + 1];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    for at in 0..text.len() {
        if reached.get(at) != Some(&true) {
            continue;
        }
        let rest = text.get(at..).unwrap_or_default();
        for word in PLACEHOLDER_WORDS.iter().filter(|word| rest.starts_with(**word)) {
            if let Some(end) = reached.get_mut(at + word.len()) {
                *end = true;
            }
        }
    }
    reached.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let message = judge(text, Rule::Secret).err().map(|fault| fault.message).unwrap_or_default();
        assert!(message.contains(why), "{text:?}: {message:?}");
    }

    #[test]
    fn empty_placeholder_and_unexpanded_secrets_are_refused() {
        refused("", "empty");
        refused("   ", "empty");
        for text in [
            "changeme",
            "CHANGEME",
            "changemechangeme",
            "secret",
            "secretsecretsecret",
            "password",
            "example",
            "xxxxxxxxxxxxxxxxxxxx",
            "XXXX-XXXX-XXXX-XXXX",
            "your-secret-goes-here",
            "your_api_key_here",
            "todo",
            "test-test-test-test",
            "test1234",
            "my-secret-key-1234",
            "replace-this-with-your-secret",
            "aaaaaaaaaaaaaaaa",
            "abababababababab",
            "placeholder-7c1a6a24-7943",
        ] {
            refused(text, "placeholder");
        }
        for text in
            ["${PAYGOL_SECRET}", "$(cat /run/secret/file)", "{{ paygol_secret }}", "$PAYGOL_SECRET", "<paygol secret>"]
        {
            refused(text, "template");
        }
        refused("7c1a6a24-7943", "13 bytes long, shorter than 16");
        refused("7c1a6a24-7943\n-102d-92f8-29573711ad31", "control character");
    }

    #[test]
    fn real_secrets_are_taken() {
        for text in [
            "7c1a6a24-7943-102d-92f8-29573711ad31",
            "0123456789abcdef",
            "c2VjcmV0LWtleS1vZi10aGUtc2hvcA==",
            "correct horse battery staple",
            "test-key-8f3a1c77e0",
        ] {
            assert!(judge(text, Rule::Secret).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", Secret::new("7c1a6a24-7943-102d".to_owned())), "Secret(..)");
    }
}
