//! What to ask systemd next.
