//! Probes of a gRPC server.

use bytes::Bytes;
use h2::server;
use http::{HeaderMap, Response};
use tokio::net::TcpStream;

use super::*;

/// Answers calls by the name of the service in them.
async fn serve_one(stream: TcpStream) {
    let mut connection = server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let task = async move {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(request.headers()["content-type"], "application/grpc");
            assert_eq!(request.headers()["te"], "trailers");
            let mut body = request.into_body();
            let mut sent = Vec::new();
            while let Some(chunk) = body.data().await {
                sent.extend_from_slice(&chunk.unwrap());
            }
            let service = String::from_utf8(sent.get(7..).unwrap_or_default().to_vec()).unwrap();
            let head = Response::builder().header("content-type", "application/grpc");
            let (status, message): (&str, &[u8]) = match service.as_str() {
                "" => ("0", b"\0\0\0\0\x02\x08\x01"),
                "ill" => ("0", b"\0\0\0\0\x02\x08\x02"),
                "none" => ("0", b""),
                "internal" => ("13", b""),
                "http" => {
                    let head = Response::builder().status(415).body(()).unwrap();
                    respond.send_response(head, true).unwrap();
                    return;
                }
                _ => {
                    let head = head.header("grpc-status", "5").body(()).unwrap();
                    respond.send_response(head, true).unwrap();
                    return;
                }
            };
            let mut stream = respond
                .send_response(head.body(()).unwrap(), false)
                .unwrap();
            stream
                .send_data(Bytes::from_static(message), false)
                .unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", status.parse().unwrap());
            stream.send_trailers(trailers).unwrap();
        };
        tokio::spawn(task);
    }
}

#[tokio::test]
async fn the_health_of_a_service_decides() {
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_one(stream));
        }
    });
    for (service, expected) in [
        ("", Outcome::Success),
        (
            "ill",
            failure("service unhealthy (responded with NOT_SERVING)"),
        ),
        ("none", failure("the answer is not a HealthCheckResponse")),
        ("internal", failure("gRPC probe failed with INTERNAL")),
        ("http", failure("gRPC probe failed with HTTP status 415")),
        ("unknown", failure("gRPC probe failed with NOT_FOUND")),
    ] {
        let handler = Handler::Grpc {
            port,
            service: service.into(),
        };
        assert_eq!(probe(&handler).await, expected, "{service}");
    }
}

#[tokio::test]
async fn a_server_without_http_2_is_a_failure() {
    let (port, _) = serve(&[]).await;
    let handler = Handler::Grpc {
        port,
        service: String::new(),
    };
    let outcome = probe(&handler).await;
    assert!(matches!(outcome, Outcome::Failure(_)), "{outcome:?}");
}
