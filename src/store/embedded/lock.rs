//! One process per store: a lock on the file `lock` in its folder, which also tells commands where the daemon is.
//!
//! The lock is the kernel's (`flock`) and ends with the process; what the file says without it is stale and means
//! nothing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::journal::disk;

/// Who holds a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Where its admin API listens, once it does: `http://127.0.0.1:9641`.
    #[serde(default)]
    pub admin: Option<String>,
}

/// Why a store could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("the store is in use by process {}", .0.as_ref().map_or("(unknown)".into(), |holder| holder.pid.to_string()))]
    Held(Option<Holder>),
    /// The lock file could not be made, locked or written.
    #[error("locking {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The lock on a store; ends when dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Locks the store in `folder`, which is made if need be, and notes this process's pid.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let path = folder.join("lock");
        let failed = |source| LockError::Io { path: path.clone(), source };
        // One that is there is made durable with the journal's, again and again: a disk that refuses must not end a start.
        if !folder.is_dir() {
            disk::make_folder(folder).map_err(failed)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let mut tries = 0;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                // A command that only looks who is there holds it for a moment.
                Err(TryLockError::WouldBlock) if tries < 5 => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => return Err(LockError::Held(read(&mut file))),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        let lock = Self { file, path: path.clone() };
        lock.write(None)?;
        Ok(lock)
    }

    /// Notes where the admin API listens.
    ///
    /// # Errors
    /// [`LockError::Io`].
    pub fn announce(&self, admin: &str) -> Result<(), LockError> {
        self.write(Some(admin.to_owned()))
    }

    fn write(&self, admin: Option<String>) -> Result<(), LockError> {
        let text = serde_json::to_string(&Holder { pid: std::process::id(), admin }).unwrap_or_default();
        // A full disk must not keep a daemon from running: the lock is held, only nobody can read by whom.
        match self.file.set_len(0).and_then(|()| self.file.write_all_at(text.as_bytes(), 0)) {
            Err(error) if !disk::is_refusal(&error) => Err(LockError::Io { path: self.path.clone(), source: error }),
            _ => Ok(()),
        }
    }
}

/// Who holds the store in `folder` now; `None` if nobody does, whatever the file says.
///
/// # Errors
/// [`LockError::Held`] with nobody named, if the holder has not written yet; [`LockError::Io`].
pub fn holder(folder: &Path) -> Result<Option<Holder>, LockError> {
    let path = folder.join("lock");
    let failed = |source| LockError::Io { path: path.clone(), source };
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => read(&mut file).map(Some).ok_or(LockError::Held(None)),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn read(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opener_is_refused_and_told_the_first_ones_pid() {
        let folder = tempfile::tempdir().expect("folder");
        let lock = Lock::take(folder.path()).expect("first");
        let refused = Lock::take(folder.path()).expect_err("second");
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        lock.announce("http://127.0.0.1:9641").expect("announce");
        let found = holder(folder.path()).expect("readable").expect("held");
        assert_eq!(found, Holder { pid: std::process::id(), admin: Some("http://127.0.0.1:9641".into()) });
        drop(lock);
        Lock::take(folder.path()).expect("free again");
    }

    #[test]
    fn what_a_dead_process_left_is_no_lock() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("lock"), r#"{"pid":1,"admin":"http://127.0.0.1:1"}"#).expect("write");
        assert_eq!(holder(folder.path()).expect("readable"), None);
        Lock::take(folder.path()).expect("stale content locks nobody out");
    }

    #[test]
    fn a_folder_without_a_store_has_no_holder() {
        let folder = tempfile::tempdir().expect("folder");
        assert_eq!(holder(folder.path()).expect("readable"), None);
    }
}
