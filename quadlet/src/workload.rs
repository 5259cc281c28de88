//! Normalises one workload with what it uses into one Pod.
//!
//! Pure: no I/O, no clock, no randomness.
