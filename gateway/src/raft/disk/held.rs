//! For tests: the host's file system, with writes and flushes that a test can block or fail.

use std::{
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex},
};

use super::{Disk, DiskFile, System};

/// What happens to a write or flush of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Pass,
    Wait,
    Fail,
}

/// The disk. Clones share it.
#[derive(Clone)]
pub(crate) struct Held {
    access: Arc<(Mutex<Access>, Condvar)>,
}

impl Held {
    pub(crate) fn new() -> Self {
        Self {
            access: Arc::new((Mutex::new(Access::Pass), Condvar::new())),
        }
    }

    pub(crate) fn set(&self, access: Access) {
        *self.access.0.lock().unwrap() = access;
        self.access.1.notify_all();
    }

    fn pass(&self) -> io::Result<()> {
        let (access, changed) = &*self.access;
        let access = access.lock().unwrap();
        let access = changed
            .wait_while(access, |access| *access == Access::Wait)
            .unwrap();
        match *access {
            Access::Pass | Access::Wait => Ok(()),
            Access::Fail => Err(io::Error::other("the disk is gone")),
        }
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(HeldFile {
            file,
            disk: self.clone(),
        })
    }
}

struct HeldFile {
    file: Arc<dyn DiskFile>,
    disk: Held,
}

impl Disk for Held {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        System.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        System.create(path).map(|file| self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        System.open(path).map(|file| self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        System.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        System.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        System.sync_dir(dir)
    }
}

impl DiskFile for HeldFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.pass()?;
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.pass()?;
        self.file.sync()
    }
}
