//! The certificate authority of the remote API.
//!
//! Shell: reads keys and nonces from the kernel's random numbers. The authority's private key is in the replicated
//! state, sealed with a key that is in no log, no snapshot and no backup: the members send that key to each other.
//! Certificates are X.509 v3 (RFC 5280) with ECDSA over P-256.

use std::{net::IpAddr, time::Duration};

use beemesh_protocol::state::Authority;
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use crate::local::sealing_key::{SealingKey, hex, key_id};

/// A name in every host's certificate, whatever its addresses are. Clients verify this one.
pub(crate) const SERVER_NAME: &str = "beemesh";
/// Lifetime of the authority's own certificate.
const AUTHORITY_TIME: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Lifetime of a host's certificate. A host issues itself a new one each day.
const HOST_TIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Maximum difference between the clocks of hosts and users.
const CLOCKS_APART: Duration = Duration::from_secs(3600);
/// Size of the nonce in front of the sealed bytes, in bytes.
const NONCE: usize = 24;

/// A certificate and its private key.
pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) certificate_pem: String,
    pub(crate) key: PrivatePkcs8KeyDer<'static>,
    pub(crate) key_pem: String,
}

/// Why a certificate cannot be issued or checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// The kernel returned no random bytes.
    #[error("read random bytes: {0}")]
    Random(getrandom::Error),
    /// The sealed bytes do not match this key.
    #[error("the private key of the certificate authority is damaged, or sealed with another key")]
    Sealed,
    /// The X.509 library returned an error.
    #[error("make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// Returns the id of a certificate in the replicated state.
pub(crate) fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

/// Creates an authority and the key that seals it. `now` is the time since 1970.
pub(crate) fn found(now: Duration) -> Result<(Authority, SealingKey), AuthorityError> {
    let sealing: SealingKey = random()?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = authority_params(&key_id(&sealing), now).self_signed(&key)?;
    let certificate = certificate.der().to_vec();
    let nonce: [u8; NONCE] = random()?;
    let payload = Payload {
        msg: key.serialized_der(),
        aad: &certificate,
    };
    let cipher = XChaCha20Poly1305::new(&sealing.into());
    let encrypted = cipher.encrypt(XNonce::from_slice(&nonce), payload);
    let encrypted = encrypted.map_err(|_| AuthorityError::Sealed)?;
    let authority = Authority {
        certificate,
        key: key_id(&sealing),
        sealed: [&nonce[..], &encrypted].concat(),
    };
    Ok((authority, sealing))
}

/// An authority with its unsealed private key.
pub(crate) struct Issuer {
    key: KeyPair,
    /// Has the same name and key as the certificate in the state, which is what a signature refers to.
    certificate: Certificate,
    now: Duration,
}

impl Issuer {
    /// Unseals the authority. `now` is the time since 1970, at which issued certificates become valid.
    pub(crate) fn open(
        authority: &Authority,
        sealing: &SealingKey,
        now: Duration,
    ) -> Result<Self, AuthorityError> {
        let (nonce, encrypted) = authority
            .sealed
            .split_at_checked(NONCE)
            .ok_or(AuthorityError::Sealed)?;
        let payload = Payload {
            msg: encrypted,
            aad: &authority.certificate,
        };
        let cipher = XChaCha20Poly1305::new(sealing.into());
        let opened = cipher.decrypt(XNonce::from_slice(nonce), payload);
        let opened = opened.map_err(|_| AuthorityError::Sealed)?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(opened),
            &PKCS_ECDSA_P256_SHA256,
        )?;
        let certificate = authority_params(&authority.key, now).self_signed(&key)?;
        Ok(Self {
            key,
            certificate,
            now,
        })
    }

    /// Issues a certificate for a user. The certificate itself identifies the user; the name in it is only informative.
    pub(crate) fn user(&self, name: &str, good_for: Duration) -> Result<Issued, AuthorityError> {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        self.issue(params(name, self.now, good_for), usage)
    }

    /// Issues a certificate for a host with this name and these addresses, besides [`SERVER_NAME`].
    pub(crate) fn host(
        &self,
        name: &str,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Issued, AuthorityError> {
        let mut params = params(name, self.now, HOST_TIME);
        let names = [SERVER_NAME, name].map(|name| name.to_owned().try_into());
        // A host name that is not a valid DNS name is left out.
        let names = names.into_iter().filter_map(Result::ok);
        params.subject_alt_names = names
            .map(SanType::DnsName)
            .chain(addresses.into_iter().map(SanType::IpAddress))
            .collect();
        self.issue(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Issued, AuthorityError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.certificate, &self.key)?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            key: key.serialize_der().into(),
            key_pem: key.serialize_pem(),
        })
    }
}

