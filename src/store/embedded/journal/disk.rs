//! The few things that the journal does to the file system, each with the care it needs: owner-only modes, whole
//! writes in spite of short ones and signals, folders synced after a name changed.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt as _, OpenOptionsExt};
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Makes a folder for the owner alone, with those above it, and makes its name durable: also where it is there already,
/// for whoever made it may have been killed before that, and then only the page cache knows it.
pub fn make_folder(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            make_folder(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
    }
    let folder = File::open(path)?;
    // Not `parent()`: that of a link is not the folder that holds what it leads to.
    match File::open(path.join("..")) {
        // A service may live in a folder that it cannot look out of.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(rustix::fs::syncfs(folder)?),
        Err(error) => Err(error),
        // A mount point's name is not ours, and what it is mounted on need not know how to sync.
        Ok(parent) if parent.metadata()?.dev() != folder.metadata()?.dev() => Ok(()),
        Ok(parent) => parent.sync_all(),
    }
}

/// Makes names of a folder durable.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes an empty file for the owner alone; one of that name is emptied.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Takes room on the disk, so that writing there later cannot fail for want of it. Where the file system does not
/// know how, zeros are written.
pub fn preallocate(file: &File, length: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let zeros = vec![0; 64 << 10];
    let mut at = 0;
    while at < length {
        let part = zeros.get(..(length - at).min(zeros.len() as u64) as usize).unwrap_or_default();
        file.write_all_at(part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

/// Whether an error says that the disk takes no more just now: full, over quota, or read-only.
pub fn is_refusal(error: &io::Error) -> bool {
    let refusals = [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::FBIG].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| refusals.contains(&code))
}

/// Sixteen random bytes from the system.
pub fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

/// Writes a small file so that it is there whole or not at all.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let file = create(&temporary)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}
