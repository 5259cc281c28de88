//! `beemesh logs`.

use beemesh_protocol::percent;

use super::copy;
use crate::{
    args::Logs,
    client::{Ask, Client},
    trouble::Trouble,
};

pub(super) async fn run(client: &Client, args: Logs) -> Result<(), Trouble> {
    let ask = Ask::get(format!(
        "/v1/workloads/{}/logs",
        percent::encode(&args.workload)
    ))
    .with("host", args.host)
    .with("pod", args.pod)
    .with("follow", args.follow.then(|| "true".to_owned()))
    .with("tail", args.tail.map(|tail| tail.to_string()));
    let doing = format!("logs {}", args.workload);
    let answer = client.open(&ask).await;
    let answer = answer.map_err(|trouble| trouble.during(&doing))?;
    copy(answer, &doing).await
}
