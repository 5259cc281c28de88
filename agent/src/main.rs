//! The Beemesh host agent: wiring.

mod dbus;
mod lifecycle;
mod systemd;
mod units;

fn main() {}
