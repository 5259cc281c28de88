//! The life of this host: whether it is alone, a member, or changing from one to the other.
//!
//! Pure: no I/O, no clock, no randomness. Input: the current state and an event. Output: the next state, or why the
//! event is forbidden. [`store`] keeps the state on the disk and notifies its watchers.

mod markers;
pub(crate) mod store;

use std::fmt;

use beemesh_protocol::{ClusterId, HostId, ipc::Member};
use serde::{Deserialize, Serialize};

/// The state of this host's membership, from which a restart continues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Life {
    /// In a cluster of one, or about to found it.
    Alone,
    /// In a cluster with others.
    Member,
    /// Admitted to a cluster whose log this host does not have yet.
    Joining(Joining),
    /// No longer a member of its cluster.
    Removed {
        /// The cluster that this host was in.
        cluster: ClusterId,
        /// The index in this host's own log at which it was removed; `None` if a member reported the removal, because
        /// the member's log is longer.
        at: Option<u64>,
    },
    /// A member that is changing its key.
    RotatingKey(Rotation),
    /// About to turn its log into that of a cluster of one.
    Recovering {
        /// The id of the new cluster.
        cluster: ClusterId,
    },
}

/// A join in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Joining {
    /// The cluster that admitted this host.
    pub(crate) cluster: ClusterId,
    /// Whether the log of the cluster that this host leaves has been removed.
    pub(crate) cleared: bool,
    /// The members of the new cluster, including this host.
    pub(crate) members: Vec<Expected>,
}

/// A member, as a join stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    host: HostId,
    name: String,
    addresses: Vec<String>,
}

/// The progress of a key change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Rotation {
    /// The agent is creating the new key; no other host knows it.
    Making,
    /// This host has proposed the new key to the cluster and does not know the outcome. It still uses the old key.
    Proposed {
        /// The new key.
        host: HostId,
    },
    /// The new key is a member, and the old key is not.
    Admitted {
        /// The new key.
        host: HostId,
        /// The cluster that the new key joins.
        joining: Joining,
    },
}

/// An event in the life of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A cluster admitted this host.
    Admitted(Joining),
    /// The log of the cluster that it left has been removed.
    Cleared,
    /// This host has applied its own admission.
    Joined,
    /// Another host has joined the cluster.
    Grown,
    /// This host is no longer a member of this cluster; `at` as in [`Life::Removed`].
    Removed { cluster: ClusterId, at: Option<u64> },
    /// The host's own log contains an admission behind its removal.
    Readmitted { at: u64 },
    /// An administrator requests another key.
    KeyAsked,
    /// The host is about to propose the new key.
    KeyProposed { host: HostId },
    /// The cluster has admitted the new key.
    KeyAdmitted(Joining),
    /// The cluster has not admitted the new key, and will not.
    KeyKept,
    /// The agent uses the new key.
    KeyTaken,
    /// An administrator requests that this host continue as a cluster of one.
    RecoveryAsked { cluster: ClusterId },
    /// The log is that of a cluster of one.
    Recovered,
}

/// The event is not allowed in this state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this host {life}, so it cannot {event} now")]
pub(crate) struct Forbidden {
    /// The state, as a phrase that follows `this host`.
    pub(crate) life: &'static str,
    /// The event, as a phrase that follows `cannot`.
    pub(crate) event: &'static str,
}

