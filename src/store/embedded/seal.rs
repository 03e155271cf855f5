//! The store's own key: bearer secrets are kept as HMACs under it, so that a copy of the journal gives none away.

use std::io;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::journal::disk;

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

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(..)")
    }
}
