//! What this host keeps for itself, apart from what the cluster agreed on.

pub(crate) mod files;
pub(crate) mod lifecycle;
pub(crate) mod sealing_key;
