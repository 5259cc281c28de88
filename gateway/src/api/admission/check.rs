//! Checks a manifest against the rest of the cluster: names and ports that other workloads use, keys of ConfigMaps and
//! Secrets, and reserved ports of the hosts.
//!
//! Pure: no I/O, no clock, no randomness. Input: a parsed manifest, the applied state and the reports of the hosts.
//! Output: problems with their places. The host that receives an apply runs these checks before it proposes anything.
//! The state machine does not run them, so that gateways of all releases keep the same state. If two manifests pass the
//! checks at the same time and conflict, one of them waits on its host ([`crate::cluster::ports`]).

mod immutable;
mod rendered;
mod replaced;
mod singletons;

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
    Demand, Demanded, KeyOf, Keys, Manifest, Port, Problem, demands, is_stopped, is_workload,
    kind_name, kind_of, workload_name,
};

use crate::cluster::{
    placement,
    state::{State, Workload},
};

/// The port of the mesh, unless a host has another one configured.
const MESH_PORT: u16 = 4701;
/// Older versions of Podman do not know the stop signal of a pod.
const STOP_SIGNAL_SINCE: Version = Version::new(5, 6, 0);
/// The ledger is trimmed when its size exceeds twice the number of workloads by more than this.
const KNOWN_MORE: usize = 256;

/// A cache of the demands of workloads, by the hash of their object: to read an object takes longer than a lookup.
#[derive(Debug, Default)]
pub(crate) struct Ledger(HashMap<[u8; 32], Arc<[Demand]>>);

impl Ledger {
    fn of(&mut self, object: &Object) -> Arc<[Demand]> {
        let known = self.0.entry(object.hash);
        Arc::clone(known.or_insert_with(|| demands(object).into()))
    }

    /// Removes objects that are not in the state when the ledger has become large.
    fn tidy(&mut self, state: &State) {
        let workloads = state.workloads();
        if self.0.len() > 2 * workloads.len() + KNOWN_MORE {
            let kept: BTreeSet<[u8; 32]> = workloads.map(|workload| workload.object.hash).collect();
            self.0.retain(|hash, _| kept.contains(hash));
        }
    }
}

/// The result of the check.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Problems of the manifest itself.
    pub(crate) wrong: Vec<Problem>,
    /// Conflicts with other workloads of the cluster.
    pub(crate) held: Vec<Problem>,
    /// Problems on some hosts, which do not prevent the apply.
    pub(crate) warnings: Vec<Problem>,
    /// Missing keys and objects for which the workloads wait, because the user requested that.
    pub(crate) awaited: Vec<Problem>,
}

/// The data against which a manifest is checked.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) state: &'a State,
    pub(crate) reports: &'a BTreeMap<HostId, Arc<HostReport>>,
    /// Whether workloads wait for missing keys and objects instead of being refused.
    pub(crate) waits: bool,
    /// The apply removes the objects of the manifest that the file does not contain.
    pub(crate) prune: bool,
}

/// Makes a reference optional if its object is neither in the manifest nor stays in the cluster. A host that starts such a workload waits for the object. Returns the missing objects with their places.
pub(crate) fn wait_for_references(
    name: &str,
    manifest: &mut Manifest,
    state: &State,
    prune: bool,
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
                || known.is_some_and(|(owner, _)| !prune || owner != name);
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

/// Checks the manifest `name`.
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
    check.immutable();
    check.singletons();
    check.replaced();
    check.signals();
    check.spreads();
    check.claims();
    check.rendered();
    check.verdict
}

struct Check<'a> {
    name: &'a str,
    manifest: &'a Manifest,
    around: Around<'a>,
    ledger: &'a mut Ledger,
    verdict: Verdict,
}

/// The workload that holds a name or a port.
#[derive(Clone)]
struct Holder {
    /// Its kind and name: `Deployment shop-cart`.
    title: String,
    /// Its place in the manifest; `None` if it is in the state.
    place: Option<(u32, u32)>,
}

/// The workload that has a name of Podman, its place in the manifest, and its container of that name.
type Taken<'a> = (&'a Object, Option<(u32, u32)>, String);

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
    format!("{} {name}", kind_of(object))
}

