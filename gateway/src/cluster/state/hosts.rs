//! The members: admitted by a token, named, labelled, drained, demoted and removed.
//!
//! Pure. Each function checks everything before it changes anything, so that a refusal leaves the state as it was.

use std::{collections::BTreeMap, sync::Arc};

use beemesh_protocol::{ClusterId, HostId, ipc::Member, peer::Outcome, state::Host};

use super::{Decision, State, missing, refused, tokens::NO_SUCH_TOKEN};

/// Members of one cluster. Beyond it a single Raft group is the wrong tool.
pub(crate) const HOSTS_MAX: usize = 256;
/// How long a member that was demoted has no vote: what it was demoted for takes some elections and a read by a person.
pub(crate) const DEMOTED_MS: u64 = 60_000;
/// Labels of one host.
pub(crate) const LABELS_MAX: usize = 64;

impl State {
    /// The members by id.
    pub(crate) fn hosts(&self) -> &BTreeMap<HostId, Host> {
        &self.hosts
    }

    /// Whether there is a cluster and this host is not in it. That is also so on a new host that has not applied its own
    /// admission yet.
    pub(crate) fn is_without(&self, host: HostId) -> bool {
        self.cluster.is_some() && !self.hosts.contains_key(&host)
    }

    pub(super) fn found(&mut self, cluster: ClusterId, host: &Host) -> Decision {
        if let Some(existing) = self.cluster {
            return Err(refused(format!("cluster {existing} is founded already")));
        }
        self.cluster = Some(cluster);
        Arc::make_mut(&mut self.hosts).insert(host.id, host.clone());
        Ok(Outcome::Done)
    }

    pub(super) fn admit(
        &mut self,
        at_ms: u64,
        (token, secret_hash): (&[u8; 8], &[u8; 32]),
        host: &Host,
        replaces: Option<HostId>,
        is_same: bool,
    ) -> Decision {
        // The mesh has proved the applicant's key, so a member that asks again is let in without a second token.
        if self.hosts.contains_key(&host.id) {
            if let Some(other) = replaces.and_then(|lost| self.hosts.get(&lost)) {
                return Err(refused(format!(
                    "{} is a member already, so it cannot replace another host: `beemesh host remove {}` removes that host",
                    host.name, other.name
                )));
            }
            self.put_host(host)?;
            return Ok(Outcome::Admitted(self.members()));
        }
        if !self.admits(token, secret_hash, at_ms) {
            return Err(refused(NO_SUCH_TOKEN));
        }
        let mut host = host.clone();
        if let Some(lost) = replaces {
            let lost = self.member(lost)?;
            host.labels.clone_from(&lost.labels);
            host.drained = lost.drained;
            host.claims_as = lost.claims_as.or(Some(lost.id));
        }
        self.check_host(&host, replaces)?;
        if let Some(record) = Arc::make_mut(&mut self.tokens).get_mut(token) {
            record.uses -= 1;
        }
        let hosts = Arc::make_mut(&mut self.hosts);
        if let Some(lost) = replaces {
            hosts.remove(&lost);
        }
        let id = host.id;
        hosts.insert(id, host);
        if let Some(lost) = replaces {
            self.succeed(lost, id, is_same);
        }
        Ok(Outcome::Admitted(self.members()))
    }

    /// Whether there can be such a host beside the others, of which one may go for it.
    fn check_host(&self, host: &Host, replaces: Option<HostId>) -> Decision<()> {
        let mut others = self.hosts.values();
        if let Some(other) = others.find(|other| {
            other.name == host.name && other.id != host.id && Some(other.id) != replaces
        }) {
            return Err(refused(format!(
                "a host named `{name}` is a member already ({}): set another `name` in /etc/beemesh/agent.toml.d, or join with `--replace {name}` if this host replaces that one",
                other.id,
                name = host.name,
            )));
        }
        let one_more = !self.hosts.contains_key(&host.id) && replaces.is_none();
        if self.hosts.len() >= HOSTS_MAX && one_more {
            return Err(refused(format!(
                "the cluster has {HOSTS_MAX} hosts, which is the most"
            )));
        }
        Ok(())
    }

    pub(super) fn put_host(&mut self, host: &Host) -> Decision {
        self.member(host.id)?;
        self.check_host(host, None)?;
        let member = self.member(host.id)?;
        member.name.clone_from(&host.name);
        member.addresses.clone_from(&host.addresses);
        Ok(Outcome::Done)
    }

    pub(super) fn remove_host(&mut self, host: HostId) -> Decision {
        self.member(host)?;
        Arc::make_mut(&mut self.hosts).remove(&host);
        self.vacate(host);
        Ok(Outcome::Done)
    }

    pub(super) fn demote_host(&mut self, at_ms: u64, host: HostId) -> Decision {
        self.member(host)?.votes_from_ms = at_ms.saturating_add(DEMOTED_MS);
        Ok(Outcome::Done)
    }

    pub(super) fn label_host(
        &mut self,
        host: HostId,
        set: &BTreeMap<String, String>,
        remove: &[String],
    ) -> Decision {
        let member = self.member(host)?;
        let mut labels = member.labels.clone();
        labels.retain(|key, _| !remove.contains(key));
        labels.extend(set.clone());
        if labels.len() > LABELS_MAX {
            return Err(refused(format!(
                "{} labels: a host can have at most {LABELS_MAX}",
                labels.len()
            )));
        }
        member.labels = labels;
        Ok(Outcome::Done)
    }

    pub(super) fn drain_host(&mut self, host: HostId, drained: bool) -> Decision {
        self.member(host)?.drained = drained;
        Ok(Outcome::Done)
    }

    fn member(&mut self, host: HostId) -> Decision<&mut Host> {
        Arc::make_mut(&mut self.hosts)
            .get_mut(&host)
            .ok_or_else(|| missing(format!("host {host} is not a member")))
    }

    /// The members as the mesh needs to know them.
    pub(crate) fn members(&self) -> Vec<Member> {
        self.hosts
            .values()
            .map(|host| Member {
                host: host.id,
                name: host.name.clone(),
                addresses: host.addresses.clone(),
            })
            .collect()
    }
}
