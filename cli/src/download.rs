//! Reads a file from a web server over HTTPS.
//!
//! Shell. The server proves its name to the certificate authorities of the system. Every step of a redirect is HTTPS, too:
//! what a command downloads, nobody between the server and this host can change.

use std::{env, fmt, fs, io::Read as _, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HOST, LOCATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig as Tls, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{remote::tls_error, trouble::Trouble};

/// The port of HTTPS.
const PORT: u16 = 443;
/// The most redirects of one download: services for files need two or three.
const REDIRECTS_MAX: usize = 5;
/// Bytes of the longest file of certificates; that of Mozilla's authorities has a quarter of a MiB.
const ROOTS_MAX: u64 = 16 << 20;
/// The variable by which OpenSSL and its users name another file of certificates.
const ROOTS_VARIABLE: &str = "SSL_CERT_FILE";
/// Where distributions keep the certificates of the system's authorities, in one file.
const ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// An https:// URL without a user and without a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// The name of the server, or its address without brackets.
    host: String,
    port: u16,
    /// Host and port as the URL has them.
    authority: String,
    /// Path and query.
    target: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority, self.target)
    }
}

impl Url {
    /// Reads the value of an option; `None` if it is not a URL but the name of a file. The error is a message.
    pub(crate) fn from_option(text: &str) -> Option<Result<Self, String>> {
        let is_url = |scheme: &str| {
            let start = text.get(..scheme.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        };
        (is_url("https://") || is_url("http://")).then(|| Self::parse(text))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.split('#').next().unwrap_or_default();
        let wrong = |reason: &dyn fmt::Display| format!("`{text}` is not a URL: {reason}");
        let uri = text.parse::<Uri>().map_err(|error| wrong(&error))?;
        match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("https") => {}
            Some("http") => {
                return Err(format!(
                    "{text} is refused, because anyone between the server and this host could change the manifest: use https://"
                ));
            }
            _ => return Err(wrong(&"it does not begin with https://")),
        }
        let authority = uri.authority().ok_or_else(|| wrong(&"it has no host"))?;
        if authority.as_str().contains('@') {
            return Err("a URL with a user or password is refused: download the file, and name it with `-f`".to_owned());
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(wrong(&"it has no host"));
        }
        let port = match authority.as_str().strip_prefix(host) {
            Some("" | ":") => PORT,
            _ => authority
                .port_u16()
                .ok_or_else(|| wrong(&"its port is not valid"))?,
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            target: target.to_owned(),
        })
    }

    /// The URL of a `Location` header in an answer from this URL.
    fn resolve(&self, location: &str) -> Result<Self, String> {
        let location = location.split('#').next().unwrap_or_default();
        let path = self.target.split('?').next().unwrap_or_default();
        let has_scheme = location
            .find([':', '/', '?'])
            .is_some_and(|at| location[at..].starts_with(':'));
        let target = match location.chars().next() {
            _ if has_scheme => return Self::parse(location),
            _ if location.starts_with("//") => return Self::parse(&format!("https:{location}")),
            None => self.target.clone(),
            Some('/') => location.to_owned(),
            Some('?') => format!("{path}{location}"),
            Some(_) => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                without_dots(&format!("{folder}/{location}"))
            }
        };
        Self::parse(&format!("https://{}{target}", self.authority))
    }
}

/// Removes the segments `.` and `..` from the path of a target.
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut kept = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

/// The certificate authorities of the system.
pub(crate) fn system_roots() -> Result<RootCertStore, Trouble> {
    let named = env::var_os(ROOTS_VARIABLE).filter(|file| !file.is_empty());
    let found = || ROOTS.iter().map(PathBuf::from).find(|file| file.exists());
    let hint = "install the package `ca-certificates`, or download the file with another program";
    let file = named
        .map(PathBuf::from)
        .or_else(found)
        .ok_or_else(|| Trouble::failed("this system has no certificate authorities").hint(hint))?;
    let failed = |reason: &dyn fmt::Display| {
        let file = file.display();
        Trouble::failed(format!(
            "cannot read certificate authorities from {file}: {reason}"
        ))
        .hint(hint)
    };
    let mut pem = Vec::new();
    let read = fs::File::open(&file).and_then(|file| file.take(ROOTS_MAX).read_to_end(&mut pem));
    read.map_err(|error| failed(&error))?;
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    let (added, _) = roots.add_parsable_certificates(certificates);
    match added {
        0 => Err(failed(&"it has no certificate")),
        _ => Ok(roots),
    }
}

