//! A disk in memory that fails where it is told to, and forgets at a power cut what was not made durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use super::{Disk, DiskFile};

/// What happens at the chosen operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does nothing and fails; the disk goes on.
    Error,
    /// A write writes half and fails; anything else fails.
    Short,
    /// It and everything after it fails.
    PowerCut,
}

/// The unit in which a disk keeps or loses what was written.
const SECTOR: usize = 512;

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that were written since the last flush.
    dirty: BTreeSet<usize>,
}

impl Content {
    fn write(&mut self, bytes: &[u8], at: usize) {
        self.now.resize(self.now.len().max(at + bytes.len()), 0);
        self.now[at..at + bytes.len()].copy_from_slice(bytes);
        self.dirty
            .extend(at / SECTOR..(at + bytes.len()).div_ceil(SECTOR));
    }

    fn flush(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            self.keep(sector);
        }
        self.durable.resize(self.now.len(), 0);
    }

    fn keep(&mut self, sector: usize) {
        let at = sector * SECTOR;
        let end = (at + SECTOR).min(self.now.len());
        self.durable.resize(self.durable.len().max(end), 0);
        self.durable[at..end].copy_from_slice(&self.now[at..end]);
    }

    fn lose(&mut self, mut coin: impl FnMut() -> bool) {
        let length = if coin() {
            self.now.len()
        } else {
            self.durable.len()
        };
        for sector in std::mem::take(&mut self.dirty) {
            if coin() {
                self.keep(sector);
            }
        }
        self.durable.resize(length, 0);
        self.now.clone_from(&self.durable);
    }
}

#[derive(Default)]
struct Everything {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    operations: u64,
    /// What fails, at which operation, and a seed.
    plan: Option<(Fault, u64, u64)>,
    dead: bool,
    /// After a power cut no plan fails anything any more.
    healed: bool,
    /// Counts the times that whoever used it has ended.
    life: u64,
    /// How long each flush takes in simulated time; none outside of a simulation.
    flush: Option<Duration>,
}

/// The disk. Clones share it, and are of the same life: with its end all of them fail.
#[derive(Clone)]
pub(crate) struct Faulty {
    all: Arc<Mutex<Everything>>,
    life: u64,
}

impl Faulty {
    /// Fails at one operation in this way; the seed decides which sectors survive a power cut.
    pub(crate) fn new(plan: Option<(Fault, u64, u64)>) -> Self {
        let all = Everything {
            plan,
            ..Everything::default()
        };
        Self {
            all: Arc::new(Mutex::new(all)),
            life: 0,
        }
    }

    pub(crate) fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// From now on each flush takes this long in simulated time.
    pub(crate) fn set_flush(&self, time: Duration) {
        self.lock().flush = Some(time);
    }

    /// The next operation that changes anything fails; the disk goes on.
    pub(crate) fn fail_next(&self, fault: Fault) {
        let mut all = self.lock();
        all.plan = Some((fault, all.operations, 0));
        all.healed = false;
    }

    fn lock(&self) -> MutexGuard<'_, Everything> {
        self.all.lock().unwrap()
    }

    /// Counts an operation that changes the disk; what happens to it.
    fn operation(&self) -> (MutexGuard<'_, Everything>, Option<Fault>) {
        let mut all = self.lock();
        if all.life != self.life {
            return (all, Some(Fault::Error));
        }
        let number = all.operations;
        all.operations += 1;
        if all.dead {
            return (all, Some(Fault::PowerCut));
        }
        let fault = all
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
    pub(crate) fn power_cut(&mut self) {
        let seed = self
            .lock()
            .plan
            .map_or(0, |(_, at, seed)| at * 31 + seed * 7919 + 1);
        self.power_cut_by(seed);
    }

    /// The same by a seed that is not 0.
    pub(crate) fn power_cut_by(&mut self, seed: u64) {
        let mut random = seed;
        let mut coin = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.is_multiple_of(2)
        };
        self.end_life();
        let mut all = self.lock();
        // Names are journalled in order: either the later changes are there or they are not.
        if coin() {
            all.names = all.durable_names.clone();
        } else {
            all.durable_names = all.names.clone();
        }
        for file in &mut all.files {
            file.lose(&mut coin);
        }
    }

    /// Whoever used it has ended, and what was written stays: the machine goes on.
    pub(crate) fn end_life(&mut self) {
        let mut all = self.lock();
        all.life += 1;
        (all.dead, all.healed) = (false, true);
        let life = all.life;
        drop(all);
        self.life = life;
    }
}

impl Disk for Faulty {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let all = self.lock();
        let names = all.names.keys().filter(|path| path.parent() == Some(dir));
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
        let mut found = true;
        self.changed(|all| found = all.names.remove(path).is_some())?;
        if found {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.changed(|all| all.durable_names = all.names.clone())
    }

    fn simulated(&self) -> Option<Duration> {
        self.lock().flush
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
            Some(Fault::PowerCut) if all.operations == all.plan.map_or(0, |p| p.1 + 1) => {
                bytes.len()
            }
            Some(Fault::Error | Fault::PowerCut) => 0,
        };
        let at = usize::try_from(offset).unwrap();
        all.files[self.number].write(&bytes[..count], at);
        fault.map_or(Ok(()), |fault| Err(io::Error::other(format!("{fault:?}"))))
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.changed(|all| all.files[self.number].flush())
    }
}
