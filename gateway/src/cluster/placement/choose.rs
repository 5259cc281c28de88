//! Chooses the host of a pod, and explains why a pod has no host.
//!
//! Pure: no I/O, no clock, no randomness. A pod goes to a host that is reachable, does not come and go, and fits: to the
//! one with the fewest other pods of the workload. A pod that can have no other one beside it, because of a claim, a host
//! port or the network of its host, goes to a host without one. A pod with claims goes to a host that has their data, if
//! there is one without another pod of the workload. It waits for that host rather than start with an empty volume
//! elsewhere. Of several hosts, the one with the highest claim to the workload wins, as in
//! [`crate::cluster::placement`].

use std::{
    cell::{OnceCell, RefCell},
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use beemesh_protocol::{
    HostId,
    peer::HostReport,
    state::{Assignment, Host, Kind, Object},
    workload::PODS_PER_HOST_MAX,
};
use beemesh_quadlet::manifest::Scheduling;

use super::rules::{Pods, Rule, Rules};
use crate::cluster::{
    placement,
    state::{LOSES, State, Workload, claims},
};

/// The number of pods of a workload on each host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Taken(BTreeMap<HostId, usize>);

impl Taken {
    /// Counts the pods of these seats.
    pub(crate) fn of(seats: &[Assignment]) -> Self {
        let mut taken = Self::default();
        for host in seats.iter().filter_map(|seat| seat.host) {
            taken.add(host);
        }
        taken
    }

    /// Counts one more pod on the host.
    pub(crate) fn add(&mut self, host: HostId) {
        *self.0.entry(host).or_default() += 1;
    }

    /// Counts one pod less on the host.
    pub(crate) fn remove(&mut self, host: HostId) {
        if let Some(count) = self.0.get_mut(&host) {
            *count = count.saturating_sub(1);
        }
    }

    /// The number of pods on the host.
    pub(crate) fn on(&self, host: HostId) -> usize {
        self.0.get(&host).copied().unwrap_or(0)
    }

    /// The host of each pod.
    pub(crate) fn pods(&self) -> impl Iterator<Item = HostId> {
        let all = self.0.iter();
        all.flat_map(|(host, count)| std::iter::repeat_n(*host, *count))
    }
}

/// Why a host runs one pod of a workload at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alone {
    /// A host has one volume of a claim.
    Claim,
    /// A port of the host has one holder.
    Port,
    /// The pod uses the network of its host.
    HostNetwork,
    /// Each host runs a Job once at most.
    Job,
    /// Not all hosts run a release that has several.
    Level,
}

impl Alone {
    /// Returns why a host runs one pod of the workload at most; `None` if it may run several.
    pub(crate) fn of(state: &State, workload: &Workload) -> Option<Self> {
        Self::of_object(state.level(), &workload.object, workload.scheduling())
    }

    /// The same for an object and its scheduling rules, at this level of the state.
    pub(crate) fn of_object(level: u32, object: &Object, scheduling: &Scheduling) -> Option<Self> {
        if object.kind == Kind::Job {
            Some(Self::Job)
        } else if claims(object).next().is_some() {
            Some(Self::Claim)
        } else if scheduling.host_network {
            Some(Self::HostNetwork)
        } else if !scheduling.ports.is_empty() {
            Some(Self::Port)
        } else {
            (level < LOSES).then_some(Self::Level)
        }
    }

    /// `its claim allows one on each host`.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Claim => "its claim allows one on each host",
            Self::Port => "its host port allows one on each host",
            Self::HostNetwork => "the network of its host allows one on each host",
            Self::Job => "each host runs it once",
            Self::Level => "each runs one until all hosts have run Beemesh 0.5.0 for ten minutes",
        }
    }
}

/// Returns the number of pods of a workload that a host may have.
pub(crate) fn most_on_each(alone: Option<Alone>) -> usize {
    match alone {
        Some(_) => 1,
        None => usize::try_from(PODS_PER_HOST_MAX).unwrap_or(usize::MAX),
    }
}

/// The input of choices, and the pods that were given a host since.
#[derive(Debug)]
pub(crate) struct There<'a> {
    /// The replicated state.
    pub(crate) state: &'a State,
    /// The reachable hosts.
    pub(crate) reachable: &'a BTreeSet<HostId>,
    /// What the hosts report of themselves.
    reports: &'a BTreeMap<HostId, Arc<HostReport>>,
    pods: OnceCell<RefCell<Pods<'a>>>,
}

/// Why a pod has no host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Only these hosts have the data of this claim, and none of them can run a pod now.
    Data {
        /// The name of the claim.
        claim: String,
        /// The hosts, ordered by their keys.
        hosts: Vec<HostId>,
    },
    /// These hosts fit, and are unreachable or come and go.
    Away(Vec<HostId>),
    /// These rules refuse the other hosts.
    Rules(Vec<(Rule, Vec<HostId>)>),
    /// Each host that fits has as many pods of the workload as it may have, for this reason.
    Full(Option<Alone>),
    /// No host fits.
    Nowhere,
}

