//! What issues certificates for the remote API, and the keys that seal it.

pub(crate) mod authority;
pub(crate) mod sealing_keys;
