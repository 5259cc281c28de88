//! Clients of all hosts, which write, read and delete, one operation after the other, and record the answers.
//!
//! Shell. A manifest is a register: one pod that carries its content in its environment. Most manifests select a host
//! that does not exist, so that they start nothing and can change often; some run on every host.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::Method;
use serde_json::Value;
use tokio::{
    runtime::Runtime,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{Chance, History, IMAGE, Op, http::Client};

/// The number of manifests that start nothing.
const REGISTERS: usize = 4;
/// The number of manifests whose pods run on every host.
const PODS: usize = 2;
/// The first of the manifests with pods.
pub(crate) const FIRST_POD: usize = REGISTERS;
/// The number of manifests that change.
pub(crate) const MANIFESTS: usize = REGISTERS + PODS;
/// The manifest that is applied before the first fault and never again.
pub(crate) const CALM: usize = MANIFESTS;
pub(crate) const CALM_CONTENT: u64 = u64::MAX;
/// The number of clients of the manifests that start nothing; one more client changes the pods.
const CLIENTS: u64 = 5;
/// How long a client waits for an answer: longer than any timeout in its requests.
const PATIENCE: Duration = Duration::from_secs(15);
/// The time limit of every answer after all faults are repaired.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// The state that clients and faults share.
#[derive(Debug)]
pub(crate) struct Clients {
    runtime: Runtime,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    history: Mutex<History>,
    /// The PID of each host's init; 0 while clients must not use the host.
    inits: Vec<AtomicU32>,
    values: AtomicU64,
    over: AtomicBool,
    strange: Mutex<Vec<String>>,
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    Read,
    Write,
    Delete,
}

impl Clients {
    /// Clients of this many hosts that use none of them yet.
    pub(crate) fn new(seed: u64, hosts: usize) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let shared = Arc::new(Shared {
            inits: (0..hosts).map(|_| AtomicU32::new(0)).collect(),
            ..Shared::default()
        });
        let tasks = (0..=CLIENTS).map(|number| {
            let chance = Chance::new(seed, 100 + number);
            let shared = Arc::clone(&shared);
            runtime.spawn(async move { shared.client(chance, number == CLIENTS).await })
        });
        Ok(Self {
            tasks: tasks.collect(),
            runtime,
            shared,
        })
    }

    /// Lets clients use a host through the init with this PID, or stops them from using it.
    pub(crate) fn host(&self, number: usize, init: Option<u32>) {
        self.shared.inits[number].store(init.unwrap_or(0), Ordering::Relaxed);
    }

    /// The history of the calls so far.
    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        locked(&self.shared.history)
    }

    /// Answers that no fault explains.
    pub(crate) fn strange(&self) -> Vec<String> {
        locked(&self.shared.strange).clone()
    }

    /// Ends all clients and then reads every manifest once through each usable host.
    ///
    /// # Panics
    /// If a host does not answer in time.
    pub(crate) fn end(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let tasks = std::mem::take(&mut self.tasks);
        let shared = &self.shared;
        self.runtime.block_on(async {
            for task in tasks {
                task.await.expect("no client panics");
            }
            let there = |host: &usize| shared.inits[*host].load(Ordering::Relaxed) != 0;
            for host in (0..shared.inits.len()).filter(there) {
                shared.read_all(host).await;
            }
        });
    }

    /// The content of a manifest that the last answered read saw.
    pub(crate) fn content(&self, manifest: usize) -> u64 {
        self.history().last_read(manifest).unwrap_or(0)
    }
}

impl Shared {
    async fn client(&self, mut chance: Chance, of_pods: bool) {
        while !self.over.load(Ordering::Relaxed) {
            // A pod needs time to start: a client that changed it faster would never see it run.
            let (from, to) = if of_pods { (1000, 6000) } else { (20, 300) };
            sleep(chance.millis(from, to)).await;
            let hosts: Vec<usize> = (0..self.inits.len()).collect();
            let host = *chance.pick(&hosts).expect("a host");
            let (first, count) = if of_pods {
                (REGISTERS, PODS)
            } else {
                (0, REGISTERS)
            };
            let within = usize::try_from(chance.below(count as u64)).unwrap_or(0);
            let deed = match chance.below(if of_pods { 8 } else { 10 }) {
                0 => Deed::Delete,
                1..5 => Deed::Write,
                _ => Deed::Read,
            };
            let seconds = 1 + chance.below(5);
            self.ask(host, first + within, deed, seconds).await;
        }
    }

