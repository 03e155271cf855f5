//! The test's disk as a mounted file system (FUSE), so that real programs run on it.
//!
//! Nothing is cached by the kernel: files are opened for direct I/O, names and attributes live for zero seconds.
//! `sync_file_range` never gets here; so it promises nothing here, as on a real disk.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::disk::{Disk, Faults, Ino, Kind, Mode, Node};
use crate::file::PAGE;

const NO_TIME: Duration = Duration::ZERO;
const FALLOC_KEEP_SIZE: i32 = 1;

/// A mounted disk whose power can be cut. Unmounts when it goes.
pub struct Mounted {
    disk: Arc<Mutex<Disk>>,
    session: Option<BackgroundSession>,
    path: PathBuf,
    folder: Option<tempfile::TempDir>,
}

impl Mounted {
    /// Mounts an empty disk in a new temporary folder.
    ///
    /// # Panics
    /// Where FUSE is not to be had: a test that was left out proves nothing.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("disk");
        std::fs::create_dir(&path).expect("a mount point");
        let disk = Arc::new(Mutex::new(Disk::new()));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("quittance-power".into()), MountOption::DefaultPermissions];
        config.n_threads = Some(2);
        let adapter = Adapter { disk: disk.clone(), listings: Mutex::default() };
        let session = fuser::spawn_mount(adapter, &path, &config).unwrap_or_else(|error| {
            panic!(
                "no FUSE file system can be mounted ({error}): these tests need /dev/fuse, the package fuse3 \
                 (apt-get install fuse3) and root"
            )
        });
        lock(&MOUNTS).insert(path.clone());
        Self { disk, session: Some(session), path, folder: Some(folder) }
    }

    /// Where it is mounted; the same after a power cut.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Cuts the power in the middle of the `steps`-th change or sync from now.
    pub fn cut_after(&self, steps: u64) {
        self.disk().cut_after(steps);
    }

    pub fn is_off(&self) -> bool {
        self.disk().is_off()
    }

    /// The power comes back: the disk holds what survived. Whoever used it before must be gone by now.
    pub fn restart(&self, mode: Mode, seed: u64) {
        let mut disk = self.disk();
        disk.cut_now();
        *disk = disk.after_cut(mode, seed);
    }

    /// The process is gone and the machine goes on: nothing is lost, and what was open is worth nothing any more.
    pub fn restart_process(&self) {
        self.disk().power_again();
    }

    /// An empty disk in the place of this one, quicker than another mount.
    pub fn format(&self) {
        let mut disk = self.disk();
        *disk = disk.formatted();
    }

    /// Changes what goes wrong, or looks what does.
    pub fn faults<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        change(&mut self.disk().faults)
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }
}

/// Gives up every disk of this process, so that whoever waits for one hears an error: for when something hangs.
#[allow(dead_code, reason = "`./prove` uses it")]
pub fn give_all_up() {
    let mounts = std::mem::take(&mut *lock(&MOUNTS));
    for path in mounts {
        eprintln!("{} is given up", path.display());
        give_up(&path);
    }
}

/// Where the disks of this process are mounted.
static MOUNTS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// By force, which ends whatever waits for an answer of it, and lazily: whoever still holds a file of it, such as a test that
/// panics, must not keep it mounted.
fn give_up(path: &Path) -> bool {
    let mut unmount = Command::new("timeout");
    let status = unmount.args(["--signal=KILL", "30", "umount", "--force", "--lazy"]).arg(path).status();
    status.is_ok_and(|status| status.success())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mounted = lock(&MOUNTS).remove(&self.path);
        let unmounted = !mounted || give_up(&self.path);
        drop(self.session.take());
        if !unmounted && let Some(folder) = self.folder.take() {
            // Not to be removed through a mount that is still there.
            eprintln!("{} could not be unmounted", folder.keep().display());
        }
    }
}

type Listing = Vec<(Ino, FileType, OsString)>;

struct Adapter {
    disk: Arc<Mutex<Disk>>,
    /// What an opened folder held when it was opened: removing while reading must not skip.
    listings: Mutex<HashMap<Ino, Listing>>,
}

impl Adapter {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    /// The disk, for a handle that was opened since the last power cut.
    fn opened(&self, handle: FileHandle) -> Result<MutexGuard<'_, Disk>, Errno> {
        let disk = self.disk();
        disk.powered()?;
        if handle.0 == disk.generation { Ok(disk) } else { Err(Errno::EIO) }
    }

    fn attr(disk: &Disk, ino: Ino) -> Result<FileAttr, Errno> {
        disk.powered()?;
        let node = disk.nodes.get(&ino).ok_or(Errno::ENOENT)?;
        let (size, blocks) = match &node.kind {
            Kind::File(file) => (file.size(), file.allocated() * (PAGE as u64 / 512)),
            Kind::Folder(_) => (0, 0),
        };
        Ok(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks,
            atime: node.modified,
            mtime: node.modified,
            ctime: node.modified,
            crtime: node.modified,
            kind: file_type(node),
            perm: node.mode,
            nlink: node.links,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: PAGE as u32,
            flags: 0,
        })
    }

    fn entry(disk: &Disk, ino: Result<Ino, Errno>, reply: ReplyEntry) {
        match ino.and_then(|ino| Self::attr(disk, ino)) {
            Ok(attr) => reply.entry(&NO_TIME, &attr, Generation(disk.generation)),
            Err(error) => reply.error(error),
        }
    }
}

