//! The store's own key: bearer secrets are cut out of whatever is kept, and stay as HMACs under this key only, so that
//! a copy of journal or quarantine gives none away.

mod heal;

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use http::header::{self, HeaderName, HeaderValue};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::provider::{Cut, Place, Received};
use crate::store::embedded::journal::disk;

/// Hashes bearer secrets. A cheap clone would be a second copy of the key: share it by `Arc`.
pub struct Seal {
    key: Zeroizing<[u8; 32]>,
}

impl Seal {
    /// Reads the key of the store in `folder`, or makes it: 32 random bytes in `seal.key`, readable by the owner only,
    /// synced before it is used.
    ///
    /// # Errors
    /// What the file system says; a key of another length is [`io::ErrorKind::InvalidData`].
    pub fn open(folder: &Path) -> io::Result<Self> {
        // Store and quarantine open it at the same time, and at the first start both find none: one makes it, the other
        // reads what that one made. Another process cannot be here, it would have to hold the store's lock.
        static OPENING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let path = folder.join("seal.key");
        match std::fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) => {
                let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| {
                    io::Error::new(io::ErrorKind::InvalidData, "seal.key is not 32 bytes: restore it from a backup")
                })?;
                Ok(Self { key: Zeroizing::new(key) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(folder, &path),
            Err(error) => Err(error),
        }
    }

    fn make(folder: &Path, path: &Path) -> io::Result<Self> {
        use std::io::Write as _;
        let (first, second) = (disk::random()?, disk::random()?);
        let mut key = Zeroizing::new([0; 32]);
        for (to, from) in key.iter_mut().zip(first.into_iter().chain(second)) {
            *to = from;
        }
        let temporary = path.with_extension("key.new");
        let _ = std::fs::remove_file(&temporary);
        let mut file = disk::create(&temporary)?;
        file.write_all(key.as_slice())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        disk::sync_folder(folder)?;
        Ok(Self { key })
    }

    /// First 16 bytes of HMAC-SHA256 over what it is and the secret.
    pub fn of(&self, what: &str, secret: &[u8]) -> [u8; 16] {
        let mut out = [0; 16];
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.as_slice()) {
            mac.update(what.as_bytes());
            mac.update(&[0]);
            mac.update(secret);
            for (to, from) in out.iter_mut().zip(mac.finalize().into_bytes()) {
                *to = from;
            }
        }
        out
    }
}

/// Headers that carry secrets or somebody's session, or repeat an address with secrets in it: kept by name only.
pub const SECRET_HEADERS: [HeaderName; 4] =
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION, header::REFERER];

/// What is left of a secret where it was cut out: enough to tell whether another text is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scar {
    /// Where it stood.
    pub place: Place,
    /// At which byte, before anything was cut.
    pub start: u32,
    /// Its length in bytes.
    pub length: u32,
    /// [`Seal::of`] `cut`.
    pub hmac: [u8; 16],
}

impl Seal {
    /// A request without its bearer secrets, and what is left of them.
    pub fn cut(&self, received: &Received, cuts: &[Cut]) -> (Received, Vec<Scar>) {
        let scars = cuts.iter().map(|cut| {
            let whole: &[u8] = match cut.place {
                Place::Path => received.path.as_bytes(),
                Place::Query => received.query.as_deref().unwrap_or_default().as_bytes(),
                Place::Body => &received.body,
            };
            let secret = whole.get(cut.range.clone()).unwrap_or_default();
            let (start, length) = (cut.range.start as u32, secret.len() as u32);
            Scar { place: cut.place, start, length, hmac: self.of("cut", secret) }
        });
        let scars = scars.collect();
        let text = |bytes: &[u8], place| String::from_utf8_lossy(&without(bytes, cuts, place)).into_owned();
        let mut kept = received.clone();
        // `rest` is the path's tail, so what is cut there is cut here.
        let before = received.path.len().saturating_sub(received.rest.len());
        let path = text(received.path.as_bytes(), Place::Path);
        kept.rest = path.get(before..).unwrap_or_default().to_owned();
        kept.path = path;
        kept.query = received.query.as_ref().map(|query| text(query.as_bytes(), Place::Query));
        if cuts.iter().any(|cut| cut.place == Place::Body) {
            kept.body = without(&received.body, cuts, Place::Body).into();
        }
        for name in SECRET_HEADERS {
            if kept.headers.contains_key(&name) {
                kept.headers.insert(name, HeaderValue::from_static(""));
            }
        }
        (kept, scars)
    }
}

fn without(bytes: &[u8], cuts: &[Cut], place: Place) -> Vec<u8> {
    let is_cut = |index: &usize| cuts.iter().any(|cut| cut.place == place && cut.range.contains(index));
    bytes.iter().enumerate().filter(|(index, _)| !is_cut(index)).map(|(_, byte)| *byte).collect()
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::Seal;

    #[test]
    fn all_who_open_a_new_store_at_once_get_the_same_key() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().expect("a folder");
            let open = || Seal::open(folder.path()).expect("a key").of("cut", b"secret");
            let keys: Vec<_> = std::thread::scope(|scope| {
                let opening: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
                opening.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            assert!(keys.iter().all(|key| *key == open()), "one key, and the one that is on the disk");
        }
    }
}
