//! The remote API: TLS 1.3 with a certificate on both sides.
//!
//! Shell. The agent listens on the network and passes each connection to this socket unchanged, preceded by one line
//! with the client's address (the PROXY protocol, version 1:
//! <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>). The gateway makes all decisions: it reads nothing
//! but the handshake from a client without the private key of a user in the replicated state.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Extension, Router, middleware};
use beemesh_protocol::state::{Authority, UserRecord};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{Shared, roles, routes, server};
use crate::{
    api::handlers::users,
    clock::now_ms,
    context::Gateway,
    pki::{
        authority::{Issued, Issuer, fingerprint},
        sealing_keys,
    },
};

/// Maximum number of concurrent connections, including those in the handshake.
const CONNECTIONS_MAX: usize = 256;
/// Time limit of the line with the client's address, which the agent sends at once.
const PREAMBLE_TIME_MAX: Duration = Duration::from_secs(2);
/// The longest line of the PROXY protocol, version 1, with its end.
const PREAMBLE_MAX: usize = 107;
/// Time limit of a handshake, which takes two round trips.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Age after which a host's certificate is replaced. It is valid for thirty times as long.
const CERTIFICATE_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest delay between the expiry of a certificate and the end of its connections.
const EXPIRY_LOOK_MAX: Duration = Duration::from_secs(5);
/// Pause after a failed accept. The limit of open files may be reached until other connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A client that has completed the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remote {
    /// SHA-256 of its certificate.
    fingerprint: [u8; 32],
    /// The client's address.
    pub(super) from: SocketAddr,
}

impl Remote {
    /// The user that has this certificate now; `None` if it is revoked or expired.
    pub(super) fn user(&self, gateway: &Gateway) -> Option<UserRecord> {
        let view = gateway.node.state().borrow().clone();
        let mut users = view.state.users();
        let user = users.find(|user| user.certificate == self.fingerprint)?;
        (user.expires_ms > now_ms()).then(|| user.clone())
    }

    /// Returns when the certificate is revoked or expired.
    async fn revoked(&self, gateway: &Gateway) {
        let mut view = gateway.node.state();
        while let Some(user) = self.user(gateway) {
            let look = until_look(user.expires_ms, now_ms());
            if let Ok(Err(_)) = timeout(look, view.changed()).await {
                return;
            }
        }
    }
}

/// The time until the next check of a certificate that expires at `expires_ms`. It is short because the clock may be
/// set in between.
fn until_look(expires_ms: u64, now_ms: u64) -> Duration {
    let left = Duration::from_millis(expires_ms.saturating_sub(now_ms));
    left.clamp(Duration::from_millis(1), EXPIRY_LOOK_MAX)
}

/// Creates the socket that the agent connects to. Only root may use it.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves remote users until `stop`.
pub(crate) async fn serve(listener: UnixListener, shared: Shared, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let door = Arc::new(Door {
        gateway: shared.gateway.clone(),
        router: router(shared),
        made: Mutex::new(None),
    });
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = server::accept(&listener, &slots) => accepted,
        };
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection to the remote API was not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (door, stop) = (Arc::clone(&door), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = door.take(stream, stop).await {
                tracing::debug!(%error, "a connection to the remote API ended early");
            }
            drop(slot);
        });
    }
}

/// The routes of local callers, with a check of the user's role before them.
fn router(shared: Shared) -> Router {
    routes::routes()
        .layer(middleware::from_fn_with_state(
            shared.clone(),
            roles::authorize,
        ))
        .with_state(shared)
}

struct Door {
    gateway: Gateway,
    router: Router,
    made: Mutex<Option<Made>>,
}

/// A cached TLS configuration.
#[derive(Clone)]
struct Made {
    /// The key of the authority that issued its certificate.
    key: [u8; 32],
    /// The addresses of the host in its certificate.
    addresses: Vec<String>,
    /// When it was issued, in milliseconds since 1970.
    at_ms: u64,
    config: Arc<ServerConfig>,
}

