//! The members: they are admitted by a token, named, labelled, drained, demoted, lost and removed.
//!
//! Pure. Each function checks everything before it changes anything, so a refusal leaves the state unchanged.

use std::{collections::BTreeMap, sync::Arc};

use beemesh_protocol::{ClusterId, HostId, ipc::Member, peer::Outcome, state::Host};

use super::{Decision, State, missing, refused, tokens::NO_SUCH_TOKEN};

/// The level from which on hosts are lost, and pods without claims leave them.
pub(crate) const LOSES: u32 = 3;
/// Maximum number of members. A single Raft group does not suit larger clusters.
pub(crate) const HOSTS_MAX: usize = 256;
/// How long a demoted member has no vote, in milliseconds: enough for some elections and for a user who has to read a
/// message before the removal.
pub(crate) const DEMOTED_MS: u64 = 60_000;
/// Maximum number of labels of one host.
pub(crate) const LABELS_MAX: usize = 64;

impl State {
    /// The members, by id.
    pub(crate) fn hosts(&self) -> &BTreeMap<HostId, Host> {
        &self.hosts
    }

    /// Whether there is a cluster without this host. This is also true on a new host that has not yet applied its own
    /// admission.
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
        // The mesh has verified the applicant's key, so a member that asks again needs no second token.
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

    /// Checks the host's name and the number of hosts. The host in `replaces` does not count.
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

    pub(super) fn lose_host(&mut self, at_ms: u64, host: HostId, declared: bool) -> Decision {
        let member = self.member(host)?;
        if member.lost_at_ms == 0 {
            member.lost_at_ms = at_ms.max(1);
        }
        member.declared_lost |= declared;
        Ok(Outcome::Done)
    }

    pub(super) fn return_host(&mut self, host: HostId, steady_at_ms: u64) -> Decision {
        let member = self.member(host)?;
        (member.lost_at_ms, member.declared_lost) = (0, false);
        member.steady_at_ms = steady_at_ms;
        Ok(Outcome::Done)
    }

    fn member(&mut self, host: HostId) -> Decision<&mut Host> {
        Arc::make_mut(&mut self.hosts)
            .get_mut(&host)
            .ok_or_else(|| missing(format!("host {host} is not a member")))
    }

    /// The members, with the data that the mesh needs.
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
