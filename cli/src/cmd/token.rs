//! `beemesh token`.

use std::io::IsTerminal as _;

use beemesh_protocol::api::{TokenAnswer, TokenRequest};

use super::{print, print_json};
use crate::{
    args::Token,
    client::{Ask, Client},
    trouble::Trouble,
};

pub(super) async fn run(client: &Client, args: Token) -> Result<(), Trouble> {
    let Token::Create { ttl, output } = args;
    let request = TokenRequest {
        ttl_seconds: ttl.as_secs(),
    };
    // Sent twice, it makes two tokens: the first is never seen and expires.
    let ask = Ask::post_json("/v1/tokens", &request)?.repeatable().timed();
    let answer = client.json::<TokenAnswer>(&ask).await;
    let answer = answer.map_err(|trouble| trouble.during("token create"))?;
    if output.json() {
        return print_json(&answer);
    }
    print(format!("{}\n", answer.token))?;
    if std::io::stderr().is_terminal() {
        eprintln!(
            "for one host, within {} s: `beemesh join TOKEN` there; whoever has the token can join",
            ttl.as_secs()
        );
    }
    Ok(())
}
