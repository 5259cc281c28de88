//! The report that a supervisor writes for the gateway, and the status line of its unit. The file contains output of
//! containers.

#![no_main]

use beemesh_fuzz::read_and_write;
use beemesh_protocol::pod::{PodReport, REPORT_BYTES_MAX};
use beemesh_quadlet::health::{LINE_BYTES_MAX, Report, heard};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read_and_write!(bytes; PodReport);
    if let Ok(read) = PodReport::from_bytes(bytes) {
        assert!(bytes.len() <= REPORT_BYTES_MAX);
        let report = Report::from(read.clone());
        let line = report.line();
        assert!(line.len() <= LINE_BYTES_MAX && !line.contains(char::is_control));
        assert!(!report.message().contains(char::is_control));
        assert_eq!(heard(&line, Some(read)), Some(report));
    }
    if let Ok(line) = str::from_utf8(bytes) {
        let _ = heard(line, None);
    }
});
