//! Sends the member list to the agent, and logs an error if the agent belongs to another host.
//!
//! Shell: each of the two is a loop that waits for a change and forwards it. [`told_by_the_log`] is pure.

use std::{collections::BTreeSet, time::Duration};

use beemesh_protocol::{HostId, ipc::Member};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    agent_link::Link,
    cluster::{reports::Reports, state::State},
    context::Gateway,
    local::lifecycle::{Event, Life, store::LifeError},
};

/// How long a host that joins waits for the state of its admission if no other host tells it how far that is.
const JOINING_MAX: Duration = Duration::from_secs(60);

/// Sends the member list to the agent and to `served`. During a join the list has the members that the admission named.
/// On a host that was removed it is empty.
pub(crate) async fn tell_members(
    gateway: Gateway,
    served: watch::Sender<Option<BTreeSet<HostId>>>,
) {
    let Gateway {
        host, node, link, ..
    } = gateway;
    let mut view = node.state();
    let mut lives = gateway.life.watch();
    let mut told: Option<Vec<Member>> = None;
    let mut reports = gateway.reports.clone();
    let mut goal = None;
    let patience = Instant::now() + JOINING_MAX;
    loop {
        let now = view.borrow_and_update().clone();
        let life = lives.borrow_and_update().clone();
        // The others report to a host that they have admitted.
        goal = goal.or_else(|| applied_elsewhere(&reports.borrow_and_update(), host));
        let has_waited = Instant::now() >= patience;
        let is_current = has_waited || goal.is_some_and(|goal| now.applied >= goal);
        if let Some(event) = told_by_the_log(&life, host, &now.state, now.applied, is_current)
            && let Err(error @ LifeError::Home(_)) = gateway.life.happens(event)
        {
            tracing::error!("{:#}", anyhow::Error::from(error));
        }
        let life = gateway.life.now();
        let gone = life.is_removed() || life.joining().is_none() && now.state.is_without(host);
        let members = match life.joining() {
            Some(joining) => joining.members.iter().cloned().map(Into::into).collect(),
            None if gone => Vec::new(),
            None => now.state.members(),
        };
        if gone && told.as_ref() != Some(&members) {
            tracing::warn!("this host was removed from its cluster; its workloads stay as units");
        }
        if told.as_ref() != Some(&members) {
            served.send_replace(Some(members.iter().map(|member| member.host).collect()));
            link.members(members.clone());
            told = Some(members);
        }
        let changed = tokio::select! {
            changed = view.changed() => changed,
            changed = lives.changed() => changed,
            changed = reports.changed(), if goal.is_none() => changed,
            () = sleep_until(patience), if !has_waited => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Pure: the highest log index that another host has applied, as far as it is known.
fn applied_elsewhere(reports: &Reports, host: HostId) -> Option<u64> {
    let others = reports.iter().filter(|(other, _)| **other != host);
    others.map(|(_, report)| report.applied).max()
}

/// Pure: returns what the log up to this index says about the membership of a host. `is_current` is true if the state of a
/// host that joins is as late as its admission.
fn told_by_the_log(
    life: &Life,
    host: HostId,
    state: &State,
    applied: u64,
    is_current: bool,
) -> Option<Event> {
    let is_member = state.hosts().contains_key(&host);
    match life {
        // A host that rejoins a cluster was a member before. At that time the others may have had other keys, with which
        // nobody could send it the rest of the log.
        Life::Joining(joining) => {
            let mut named = joining.members.iter().cloned().map(Member::from);
            let has_all = named.all(|member| state.hosts().contains_key(&member.host));
            (is_member && (has_all || is_current)).then_some(Event::Joined)
        }
        Life::Alone if is_member && state.hosts().len() > 1 => Some(Event::Grown),
        Life::Alone | Life::Member if state.is_without(host) => Some(Event::Removed {
            cluster: state.cluster()?,
            at: Some(applied),
        }),
        // A host that rejoins a cluster also reads its former removal in the log.
        Life::Removed { at: Some(at), .. } if is_member && applied > *at => {
            Some(Event::Readmitted { at: applied })
        }
        Life::Alone
        | Life::Member
        | Life::Removed { .. }
        | Life::RotatingKey(_)
        | Life::Recovering { .. } => None,
    }
}

/// Logs an error if the agent is not the one that this gateway's folder belongs to, because the mesh would then use
/// another identity.
pub(crate) async fn check_identity(link: Link, host: HostId) {
    let mut welcome = link.welcome();
    loop {
        if let Some(agent) = welcome
            .borrow_and_update()
            .as_ref()
            .map(|welcome| welcome.host)
            && agent != host
        {
            tracing::error!(
                %agent, folder = %host,
                "the agent has another identity than the gateway's folder: restore /var/lib/beemesh/agent/identity, or \
                 remove the gateway's folder and join again"
            );
        }
        if welcome.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::{
        ClusterId,
        state::{Change, Command, Host, TokenRecord},
    };

    use super::*;

    fn member(number: u8) -> Host {
        Host {
            id: HostId([number; 32]),
            name: format!("h{number}"),
            addresses: Vec::new(),
            labels: Default::default(),
            drained: false,
            claims_as: None,
            votes_from_ms: 0,
            lost_at_ms: 0,
            declared_lost: false,
            steady_at_ms: 0,
        }
    }

    #[test]
    fn a_host_that_reads_of_an_earlier_removal_of_its_own_is_a_member_in_the_end() {
        let (own, cluster) = (HostId([2; 32]), ClusterId([1; 16]));
        let admit = || Change::Admit {
            token: [3; 8],
            secret_hash: [3; 32],
            host: member(2),
            replaces: None,
        };
        let token = Change::PutToken(TokenRecord {
            id: [3; 8],
            secret_hash: [3; 32],
            expires_ms: u64::MAX,
            uses: 9,
        });
        let found = Change::Found {
            cluster,
            host: member(1),
        };
        let mut state = State::default();
        let mut life = Life::Joining(crate::local::lifecycle::Joining {
            cluster,
            cleared: true,
            members: Vec::new(),
        });
        let mut seen = Vec::new();
        let changes = [
            found,
            token,
            admit(),
            Change::RemoveHost { host: own },
            admit(),
        ];
        for (index, change) in (1..).zip(changes) {
            let _ = state.apply(index, &Command::unasked(1, change));
            if let Some(event) = told_by_the_log(&life, own, &state, index, false) {
                life = life.after(event).unwrap();
            }
            seen.push(life.clone());
        }
        let removed = Life::Removed {
            cluster,
            at: Some(4),
        };
        assert_eq!(seen[2..], [Life::Member, removed, Life::Member]);
        assert!(matches!(seen[1], Life::Joining(_)), "{seen:?}");
    }

    /// The other member has changed its key since this host was a member for the first time.
    #[test]
    fn a_host_that_rejoins_waits_for_the_members_of_its_admission() {
        let (own, cluster) = (HostId([2; 32]), ClusterId([1; 16]));
        let token = || {
            Change::PutToken(TokenRecord {
                id: [3; 8],
                secret_hash: [3; 32],
                expires_ms: u64::MAX,
                uses: 9,
            })
        };
        let admit = |host, replaces| Change::Admit {
            token: [3; 8],
            secret_hash: [3; 32],
            host,
            replaces,
        };
        let found = Change::Found {
            cluster,
            host: member(1),
        };
        let rotated = Host {
            name: "h1".into(),
            ..member(7)
        };
        let named = |number: u8| {
            Member {
                host: HostId([number; 32]),
                name: format!("h{number}"),
                addresses: Vec::new(),
            }
            .into()
        };
        let life = Life::Joining(crate::local::lifecycle::Joining {
            cluster,
            cleared: true,
            members: vec![named(7), named(2)],
        });
        let mut state = State::default();
        let changes = [
            found,
            token(),
            admit(member(2), None),
            admit(rotated, Some(HostId([1; 32]))),
        ];
        let mut events = Vec::new();
        for (index, change) in (1..).zip(changes) {
            let _ = state.apply(index, &Command::unasked(1, change));
            events.push(told_by_the_log(&life, own, &state, index, false));
            let current = told_by_the_log(&life, own, &state, index, true);
            assert_eq!(current, (index >= 3).then_some(Event::Joined), "{index}");
        }
        assert_eq!(events, [None, None, None, Some(Event::Joined)]);
    }
}