/// Each authority has a different name, so that a client does not confuse two authorities.
fn authority_params(key_id: &[u8; 32], now: Duration) -> CertificateParams {
    let id: String = hex(key_id).chars().take(16).collect();
    let mut params = params(&format!("Beemesh {id}"), now, AUTHORITY_TIME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn params(name: &str, now: Duration, good_for: Duration) -> CertificateParams {
    let since_1970 = |time: Duration| date_time_ymd(1970, 1, 1) + time;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.not_before = since_1970(now.saturating_sub(CLOCKS_APART));
    params.not_after = since_1970(now + good_for);
    params
}

/// Returns random bytes from the kernel.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], AuthorityError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(AuthorityError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        RootCertStore,
        crypto::ring::default_provider,
        pki_types::UnixTime,
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    };

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn verifier(authority: &Authority) -> Arc<dyn ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from(authority.certificate.clone());
        roots.add(certificate).unwrap();
        WebPkiClientVerifier::builder_with_provider(roots.into(), default_provider().into())
            .build()
            .unwrap()
    }

    #[test]
    fn what_it_issues_is_good_for_its_time_and_purpose_and_from_it_alone() {
        let (authority, sealing) = found(NOW).unwrap();
        let later = NOW + Duration::from_secs(100 * 24 * 3600);
        let issuer = Issuer::open(&authority, &sealing, later).unwrap();
        let alice = issuer.user("alice", Duration::from_secs(60)).unwrap();
        let host = issuer.host("h1", ["192.0.2.1".parse().unwrap()]).unwrap();
        let good = |verifier: &Arc<dyn ClientCertVerifier>, one: &Issued, after: u64| {
            let at = UnixTime::since_unix_epoch(later + Duration::from_secs(after));
            verifier
                .verify_client_cert(&one.certificate, &[], at)
                .is_ok()
        };
        let own = verifier(&authority);
        assert!(good(&own, &alice, 0) && good(&own, &alice, 59));
        assert!(!good(&own, &alice, 61), "expired");
        assert!(!good(&own, &host, 0), "a host's is no user's");
        let (other, _) = found(NOW).unwrap();
        assert!(!good(&verifier(&other), &alice, 0), "of another authority");
    }

    #[test]
    fn the_private_key_opens_with_its_own_key_and_certificate_only() {
        let (authority, sealing) = found(NOW).unwrap();
        let opens = |authority: &Authority, sealing: &SealingKey| {
            Issuer::open(authority, sealing, NOW).is_ok()
        };
        assert!(opens(&authority, &sealing));
        assert!(!opens(&authority, &[0; 32]));
        let (other, other_sealing) = found(NOW).unwrap();
        assert!(!opens(&authority, &other_sealing));
        let certificate = other.certificate;
        assert!(!opens(
            &Authority {
                certificate,
                ..authority.clone()
            },
            &sealing
        ));
        let sealed = authority.sealed[..10].to_vec();
        assert!(!opens(
            &Authority {
                sealed,
                ..authority
            },
            &sealing
        ));
    }
}
