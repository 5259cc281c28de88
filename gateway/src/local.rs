//! The state that this host keeps for itself, outside of the replicated state.

pub(crate) mod durable;
pub(crate) mod files;
pub(crate) mod lifecycle;
pub(crate) mod sealing_key;
