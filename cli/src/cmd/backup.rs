//! `beemesh backup` and `beemesh restore`.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use beemesh_protocol::{api::Restored, backup::BYTES_MAX};

use super::{copy, print, print_json, spin, warn_readable};
use crate::{
    args::Restore,
    client::{Ask, Client},
    render,
    source::read_up_to,
    trouble::Trouble,
};

/// The gateway commits the manifests one by one; thousands of them take minutes on a slow disk.
const RESTORE_TIME_MAX: Duration = Duration::from_secs(1800);

pub(super) async fn backup(client: &Client) -> Result<(), Trouble> {
    if io::stdout().is_terminal() {
        return Err(
            Trouble::usage("backup: refusing to write binary data to a terminal")
                .hint("redirect it to a file: `umask 077; beemesh backup > FILE`"),
        );
    }
    warn_readable("every Secret of the cluster");
    let answer = client.open(&Ask::get("/v1/backup").timed()).await;
    let answer = answer.map_err(|trouble| trouble.during("backup"))?;
    copy(answer, "backup").await
}

pub(super) async fn restore(client: &Client, args: Restore) -> Result<(), Trouble> {
    let file = read_up_to(
        &args.file,
        BYTES_MAX as u64,
        "256 MiB, the limit for a backup",
    )?;
    let doing = format!("restore {}", file.name);
    // A restore does not change existing objects, so it may be repeated.
    let ask = Ask::post("/v1/restore", file.bytes)
        .repeatable()
        .timed()
        .extra(RESTORE_TIME_MAX);
    let answer = spin::<Restored>(client, &ask, &doing).await;
    let restored = answer.map_err(|trouble| trouble.during(&doing))?;
    if args.output.json() {
        return print_json(&restored);
    }
    print(render::restored(&restored))
}
