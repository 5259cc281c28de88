//! The pods that hosts really run, from outside by their processes: Podman and Beemesh may be stopped or dead.
//!
//! Shell. A thread looks at all hosts repeatedly until it is told to stop.

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

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(300);

/// A container's main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pod {
    /// The manifest of the container.
    pub(crate) manifest: usize,
    /// The content of the manifest.
    pub(crate) content: u64,
    pid: u32,
    /// The start time, in the kernel's clock ticks since the machine's boot.
    started: u64,
}

/// The observations so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// All contents that a pod of a manifest had.
    pub(crate) contents: BTreeSet<(usize, u64)>,
    /// Pods that restarted on a host with power and without a change of their manifest.
    pub(crate) restarted: Vec<String>,
    /// The pod that never changes, by host and init.
    calm: BTreeMap<(String, u32), Pod>,
}

/// The thread that looks at the hosts.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the thread.
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

    /// The observations so far.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        locked(&self.seen)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The observations count even if the thread panicked.
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
    // The first process of its PID namespace; the others are its children. Before that it was Podman's runtime.
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
