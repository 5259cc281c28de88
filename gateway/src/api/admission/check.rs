//! Which manifests the rest of the cluster leaves room for: names and ports that others hold, keys that are there, ports of the hosts.
//!
//! Pure: no I/O, no clock, no randomness. Input: a manifest that was read, the applied state and what hosts report. Output:
//! problems with their places. The host that takes an apply asks this before anything is replicated; the state machine
//! does not, so that all releases keep the same state, and what gets past it in a race waits on its host
//! ([`crate::cluster::ports`]).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use beemesh_protocol::{
    HostId,
    peer::HostReport,
    state::{Host, Kind, Object},
    version::Version,
};
use beemesh_quadlet::manifest::{
    Demand, Demanded, KeyOf, Keys, Manifest, Port, Problem, demands, is_workload, kind_name,
    workload_name,
};

use crate::cluster::{
    placement,
    state::{State, Workload},
};

/// The mesh's port, unless a host has another one.
const MESH_PORT: u16 = 4701;
/// Before it, Podman does not know a pod's own stop signal.
const STOP_SIGNAL_SINCE: Version = Version::new(5, 6, 0);
/// Objects whose demands are remembered beyond twice those that there are.
const KNOWN_MORE: usize = 256;

/// What the workloads of the state need, by the hash of their object: to read one takes longer than to look it up.
#[derive(Debug, Default)]
pub(crate) struct Ledger(HashMap<[u8; 32], Arc<[Demand]>>);

impl Ledger {
    fn of(&mut self, object: &Object) -> Arc<[Demand]> {
        let known = self.0.entry(object.hash);
        Arc::clone(known.or_insert_with(|| demands(object).into()))
    }

    /// Forgets what the state does not have any more, once that is much.
    fn tidy(&mut self, state: &State) {
        let workloads = state.workloads();
        if self.0.len() > 2 * workloads.len() + KNOWN_MORE {
            let kept: BTreeSet<[u8; 32]> = workloads.map(|workload| workload.object.hash).collect();
            self.0.retain(|hash, _| kept.contains(hash));
        }
    }
}

/// What is said of a manifest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Why it is refused, whatever the cluster runs.
    pub(crate) wrong: Vec<Problem>,
    /// Why it is refused while the cluster runs what it does.
    pub(crate) held: Vec<Problem>,
    /// What not every host will do.
    pub(crate) warnings: Vec<Problem>,
    /// What is not there, and is waited for because the user asked for that.
    pub(crate) awaited: Vec<Problem>,
}

/// What a manifest is held against.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) state: &'a State,
    pub(crate) reports: &'a BTreeMap<HostId, Arc<HostReport>>,
    /// The user wants workloads to wait for keys and objects that are not there.
    pub(crate) waits: bool,
}

/// Has the workloads of the manifest of this name do without objects that are neither in it nor in the state, until there are such:
/// a host that has to start one waits for them. What is waited for, with its place.
pub(crate) fn wait_for_references(
    name: &str,
    manifest: &mut Manifest,
    state: &State,
) -> Vec<Problem> {
    let own: BTreeSet<_> = manifest
        .objects
        .iter()
        .map(|object| (object.kind, object.namespace.clone(), object.name.clone()))
        .collect();
    let mut awaited = Vec::new();
    for (object, place) in manifest.objects.iter_mut().zip(&manifest.places) {
        for reference in &mut object.references {
            let (kind, namespace) = (reference.kind, &object.namespace);
            let known = state.object(kind, namespace, &reference.name);
            let is_there = own.contains(&(kind, namespace.clone(), reference.name.clone()))
                || known.is_some_and(|(owner, _)| owner != name);
            if reference.optional || is_there {
                continue;
            }
            reference.optional = true;
            awaited.push(Problem {
                document: place.document,
                line: place.line,
                field: String::new(),
                message: format!(
                    "{} {} does not exist: the workload waits for it",
                    kind_name(kind),
                    workload_name(namespace, &reference.name)
                ),
            });
        }
    }
    awaited
}

