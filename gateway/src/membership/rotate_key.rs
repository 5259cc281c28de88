//! Gives this host another key without taking it out of the cluster.
//!
//! Shell. The key identifies the host in the mesh and in Raft, so a host with a new key is another member. It replaces
//! the old member with one log entry ([`Change::Admit`]). This host proposes that entry itself, with a token that is
//! valid for that entry only. Then the agent takes the new key, and the gateway restarts as it does after any
//! admission. The host's [`Life`] records the progress: the host uses the old key until it knows that the entry is
//! applied, and only the new key afterwards.

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

/// Lifetime of the token: longer than that of the proposal, and short enough that an unused token soon expires.
const TOKEN_MS: u64 = 60_000;
/// A proposal with an unknown outcome is decided after this time, because no gateway holds it for longer than a few
/// seconds.
const SETTLED: Duration = Duration::from_secs(15);
/// Pause between two checks of the outcome.
const LOOK: Duration = Duration::from_secs(1);
/// Timeout for a read or a question that shows whether the change was committed.
const READ_MAX: Duration = Duration::from_secs(5);
/// How long to wait for the agent, which restarts in less.
const AGENT_MAX: Duration = Duration::from_secs(5);

/// Why the host keeps its key, or may keep it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RotateError {
    /// The key cannot be changed now.
    #[error("{0}")]
    Refused(String),
    /// The agent did not create a key.
    #[error("make another key: {0}")]
    Key(String),
    /// The step is not allowed in this state, or could not be stored.
    #[error(transparent)]
    Life(#[from] LifeError),
    /// The host keeps its vote, because the others have no quorum without it.
    #[error(transparent)]
    Demote(#[from] DemoteError),
    /// The change was not committed.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// Replaces the host's key. When this returns the new key, the gateway is about to restart.
///
/// The change continues if the caller stops waiting: half a change would leave the host without a key that the others
/// know.
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
    // The agent stores one unused key. A second key change at the same time would replace that of the first.
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
        // The others drop the old key when they apply the change, so the answer may be lost.
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

/// Creates a new key, and the commands with which it replaces the old one, once the others no longer need this host's
/// vote.
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

/// Checks that the others have a quorum without the vote of this host's old key. The error is a message for the user.
fn can_leave(gateway: &Gateway) -> Result<(), String> {
    let state = gateway.node.state().borrow().state.clone();
    if !state.hosts().contains_key(&gateway.host) {
        return Err("this host is not a member of a cluster".to_owned());
    }
    let voters = gateway.node.consensus().borrow().voters.clone();
    enough(&voters, &gateway.link.connected().borrow(), gateway.host)
}

/// Pure: the same check on the voters and the hosts that are `there`.
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

/// Builds the commands that create a token and use it, for one log entry.
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

/// Records that the new key is a member and the old one is not, which makes the gateway restart.
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

/// Returns the members with the new key in place of the old one, whether this host has applied that or not.
fn members(gateway: &Gateway, host: HostId) -> Vec<Member> {
    let mut members = gateway.node.state().borrow().state.members();
    for member in &mut members {
        if member.host == gateway.host {
            member.host = host;
        }
    }
    members
}

/// Finds out the outcome of a key change whose answer was lost.
pub(crate) async fn settle(gateway: Gateway, host: HostId) {
    // If this host is no longer a member, this change is the reason: an administrator does not remove a host at such
    // a moment.
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
            // If the event is forbidden, another task has already recorded the outcome.
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

/// Runs before everything else. Takes the new key if it is a member; otherwise returns the key whose outcome must be
/// found out.
pub(crate) async fn finish(
    home: &Home,
    life: &Lifecycle,
    link: &Link,
) -> anyhow::Result<Option<HostId>> {
    let host = match life.now() {
        // The key was not proposed to the cluster.
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