impl Door {
    async fn take(&self, mut stream: UnixStream, stop: CancellationToken) -> io::Result<()> {
        // The socket's mode has the same rule; this check also holds if the permissions of the folder are wrong.
        if stream.peer_cred()?.uid() != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let from = timeout(PREAMBLE_TIME_MAX, preamble(&mut stream)).await??;
        let config = self.config().await?;
        let handshake = TlsAcceptor::from(config).accept(stream);
        let stream = timeout(HANDSHAKE_TIME_MAX, handshake).await??;
        let (_, session) = stream.get_ref();
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let certificate = certificate.ok_or(io::ErrorKind::PermissionDenied)?;
        let remote = Remote {
            fingerprint: fingerprint(certificate),
            from,
        };
        let router = self.router.clone().layer(Extension(remote));
        // A client without a valid user gets a response to its first request, so that it learns the reason.
        let known = remote.user(&self.gateway).is_some();
        let connection = server::connection(stream, router, stop);
        if !known {
            let _ = timeout(HANDSHAKE_TIME_MAX, connection).await;
            return Ok(());
        }
        tokio::select! {
            () = connection => {}
            () = remote.revoked(&self.gateway) => {}
        }
        Ok(())
    }

    /// A TLS configuration with a recent certificate of this host from the cluster's present authority.
    async fn config(&self) -> io::Result<Arc<ServerConfig>> {
        let view = self.gateway.node.state().borrow().clone();
        let authority = view.state.authority();
        let authority = authority.ok_or_else(|| {
            io::Error::other("no user exists yet: create one with `beemesh user create`")
        })?;
        let host = self.gateway.host;
        let (name, addresses) = match view.state.hosts().get(&host) {
            Some(own) => (own.name.clone(), own.addresses.clone()),
            None => (host.to_string(), Vec::new()),
        };
        let now = now_ms();
        let is_good = |one: &Made| {
            let age = Duration::from_millis(now.abs_diff(one.at_ms));
            one.key == authority.key && one.addresses == addresses && age < CERTIFICATE_AGE_MAX
        };
        if let Some(one) = self.made().as_ref().filter(|one| is_good(one)) {
            return Ok(Arc::clone(&one.config));
        }
        // If members do not answer, only this connection waits. If two connections issue a certificate at the same
        // time, the later one is kept.
        let sealing = sealing_keys::obtain(&self.gateway, authority.key).await;
        let sealing = sealing.map_err(io::Error::other)?;
        let issuer = Issuer::open(authority, &sealing, Duration::from_millis(now));
        let issuer = issuer.map_err(io::Error::other)?;
        let ips: Vec<IpAddr> = users::addresses(&addresses);
        let issued = issuer.host(&name, ips).map_err(io::Error::other)?;
        let config = Arc::new(tls(authority, issued).map_err(io::Error::other)?);
        *self.made() = Some(Made {
            key: authority.key,
            addresses,
            at_ms: now,
            config: Arc::clone(&config),
        });
        Ok(config)
    }

