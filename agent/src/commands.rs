//! The one-shot commands of `beemesh-agent`, which work without a running agent: `purge` and `recover`.

pub(crate) mod purge;
pub(crate) mod recover;
