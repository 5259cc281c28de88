//! Makes this host a member of another cluster.
//!
//! Shell. [`join`] asks the members that the token names, through the agent, and stores the admission durably. The
//! gateway then restarts with an empty log and waits for the leader of its new cluster.

use std::net::IpAddr;

use crate::{
    agent_link::LinkError,
    context::Gateway,
    local::{
        files::Home,
        lifecycle::{
            Event, Joining, Life,
            store::{LifeError, Lifecycle},
        },
    },
};
use beemesh_protocol::{
    ClusterId,
    ipc::{Done, Member, Request},
    mesh::{Contact, JoinAnswer, JoinRequest, NO_TOKEN, Replace},
    naming::UNNAMED,
    token::Token,
};

/// An admission that has been stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinStarted {
    pub(crate) cluster: ClusterId,
    pub(crate) members: Vec<Member>,
}

/// Why this host did not become a member.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// The host would lose the manifests of its own cluster.
    #[error(
        "this host runs {0} manifests of its own cluster: delete them first, or apply them again after joining"
    )]
    InUse(usize),
    /// The host was removed from a cluster and still runs the workloads of that cluster.
    #[error("this host was removed from cluster {0} and still has that cluster's workloads")]
    LeftOver(ClusterId),
    /// The host is in a cluster with others.
    #[error("this host is a member of cluster {0} with other hosts")]
    Member(ClusterId),
    /// The host is already joining another cluster.
    #[error("this host is joining cluster {0} already")]
    UnderWay(ClusterId),
    /// The agent cannot be reached.
    #[error("the agent cannot be reached: {0}")]
    NoAgent(String),
    /// The agent cannot announce these addresses.
    #[error("{0}")]
    Advertise(String),
    /// The host has no name.
    #[error("this host is named `{UNNAMED}`, which does not identify it")]
    Unnamed,
    /// The host is a member already, so it cannot replace another one.
    #[error("{0}")]
    TakesNoPlace(String),
    /// A member refused the application.
    #[error("{0}")]
    Refused(String),
    /// No member could be asked.
    #[error("no member in the token answered: {0}")]
    Unreachable(String),
    /// The admission is not allowed in this state, or could not be stored.
    #[error(transparent)]
    Life(#[from] LifeError),
}

/// Asks the members that the token names, one after the other, until one decides. If this host has been admitted before
/// and is still a member, it returns that admission: the caller may have missed the first answer. From then on, other
/// hosts are told that this host is at `advertise`, unless that is empty.
///
/// `replace` names the member that this host replaces.
pub(crate) async fn join(
    gateway: &Gateway,
    token: Token,
    advertise: &[IpAddr],
    replace: Option<String>,
) -> Result<JoinStarted, JoinError> {
    let life = gateway.life.now();
    let joining = life.joining();
    let admitted = match (check(gateway, &life, token.cluster), joining) {
        (Ok(Some(_)) | Err(JoinError::UnderWay(_)), Some(joining))
            if was_let_go(gateway, joining).await =>
        {
            None
        }
        (Ok(admitted), _) => admitted,
        // The host's own cluster may be what the other cluster was before a recovery.
        (Err(error @ (JoinError::LeftOver(own) | JoinError::Member(own))), _) => {
            if !is_cut_off(gateway, own, &token.contacts).await {
                return Err(error);
            }
            None
        }
        (Err(error), _) => return Err(error),
    };
    if let (Some(admitted), Some(name)) = (&admitted, &replace)
        && admitted.members.iter().any(|member| member.name == *name)
        && joining.is_none()
    {
        return Err(JoinError::TakesNoPlace(format!(
            "this host is a member already, so it cannot replace {name}: `beemesh host remove {name}` removes that host"
        )));
    }
    keep_addresses(gateway, advertise).await?;
    if let Some(admitted) = admitted {
        return Ok(admitted);
    }
    let welcome = gateway.link.welcome().borrow().clone();
    let welcome =
        welcome.ok_or_else(|| JoinError::NoAgent(gateway.link.trouble().borrow().clone()))?;
    if welcome.name == UNNAMED && !welcome.name_is_set {
        return Err(JoinError::Unnamed);
    }
    let replaces = replace.is_some();
    let request = JoinRequest {
        cluster: token.cluster,
        token: if replaces { NO_TOKEN } else { token.id },
        secret: token.secret,
        name: welcome.name,
        addresses: welcome.addresses,
        replace: replace.map(|name| Replace {
            name,
            token: token.id,
        }),
    };
    let mut failures = Vec::new();
    for contact in token.contacts {
        match ask(gateway, &contact, request.clone()).await {
            Ok(JoinAnswer::Admitted { cluster, members }) => {
                return remember(gateway, cluster, members);
            }
            Ok(JoinAnswer::Refused { reason }) => return Err(JoinError::Refused(reason)),
            Ok(JoinAnswer::Stranger) if replaces => {
                let host = contact.host;
                failures.push(format!(
                    "{host} runs a release of Beemesh that cannot replace a host: upgrade it"
                ));
            }
            Ok(JoinAnswer::Stranger) => failures.push("a member did not answer".to_owned()),
            Err(failure) => failures.push(failure),
        }
    }
    Err(JoinError::Unreachable(failures.join("; ")))
}

