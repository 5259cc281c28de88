//! The certificate authority of the remote API, and the keys that seal its private key.

pub(crate) mod authority;
pub(crate) mod sealing_keys;
