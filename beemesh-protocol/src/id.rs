//! The ids of hosts, clusters and objects.
//!
//! Pure: parsing, printing and hashing only. A host's id is its ed25519 public key. It prints as the libp2p PeerId of that key,
//! so one string identifies a host in the mesh, in Raft and in messages.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::hex::{self, Hex};

/// The bytes before the key in the PeerId of an ed25519 key: an identity multihash (0x00) of 36 bytes, which has the
/// protobuf fields key type (1 = ed25519) and data (32 bytes). libp2p specification, `peer-ids/peer-ids.md`.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// A host: its ed25519 public key. Also the Raft node id.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub [u8; 32]);

/// The text is not the PeerId of an ed25519 key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the PeerId of an ed25519 key")]
pub struct HostIdError(String);

impl HostId {
    /// The bytes of the libp2p PeerId: a multihash of the key.
    #[must_use]
    pub fn to_peer_id_bytes(self) -> [u8; 38] {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        bytes
    }

    /// Parses the bytes of a libp2p PeerId; `None` if they are not the PeerId of an ed25519 key.
    #[must_use]
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Option<Self> {
        let key = bytes.strip_prefix(&PEER_ID_PREFIX)?;
        Some(Self(key.try_into().ok()?))
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&bs58::encode(self.to_peer_id_bytes()).into_string())
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for HostId {
    type Err = HostIdError;

    fn from_str(text: &str) -> Result<Self, HostIdError> {
        bs58::decode(text)
            .into_vec()
            .ok()
            .and_then(|bytes| Self::from_peer_id_bytes(&bytes))
            .ok_or_else(|| HostIdError(text.to_owned()))
    }
}

impl Serialize for HostId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A cluster: 16 random bytes, generated when the first host founds it. Prints as 32 hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

/// The text is not 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a cluster id of 32 hex digits")]
pub struct ClusterIdError(String);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Hex(&self.0), f)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClusterId {
    type Err = ClusterIdError;

    fn from_str(text: &str) -> Result<Self, ClusterIdError> {
        let id = hex::decode(text);
        id.map(Self).ok_or_else(|| ClusterIdError(text.to_owned()))
    }
}

impl Serialize for ClusterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClusterId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The UID of an object, as in Kubernetes: an object that is deleted and created again gets another one. Prints as a
/// UUID.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(pub [u8; 16]);

/// The text is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a UUID")]
pub struct UidError(String);

impl Uid {
    /// The UID of the object that this cluster created as its `number`-th one, in the log entry at `index`. Every host
    /// derives the same one. RFC 9562 calls it version 8.
    #[must_use]
    pub fn derive(cluster: ClusterId, index: u64, number: u64) -> Self {
        let mut hash = Sha256::new_with_prefix(b"beemesh uid");
        hash.update(cluster.0);
        hash.update(index.to_be_bytes());
        hash.update(number.to_be_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        bytes[6] = 0x80 | bytes[6] & 0x0f;
        bytes[8] = 0x80 | bytes[8] & 0x3f;
        Self(bytes)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |range| Hex(&self.0[range]);
        write!(
            f,
            "{}-{}-{}-{}-{}",
            hex(0..4),
            hex(4..6),
            hex(6..8),
            hex(8..10),
            hex(10..16)
        )
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uid {
    type Err = UidError;

    fn from_str(text: &str) -> Result<Self, UidError> {
        let uid = hex::decode(&text.replace('-', "")).map(Self);
        uid.filter(|uid| uid.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| UidError(text.to_owned()))
    }
}

impl Serialize for Uid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Uid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_id_prints_as_the_peer_id_of_its_key() {
        let id = HostId([7; 32]);
        let text = id.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(
            "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
                .parse::<HostId>()
                .ok(),
            None
        );
    }

    #[test]
    fn cluster_id_reads_what_it_prints_and_nothing_else() {
        let id = ClusterId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "ab", "zz", &"é".repeat(16), &"a".repeat(33)] {
            assert!(wrong.parse::<ClusterId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_uid_is_a_uuid_of_its_own_for_each_creation() {
        let cluster = ClusterId([7; 16]);
        let uid = Uid::derive(cluster, 9, 4);
        // Hosts of all releases derive the same ones.
        assert_eq!(uid.to_string(), "2423f9c9-3021-80c2-84e6-0d9ce5d09eb2");
        assert_eq!(uid.to_string().parse(), Ok(uid));
        assert_eq!(uid.to_string().to_uppercase().parse(), Ok(uid));
        for other in [
            Uid::derive(ClusterId([8; 16]), 9, 4),
            Uid::derive(cluster, 10, 4),
            Uid::derive(cluster, 9, 5),
        ] {
            assert_ne!(other, uid);
        }
        for wrong in [
            "",
            "ab",
            &"0".repeat(32),
            &format!("{uid}-"),
            &"-".repeat(36),
        ] {
            assert!(wrong.parse::<Uid>().is_err(), "{wrong}");
        }
    }
}
