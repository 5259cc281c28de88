use std::fmt::Write as _;

use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

const SOON: Duration = Duration::from_secs(20);
const MAX: u64 = 1 << 20;

/// A web server with TLS, and a client that knows its certificate.
struct Serving {
    port: u16,
    web: Web,
}

impl Serving {
    /// Serves what `answer` makes of a path and the server's port.
    async fn start(answer: fn(&str, u16) -> Vec<u8>) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.key_pair.serialize_der());
        let tls = ServerConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that does not trust the certificate ends the handshake.
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    let head = String::from_utf8(head).unwrap();
                    assert!(
                        head.contains(&format!("\r\nhost: localhost:{port}\r\n")),
                        "{head}"
                    );
                    let path = head.split(' ').nth(1).unwrap();
                    // A client that has read enough closes the connection.
                    let _ = stream.write_all(&answer(path, port)).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let web = Web::new(roots).unwrap();
        Self { port, web }
    }

    async fn get(&self, path: &str) -> Result<Bytes, String> {
        let url = Url::parse(&format!("https://localhost:{}{path}", self.port)).unwrap();
        let got = self.web.get(&url, MAX, SOON).await;
        got.map_err(|trouble| trouble.to_string())
    }
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn to(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn a_file_is_downloaded_through_redirects() {
    let serving = Serving::start(|path, port| match path {
        "/web.yaml?v=1" => ok(b"kind: Pod\n"),
        "/old/web.yaml" => to("../web.yaml?v=1"),
        "/whole" => to(&format!("https://localhost:{port}/old/web.yaml#part")),
        "/chunked" => {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nkind\r\n0\r\n\r\n".to_vec()
        }
        "/full" => ok(&vec![b'#'; 1 << 20]),
        path => match path
            .strip_prefix("/loop/")
            .and_then(|n| n.parse::<u8>().ok())
        {
            Some(0) => ok(b"end"),
            Some(n) => to(&format!("/loop/{}", n - 1)),
            None => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
        },
    })
    .await;
    for path in ["/web.yaml?v=1", "/old/web.yaml", "/whole"] {
        let got = serving.get(path).await;
        assert_eq!(got.as_deref(), Ok(&b"kind: Pod\n"[..]), "{path}");
    }
    assert_eq!(serving.get("/chunked").await.as_deref(), Ok(&b"kind"[..]));
    assert_eq!(serving.get("/full").await.unwrap().len(), 1 << 20);
    assert_eq!(serving.get("/loop/5").await.as_deref(), Ok(&b"end"[..]));
    let refused = serving.get("/loop/6").await.unwrap_err();
    assert!(refused.contains("more than 5 redirects"), "{refused}");
    let missing = serving.get("/missing").await.unwrap_err();
    assert!(missing.contains("answers 404 Not Found"), "{missing}");
}

#[tokio::test]
async fn an_answer_that_is_no_manifest_is_refused() {
    let serving = Serving::start(|path, port| match path {
        "/plain" => to(&format!("http://localhost:{port}/web.yaml")),
        "/user" => to(&format!("https://a:b@localhost:{port}/web.yaml")),
        "/file" => to("file:///etc/shadow"),
        "/nowhere" => b"HTTP/1.1 301 Moved\r\ncontent-length: 0\r\n\r\n".to_vec(),
        "/large" => ok(&vec![b'#'; (1 << 20) + 1]),
        "/endless" => {
            let mut text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
            for _ in 0..20 {
                write!(text, "{:x}\r\n{}\r\n", 1 << 16, "#".repeat(1 << 16)).unwrap();
            }
            text.into_bytes()
        }
        "/cut" => b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nkind".to_vec(),
        "/zip" => {
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nzz".to_vec()
        }
        _ => b"SSH-2.0-x\r\n".to_vec(),
    })
    .await;
    for (path, words) in [
        ("/plain", "redirect: http://localhost:"),
        ("/plain", "use https://"),
        ("/user", "user or password"),
        ("/file", "is not a URL"),
        ("/nowhere", "does not say where"),
        ("/large", "larger than 1 MiB"),
        ("/endless", "larger than 1 MiB"),
        ("/cut", "the connection broke"),
        ("/zip", "gzip"),
        ("/other", "cannot connect to localhost:"),
    ] {
        let refused = serving.get(path).await.unwrap_err();
        assert!(refused.contains(words), "{path}: {refused}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_prove_its_name_is_refused() {
    let serving = Serving::start(|_, _| ok(b"kind: Pod\n")).await;
    let other = Serving::start(|_, _| ok(b"kind: Pod\n")).await;
    // The certificate of another authority, and one for another name.
    let foreign = Url::parse(&format!("https://localhost:{}/", other.port)).unwrap();
    let renamed = Url::parse(&format!("https://127.0.0.1:{}/", serving.port)).unwrap();
    for url in [foreign, renamed] {
        let refused = serving.web.get(&url, MAX, SOON).await.unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains("certificate"), "{refused}");
        assert!(
            refused.contains("hint: the certificate must be"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_silent_ends_with_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = Url::parse(&format!("https://127.0.0.1:{port}/")).unwrap();
    let web = Web::new(RootCertStore::empty()).unwrap();
    let refused = web.get(&url, MAX, Duration::from_secs(1)).await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("no complete answer within 1 s"),
        "{refused}"
    );
}

#[test]
fn urls_are_read_and_locations_resolved() {
    for (text, expected) in [
        ("https://example.com", Ok("https://example.com/")),
        (
            "HTTPS://example.com:8443/a?b=c#d",
            Ok("https://example.com:8443/a?b=c"),
        ),
        ("https://[::1]/a", Ok("https://[::1]/a")),
        ("https://example.com:99999/", Err("its port")),
        ("https://a@example.com/", Err("user or password")),
        ("http://example.com/", Err("use https://")),
        ("https://exa mple.com/", Err("is not a URL")),
    ] {
        let read = Url::from_option(text).unwrap().map(|url| url.to_string());
        match (read, expected) {
            (Ok(read), Ok(expected)) => assert_eq!(read, expected),
            (Err(message), Err(words)) => assert!(message.contains(words), "{text}: {message}"),
            (read, _) => panic!("{text}: {read:?}"),
        }
    }
    let v6 = Url::parse("https://[::1]:8443/").unwrap();
    assert_eq!((v6.host.as_str(), v6.port), ("::1", 8443));
    for text in [
        "web.yaml",
        "httpsweb",
        "ftp://example.com/",
        "https:/a",
        "ü",
    ] {
        assert!(Url::from_option(text).is_none(), "{text}");
    }
    let base = Url::parse("https://example.com/a/b/c.yaml?x=1").unwrap();
    for (location, expected) in [
        ("/d", "https://example.com/d"),
        ("d", "https://example.com/a/b/d"),
        ("./d?y=/../2", "https://example.com/a/b/d?y=/../2"),
        ("../../../d/", "https://example.com/d/"),
        ("..", "https://example.com/a/"),
        ("?y=2", "https://example.com/a/b/c.yaml?y=2"),
        ("", "https://example.com/a/b/c.yaml?x=1"),
        ("//other.example/d", "https://other.example/d"),
        (
            "https://other.example:444/d#e",
            "https://other.example:444/d",
        ),
    ] {
        let resolved = base.resolve(location).map(|url| url.to_string());
        assert_eq!(resolved.as_deref(), Ok(expected), "{location}");
    }
}
