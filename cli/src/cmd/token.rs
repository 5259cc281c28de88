//! `beemesh token`.

use std::{
    io::IsTerminal as _,
    time::{Duration, SystemTime},
};

use beemesh_protocol::{
    api::{Revoked, TokenAnswer, TokenRequest, Tokens},
    percent,
};

use super::{print, print_json};
use crate::{
    args::{Output, Token},
    client::{Ask, Client},
    render,
    trouble::Trouble,
};

pub(super) async fn run(client: &Client, args: Token) -> Result<(), Trouble> {
    match args {
        Token::Create { ttl, uses, output } => create(client, ttl, uses, output)
            .await
            .map_err(|trouble| trouble.during("token create")),
        Token::List(output) => list(client, output)
            .await
            .map_err(|trouble| trouble.during("token list")),
        Token::Revoke { id, output } => revoke(client, &id, output)
            .await
            .map_err(|trouble| trouble.during(&format!("token revoke {id}"))),
    }
}

async fn create(client: &Client, ttl: Duration, uses: u32, output: Output) -> Result<(), Trouble> {
    let request = TokenRequest {
        ttl_seconds: ttl.as_secs(),
        uses,
    };
    // A repeated request creates a second token. The first one is never printed, and expires.
    let ask = Ask::post_json("/v1/tokens", &request)?.repeatable().timed();
    let answer = client.json::<TokenAnswer>(&ask).await?;
    if output.json() {
        return print_json(&answer);
    }
    print(format!("{}\n", answer.token))?;
    if std::io::stderr().is_terminal() {
        let hosts = match uses {
            1 => "one host".to_owned(),
            uses => format!("{uses} hosts"),
        };
        eprintln!(
            "valid for {hosts} and {} s: run `beemesh join TOKEN` there; anyone who has the token can join until it expires or \
             `beemesh token revoke {}` revokes it",
            ttl.as_secs(),
            answer.id
        );
    }
    Ok(())
}

async fn list(client: &Client, output: Output) -> Result<(), Trouble> {
    let answer = client
        .json::<Tokens>(&Ask::get("/v1/tokens").timed())
        .await?;
    if output.json() {
        return print_json(&answer);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    print(render::tokens(&answer.tokens, now.unwrap_or_default()))
}

async fn revoke(client: &Client, id: &str, output: Output) -> Result<(), Trouble> {
    let ask = Ask::delete(format!("/v1/tokens/{}", percent::encode(id))).timed();
    let answer = client.json::<Revoked>(&ask).await?;
    if output.json() {
        return print_json(&answer);
    }
    print(render::revoked("token", id, &answer))
}
