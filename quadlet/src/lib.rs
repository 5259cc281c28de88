//! One workload as one Quadlet-run pod on one host.
//!
//! [`manifest`] turns YAML into checked objects. [`render`] makes a pod of one of them that shares nothing by accident
//! with another workload, under names of [`belongings`], and writes it as the two files of a Quadlet. [`health`] says
//! what the pod's containers amount to. All four are pure. [`podman`] asks Podman, and [`supervisor`] is the program
//! that a workload's unit runs.

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
