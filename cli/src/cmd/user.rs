//! `beemesh user`.

use std::{
    io::IsTerminal as _,
    time::{Duration, SystemTime},
};

use beemesh_protocol::{
    api::{Revoked, UserAnswer, UserRequest, UserRole, Users},
    percent,
};

use super::{print, print_json, warn_readable};
use crate::{
    args::{Output, Role, User},
    client::{Ask, Client},
    render,
    trouble::Trouble,
};

pub(super) async fn run(client: &Client, args: User) -> Result<(), Trouble> {
    match args {
        User::Create {
            name,
            role,
            ttl,
            output,
        } => create(client, &name, role, ttl, output)
            .await
            .map_err(|trouble| trouble.during(&format!("user create {name}"))),
        User::List(output) => list(client, output)
            .await
            .map_err(|trouble| trouble.during("user list")),
        User::Revoke { name, output } => revoke(client, &name, output)
            .await
            .map_err(|trouble| trouble.during(&format!("user revoke {name}"))),
        User::Reset { output } => reset(client, output)
            .await
            .map_err(|trouble| trouble.during("user reset")),
    }
}

async fn create(
    client: &Client,
    name: &str,
    role: Role,
    ttl: Duration,
    output: Output,
) -> Result<(), Trouble> {
    let request = UserRequest {
        name: name.to_owned(),
        role: match role {
            Role::Viewer => UserRole::Viewer,
            Role::Deployer => UserRole::Deployer,
            Role::Admin => UserRole::Admin,
        },
        ttl_seconds: ttl.as_secs(),
    };
    // After a repeated request, the second certificate is valid and printed.
    let ask = Ask::post_json("/v1/users", &request)?.repeatable().timed();
    let answer = client.json::<UserAnswer>(&ask).await?;
    warn_readable("a private key");
    if output.json() {
        return print_json(&answer);
    }
    let text = serde_yaml::to_string(&answer.config);
    let text = text.map_err(|error| Trouble::failed(format!("cannot write YAML: {error}")))?;
    print(text)?;
    if std::io::stderr().is_terminal() {
        eprintln!(
            "save this as a file with mode 0600, since it contains the only copy of the private key; {name} uses it with `beemesh --config FILE` on \
             hosts where `api-port = 7443` is set in /etc/beemesh/agent.toml.d; `beemesh user revoke {name}` revokes it"
        );
    }
    Ok(())
}

async fn list(client: &Client, output: Output) -> Result<(), Trouble> {
    let answer = client.json::<Users>(&Ask::get("/v1/users").timed()).await?;
    if output.json() {
        return print_json(&answer);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    print(render::users(&answer.users, now.unwrap_or_default()))
}

async fn revoke(client: &Client, name: &str, output: Output) -> Result<(), Trouble> {
    let ask = Ask::delete(format!("/v1/users/{}", percent::encode(name))).timed();
    let answer = client.json::<Revoked>(&ask).await?;
    if output.json() {
        return print_json(&answer);
    }
    print(render::revoked("user", name, &answer))
}

async fn reset(client: &Client, output: Output) -> Result<(), Trouble> {
    let ask = Ask::put("/v1/authority").timed();
    let answer = client.json::<Revoked>(&ask).await?;
    if output.json() {
        return print_json(&answer);
    }
    print(render::revoked("user", "(all)", &answer))
}