async fn keep_addresses(gateway: &Gateway, addresses: &[IpAddr]) -> Result<(), JoinError> {
    if addresses.is_empty() {
        return Ok(());
    }
    let addresses = addresses.iter().map(ToString::to_string).collect();
    let kept = gateway.link.request(Request::Advertise { addresses }).await;
    kept.map(|_| ()).map_err(|error| match error {
        LinkError::Refused(reason) => JoinError::Advertise(reason),
        error => JoinError::NoAgent(error.to_string()),
    })
}

fn check(
    gateway: &Gateway,
    life: &Life,
    wanted: ClusterId,
) -> Result<Option<JoinStarted>, JoinError> {
    if let Some(Joining {
        cluster, members, ..
    }) = life.joining()
    {
        let (cluster, members) = (*cluster, members.iter().cloned().map(Into::into).collect());
        let admitted = JoinStarted { cluster, members };
        let same = cluster == wanted;
        return same
            .then_some(Some(admitted))
            .ok_or(JoinError::UnderWay(cluster));
    }
    let view = gateway.node.state().borrow().clone();
    let state = &view.state;
    let removed = life.is_removed();
    match state.cluster() {
        // Its workloads continue under the cluster that created them.
        Some(cluster) if cluster == wanted && removed => Ok(None),
        Some(cluster) if removed && state.manifests().len() > 0 => {
            Err(JoinError::LeftOver(cluster))
        }
        _ if removed => Ok(None),
        Some(cluster) if cluster == wanted => Ok(Some(JoinStarted {
            cluster,
            members: state.members(),
        })),
        Some(cluster) if state.hosts().len() > 1 => Err(JoinError::Member(cluster)),
        _ if state.manifests().len() > 0 => Err(JoinError::InUse(state.manifests().len())),
        _ => Ok(None),
    }
}

/// Returns true if the cluster that this host is joining has removed it again before it received the log.
async fn was_let_go(gateway: &Gateway, joining: &Joining) -> bool {
    let members = joining.members.iter().cloned().map(Member::from);
    let contacts = members.map(|member| Contact {
        host: member.host,
        addresses: member.addresses,
    });
    let own = gateway.link.welcome().borrow().as_ref().map(|now| now.host);
    let others: Vec<_> = contacts.filter(|one| Some(one.host) != own).collect();
    is_cut_off(gateway, joining.cluster, &others).await
}

/// Returns true if one of these hosts answers that this host is no longer a member of its own cluster.
async fn is_cut_off(gateway: &Gateway, own: ClusterId, contacts: &[Contact]) -> bool {
    for contact in contacts {
        if let Some(member) = is_member(gateway, own, contact.clone()).await {
            return !member;
        }
    }
    false
}

/// Returns whether this host is still in the cluster, as a member reads in its log; `None` if the member cannot tell.
pub(crate) async fn is_member(
    gateway: &Gateway,
    cluster: ClusterId,
    contact: Contact,
) -> Option<bool> {
    let question = JoinRequest {
        cluster,
        token: NO_TOKEN,
        secret: [0; 32],
        name: String::new(),
        addresses: Vec::new(),
        replace: None,
    };
    match ask(gateway, &contact, question).await {
        Ok(JoinAnswer::Admitted { .. }) => Some(true),
        Ok(JoinAnswer::Stranger) => Some(false),
        Ok(JoinAnswer::Refused { .. }) | Err(_) => None,
    }
}

async fn ask(
    gateway: &Gateway,
    contact: &Contact,
    request: JoinRequest,
) -> Result<JoinAnswer, String> {
    let asked = Request::Join {
        host: contact.host,
        addresses: contact.addresses.clone(),
        request,
    };
    match gateway.link.request(asked).await {
        Ok(Done::Joined(answer)) => Ok(answer),
        Ok(Done::Done | Done::Key { .. } | Done::Checked(_)) => {
            Err("the agent did not pass the answer on".into())
        }
        Err(error) => Err(format!(
            "{} at {}: {error}",
            contact.host,
            contact.addresses.join(", ")
        )),
    }
}

fn remember(
    gateway: &Gateway,
    cluster: ClusterId,
    members: Vec<Member>,
) -> Result<JoinStarted, JoinError> {
    let joining = Joining {
        cluster,
        cleared: false,
        members: members.iter().cloned().map(Into::into).collect(),
    };
    let _ = gateway.life.happens(Event::Admitted(joining))?;
    tracing::info!(%cluster, members = members.len(), "admitted; restarting as a member");
    Ok(JoinStarted { cluster, members })
}

/// Removes the log of the cluster that this host leaves, if another cluster has admitted it. Called before consensus is
/// opened.
pub(crate) fn finish(home: &Home, life: &Lifecycle) -> Result<(), LifeError> {
    if life.now().joining().is_some_and(|joining| !joining.cleared) {
        home.clear_log()?;
        let _ = life.happens(Event::Cleared)?;
    }
    Ok(())
}