impl Life {
    /// Returns the next state.
    pub(crate) fn after(&self, event: Event) -> Result<Self, Forbidden> {
        let forbidden = Forbidden {
            life: self.words(),
            event: event.words(),
        };
        Ok(match (self.clone(), event) {
            // A later admission replaces an earlier one.
            (
                Self::Alone | Self::Member | Self::Joining(_) | Self::Removed { .. },
                Event::Admitted(joining),
            ) => Self::Joining(joining),
            (Self::Joining(joining), Event::Cleared) => Self::Joining(Joining {
                cleared: true,
                ..joining
            }),
            (Self::Joining(Joining { cleared: true, .. }), Event::Joined)
            | (Self::Alone, Event::Grown) => Self::Member,
            (Self::Alone | Self::Member, Event::Removed { cluster, at }) => {
                Self::Removed { cluster, at }
            }
            // A member's log is longer than this host's, so its report replaces the index.
            (Self::Removed { cluster, .. }, Event::Removed { at: None, .. }) => {
                Self::Removed { cluster, at: None }
            }
            (life @ Self::Removed { .. }, Event::Removed { .. }) => life,
            (Self::Removed { at: Some(at), .. }, Event::Readmitted { at: later }) if later > at => {
                Self::Member
            }
            (Self::Alone | Self::Member, Event::KeyAsked) => Self::RotatingKey(Rotation::Making),
            (Self::RotatingKey(Rotation::Making), Event::KeyProposed { host }) => {
                Self::RotatingKey(Rotation::Proposed { host })
            }
            (Self::RotatingKey(Rotation::Proposed { host }), Event::KeyAdmitted(joining)) => {
                Self::RotatingKey(Rotation::Admitted { host, joining })
            }
            (Self::RotatingKey(Rotation::Making | Rotation::Proposed { .. }), Event::KeyKept) => {
                Self::Member
            }
            (Self::RotatingKey(Rotation::Admitted { joining, .. }), Event::KeyTaken) => {
                Self::Joining(joining)
            }
            // No member is left that could tell whether the cluster admitted the new key, so this host keeps the old
            // one.
            (
                Self::Alone
                | Self::Member
                | Self::Joining(Joining { cleared: true, .. })
                | Self::RotatingKey(Rotation::Making | Rotation::Proposed { .. }),
                Event::RecoveryAsked { cluster },
            ) => Self::Recovering { cluster },
            (Self::Recovering { .. }, Event::Recovered) => Self::Alone,
            _ => return Err(forbidden),
        })
    }

    /// Returns true if the gateway must restart with another log or another key before it continues.
    pub(crate) fn begins_again(&self) -> bool {
        matches!(
            self,
            Self::Joining(Joining { cleared: false, .. })
                | Self::RotatingKey(Rotation::Admitted { .. })
                | Self::Recovering { .. }
        )
    }

    pub(crate) fn is_removed(&self) -> bool {
        matches!(self, Self::Removed { .. })
    }

    /// Returns the join in progress, if any.
    pub(crate) fn joining(&self) -> Option<&Joining> {
        match self {
            Self::Joining(joining) => Some(joining),
            _ => None,
        }
    }

    fn words(&self) -> &'static str {
        match self {
            Self::Alone => "is alone in its cluster",
            Self::Member => "is a member of a cluster",
            Self::Joining(_) => "is joining a cluster",
            Self::Removed { .. } => "was removed from its cluster",
            Self::RotatingKey(_) => "is changing its key",
            Self::Recovering { .. } => "is recovering as a cluster of one",
        }
    }
}

impl Event {
    fn words(&self) -> &'static str {
        match self {
            Self::Admitted(_) => "join a cluster",
            Self::Cleared => "forget the log of its last cluster",
            Self::Joined => "have joined",
            Self::Grown => "have another host in its cluster",
            Self::Removed { .. } => "be removed",
            Self::Readmitted { .. } => "be admitted again",
            Self::KeyAsked => "change its key",
            Self::KeyProposed { .. } => "propose another key",
            Self::KeyAdmitted(_) => "have another key",
            Self::KeyKept => "keep its key",
            Self::KeyTaken => "use another key",
            Self::RecoveryAsked { .. } => "go on alone",
            Self::Recovered => "have gone on alone",
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl From<Member> for Expected {
    fn from(member: Member) -> Self {
        Self {
            host: member.host,
            name: member.name,
            addresses: member.addresses,
        }
    }
}

impl From<Expected> for Member {
    fn from(expected: Expected) -> Self {
        Self {
            host: expected.host,
            name: expected.name,
            addresses: expected.addresses,
        }
    }
}

#[cfg(test)]
mod tests;
