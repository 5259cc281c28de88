//! The Beemesh host agent: wiring.

mod dbus;
mod lifecycle;
mod mesh;
mod relay;
mod systemd;
mod units;

fn main() {}
