//! Gives this host another key without taking it out of the cluster.
//!
//! Shell. The key is the host's name in the mesh and in Raft, so the host with the new one is another member, which takes the place
//! of this one by one entry of the log ([`Change::Admit`]); this host proposes it itself, by a token that lasts for that entry. Then
//! the agent takes the new key, and the gateway begins again as after any admission. The host's [`Life`] says how far that is:
//! until the entry is known to be applied, the old key is in use, and afterwards only the new one is.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context as _;
use beemesh_protocol::{
    HostId,
    ipc::{Done, Member, Request},
    peer::Outcome,
    state::{Change, Command, Host, Origin, TokenRecord},
};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, timeout};

use super::known;
use crate::{
    agent_link::Link,
    clock::now_ms,
    context::Gateway,
    local::{
        files::Home,
        lifecycle::{
            Event, Joining, Life, Rotation,
            store::{LifeError, Lifecycle},
        },
    },
    membership::{
        give_up_vote::{DemoteError, give_up_vote},
        removal_watch::removal,
    },
    raft::ProposeError,
};

/// The token's life: longer than the proposal's, and short enough that a token nobody used is soon nothing.
const TOKEN_MS: u64 = 60_000;
/// A proposal whose fate is not known is decided by then: no gateway waits with it for longer than some seconds.
const SETTLED: Duration = Duration::from_secs(15);
/// Between two looks at what became of it.
const LOOK: Duration = Duration::from_secs(1);
/// How long a read or a question may take that shows whether it was committed.
const READ_MAX: Duration = Duration::from_secs(5);
/// The agent begins again in less.
const AGENT_MAX: Duration = Duration::from_secs(5);