fn file_type(node: &Node) -> FileType {
    match node.kind {
        Kind::File(_) => FileType::RegularFile,
        Kind::Folder(_) => FileType::Directory,
    }
}

fn permissions(mode: u32, umask: u32) -> u16 {
    (mode & !umask & 0o7777) as u16
}

fn done(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Adapter {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = self.disk();
        let ino = disk.powered().and_then(|()| disk.look_up(parent.0, name));
        Self::entry(&disk, ino, reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match Self::attr(&self.disk(), ino.0) {
            Ok(attr) => reply.attr(&NO_TIME, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.disk();
        let truncated = size.map_or(disk.powered(), |size| disk.truncate(ino.0, size));
        if let (Ok(()), Some(node)) = (truncated, disk.nodes.get_mut(&ino.0)) {
            node.mode = mode.map_or(node.mode, |mode| permissions(mode, 0));
            if let Some(TimeOrNow::SpecificTime(time)) = mtime {
                node.modified = time;
            }
        }
        match truncated.and_then(|()| Self::attr(&disk, ino.0)) {
            Ok(attr) => reply.attr(&NO_TIME, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let mut disk = self.disk();
        let ino = disk.create(parent.0, name, permissions(mode, umask), true);
        Self::entry(&disk, ino, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.disk().remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.disk().remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) {
            return reply.error(Errno::EINVAL);
        }
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        done(self.disk().rename((parent.0, name), (new_parent.0, new_name), replace), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut disk = self.disk();
        let generation = disk.generation;
        match (disk.powered(), disk.nodes.get_mut(&ino.0)) {
            (Err(error), _) => reply.error(error),
            (Ok(()), None) => reply.error(Errno::ENOENT),
            (Ok(()), Some(node)) => {
                node.opens += 1;
                reply.opened(FileHandle(generation), FopenFlags::FOPEN_DIRECT_IO);
            }
        }
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _: i32, reply: ReplyCreate) {
        let mut disk = self.disk();
        let made = disk.create(parent.0, name, permissions(mode, umask), false);
        match made.and_then(|ino| Self::attr(&disk, ino)) {
            Ok(attr) => {
                if let Some(node) = disk.nodes.get_mut(&attr.ino.0) {
                    node.opens += 1;
                }
                let generation = disk.generation;
                let direct = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&NO_TIME, &attr, Generation(generation), FileHandle(generation), direct);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let data = self.opened(handle).and_then(|disk| Ok(disk.file(ino.0)?.read(offset, size as usize)));
        match data {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.opened(handle).and_then(|mut disk| disk.write(ino.0, offset, data)) {
            Ok(written) => reply.written(written as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Called at close, which promises nothing.
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let mut disk = self.disk();
        if handle.0 == disk.generation
            && let Some(node) = disk.nodes.get_mut(&ino.0)
        {
            node.opens = node.opens.saturating_sub(1);
            if node.opens == 0 && node.links == 0 {
                disk.sweep();
            }
        }
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty) {
        done(self.opened(handle).and_then(|mut disk| disk.sync(ino.0, data_only)), reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let disk = self.disk();
        match disk.powered() {
            Ok(()) if disk.folder(ino.0).is_ok() => {
                reply.opened(FileHandle(disk.generation), FopenFlags::empty());
            }
            Ok(()) => reply.error(Errno::ENOTDIR),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut listings = lock(&self.listings);
        if offset == 0 {
            let listing = self.opened(handle).and_then(|disk| {
                let folder = disk.folder(ino.0)?;
                let mut listing = vec![
                    (ino.0, FileType::Directory, OsString::from(".")),
                    (ino.0, FileType::Directory, OsString::from("..")),
                ];
                for (name, ino) in &folder.names {
                    let node = disk.nodes.get(ino).ok_or(Errno::EIO)?;
                    listing.push((*ino, file_type(node), name.clone()));
                }
                Ok(listing)
            });
            match listing {
                Ok(listing) => listings.insert(ino.0, listing),
                Err(error) => return reply.error(error),
            };
        }
        for (at, (ino, kind, name)) in listings.get(&ino.0).into_iter().flatten().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(*ino), at as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.opened(handle).and_then(|mut disk| disk.sync_folder(ino.0)), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode & !FALLOC_KEEP_SIZE != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let keep_size = mode & FALLOC_KEEP_SIZE != 0;
        done(self.opened(handle).and_then(|mut disk| disk.allocate(ino.0, offset, len, keep_size)), reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let disk = self.disk();
        let free = disk.free_pages().min(1 << 30);
        reply.statfs(free + disk.used_pages(), free, free, 1 << 20, 1 << 20, PAGE as u32, 255, PAGE as u32);
    }
}
