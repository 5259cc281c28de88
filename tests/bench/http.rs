//! One kept-alive HTTP connection to a host's API, so that no process start is measured.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
};

use harness::Host;

/// The connection.
pub(crate) struct Client(BufReader<UnixStream>);

impl Client {
    /// Connects to the API of a host from outside.
    pub(crate) fn connect(host: &Host) -> Self {
        // The path through /proc is longer than a socket address may be; the folder's own descriptor shortens it.
        let folder = format!("/proc/{}/root/run/beemesh", host.init());
        let folder = std::fs::File::open(&folder).expect("the host has /run/beemesh");
        let path = format!(
            "/proc/self/fd/{}/gateway.sock",
            std::os::fd::AsRawFd::as_raw_fd(&folder)
        );
        Self(BufReader::new(
            UnixStream::connect(path).expect("the API answers"),
        ))
    }

    /// Posts a body and returns the status.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> u16 {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: beemesh\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0
            .get_mut()
            .write_all(request.as_bytes())
            .expect("the API reads");
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("the API answers");
            let line = line.trim_end();
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().expect("a status");
            } else if let Some((name, value)) = line.split_once(": ") {
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.parse().expect("a length");
                }
            } else if line.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).expect("the whole answer");
        status
    }
}
