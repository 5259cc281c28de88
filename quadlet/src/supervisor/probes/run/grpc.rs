//! Calls `grpc.health.v1.Health/Check` of a pod.
//!
//! gRPC is HTTP/2 with messages of Protocol Buffers, each after a byte for compression and four bytes of length. The
//! two messages of this call have one field each.

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, client};
use http::{HeaderMap, Request};

use super::{VERSION, request};

/// The largest answer. Its message has two bytes.
const ANSWER_BYTES_MAX: usize = 4 << 10;
/// The longest head or trailer of an answer.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// The flow-control windows: an answer is smaller.
const WINDOW_BYTES: u32 = 64 << 10;
const PATH: &str = "/grpc.health.v1.Health/Check";
/// `SERVING` of `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

/// Asks for the health of a service.
pub(super) async fn check(address: IpAddr, port: u16, service: &str) -> Result<(), String> {
    let stream = request::connect(address, port).await?;
    let handshake = client::Builder::new()
        .enable_push(false)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .handshake::<_, Bytes>(stream);
    let (sender, connection) = handshake.await.map_err(|error| words(&error))?;
    let call = call(sender, SocketAddr::new(address, port), service);
    tokio::pin!(call, connection);
    tokio::select! {
        answer = &mut call => answer,
        _ = &mut connection => call.await,
    }
}

async fn call(
    sender: client::SendRequest<Bytes>,
    at: SocketAddr,
    service: &str,
) -> Result<(), String> {
    let mut sender = sender.ready().await.map_err(|error| words(&error))?;
    let request = Request::post(format!("http://{at}{PATH}"))
        .header("content-type", "application/grpc")
        .header("user-agent", format!("kube-probe/{VERSION}"))
        .header("te", "trailers")
        .body(())
        .map_err(|error| error.to_string())?;
    let sent = sender.send_request(request, false);
    let (answer, mut body) = sent.map_err(|error| words(&error))?;
    body.send_data(question(service), true)
        .map_err(|error| words(&error))?;
    let answer = answer.await.map_err(|error| words(&error))?;
    let status = answer.status().as_u16();
    let (head, body) = answer.into_parts();
    if status != 200 {
        return Err(format!("gRPC probe failed with HTTP status {status}"));
    }
    // An answer without a message has its result in the head.
    judge(&head.headers).unwrap_or(Ok(()))?;
    let (message, trailers) = receive(body).await?;
    judge(&trailers)
        .unwrap_or_else(|| Err("the answer has no gRPC status".to_owned()))
        .and_then(|()| serving(&message))
}

async fn receive(mut body: RecvStream) -> Result<(Vec<u8>, HeaderMap), String> {
    let mut message = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|error| words(&error))?;
        if message.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("an answer of more than {ANSWER_BYTES_MAX} bytes"));
        }
        body.flow_control()
            .release_capacity(chunk.len())
            .map_err(|error| words(&error))?;
        message.extend_from_slice(&chunk);
    }
    let trailers = body.trailers().await.map_err(|error| words(&error))?;
    Ok((message, trailers.unwrap_or_default()))
}

/// The result of a call by its `grpc-status`, if there is one. Its message is text of the pod, and is not shown.
fn judge(headers: &HeaderMap) -> Option<Result<(), String>> {
    let status = headers.get("grpc-status")?.to_str().ok();
    Some(match status {
        Some("0") => Ok(()),
        Some("12") => Err("the server does not implement grpc.health.v1.Health".to_owned()),
        status => {
            let name = status.and_then(|status| NAMES.get(status.parse::<usize>().ok()?));
            let name = name.unwrap_or(&"an unknown status");
            Err(format!("gRPC probe failed with {name}"))
        }
    })
}

/// The names of gRPC's status codes.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// `HealthCheckRequest`: field 1 is the name of the service, and is absent if it is empty.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    framed.freeze()
}

/// `HealthCheckResponse`: field 1 is the status, and is absent if it is 0.
fn serving(framed: &[u8]) -> Result<(), String> {
    let unreadable = || "the answer is not a HealthCheckResponse".to_owned();
    let status = message(framed).and_then(status).ok_or_else(unreadable)?;
    let name = match status {
        SERVING => return Ok(()),
        0 => "UNKNOWN",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "an unknown status",
    };
    Err(format!("service unhealthy (responded with {name})"))
}

/// The message in its frame, if it is whole and not compressed.
fn message(framed: &[u8]) -> Option<&[u8]> {
    let (&[compressed, a, b, c, d], message) = framed.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    (compressed == 0 && length == message.len()).then_some(message)
}

/// The last value of field 1, a number. Other fields are skipped.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        let skip = match key & 7 {
            0 => {
                let value = take_varint(&mut message)?;
                if key >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(take_varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skip..)?;
    }
    Some(status)
}

fn put_varint(into: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        into.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.put_u8(value as u8);
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn words(error: &h2::Error) -> String {
    match error.get_io() {
        Some(error) => error.to_string(),
        None => format!("HTTP/2: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_protocol_buffers() {
        assert_eq!(&question("")[..], b"\0\0\0\0\0");
        assert_eq!(&question("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = question(&"x".repeat(300));
        assert_eq!(&long[..8], b"\0\0\0\x01\x2f\x0a\xac\x02");
        let unhealthy = |name: &str| Err(format!("service unhealthy (responded with {name})"));
        let unreadable = || Err("the answer is not a HealthCheckResponse".to_owned());
        for (answer, expected) in [
            (&b"\0\0\0\0\x02\x08\x01"[..], Ok(())),
            (b"\0\0\0\0\0", unhealthy("UNKNOWN")),
            (b"\0\0\0\0\x02\x08\x02", unhealthy("NOT_SERVING")),
            // Fields of a later release are skipped.
            (b"\0\0\0\0\x07\x12\x01x\x1a\0\x08\x01", Ok(())),
            (b"\x01\0\0\0\x02\x08\x01", unreadable()),
            (b"\0\0\0\0\x03\x08\x01", unreadable()),
            (b"\0\0\0\0\x01\x08", unreadable()),
            (b"", unreadable()),
        ] {
            assert_eq!(serving(answer), expected, "{answer:?}");
        }
    }
}