impl<'a> There<'a> {
    pub(crate) fn new(
        state: &'a State,
        reachable: &'a BTreeSet<HostId>,
        reports: &'a BTreeMap<HostId, Arc<HostReport>>,
    ) -> Self {
        Self {
            state,
            reachable,
            reports,
            pods: OnceCell::new(),
        }
    }

    fn pods(&self) -> &RefCell<Pods<'a>> {
        self.pods.get_or_init(|| RefCell::new(Pods::of(self.state)))
    }

    /// Counts a pod that gets this host, so that later choices know it.
    pub(crate) fn give(&self, workload: &'a Workload, host: HostId) {
        self.pods().borrow_mut().add(self.state, host, workload);
    }

    /// Chooses the host for one more pod of the workload beside those in `taken`.
    pub(crate) fn choose(&self, workload: &Workload, taken: &Taken) -> Result<HostId, Wait> {
        self.choose_after(workload, taken, None)
    }

    /// The same for a pod that leaves a host.
    pub(crate) fn choose_after(
        &self,
        workload: &Workload,
        taken: &Taken,
        leaving: Option<HostId>,
    ) -> Result<HostId, Wait> {
        let object = &workload.object;
        let alone = Alone::of(self.state, workload);
        let homes = self.homes(workload, taken);
        // An empty volume will do where none of the hosts with the data can run a pod.
        let homes = homes.filter(|(_, hosts)| {
            !workload.failover.disposable || hosts.iter().any(|host| self.can_take(workload, *host))
        });
        let most = most_on_each(alone);
        let free = |host: &&Host| taken.on(host.id) < most;
        let fits = |host: &&Host| placement::fits(host, &object.selector);
        let members = self.state.hosts();
        let all: Vec<&Host> = members.values().filter(fits).collect();
        let left: Vec<HostId> = all
            .iter()
            .copied()
            .filter(free)
            .map(|host| host.id)
            .collect();
        let at_home = |host: &HostId| homes.as_ref().is_none_or(|(_, hosts)| hosts.contains(host));
        let there = |host: &HostId| self.is_there(*host) && at_home(host);
        let mut can: Vec<HostId> = left.iter().copied().filter(there).collect();
        let refused = self.by_rules(workload, &mut can, (taken, leaving));
        match (can.first(), homes) {
            (Some(host), _) => Ok(*host),
            (None, _) if !refused.is_empty() => Err(Wait::Rules(refused)),
            (None, Some((claim, hosts))) => Err(Wait::Data { claim, hosts }),
            (None, None) if !left.is_empty() => Err(Wait::Away(left)),
            (None, None) if !all.is_empty() => Err(Wait::Full(alone)),
            (None, None) => Err(Wait::Nowhere),
        }
    }

    /// Keeps the hosts that the rules of the workload allow, the best first. Returns the rules that refuse the others.
    fn by_rules(
        &self,
        workload: &Workload,
        hosts: &mut Vec<HostId>,
        (taken, leaving): (&Taken, Option<HostId>),
    ) -> Vec<(Rule, Vec<HostId>)> {
        let members = self.state.hosts();
        let pods = self.pods().borrow();
        let rules = Rules {
            state: self.state,
            reports: self.reports,
            workload,
            pods: &pods,
            taken,
            leaving,
        };
        let mut refused: BTreeMap<Rule, Vec<HostId>> = BTreeMap::new();
        let mut order = BTreeMap::new();
        hosts.retain(|host| {
            let Some(member) = members.get(host) else {
                return false;
            };
            match rules.score(member) {
                Ok(score) => {
                    // The one with the fewest of its own pods, and of hosts that suit it alike, with the fewest pods.
                    let key = (taken.on(*host), Reverse(score), pods.seated(*host));
                    order.insert(*host, key);
                    true
                }
                Err(rule) => {
                    refused.entry(rule).or_default().push(*host);
                    false
                }
            }
        });
        placement::rank(&workload.name, hosts, members);
        hosts.sort_by_key(|host| order.get(host).copied());
        refused.into_iter().collect()
    }

    /// Returns true if the host is reachable, and does not come and go.
    fn is_there(&self, host: HostId) -> bool {
        let member = self.state.hosts().get(&host);
        let is_steady = member.is_some_and(|one| one.lost_at_ms == 0 && one.steady_at_ms == 0);
        is_steady && self.reachable.contains(&host)
    }

    fn can_take(&self, workload: &Workload, host: HostId) -> bool {
        let member = self.state.hosts().get(&host);
        let fits = member.is_some_and(|host| placement::fits(host, &workload.object.selector));
        fits && self.is_there(host)
    }

    /// Returns why a pod stays stopped on a host that must not run it; `None` if another host can run it.
    pub(crate) fn held(&self, workload: &Workload, host: HostId) -> Option<String> {
        let wait = match claims(&workload.object).next() {
            Some(claim) => Wait::Data {
                claim: claim.to_owned(),
                hosts: vec![host],
            },
            None => {
                let taken = Taken::of(self.state.seats(&workload.name));
                self.choose_after(workload, &taken, Some(host)).err()?
            }
        };
        Some(self.words(workload, &wait))
    }

    /// Chooses the host to which this pod moves without its data.
    pub(crate) fn choose_without_data(&self, workload: &Workload, taken: &Taken) -> Option<HostId> {
        let fits = |host: &&Host| placement::fits(host, &workload.object.selector);
        let members = self.state.hosts();
        let can = members.values().filter(fits).map(|host| host.id);
        let mut can: Vec<_> = can
            .filter(|host| self.is_there(*host) && taken.on(*host) == 0)
            .collect();
        placement::rank(&workload.name, &mut can, members);
        can.first().copied()
    }

    /// Returns the members that have data for one more pod, and a claim whose data they have. If some members have the
    /// data of more claims than others, only those with the most are returned.
    fn homes(&self, workload: &Workload, taken: &Taken) -> Option<(String, Vec<HostId>)> {
        let object = &workload.object;
        let has = |claim: &str, host: &HostId| {
            let homes = self.state.homes(&object.namespace, claim);
            homes.into_iter().any(|home| home == *host)
        };
        let members = self
            .state
            .hosts()
            .keys()
            .filter(|host| taken.on(**host) == 0);
        let counted = members.map(|host| {
            (
                claims(object).filter(|claim| has(claim, host)).count(),
                host,
            )
        });
        let counted: Vec<_> = counted.collect();
        let most = counted.iter().map(|(count, _)| *count).max()?;
        if most == 0 {
            return None;
        }
        let hosts = counted.into_iter().filter(|(count, _)| *count == most);
        let hosts: Vec<HostId> = hosts.map(|(_, host)| *host).collect();
        let claim = claims(object).find(|claim| has(claim, &hosts[0]))?;
        Some((claim.to_owned(), hosts))
    }

    /// Formats the reason as a message for the user, such as
    /// `waits for host h2, which has its claim ledger-data and is drained`.
    pub(crate) fn words(&self, workload: &Workload, wait: &Wait) -> String {
        match wait {
            Wait::Data { claim, hosts } => {
                let names = self.names(hosts, "or");
                let (have, are) = match hosts.len() {
                    1 => ("has", "is"),
                    _ => ("have", "are"),
                };
                let why = self.unfit(workload, hosts);
                format!("waits for host {names}, which {have} its claim {claim} and {are} {why}")
            }
            Wait::Away(hosts) => {
                let (there, away): (Vec<_>, Vec<_>) = hosts
                    .iter()
                    .copied()
                    .partition(|host| self.reachable.contains(host));
                let are = |hosts: &[HostId]| if hosts.len() == 1 { "is" } else { "are" };
                let mut why = Vec::new();
                if !away.is_empty() {
                    let names = self.names(&away, "and");
                    why.push(format!("{names} {} not reachable", are(&away)));
                }
                if !there.is_empty() {
                    let names = self.names(&there, "and");
                    let come = if there.len() == 1 {
                        "comes and goes"
                    } else {
                        "come and go"
                    };
                    why.push(format!("{names} {come}"));
                }
                format!("waits for a host: {}", why.join(", "))
            }
            Wait::Rules(refused) => {
                let refused = refused
                    .iter()
                    .map(|(rule, hosts)| format!("{rule} on {}", self.names(hosts, "and")));
                let refused: Vec<_> = refused.collect();
                format!("waits for a host: {}", refused.join("; "))
            }
            Wait::Full(Some(alone)) => format!(
                "waits for a host: every host that matches runs a pod of it already, and {}",
                alone.words()
            ),
            Wait::Full(None) => format!(
                "waits for a host: every host that matches runs {PODS_PER_HOST_MAX} pods of it already"
            ),
            Wait::Nowhere => "waits for a host that matches and is not drained".to_owned(),
        }
    }

    /// Returns the main reason why these hosts cannot run a pod.
    fn unfit(&self, workload: &Workload, hosts: &[HostId]) -> &'static str {
        let hosts: Vec<&Host> = hosts
            .iter()
            .filter_map(|host| self.state.hosts().get(host))
            .collect();
        let selector = &workload.object.selector;
        if hosts.iter().all(|host| host.drained) {
            "drained"
        } else if hosts.iter().all(|host| host.lost_at_ms != 0) {
            "lost"
        } else if hosts.iter().any(|host| placement::fits(host, selector)) {
            "not reachable"
        } else {
            "does not match its nodeSelector"
        }
    }

    /// `h1`, `h1 or h2`, `h1, h2 or h3`.
    fn names(&self, hosts: &[HostId], word: &str) -> String {
        let members = self.state.hosts();
        let names = hosts.iter().filter_map(|host| members.get(host));
        let mut names: Vec<&str> = names.map(|host| host.name.as_str()).collect();
        names.sort_unstable();
        match names.as_slice() {
            [] => String::new(),
            [one] => (*one).to_owned(),
            [first @ .., last] => format!("{} {word} {last}", first.join(", ")),
        }
    }
}