impl<'a> Check<'a> {
    /// The workloads of the manifest with their demands.
    fn workloads(&self) -> impl Iterator<Item = (&'a Object, &'a [Demanded])> + use<'a> {
        let demands = self.manifest.demands.iter().map(Vec::as_slice);
        let all = self.manifest.objects.iter().zip(demands);
        all.filter(|(object, _)| is_workload(object.kind))
    }

    /// The workloads that the apply neither changes nor removes.
    fn others(&self) -> impl Iterator<Item = &'a Workload> + use<'a> {
        let (name, prune, objects) = (self.name, self.around.prune, &self.manifest.objects);
        let is_applied = move |workload: &Workload| {
            let is_workload = |object: &&Object| is_workload(object.kind);
            let mut applied = objects.iter().filter(is_workload);
            applied.any(|object| workload_name(&object.namespace, &object.name) == workload.name)
        };
        let all = self.around.state.workloads();
        all.filter(move |workload| {
            let is_own = workload.manifest == name;
            !is_own || !prune && !is_applied(workload)
        })
    }

    /// Adds a problem: a conflict within the manifest is a fault of the manifest, one with a workload in the state is a
    /// conflict.
    fn refuse(&mut self, holder: &Holder, problem: Problem) {
        match holder.place {
            Some(_) => self.verdict.wrong.push(problem),
            None => self.verdict.held.push(problem),
        }
    }

    /// Checks the names of pods and containers. On a host they share one name space in Podman, and a container is named
    /// POD-CONTAINER.
    fn names(&mut self) {
        let mut taken: HashMap<String, Taken<'_>> = HashMap::new();
        for workload in self.others() {
            for demand in self.ledger.of(&workload.object).iter() {
                if let Demand::Name { name, container } = demand {
                    taken.insert(name.clone(), (&workload.object, None, container.clone()));
                }
            }
        }
        for (object, demands) in self.workloads() {
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
                let own = (object, Some((at.document, at.line)), container.clone());
                let Some((other, place, theirs)) = taken.insert(name.clone(), own) else {
                    continue;
                };
                let other = Holder {
                    title: title(other),
                    place,
                };
                let message = format!(
                    "{} and {} would both be named `{name}` on a host: Podman names a container POD-CONTAINER; rename one of them",
                    part(&title(object), container),
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
                    // Another check covers two equal ports of one pod.
                    !std::ptr::eq(*holder, object)
                        && other.meets(port)
                        && both_run(object, holder, hosts)
                };
                let other = held.iter().find(meets).map(|(_, holder, _)| holder.clone());
                // A change of labels can bring two workloads with one port onto a host. Each may still change in other
                // respects.
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

    /// Refuses a spread over a label that no host has: none of its pods could get a host.
    fn spreads(&mut self) {
        for (object, demands) in self.workloads() {
            if object.replicas.is_none() {
                continue;
            }
            for at in demands {
                let Demand::Topology(label) = &at.demand else {
                    continue;
                };
                let mut hosts = self.around.state.hosts().values();
                let is_known = label == placement::LABEL_HOSTNAME
                    || hosts.any(|host| host.labels.contains_key(label));
                if !is_known {
                    let message = format!(
                        "no host has the label `{label}`: `beemesh host label HOST {label}=VALUE` sets it"
                    );
                    self.verdict.wrong.push(problem(at, message));
                }
            }
        }
    }

    /// Whether the workload requested this port before, on hosts with the same selector.
    fn had(&mut self, object: &Object, port: &Port) -> bool {
        let name = workload_name(&object.namespace, &object.name);
        let before = self.around.state.workload(&name);
        before.is_some_and(|before| {
            let demand = Demand::Port(*port);
            before.object.selector == object.selector
                && self.ledger.of(&before.object).contains(&demand)
        })
    }

    /// Why no workload may use the port on the hosts that can run this one.
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

    /// The object of the manifest, or of the state if it stays there.
    fn object(&self, kind: Kind, namespace: &str, name: &str) -> Option<&'a Object> {
        let is = |object: &&Object| {
            object.kind == kind && object.namespace == namespace && object.name == name
        };
        let own = self.manifest.objects.iter().find(is);
        own.or_else(|| {
            let (owner, object) = self.around.state.object(kind, namespace, name)?;
            (!self.around.prune || owner != self.name).then_some(object)
        })
    }

    fn keys(&mut self) {
        let mut known: HashMap<(Kind, &str, &str), Keys> = HashMap::new();
        for (object, demands) in self.workloads() {
            for at in demands {
                let Demand::Key(needed) = &at.demand else {
                    continue;
                };
                // The state machine refuses a reference to a missing object.
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

    /// Warns of claims that no manifest has.
    fn claims(&mut self) {
        for (object, place) in self.manifest.objects.iter().zip(&self.manifest.places) {
            for used in &object.references {
                let is_claim = used.kind == Kind::PersistentVolumeClaim;
                if !is_claim
                    || self
                        .object(used.kind, &object.namespace, &used.name)
                        .is_some()
                {
                    continue;
                }
                self.verdict.warnings.push(Problem {
                    document: place.document,
                    line: place.line,
                    field: String::new(),
                    message: format!(
                        "claimName `{}`: no manifest has such a claim; in Kubernetes the pod waits for it, here each host makes an empty volume for it",
                        used.name
                    ),
                });
            }
        }
    }

    /// Checks that no ConfigMap or Secret loses a key that a workload of another manifest needs.
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

    /// Warns of hosts whose Podman ignores the pod's stop signal and sends SIGTERM to a container whose probe fails.
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

/// A container of `whole`; without a container, `whole` itself.
fn part(whole: &str, container: &str) -> String {
    match container {
        "" => whole.to_owned(),
        container => format!("container `{container}` of {whole}"),
    }
}

/// Whether this is the name of an infra or service container, which Podman makes of an id or a hash.
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

/// Returns true if a host matches both workloads. A drained host counts, and a stopped workload keeps its ports.
fn both_run(one: &Object, two: &Object, hosts: &BTreeMap<HostId, Host>) -> bool {
    let none = |object: &Object| object.replicas == Some(0) && !is_stopped(object);
    let both = |host: &Host| placement::can_run(host, one) && placement::can_run(host, two);
    !none(one) && !none(two) && hosts.values().any(both)
}

#[cfg(test)]
mod tests;