/// Why the host keeps its key, or may.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RotateError {
    /// It cannot be done now.
    #[error("{0}")]
    Refused(String),
    /// The agent made no key.
    #[error("make another key: {0}")]
    Key(String),
    /// The step cannot be, or could not be remembered.
    #[error(transparent)]
    Life(#[from] LifeError),
    /// It keeps its vote, which would be needed without it.
    #[error(transparent)]
    Demote(#[from] DemoteError),
    /// The change was not committed.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// Has the host's new key take the place of the old one. When this returns the new key, the gateway is about to begin again.
///
/// Goes on when nobody waits for it any more: half a change would leave the host neither key that the others know.
pub(crate) async fn rotate(
    gateway: &Gateway,
    origin: Origin,
    deadline: Instant,
) -> Result<HostId, RotateError> {
    let gateway = gateway.clone();
    let changed = tokio::spawn(async move { change(&gateway, origin, deadline).await });
    changed
        .await
        .unwrap_or_else(|error| Err(RotateError::Key(error.to_string())))
}

async fn change(
    gateway: &Gateway,
    origin: Origin,
    deadline: Instant,
) -> Result<HostId, RotateError> {
    let refused = |words: &str| Err(RotateError::Refused(words.to_owned()));
    let life = &gateway.life;
    if matches!(life.now(), Life::RotatingKey(_)) {
        return refused("this host is changing its key already");
    }
    can_leave(gateway).map_err(RotateError::Refused)?;
    // The agent keeps one key that is not used yet: who made another one meanwhile would take it from under the first.
    let _ = life.happens(Event::KeyAsked)?;
    let (host, commands) = match prepared(gateway, origin, deadline).await {
        Ok(prepared) => prepared,
        Err(error) => {
            let _ = life.happens(Event::KeyKept)?;
            return Err(error);
        }
    };
    let _ = life.happens(Event::KeyProposed { host })?;
    let proposed = tokio::select! {
        proposed = gateway.node.propose(commands, deadline) => proposed,
        // The others let go of the old key when they apply the change, and the answer may be lost by that.
        () = removal(gateway) => {
            admitted(gateway, host, members(gateway, host))?;
            return Ok(host);
        }
    };
    let outcome = match proposed {
        Ok(committed) => committed.into_iter().next_back().map(|one| one.outcome),
        Err(error @ (ProposeError::NoQuorum { .. } | ProposeError::TooLarge { .. })) => {
            let _ = life.happens(Event::KeyKept)?;
            return Err(error.into());
        }
        Err(error @ (ProposeError::Deadline { .. } | ProposeError::Stopped(_))) => {
            tokio::spawn(settle(gateway.clone(), host));
            return Err(error.into());
        }
    };
    match outcome {
        Some(Outcome::Admitted(members)) => {
            admitted(gateway, host, members)?;
            Ok(host)
        }
        Some(Outcome::Refused(reasons)) => {
            let _ = life.happens(Event::KeyKept)?;
            let reasons: Vec<_> = reasons.into_iter().map(|one| one.message).collect();
            refused(&reasons.join("; "))
        }
        _ => {
            tokio::spawn(settle(gateway.clone(), host));
            refused(
                "the cluster gave no answer; this host will find out whether the change was committed",
            )
        }
    }
}

/// Another key, and the commands by which it takes the place of this one, once the others need no vote of this one.
async fn prepared(
    gateway: &Gateway,
    origin: Origin,
    deadline: Instant,
) -> Result<(HostId, Vec<Command>), RotateError> {
    let made = gateway.link.request(Request::MakeKey).await;
    let host = match made {
        Ok(Done::Key { host }) => host,
        Ok(_) => return Err(RotateError::Key("the agent did not say which".to_owned())),
        Err(error) => return Err(RotateError::Key(error.to_string())),
    };
    let commands = commands(gateway, host, origin)?;
    give_up_vote(gateway, gateway.host, deadline).await?;
    Ok((host, commands))
}

/// Whether the others can go on without the vote of this host's old key; the error is words.
fn can_leave(gateway: &Gateway) -> Result<(), String> {
    let state = gateway.node.state().borrow().state.clone();
    if !state.hosts().contains_key(&gateway.host) {
        return Err("this host is not a member of a cluster".to_owned());
    }
    let voters = gateway.node.metrics().borrow().voters.clone();
    enough(&voters, &gateway.link.connected().borrow(), gateway.host)
}

/// Pure: the same, from who votes and who is there.
fn enough(voters: &BTreeSet<HostId>, there: &BTreeSet<HostId>, own: HostId) -> Result<(), String> {
    if !voters.contains(&own) {
        return Ok(());
    }
    let others = voters.iter().filter(|host| **host != own);
    let (there, all) = (
        others.clone().filter(|host| there.contains(host)).count(),
        others.count(),
    );
    if 2 * there > all {
        return Ok(());
    }
    Err(match all {
        0 => "no other host votes, so no host would keep the cluster while the key changes: join another host first".to_owned(),
        _ => format!(
            "{there} of the {all} other voters are reachable, which is no quorum without this host's old key: bring another voter back first"
        ),
    })
}

/// The token and its use, for one entry of the log.
fn commands(gateway: &Gateway, host: HostId, origin: Origin) -> Result<Vec<Command>, RotateError> {
    let drawn = |error| RotateError::Key(format!("create a random token: {error}"));
    let (mut token, mut secret) = ([0; 8], [0; 32]);
    getrandom::fill(&mut token).map_err(drawn)?;
    getrandom::fill(&mut secret).map_err(drawn)?;
    let secret_hash = Sha256::digest(secret).into();
    let state = gateway.node.state().borrow().state.clone();
    let Some(before) = state.hosts().get(&gateway.host) else {
        return Err(RotateError::Refused("this host is no member".to_owned()));
    };
    let at_ms = now_ms();
    let admit = Change::Admit {
        token,
        secret_hash,
        host: Host {
            id: host,
            ..before.clone()
        },
        replaces: Some(gateway.host),
    };
    known::check(gateway, &admit).map_err(RotateError::Refused)?;
    let put = Change::PutToken(TokenRecord {
        id: token,
        secret_hash,
        expires_ms: at_ms.saturating_add(TOKEN_MS),
        uses: 1,
    });
    let admit = Command {
        at_ms,
        change: admit,
        origin: Some(origin),
    };
    Ok(vec![Command::unasked(at_ms, put), admit])
}

/// Remembers that the new key is a member's and the old one is not, and has the gateway begin again.
fn admitted(gateway: &Gateway, host: HostId, members: Vec<Member>) -> Result<(), LifeError> {
    let cluster = gateway.node.state().borrow().state.cluster();
    let joining = Joining {
        cluster: cluster.unwrap_or_default(),
        cleared: false,
        members: members.into_iter().map(Into::into).collect(),
    };
    let _ = gateway.life.happens(Event::KeyAdmitted(joining))?;
    tracing::warn!(old = %gateway.host, new = %host, "this host has a new key; restarting with it");
    Ok(())
}

/// The members with the new key in the place of the old one, whether that has been applied here or not.
fn members(gateway: &Gateway, host: HostId) -> Vec<Member> {
    let mut members = gateway.node.state().borrow().state.members();
    for member in &mut members {
        if member.host == gateway.host {
            member.host = host;
        }
    }
    members
}

/// Finds out what became of a change of keys whose answer did not come.
pub(crate) async fn settle(gateway: Gateway, host: HostId) {
    // Whoever is a stranger is one by that very change: nobody removes a host at such a moment.
    let mut gone = timeout(SETTLED, removal(&gateway)).await.is_ok();
    let state = || gateway.node.state().borrow().state.clone();
    loop {
        let settled = if gone || state().hosts().contains_key(&host) {
            Some(admitted(&gateway, host, members(&gateway, host)))
        } else if gateway
            .node
            .read_index(Instant::now() + READ_MAX)
            .await
            .is_ok()
            && !state().hosts().contains_key(&host)
        {
            Some(kept(&gateway))
        } else {
            None
        };
        match settled {
            // What it cannot be any more, somebody else has decided.
            Some(Ok(()) | Err(LifeError::Forbidden(_))) => return,
            Some(Err(error @ LifeError::Home(_))) => {
                tracing::error!("{:#}", anyhow::Error::from(error));
            }
            None => {}
        }
        sleep(LOOK).await;
        gone = gone || timeout(READ_MAX, removal(&gateway)).await.is_ok();
    }
}

fn kept(gateway: &Gateway) -> Result<(), LifeError> {
    let _ = gateway.life.happens(Event::KeyKept)?;
    tracing::warn!("the change of keys was not committed: this host keeps its key");
    Ok(())
}

/// Before anything else: takes the new key where it is a member's. Otherwise, the key whose fate is to be settled.
pub(crate) async fn finish(
    home: &Home,
    life: &Lifecycle,
    link: &Link,
) -> anyhow::Result<Option<HostId>> {
    let host = match life.now() {
        // Nobody was asked to take it.
        Life::RotatingKey(Rotation::Making) => {
            let _ = life.happens(Event::KeyKept)?;
            return Ok(None);
        }
        Life::RotatingKey(Rotation::Proposed { host }) => return Ok(Some(host)),
        Life::RotatingKey(Rotation::Admitted { host, .. }) => host,
        _ => return Ok(None),
    };
    let mut welcome = link.welcome();
    while link
        .welcomed()
        .await
        .context("the connection to the agent ended")?
        .host
        != host
    {
        if let Err(error) = link.request(Request::UseKey { host }).await {
            tracing::error!(%error, "the agent does not take the new key, will retry");
        }
        let taken = welcome.wait_for(|now| now.as_ref().is_some_and(|now| now.host == host));
        if timeout(AGENT_MAX, taken).await.is_err() {
            tracing::warn!(%host, "the agent has not restarted with the new key");
        }
    }
    home.set_host(host)?;
    let _ = life.happens(Event::KeyTaken)?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_changes_only_where_the_other_voters_are_a_majority() {
        let set = |numbers: &[u8]| -> BTreeSet<HostId> {
            numbers.iter().map(|number| HostId([*number; 32])).collect()
        };
        for (voters, there, fine) in [
            (&[1][..], &[][..], false),
            (&[1, 2], &[2], true),
            (&[1, 2], &[3], false),
            (&[1, 2, 3], &[2, 3], true),
            (&[1, 2, 3], &[3, 4], false),
            (&[1, 2, 3, 4], &[2, 3], true),
            (&[1, 2, 3, 4], &[2], false),
            (&[1, 2, 3, 4, 5], &[2, 3, 4], true),
            // It has no vote to lose.
            (&[2, 3, 4, 5, 6], &[2, 3, 4], true),
        ] {
            let enough = enough(&set(voters), &set(there), HostId([1; 32]));
            assert_eq!(enough.is_ok(), fine, "{voters:?} {there:?}: {enough:?}");
        }
    }
}
