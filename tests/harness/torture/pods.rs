//! What hosts really run, seen from outside by their processes: Podman and Beemesh may be paused or dead meanwhile.
//!
//! Shell. A thread looks at all hosts again and again until it is told to stop.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::clients::{CALM, VARIABLE, carried};
use crate::Host;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);

/// A container's main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Whose.
    pub(crate) manifest: usize,
    /// With which content.
    pub(crate) content: u64,
    pid: u32,
    /// In the kernel's clock ticks since the machine's start.
    started: u64,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Every content that a pod of a manifest ever had.
    pub(crate) contents: BTreeSet<(usize, u64)>,
    /// Pods that were started again on a host that had power and was told nothing.
    pub(crate) restarted: Vec<String>,
    /// The pod that nobody changes, by host and its init.
    calm: BTreeMap<(String, u32), Pod>,
}

/// The thread that looks.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to look.
    pub(crate) fn begin(hosts: &[Host]) -> Self {
        let (seen, over) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let hosts = hosts.to_vec();
        let (noted, ended) = (Arc::clone(&seen), Arc::clone(&over));
        let look = move || {
            while !ended.load(Ordering::Relaxed) {
                for host in &hosts {
                    note(&mut locked(&noted), host);
                }
                thread::sleep(PAUSE);
            }
        };
        let thread = Some(thread::spawn(look));
        Self { seen, over, thread }
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        locked(&self.seen)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it has seen so far counts, even if it panicked.
            let _ = thread.join();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(seen: &mut Seen, host: &Host) {
    let Some(init) = host.init_if_on() else {
        return;
    };
    let pods = running(host);
    if host.init_if_on() != Some(init) {
        return;
    }
    for pod in pods {
        seen.contents.insert((pod.manifest, pod.content));
        if pod.manifest == CALM {
            let first = *seen.calm.entry((host.name.clone(), init)).or_insert(pod);
            if first != pod {
                seen.restarted
                    .push(format!("calm on {}: {first:?}, then {pod:?}", host.name));
                seen.calm.insert((host.name.clone(), init), pod);
            }
        }
    }
}

/// The pods of manifests that run on a host.
pub(crate) fn running(host: &Host) -> Vec<Pod> {
    host.pids().into_iter().filter_map(pod).collect()
}

fn pod(pid: u32) -> Option<Pod> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| {
        let rest = variable.strip_prefix(VARIABLE.as_bytes())?;
        std::str::from_utf8(rest.strip_prefix(b"=")?).ok()
    })?;
    let (manifest, content) = carried(value)?;
    // The first of its PID namespace; the others are its children. Before that it was Podman's runtime.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let first = |line: &str| line.starts_with("NSpid:") && line.ends_with("\t1");
    status.lines().find(|line| first(line))?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let started = fields.split(' ').nth(19)?.parse().ok()?;
    Some(Pod {
        manifest,
        content,
        pid,
        started,
    })
}