    fn made(&self) -> MutexGuard<'_, Option<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The TLS configuration: only TLS 1.3, and only clients with a certificate of the authority.
fn tls(authority: &Authority, issued: Issued) -> Result<ServerConfig, rustls::Error> {
    let own = CertificateDer::from(authority.certificate.clone());
    let mut roots = RootCertStore::empty();
    roots.add(own)?;
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![issued.certificate], PrivateKeyDer::Pkcs8(issued.key))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Reads the line with the client's address: `PROXY TCP4 192.0.2.7 192.0.2.1 40112 7443`.
async fn preamble(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<SocketAddr> {
    let mut line = Vec::with_capacity(PREAMBLE_MAX);
    while !line.ends_with(b"\r\n") {
        if line.len() == PREAMBLE_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        line.push(stream.read_u8().await?);
    }
    source(&line).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn source(line: &[u8]) -> Option<SocketAddr> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let mut words = line.split(' ');
    if words.next()? != "PROXY" || !matches!(words.next()?, "TCP4" | "TCP6") {
        return None;
    }
    let ip: IpAddr = words.next()?.parse().ok()?;
    let port = words.nth(1)?.parse().ok()?;
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, client::WebPkiServerVerifier, pki_types::ServerName};
    use tokio::io::AsyncWriteExt as _;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::{
        local::sealing_key::SealingKey,
        pki::authority::{SERVER_NAME, found},
    };

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    /// Whether a host with this authority accepts a client with this certificate, or without one.
    async fn takes(own: &(Authority, SealingKey), user: Option<Issued>) -> bool {
        let now = Duration::from_millis(now_ms());
        let host = Issuer::open(&own.0, &own.1, now).unwrap();
        let config = tls(&own.0, host.host("h1", []).unwrap()).unwrap();
        let (near, far) = tokio::io::duplex(16 << 10);
        let serve = async {
            let mut stream = TlsAcceptor::from(Arc::new(config)).accept(near).await?;
            stream.write_all(b"hello").await?;
            stream.shutdown().await
        };
        let mut roots = RootCertStore::empty();
        roots.add(own.0.certificate.clone().into()).unwrap();
        let provider = Arc::new(default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_webpki_verifier(verifier.build().unwrap());
        let client = match user {
            None => client.with_no_client_auth(),
            Some(user) => client
                .with_client_auth_cert(vec![user.certificate], user.key.into())
                .unwrap(),
        };
        let ask = async {
            let name = ServerName::try_from(SERVER_NAME).unwrap();
            let mut stream = TlsConnector::from(Arc::new(client))
                .connect(name, far)
                .await?;
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await?;
            io::Result::Ok(said == b"hello")
        };
        let (served, said) = tokio::join!(serve, ask);
        served.is_ok() && said.is_ok_and(|said| said)
    }

    #[tokio::test]
    async fn only_the_certificates_of_the_own_authority_are_taken() {
        let (own, other) = (found(NOW).unwrap(), found(NOW).unwrap());
        let user = |of: &(Authority, SealingKey)| {
            let now = Duration::from_millis(now_ms());
            let issuer = Issuer::open(&of.0, &of.1, now).unwrap();
            issuer.user("alice", Duration::from_secs(60)).unwrap()
        };
        assert!(takes(&own, Some(user(&own))).await);
        assert!(!takes(&own, None).await);
        assert!(!takes(&own, Some(user(&other))).await);
    }

    #[test]
    fn the_end_of_a_certificate_is_not_missed() {
        let ms = Duration::from_millis;
        for (expires, now, look) in [
            (10_000, 9_000, ms(1_000)),
            (10_000, 9_999, ms(1)),
            (10_000, 10_000, ms(1)),
            (10_000, 20_000, ms(1)),
            (u64::MAX, 0, EXPIRY_LOOK_MAX),
        ] {
            assert_eq!(until_look(expires, now), look, "{expires} {now}");
        }
    }

    #[tokio::test]
    async fn where_a_connection_comes_from_is_read_to_the_end_of_its_line_and_no_further() {
        let read = async |mut bytes: &[u8]| {
            let from = preamble(&mut bytes).await;
            (from.ok().map(|from| from.to_string()), bytes.len())
        };
        let line = b"PROXY TCP4 192.0.2.7 192.0.2.1 40112 7443\r\nhello";
        assert_eq!(read(line).await, (Some("192.0.2.7:40112".to_owned()), 5));
        let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 40112 7443\r\n";
        assert_eq!(
            read(line).await,
            (Some("[2001:db8::7]:40112".to_owned()), 0)
        );
        let long = [&[b'x'; PREAMBLE_MAX][..], b"\r\n"].concat();
        for bad in [
            &b""[..],
            b"PROXY TCP4 192.0.2.7",
            b"\r\n",
            b"PROXY UNKNOWN\r\n",
            b"PROXY TCP4 h1 h2 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 70000 1\r\n",
            b"GET / HTTP/1.1\r\n",
            &long,
        ] {
            assert_eq!(read(bad).await.0, None, "{}", bad.escape_ascii());
        }
    }
}
