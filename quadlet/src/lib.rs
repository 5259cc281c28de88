//! One workload as one Quadlet-run pod on one host.
//!
//! [`manifest`] turns YAML into checked objects. [`render`] turns one object into a pod that shares nothing with
//! another workload unless the manifest says so. It takes the names from [`belongings`] and writes the two files of a
//! Quadlet. [`health`] derives the state of the pod from the states of its containers. All four are pure. [`podman`] is
//! the client of Podman's API, and [`supervisor`] is the program that a workload's unit runs.

#[cfg(feature = "host")]
pub mod adopt;
pub mod belongings;
#[cfg(feature = "host")]
mod file_lock;
pub mod health;
#[cfg(feature = "host")]
mod journal_backfill;
#[cfg(feature = "host")]
pub mod lease;
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
