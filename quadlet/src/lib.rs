//! One workload as one Quadlet-run pod on one host.
//!
//! [`manifest`] turns YAML into checked objects, `workload` makes a pod of one of them that shares nothing by
//! accident with another workload under names of [`belongings`], and [`render`] writes that pod as the two files of a
//! Quadlet. [`health`] says what the pod's containers amount to. All five are pure. [`podman`] asks
//! Podman, and [`supervisor`] is the program that a workload's unit runs.

#[cfg(feature = "host")]
pub mod adopt;
pub mod belongings;
pub mod health;
#[cfg(feature = "host")]
mod journal_backfill;
pub mod manifest;
#[cfg(feature = "host")]
pub mod play_lock;
#[cfg(feature = "host")]
pub mod podman;
pub mod render;
#[cfg(feature = "host")]
pub mod repair;
#[cfg(feature = "host")]
pub mod supervisor;
mod workload;
