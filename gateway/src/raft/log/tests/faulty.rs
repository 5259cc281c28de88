//! A disk in memory that fails where it is told to, and forgets at a power cut what was not made durable.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use crate::raft::disk::{Disk, DiskFile};

/// What happens at the chosen operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does nothing and fails; the disk goes on.
    Error,
    /// A write writes half and fails; anything else fails.
    Short,
    /// It and everything after it fails.
    PowerCut,
}

/// The unit in which a disk keeps or loses what was written.
const SECTOR: usize = 512;

#[derive(Default, Clone)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Default)]
struct Everything {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    operations: u64,
    dead: bool,
    /// After a power cut nothing fails any more.
    healed: bool,
}

#[derive(Clone)]
pub(super) struct Faulty {
    all: Arc<Mutex<Everything>>,
    plan: Option<(Fault, u64, u64)>,
}

impl Faulty {
    /// Fails at one operation in this way; the seed decides which sectors survive a power cut.
    pub(super) fn new(plan: Option<(Fault, u64, u64)>) -> Self {
        Self {
            all: Arc::default(),
            plan,
        }
    }

    pub(super) fn operations(&self) -> u64 {
        self.lock().operations
    }

    fn lock(&self) -> MutexGuard<'_, Everything> {
        self.all.lock().unwrap()
    }

    /// Counts an operation that changes the disk; what happens to it.
    fn operation(&self) -> (MutexGuard<'_, Everything>, Option<Fault>) {
        let mut all = self.lock();
        let number = all.operations;
        all.operations += 1;
        if all.dead {
            return (all, Some(Fault::PowerCut));
        }
        let fault = self
            .plan
            .filter(|(_, at, _)| *at == number && !all.healed)
            .map(|(fault, ..)| fault);
        all.dead = fault == Some(Fault::PowerCut);
        (all, fault)
    }

    fn changed(&self, act: impl FnOnce(&mut Everything)) -> io::Result<()> {
        let (mut all, fault) = self.operation();
        if let Some(fault) = fault {
            return Err(io::Error::other(format!("{fault:?}")));
        }
        act(&mut all);
        Ok(())
    }

    /// The machine goes down and comes back: each sector that was not flushed is there or is not, and so is each name.
    pub(super) fn power_cut(&self) {
        let mut random = self
            .plan
            .map_or(0, |(_, at, seed)| at * 31 + seed * 7919 + 1);
        let mut coin = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.is_multiple_of(2)
        };
        let mut all = self.lock();
        (all.dead, all.healed) = (false, true);
        // Names are journalled in order: either the later changes are there or they are not.
        if coin() {
            all.names = all.durable_names.clone();
        } else {
            all.durable_names = all.names.clone();
        }
        for file in &mut all.files {
            let length = if coin() {
                file.now.len()
            } else {
                file.durable.len()
            };
            let mut survived = file.durable.clone();
            survived.resize(length, 0);
            for at in (0..length.min(file.now.len())).step_by(SECTOR) {
                if coin() {
                    let end = (at + SECTOR).min(length).min(file.now.len());
                    survived[at..end].copy_from_slice(&file.now[at..end]);
                }
            }
            file.now = survived.clone();
            file.durable = survived;
        }
    }
}

impl Disk for Faulty {
    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        let all = self.lock();
        let names = all.names.keys();
        Ok(names
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut number = 0;
        self.changed(|all| {
            number = all.files.len();
            all.files.push(Content::default());
            all.names.insert(path.to_owned(), number);
        })?;
        let disk = self.clone();
        Ok(Arc::new(FaultyFile { disk, number }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let number = self.lock().names.get(path).copied();
        let number = number.ok_or(io::ErrorKind::NotFound)?;
        let disk = self.clone();
        Ok(Arc::new(FaultyFile { disk, number }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.changed(|all| {
            let number = all.names.remove(from).unwrap();
            all.names.insert(to.to_owned(), number);
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.changed(|all| {
            all.names.remove(path).unwrap();
        })
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.changed(|all| all.durable_names = all.names.clone())
    }
}

struct FaultyFile {
    disk: Faulty,
    number: usize,
}

impl DiskFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[self.number].now.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let all = self.disk.lock();
        let at = usize::try_from(offset).unwrap();
        let found = all.files[self.number].now.get(at..at + bytes.len());
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut all, fault) = self.disk.operation();
        let count = match fault {
            None => bytes.len(),
            Some(Fault::Short) => bytes.len() / 2,
            // Power fails while it is being written: any part of it may arrive.
            Some(Fault::PowerCut) if all.operations == self.disk.plan.map_or(0, |p| p.1 + 1) => {
                bytes.len()
            }
            Some(Fault::Error | Fault::PowerCut) => 0,
        };
        let at = usize::try_from(offset).unwrap();
        let file = &mut all.files[self.number].now;
        file.resize(file.len().max(at + count), 0);
        file[at..at + count].copy_from_slice(&bytes[..count]);
        fault.map_or(Ok(()), |fault| Err(io::Error::other(format!("{fault:?}"))))
    }

    fn sync(&self) -> io::Result<()> {
        let number = self.number;
        self.disk.changed(|all| {
            let file = &mut all.files[number];
            file.durable = file.now.clone();
        })
    }
}
