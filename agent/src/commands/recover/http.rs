//! One HTTP request to the gateway of this host.
//!
//! Shell: HTTP/1.0, whose responses end with the connection. [`body`] is pure.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use beemesh_protocol::api::ErrorAnswer;
use serde::de::DeserializeOwned;

/// The gateway answers these requests without asking other hosts.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Enough for the names and keys of some hundred hosts.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Sends a request and decodes the response as JSON.
pub(super) fn ask<T: DeserializeOwned>(
    gateway: &Path,
    method: &str,
    path: &str,
    json: &[u8],
) -> anyhow::Result<T> {
    let exchange = || -> anyhow::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(gateway)?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        stream.set_write_timeout(Some(ANSWER_TIME_MAX))?;
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: beemesh\r\nContent-Length: {}\r\n\r\n",
            json.len()
        );
        stream.write_all(&[head.as_bytes(), json].concat())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().with_context(|| {
        format!(
            "ask the gateway at {}; `systemctl status beemesh-agent beemesh-gateway` shows whether they run",
            gateway.display()
        )
    })?;
    body(&answer)
}

/// Pure: the JSON of a success, or the message of a failure.
fn body<T: DeserializeOwned>(answer: &[u8]) -> anyhow::Result<T> {
    const END: &[u8] = b"\r\n\r\n";
    let end = answer.windows(END.len()).position(|part| part == END);
    let end = end.context("the gateway's answer is truncated")?;
    let (head, body) = (&answer[..end], &answer[end + END.len()..]);
    let status = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if status.starts_with(b"2") {
        return serde_json::from_slice(body).context("the gateway's answer cannot be decoded");
    }
    match serde_json::from_slice::<ErrorAnswer>(body) {
        Ok(answer) => bail!("{}", answer.error.message),
        Err(_) => bail!("the gateway answered {}", status.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_json_or_words_of_a_failure() {
        let read = |answer: &str| {
            let answer = answer.replace('\n', "\r\n");
            body::<Vec<u8>>(answer.as_bytes()).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(read("HTTP/1.0 200 OK\nA: b\n\n[1]"), Ok(vec![1]));
        for (answer, words) in [
            ("HTTP/1.0 200 OK\n", "truncated"),
            ("HTTP/1.0 202 Accepted\n\n{", "cannot be decoded"),
            (
                "HTTP/1.0 409 Conflict\n\n{\"error\":{\"code\":\"conflict\",\"message\":\"there is a quorum\"}}",
                "there is a quorum",
            ),
            ("HTTP/1.0 500 Oh\n\nwhat", "answered 500"),
        ] {
            let error = read(answer).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_gateway_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("gateway.sock");
        let error = ask::<Vec<u8>>(&socket, "GET", "/", b"").unwrap_err();
        assert!(format!("{error:#}").contains("gateway.sock"), "{error:#}");
    }
}