    async fn read_all(&self, host: usize) {
        for manifest in 0..MANIFESTS {
            let begun = Instant::now();
            while !self.ask(host, manifest, Deed::Read, 5).await {
                let late = begun.elapsed() > ANSWER_MAX;
                assert!(!late, "h{} does not answer a read", host + 1);
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Makes one call to one host; returns whether there was an answer.
    async fn ask(&self, host: usize, manifest: usize, deed: Deed, seconds: u64) -> bool {
        let init = self.inits[host].load(Ordering::Relaxed);
        let socket = PathBuf::from(format!("/proc/{init}/root/run/beemesh/gateway.sock"));
        // Without a connection there is no call.
        let Ok(mut client) = Client::connect(&socket).await else {
            return false;
        };
        let name = name(manifest);
        let (op, method, path, body) = match deed {
            Deed::Read => (
                Op::Read(0),
                Method::GET,
                format!("workloads/{name}?"),
                String::new(),
            ),
            Deed::Write => {
                let value = self.values.fetch_add(1, Ordering::Relaxed) + 1;
                let path = format!("apply?name={name}&");
                (Op::Write(value), Method::POST, path, yaml(manifest, value))
            }
            Deed::Delete => (
                Op::Write(0),
                Method::DELETE,
                format!("manifests/{name}?"),
                String::new(),
            ),
        };
        let uri = format!("/v1/{path}timeout={seconds}");
        let call = locked(&self.history).call(manifest, op);
        let sent = timeout(PATIENCE, client.send(method, &uri, body)).await;
        let Ok(Ok((status, body))) = sent else {
            return false;
        };
        let mut history = locked(&self.history);
        match (status.as_u16(), op) {
            (200, Op::Read(_)) => history.answer(call, Op::Read(content(&body))),
            (200, Op::Write(_)) => history.answer(call, op),
            // Also the answer to a deletion.
            (404, Op::Read(_) | Op::Write(0)) => history.answer(call, Op::Read(0)),
            (503, Op::Write(_)) => history.refuse(call),
            // The host is about to become a member again.
            (409, Op::Write(_)) if says_removed(&body) => history.refuse(call),
            (409, Op::Read(_)) if says_removed(&body) => return false,
            // The effect is unknown.
            (500 | 503 | 504, _) => return false,
            _ => {
                let body = String::from_utf8_lossy(&body);
                let what = format!("h{}: {uri}: {status}: {body}", host + 1);
                locked(&self.strange).push(what);
            }
        }
        true
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a manifest and of its pod.
pub(crate) fn name(manifest: usize) -> String {
    match manifest {
        CALM => "calm".to_owned(),
        of if of < REGISTERS => format!("r{of}"),
        of => format!("w{}", of - REGISTERS),
    }
}

/// Whether a manifest's pod runs on every host.
pub(crate) fn runs(manifest: usize) -> bool {
    manifest >= REGISTERS
}

/// The manifest with this content.
pub(crate) fn yaml(manifest: usize, content: u64) -> String {
    let name = name(manifest);
    let nowhere = if runs(manifest) {
        ""
    } else {
        "  nodeSelector: {kubernetes.io/hostname: nowhere}\n"
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n{nowhere}  containers:\n  - name: main\n    image: {IMAGE}\n    \
         env: [{{name: {VARIABLE}, value: \"{manifest}={content}\"}}]\n    \
         command: [sh, -c, 'trap \"exit 0\" TERM; sleep 100000 & wait $!']\n"
    )
}

/// The environment variable of a container with its manifest and content.
pub(crate) const VARIABLE: &str = "TORTURE";

/// The manifest and content in the value of a container's variable.
pub(crate) fn carried(value: &str) -> Option<(usize, u64)> {
    let (manifest, content) = value.split_once('=')?;
    Some((manifest.parse().ok()?, content.parse().ok()?))
}

fn says_removed(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).contains("this host was removed from its cluster")
}

/// The content of the workload in the API's answer.
pub(crate) fn content(body: &[u8]) -> u64 {
    let shown: Value = serde_json::from_slice(body).unwrap_or_default();
    let value = shown.pointer("/object/spec/containers/0/env/0/value");
    let carried = value.and_then(Value::as_str).and_then(carried);
    carried.map_or(CALM_CONTENT, |(_, content)| content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let body =
            serde_json::json!({"object": {"spec": {"containers": [{"env": [{"value": "5=17"}]}]}}});
        assert_eq!(content(body.to_string().as_bytes()), 17);
        assert_eq!(carried("5=17"), Some((5, 17)));
        assert!(yaml(5, 17).contains("value: \"5=17\"") && !yaml(5, 17).contains("nowhere"));
        assert!(yaml(1, 2).contains("nowhere"));
        assert_eq!([0, 4, CALM].map(name), ["r0", "w0", "calm"]);
    }
}
