//! The connection to a remote cluster: TLS 1.3 with the certificate that `beemesh user create` printed.
//!
//! Shell. The client accepts any host certificate that the cluster's authority has issued, whatever the host's address
//! is. The configuration contains the certificate of the authority, and no other authority is trusted.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use beemesh_protocol::api::ClientConfig;
use rustls::{
    ClientConfig as Tls, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    version::TLS13,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::trouble::Trouble;

/// The name in every host's certificate.
const SERVER_NAME: &str = "beemesh";
/// The client tries the next host if one does not accept a connection in this time.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Bytes of the longest configuration file.
const FILE_MAX: u64 = 1 << 20;

/// The addresses of a cluster and the credentials of a user.
#[derive(Clone)]
pub(crate) struct Remote {
    servers: Vec<String>,
    tls: Arc<Tls>,
}

/// The reason why no server can be reached.
#[derive(Debug)]
pub(crate) struct NotConnected {
    /// The reasons of all servers.
    pub(crate) reason: String,
    /// Whether a server has a certificate of another authority, so that waiting does not help.
    pub(crate) foreign: bool,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote")
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

impl Remote {
    /// Reads a configuration file that `beemesh user create` printed.
    pub(crate) fn load(file: &Path) -> Result<Self, Trouble> {
        let failed = |reason: &dyn std::fmt::Display| {
            Trouble::failed(format!("cannot use {}: {reason}", file.display()))
        };
        let metadata = fs::metadata(file).map_err(|error| failed(&error))?;
        if metadata.len() > FILE_MAX {
            return Err(failed(&"the file is larger than 1 MiB"));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            let file = file.display();
            eprintln!(
                "warning: other users can read the private key in {file}: run `chmod 600 {file}`"
            );
        }
        let text = fs::read_to_string(file).map_err(|error| failed(&error))?;
        let config = serde_yaml::from_str(&text).map_err(|error| {
            failed(&format_args!(
                "not a configuration file of `beemesh user create`: {error}"
            ))
        })?;
        Self::new(config).map_err(|reason| failed(&reason))
    }

    fn new(config: ClientConfig) -> Result<Self, String> {
        if config.servers.is_empty() {
            return Err("`servers` is empty".to_owned());
        }
        let wrong = |field: &str, error: &dyn std::fmt::Display| format!("`{field}`: {error}");
        let pem = |field: &str, text: &str| {
            CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| wrong(field, &error))
        };
        let mut roots = RootCertStore::empty();
        let added = roots.add(pem("authority", &config.authority)?);
        added.map_err(|error| wrong("authority", &error))?;
        let certificate = pem("certificate", &config.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(config.key.as_bytes());
        let key = key.map_err(|error| wrong("key", &error))?;
        let tls = Tls::builder_with_provider(default_provider().into())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .map_err(|error| wrong("key", &error))?;
        Ok(Self {
            servers: config.servers,
            tls: tls.into(),
        })
    }

    /// Connects to the first server that answers. The error has the reason of each server.
    pub(crate) async fn connect(&self) -> Result<TlsStream<TcpStream>, NotConnected> {
        let mut foreign = false;
        let mut reasons = Vec::new();
        for server in &self.servers {
            match timeout(CONNECT_TIME_MAX, self.one(server)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => {
                    let tls = tls_error(&error);
                    foreign |= matches!(tls, Some(rustls::Error::InvalidCertificate(_)));
                    reasons.push(format!("{server}: {error}"));
                }
                Err(_) => reasons.push(format!("{server}: connection timed out")),
            }
        }
        Err(NotConnected {
            reason: reasons.join("; "),
            foreign,
        })
    }

    async fn one(&self, server: &str) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        connector.connect(name, stream).await
    }

    /// The servers, for messages.
    pub(crate) fn name(&self) -> String {
        self.servers.join(", ")
    }
}

/// Returns true if the server has rejected the client's certificate. In TLS 1.3 the client learns that with the first
/// response.
pub(crate) fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(tls_error(error), Some(rustls::Error::AlertReceived(_)))
}

/// The error of TLS in an error of the connection.
pub(crate) fn tls_error<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(one) = next {
        let inner = one.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref()) {
            return Some(tls);
        }
        next = one.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut ClientConfig)) -> String {
        let mut config = ClientConfig {
            user: "alice".to_owned(),
            servers: vec!["192.0.2.1:7443".to_owned()],
            authority: String::new(),
            certificate: String::new(),
            key: String::new(),
        };
        change(&mut config);
        Remote::new(config).expect_err("it is nonsense")
    }

    #[test]
    fn what_is_wrong_with_a_configuration_is_named() {
        assert_eq!(
            refused(|config| config.servers.clear()),
            "`servers` is empty"
        );
        let empty = refused(|_| {});
        assert!(empty.starts_with("`authority`: "), "{empty}");
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let nonsense = refused(|config| pem.clone_into(&mut config.authority));
        assert!(nonsense.starts_with("`authority`: "), "{nonsense}");
    }
}
