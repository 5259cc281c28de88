//! `beemesh join`.

use std::{io, time::Duration};

use beemesh_protocol::{
    ClusterId,
    api::{JoinBody, Joining, Status},
    token::Token,
};
use tokio::time::{Instant, sleep};

use super::print;
use crate::{
    args::Join,
    client::{Ask, Client},
    live::Live,
    trouble::Trouble,
};

/// The agent asks up to five members, each for at most a minute.
const ASK_TIME_MAX: Duration = Duration::from_secs(300);
/// From the admission to the vote: the gateway restarts and fetches the log or a snapshot of it.
const CATCH_UP_TIME_MAX: Duration = Duration::from_secs(120);
/// Pause between two queries of the status.
const LOOK: Duration = Duration::from_millis(100);
/// With this many voters, a new host stays a learner.
pub(super) const VOTERS_MAX: usize = 5;

pub(super) async fn run(client: &Client, args: Join) -> Result<(), Trouble> {
    let token = if args.token == "-" {
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line);
        read.map_err(|error| Trouble::failed(format!("join: cannot read the token: {error}")))?;
        line.trim().to_owned()
    } else {
        args.token
    };
    Token::from_line(&token).map_err(|error| {
        Trouble::usage(format!("join: {error}"))
            .hint("create a token on a member: `beemesh token create`")
    })?;
    let body = JoinBody {
        token,
        advertise: args.advertise,
        replace: args.replace,
    };
    let mut live = Live::new();
    let ask = Ask::post_json("/v1/join", &body)?.extra(ASK_TIME_MAX);
    let joining = {
        let mut answer = std::pin::pin!(client.json::<Joining>(&ask));
        loop {
            tokio::select! {
                answer = &mut answer => break answer,
                () = sleep(LOOK) => live.spin("requesting admission to the cluster"),
            }
        }
    };
    let joining = joining.map_err(|trouble| trouble.during("join"))?;
    drop(live);
    let others = match joining.members.len().saturating_sub(1) {
        1 => "one other member".to_owned(),
        others => format!("{others} other members"),
    };
    print(format!(
        "admitted to cluster {} ({others})\n",
        joining.cluster
    ))?;
    let stage = catch_up(client, joining.cluster).await?;
    print(format!("{}\n", stage.words()))
}

/// The progress of an admitted host.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// Its gateway is restarting.
    Starting,
    /// Its gateway fetches the cluster's log.
    CatchingUp { applied: u64 },
    /// It has the log and waits to become a voter.
    CaughtUp { applied: u64 },
    /// It has the log; other hosts are the voters.
    Learner,
    /// It is a voter.
    Voter { leader: String },
}

impl Stage {
    /// Pure: the progress according to the host's status.
    fn of(status: &Status, cluster: ClusterId) -> Self {
        if status.cluster != Some(cluster) {
            return if status.cluster.is_none() && status.applied > 0 {
                Self::CatchingUp {
                    applied: status.applied,
                }
            } else {
                Self::Starting
            };
        }
        let applied = status.applied;
        match &status.leader {
            Some(leader) if status.voters.contains(&status.host) => Self::Voter {
                leader: leader.name.clone(),
            },
            Some(_) if status.learners.contains(&status.host) => {
                if status.voters.len() >= VOTERS_MAX {
                    Self::Learner
                } else {
                    Self::CaughtUp { applied }
                }
            }
            _ => Self::CatchingUp { applied },
        }
    }

    fn is_last(&self) -> bool {
        matches!(self, Self::Learner | Self::Voter { .. })
    }

    fn words(&self) -> String {
        match self {
            Self::Starting => "the gateway is starting as a member".to_owned(),
            Self::CatchingUp { applied } => {
                format!("catching up with the log, at index {applied}")
            }
            Self::CaughtUp { applied } => {
                format!("caught up to log index {applied}, waiting to become a voter")
            }
            Self::Learner => {
                "joined: this host is a learner (the cluster has five voters)".to_owned()
            }
            Self::Voter { leader } => {
                format!("joined: this host is a voter; the leader is {leader}")
            }
        }
    }
}

async fn catch_up(client: &Client, cluster: ClusterId) -> Result<Stage, Trouble> {
    let deadline = Instant::now() + CATCH_UP_TIME_MAX;
    let mut live = Live::new();
    loop {
        let stage = match client.json::<Status>(&Ask::get("/v1/status")).await {
            Ok(status) => Stage::of(&status, cluster),
            // The gateway may take longer to restart than one request may take.
            Err(trouble) if trouble.is_unreachable() => Stage::Starting,
            Err(trouble) => return Err(trouble.during("join")),
        };
        if stage.is_last() {
            return Ok(stage);
        }
        if Instant::now() >= deadline {
            let message = format!(
                "join: admitted, but not caught up after {} s: {}",
                CATCH_UP_TIME_MAX.as_secs(),
                stage.words()
            );
            return Err(Trouble::failed(message)
                .hint("the host continues by itself; `beemesh status` shows the progress"));
        }
        live.spin(&stage.words());
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::HostId;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_join_ends_with_the_vote_or_as_learner_beside_five_voters() {
        let new = ClusterId([2; 16]);
        let id = HostId([1; 32]).to_string();
        let five = json!(["h1", "h2", "h3", "h4", "h5"]);
        let leader = json!({"name": "h1", "id": id});
        for (cluster, leader, voters, learners, expected) in [
            (
                json!("01".repeat(16)),
                leader.clone(),
                json!(["h9"]),
                json!([]),
                Stage::Starting,
            ),
            (
                Value::Null,
                Value::Null,
                json!([]),
                json!([]),
                Stage::CatchingUp { applied: 7 },
            ),
            (
                json!(new),
                Value::Null,
                json!(["h1"]),
                json!(["h9"]),
                Stage::CatchingUp { applied: 7 },
            ),
            (
                json!(new),
                leader.clone(),
                json!(["h1"]),
                json!(["h9"]),
                Stage::CaughtUp { applied: 7 },
            ),
            (
                json!(new),
                leader.clone(),
                five,
                json!(["h9"]),
                Stage::Learner,
            ),
            (
                json!(new),
                leader.clone(),
                json!(["h1", "h9"]),
                json!([]),
                Stage::Voter {
                    leader: "h1".into(),
                },
            ),
        ] {
            let status = serde_json::from_value(json!({
                "cluster": cluster, "host": "h9", "id": id, "role": "learner", "leader": leader, "term": 1, "applied": 7,
                "quorum": true, "voters": voters, "learners": learners,
                "hosts": {"total": 2, "reachable": 2, "missing": []}, "workloads": {"total": 0, "healthy": 0},
                "version": "", "podman": "", "trouble": ""}))
            .unwrap();
            assert_eq!(Stage::of(&status, new), expected);
        }
    }
}
