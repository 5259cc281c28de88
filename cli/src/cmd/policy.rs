//! `beemesh policy`.

use beemesh_protocol::api::{Policy, PolicySet};

use super::{print, print_json};
use crate::{
    args,
    args::PolicyFormat,
    client::{Ask, Client},
    render,
    source::read_up_to,
    trouble::Trouble,
};

/// The gateway's limit for a policy.
const FILE_MAX: u64 = 64 << 10;

pub(super) async fn run(client: &Client, args: args::Policy) -> Result<(), Trouble> {
    match args {
        args::Policy::Show { stale, output } => show(client, stale, output)
            .await
            .map_err(|trouble| trouble.during("policy show")),
        args::Policy::Set(set) => {
            let words = "64 KiB, the limit for a policy";
            let file = read_up_to(&set.file, FILE_MAX, words)?;
            let doing = format!("policy set {}", file.name);
            // A repeated request with the same policy changes nothing.
            let ask = Ask::put_body("/v1/policy", file.bytes)
                .with(
                    "ifVersion",
                    set.if_version.map(|version| version.to_string()),
                )
                .file(&file.name)
                .timed();
            let answer = client.json::<PolicySet>(&ask).await;
            let answer = answer.map_err(|trouble| trouble.during(&doing))?;
            match set.output.json() {
                true => print_json(&answer),
                false => print(render::policy_set(&answer)),
            }
        }
    }
}

async fn show(client: &Client, stale: bool, output: PolicyFormat) -> Result<(), Trouble> {
    let ask = Ask::get("/v1/policy")
        .with("stale", stale.then(|| "true".to_owned()))
        .timed();
    let policy = client.json::<Policy>(&ask).await?;
    match output {
        PolicyFormat::Json => print_json(&policy),
        PolicyFormat::Yaml => print(render::policy(&policy)),
    }
}
