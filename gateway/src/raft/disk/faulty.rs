//! An in-memory disk that fails on request, and that loses unflushed data at a power cut.

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
    /// The operation has no effect and fails; later operations work.
    Error,
    /// A write stores half of its bytes and fails; any other operation fails.
    Short,
    /// This operation and all later ones fail.
    PowerCut,
}

/// The unit in which a disk keeps or loses written data.
const SECTOR: usize = 512;

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last flush.
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
    /// The fault, the number of the operation that it hits, and a seed.
    plan: Option<(Fault, u64, u64)>,
    dead: bool,
    /// Set after a power cut: the plan no longer applies.
    healed: bool,
    /// Number of times that the process using this disk has ended.
    life: u64,
    /// How long each flush takes in simulated time; `None` outside of a simulation.
    flush: Option<Duration>,
}

/// The disk. Clones share it and belong to the same life: when that life ends, all of them fail.
#[derive(Clone)]
pub(crate) struct Faulty {
    all: Arc<Mutex<Everything>>,
    life: u64,
}

impl Faulty {
    /// Creates a disk that fails at one operation in this way. The seed decides which sectors survive a power cut.
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

    /// Makes each later flush take this long in simulated time.
    pub(crate) fn set_flush(&self, time: Duration) {
        self.lock().flush = Some(time);
    }

    /// Makes the next modifying operation fail; later ones work.
    pub(crate) fn fail_next(&self, fault: Fault) {
        let mut all = self.lock();
        all.plan = Some((fault, all.operations, 0));
        all.healed = false;
    }

    fn lock(&self) -> MutexGuard<'_, Everything> {
        self.all.lock().unwrap()
    }

    /// Counts an operation that modifies the disk, and returns the fault that hits it.
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

    /// Simulates a power cut and a restart: each unflushed sector may survive or not, and so may each name.
    pub(crate) fn power_cut(&mut self) {
        let seed = self
            .lock()
            .plan
            .map_or(0, |(_, at, seed)| at * 31 + seed * 7919 + 1);
        self.power_cut_by(seed);
    }

    /// Like [`Self::power_cut`], with a seed that is not 0.
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
        // Names are journalled in order: either all later changes survive or none does.
        if coin() {
            all.names = all.durable_names.clone();
        } else {
            all.durable_names = all.names.clone();
        }
        for file in &mut all.files {
            file.lose(&mut coin);
        }
    }

    /// Ends the process that uses the disk. The machine keeps running, so written data stays.
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
            // The power fails during the write: any part of it may survive.
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
