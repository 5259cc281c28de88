//! How this host becomes a member of a cluster, what it says of itself as one, and how it stops being one.

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