/// Checks the manifest of this name.
pub(crate) fn check(
    name: &str,
    manifest: &Manifest,
    around: Around<'_>,
    ledger: &mut Ledger,
) -> Verdict {
    ledger.tidy(around.state);
    let mut check = Check {
        name,
        manifest,
        around,
        ledger,
        verdict: Verdict::default(),
    };
    check.names();
    check.ports();
    check.keys();
    check.taken_away();
    check.signals();
    check.verdict
}

struct Check<'a> {
    name: &'a str,
    manifest: &'a Manifest,
    around: Around<'a>,
    ledger: &'a mut Ledger,
    verdict: Verdict,
}

/// Who holds something.
#[derive(Clone)]
struct Holder {
    /// In words: `Deployment shop-cart`.
    title: String,
    /// Where it stands in the file; `None` when it is in the state.
    place: Option<(u32, u32)>,
}

impl Holder {
    fn words(&self) -> String {
        match self.place {
            Some((document, line)) => format!("{} (document {document}, line {line})", self.title),
            None => self.title.clone(),
        }
    }
}

fn problem(at: &Demanded, message: String) -> Problem {
    Problem {
        document: at.document,
        line: at.line,
        field: at.field.clone(),
        message,
    }
}

fn title(object: &Object) -> String {
    let name = workload_name(&object.namespace, &object.name);
    format!("{} {name}", kind_name(object.kind))
}

