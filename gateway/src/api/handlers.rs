//! Handles the requests for each route, with one file for each noun.

pub(super) mod apply;
pub(super) mod backup;
pub(super) mod delete;
pub(super) mod events;
pub(super) mod hosts;
pub(super) mod join;
pub(super) mod logs;
pub(super) mod policy;
pub(super) mod prepare;
pub(super) mod read;
pub(super) mod recovery;
pub(super) mod rollout;
pub(super) mod tokens;
pub(super) mod users;
