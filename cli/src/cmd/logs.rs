//! `beemesh logs`.

use std::io::{self, Write as _};

use http_body_util::BodyExt;

use crate::{
    args::Logs,
    client::{Ask, Client, escape},
    trouble::Trouble,
};

pub(super) async fn run(client: &Client, args: Logs) -> Result<(), Trouble> {
    let ask = Ask::get(format!("/v1/workloads/{}/logs", escape(&args.workload)))
        .with("host", args.host)
        .with("follow", args.follow.then(|| "true".to_owned()))
        .with("tail", args.tail.map(|tail| tail.to_string()));
    let doing = format!("logs {}", args.workload);
    let answer = client.open(&ask).await;
    let mut body = answer
        .map_err(|trouble| trouble.during(&doing))?
        .into_body();
    let mut stdout = io::stdout().lock();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Trouble::failed(format!("{doing}: the output ended early: {error}"))
                .hint("the host or its gateway may have stopped: `beemesh get hosts --stale`")
        })?;
        let Some(bytes) = frame.data_ref() else {
            continue;
        };
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => {
                return Err(Trouble::failed(format!(
                    "write to standard output: {error}"
                )));
            }
            Ok(()) => {}
        }
    }
    Ok(())
}