impl<'a> Check<'a> {
    /// The manifest's workloads with their demands.
    fn workloads(&self) -> impl Iterator<Item = (&'a Object, &'a [Demanded])> + use<'a> {
        let demands = self.manifest.demands.iter().map(Vec::as_slice);
        let all = self.manifest.objects.iter().zip(demands);
        all.filter(|(object, _)| is_workload(object.kind))
    }

    /// The workloads that stay beside the manifest: all but those that it replaces or drops.
    fn others(&self) -> impl Iterator<Item = &'a Workload> + use<'a> {
        let name = self.name;
        let all = self.around.state.workloads();
        all.filter(move |workload| workload.manifest != name)
    }

    /// One that is there already is told as held by it, one of the file as the file's own fault.
    fn refuse(&mut self, holder: &Holder, problem: Problem) {
        match holder.place {
            Some(_) => self.verdict.wrong.push(problem),
            None => self.verdict.held.push(problem),
        }
    }

    /// Podman has one space of names for the pods and containers of a host, and calls a container by its pod's name and its own.
    fn names(&mut self) {
        let mut taken: HashMap<String, (Holder, String)> = HashMap::new();
        for workload in self.others() {
            let holder = Holder {
                title: format!("{} {}", kind_name(workload.object.kind), workload.name),
                place: None,
            };
            for demand in self.ledger.of(&workload.object).iter() {
                if let Demand::Name { name, container } = demand {
                    taken.insert(name.clone(), (holder.clone(), container.clone()));
                }
            }
        }
        for (object, demands) in self.workloads() {
            let own = title(object);
            for at in demands {
                let Demand::Name { name, container } = &at.demand else {
                    continue;
                };
                if is_podmans(name) {
                    let message = format!(
                        "`{name}` is a name that Podman gives to its own containers: use another name"
                    );
                    self.verdict.wrong.push(problem(at, message));
                    continue;
                }
                let holder = Holder {
                    title: own.clone(),
                    place: Some((at.document, at.line)),
                };
                let Some((other, theirs)) = taken.insert(name.clone(), (holder, container.clone()))
                else {
                    continue;
                };
                let message = format!(
                    "{} and {} would both be named `{name}` on a host: Podman names a container POD-CONTAINER; rename one of them",
                    part(&own, container),
                    part(&other.words(), &theirs)
                );
                self.refuse(&other, problem(at, message));
            }
        }
    }

    fn ports(&mut self) {
        let hosts = self.around.state.hosts();
        let mut taken: HashMap<u16, Vec<(Port, Holder, &Object)>> = HashMap::new();
        for workload in self.others() {
            for demand in self.ledger.of(&workload.object).iter() {
                if let Demand::Port(port) = demand {
                    let holder = Holder {
                        title: format!("workload {}", workload.name),
                        place: None,
                    };
                    let held = taken.entry(port.port).or_default();
                    held.push((*port, holder, &workload.object));
                }
            }
        }
        for (object, demands) in self.workloads() {
            for at in demands {
                let Demand::Port(port) = &at.demand else {
                    continue;
                };
                if let Some(message) = self.reserved(port, object) {
                    self.verdict.wrong.push(problem(at, message));
                    continue;
                }
                let held = taken.entry(port.port).or_default();
                let meets = |(other, _, holder): &&(Port, Holder, &Object)| {
                    // Two of one pod are another check's.
                    !std::ptr::eq(*holder, object)
                        && other.meets(port)
                        && both_run(object, holder, hosts)
                };
                let other = held.iter().find(meets).map(|(_, holder, _)| holder.clone());
                // Of two that want it already, as labels of hosts can bring about, each may change otherwise.
                let other = other.filter(|other| other.place.is_some() || !self.had(object, port));
                if let Some(other) = other {
                    let message = format!("port {port} of the host is held by {}", other.words());
                    self.refuse(&other, problem(at, message));
                }
                let holder = Holder {
                    title: title(object),
                    place: Some((at.document, at.line)),
                };
                let held = taken.entry(port.port).or_default();
                held.push((*port, holder, object));
            }
        }
    }

    /// Whether the workload has wanted the port of the same hosts before.
    fn had(&mut self, object: &Object, port: &Port) -> bool {
        let name = workload_name(&object.namespace, &object.name);
        let before = self.around.state.workload(&name);
        before.is_some_and(|before| {
            let demand = Demand::Port(*port);
            before.object.selector == object.selector
                && self.ledger.of(&before.object).contains(&demand)
        })
    }

    /// Why no workload of these hosts can have the port.
    fn reserved(&self, port: &Port, object: &Object) -> Option<String> {
        let members = self.around.state.hosts().values();
        let reserves = |host: &&Host| {
            let report = self.around.reports.get(&host.id);
            report.is_some_and(|report| report.reserved_ports.contains(&port.port))
        };
        let host = members
            .filter(|host| placement::can_run(host, object))
            .find(reserves);
        let whose = match host {
            Some(host) => format!("Beemesh itself on host {}", host.name),
            None if port.port == MESH_PORT => "the mesh of Beemesh".to_owned(),
            None => return None,
        };
        Some(format!(
            "port {} is reserved for {whose}: use another port",
            port.port
        ))
    }

    /// The object of the manifest, or of the state if the manifest does not drop it.
    fn object(&self, kind: Kind, namespace: &str, name: &str) -> Option<&'a Object> {
        let is = |object: &&Object| {
            object.kind == kind && object.namespace == namespace && object.name == name
        };
        let own = self.manifest.objects.iter().find(is);
        own.or_else(|| {
            let (owner, object) = self.around.state.object(kind, namespace, name)?;
            (owner != self.name).then_some(object)
        })
    }

    fn keys(&mut self) {
        let mut known: HashMap<(Kind, &str, &str), Keys> = HashMap::new();
        for (object, demands) in self.workloads() {
            for at in demands {
                let Demand::Key(needed) = &at.demand else {
                    continue;
                };
                // One that is missing as a whole is the state machine's to refuse.
                let Some(used) = self.object(needed.kind, &object.namespace, &needed.name) else {
                    continue;
                };
                let keys = known
                    .entry((needed.kind, &object.namespace, &needed.name))
                    .or_insert_with(|| Keys::of(used));
                if keys.has(needed) {
                    continue;
                }
                let lacks = lacks(needed, used);
                if self.around.waits {
                    let message = format!("{lacks}: the workload waits for it");
                    self.verdict.awaited.push(problem(at, message));
                } else {
                    let message = format!("{lacks}: {}", keys.words());
                    self.verdict.wrong.push(problem(at, message));
                }
            }
        }
    }

    /// A ConfigMap or Secret may lose no key that a workload of another manifest needs.
    fn taken_away(&mut self) {
        let mut changed: BTreeMap<(Kind, &str, &str), (usize, Keys, Keys)> = BTreeMap::new();
        for (position, object) in self.manifest.objects.iter().enumerate() {
            if !matches!(object.kind, Kind::ConfigMap | Kind::Secret) {
                continue;
            }
            let before = self
                .around
                .state
                .object(object.kind, &object.namespace, &object.name);
            if let Some((_, before)) = before.filter(|(_, before)| before.hash != object.hash) {
                let key = (object.kind, object.namespace.as_str(), object.name.as_str());
                changed.insert(key, (position, Keys::of(before), Keys::of(object)));
            }
        }
        if changed.is_empty() {
            return;
        }
        for workload in self.others() {
            for demand in self.ledger.of(&workload.object).iter() {
                let Demand::Key(needed) = demand else {
                    continue;
                };
                let key = (
                    needed.kind,
                    workload.object.namespace.as_str(),
                    needed.name.as_str(),
                );
                let Some((position, before, after)) = changed.get(&key) else {
                    continue;
                };
                let place = self.manifest.places.get(*position);
                if let Some(place) = place.filter(|_| before.has(needed) && !after.has(needed)) {
                    self.verdict.held.push(Problem {
                        document: place.document,
                        line: place.line,
                        field: String::new(),
                        message: format!(
                            "{needed} is missing, and workload {} of manifest `{}` needs it",
                            workload.name, workload.manifest
                        ),
                    });
                }
            }
        }
    }

    /// Hosts whose Podman ends a container whose probe fails with SIGTERM whatever its pod says.
    fn signals(&mut self) {
        for (object, demands) in self.workloads() {
            for at in demands.iter().filter(|at| at.demand == Demand::StopSignal) {
                let members = self.around.state.hosts().values();
                let old = members
                    .filter(|host| placement::can_run(host, object))
                    .filter_map(|host| {
                        let version = &self.around.reports.get(&host.id)?.podman;
                        let is_old = Version::parse(version)? < STOP_SIGNAL_SINCE;
                        is_old.then(|| format!("{} has {version}", host.name))
                    });
                let old: Vec<_> = old.collect();
                if !old.is_empty() {
                    let message = format!(
                        "Podman before 5.6 sends SIGTERM to a container whose probe fails: {}",
                        old.join(", ")
                    );
                    self.verdict.warnings.push(problem(at, message));
                }
            }
        }
    }
}

fn lacks(needed: &KeyOf, used: &Object) -> String {
    let name = workload_name(&used.namespace, &used.name);
    format!(
        "{} {name} has no key `{}`",
        kind_name(used.kind),
        needed.key
    )
}

/// A container or, without one, the whole.
fn part(whole: &str, container: &str) -> String {
    match container {
        "" => whole.to_owned(),
        container => format!("container `{container}` of {whole}"),
    }
}

/// Infra and service containers, whose names Podman makes of an id or a hash.
fn is_podmans(name: &str) -> bool {
    let id = name
        .strip_suffix("-infra")
        .or(name.strip_suffix("-service"));
    id.is_some_and(|id| {
        id.len() == 12
            && id
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Whether any host can run both, drained as it may be now.
fn both_run(one: &Object, two: &Object, hosts: &BTreeMap<HostId, Host>) -> bool {
    let none = |object: &Object| object.replicas == Some(0);
    let both = |host: &Host| placement::can_run(host, one) && placement::can_run(host, two);
    !none(one) && !none(two) && hosts.values().any(both)
}

#[cfg(test)]
mod tests;
