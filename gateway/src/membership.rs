//! How this host joins a cluster, what it announces as a member, and how it leaves.

pub(crate) mod admit;
pub(crate) mod announce;
pub(crate) mod applications;
pub(crate) mod elsewhere;
pub(crate) mod found;
pub(crate) mod give_up_vote;
pub(crate) mod join;
mod known;
pub(crate) mod recover;
pub(crate) mod removal_watch;
pub(crate) mod replace;
pub(crate) mod rotate_key;
pub(crate) mod tell_agent;
