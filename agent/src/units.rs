//! The workloads' unit files on disk.
