//! What an administrator has `beemesh-agent` do to this host, once, without the agent: `purge` and `recover`.

pub(crate) mod purge;
pub(crate) mod recover;