/// A client of web servers.
pub(crate) struct Web {
    tls: Arc<Tls>,
}

impl Web {
    pub(crate) fn new(roots: RootCertStore) -> Result<Self, Trouble> {
        let tls = Tls::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|error| Trouble::failed(format!("cannot use TLS: {error}")))?;
        let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: tls.into() })
    }

    /// Downloads at most `max` bytes within a time, redirects included.
    pub(crate) async fn get(
        &self,
        url: &Url,
        max: u64,
        within: Duration,
    ) -> Result<Bytes, Trouble> {
        let got = timeout(within, self.follow(url.clone(), max)).await;
        got.unwrap_or_else(|_| {
            let seconds = within.as_secs();
            Err(
                Trouble::failed(format!("no complete answer within {seconds} s"))
                    .hint("`--timeout` sets another time"),
            )
        })
    }

    async fn follow(&self, mut url: Url, max: u64) -> Result<Bytes, Trouble> {
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.ask(&url).await?;
            let status = answer.status();
            match status {
                StatusCode::OK => return whole(answer, max).await,
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    let location = answer.headers().get(LOCATION);
                    let location = location.and_then(|location| location.to_str().ok());
                    let next = location.map(|location| url.resolve(location));
                    let next =
                        next.unwrap_or_else(|| Err("the answer does not say where".to_owned()));
                    url = next.map_err(|reason| Trouble::failed(format!("redirect: {reason}")))?;
                }
                _ => {
                    return Err(Trouble::failed(format!(
                        "{} answers {status}",
                        url.authority
                    )));
                }
            }
        }
        Err(Trouble::failed(format!(
            "more than {REDIRECTS_MAX} redirects, the last to {url}"
        )))
    }

    /// Sends one request over a connection of its own.
    async fn ask(&self, url: &Url) -> Result<Response<Incoming>, Trouble> {
        let failed = |error: &dyn fmt::Display| {
            Trouble::failed(format!("cannot connect to {}: {error}", url.authority))
        };
        let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
        let stream = stream.map_err(|error| failed(&error))?;
        let name = ServerName::try_from(url.host.clone()).map_err(|error| failed(&error))?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await.map_err(|error| {
            let foreign = matches!(tls_error(&error), Some(rustls::Error::InvalidCertificate(_)));
            match foreign {
                true => failed(&error).hint(format!(
                    "the certificate must be from an authority that this system knows; {ROOTS_VARIABLE} names another file of authorities"
                )),
                false => failed(&error),
            }
        })?;
        let broke = |error: hyper::Error| failed(&error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broke)?;
        // The task ends with the connection. The request's future returns the same errors.
        tokio::spawn(connection);
        let request = Request::get(url.target.as_str())
            .header(HOST, url.authority.as_str())
            .header(USER_AGENT, concat!("beemesh/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "*/*")
            .header(ACCEPT_ENCODING, "identity")
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new());
        let request = request.map_err(|error| failed(&error))?;
        sender.send_request(request).await.map_err(broke)
    }
}

/// Reads a body of at most `max` bytes.
async fn whole(answer: Response<Incoming>, max: u64) -> Result<Bytes, Trouble> {
    if let Some(encoding) = answer.headers().get(CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(Trouble::failed(format!(
            "the server sends it encoded as {encoding:?}"
        )));
    }
    let limit = usize::try_from(max).unwrap_or(usize::MAX);
    match Limited::new(answer.into_body(), limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Trouble::failed(format!(
            "it is larger than {} MiB, the limit for a manifest",
            max >> 20
        ))),
        Err(error) => Err(Trouble::failed(format!("the connection broke: {error}"))),
    }
}

#[cfg(test)]
mod tests;
