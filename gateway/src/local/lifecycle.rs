//! The life of this host: whether it is alone, a member, or on the way from one to the other.
//!
//! Pure: no I/O, no clock, no randomness. Input: the state that a host is in, and what happens to it. Output: the state that follows, or why
//! none does. [`store`] keeps the state on the disk and tells everybody who waits for it.

mod markers;
pub(crate) mod store;

use std::fmt;

use beemesh_protocol::{ClusterId, HostId, ipc::Member};
use serde::{Deserialize, Serialize};

/// What this host is to its cluster. It is what a restart goes on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Life {
    /// In a cluster of its own, or about to found it.
    Alone,
    /// In a cluster with others.
    Member,
    /// Admitted to a cluster whose log it does not have yet.
    Joining(Joining),
    /// No member of its cluster any more.
    Removed {
        /// The cluster that it was in.
        cluster: ClusterId,
        /// The index of its own log that says so; `None` if a member said it, whose log is longer.
        at: Option<u64>,
    },
    /// A member that is getting another key.
    RotatingKey(Rotation),
    /// To make its log that of a cluster of its own.
    Recovering {
        /// The id of that cluster.
        cluster: ClusterId,
    },
}

/// A join that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Joining {
    /// The cluster that admitted this host.
    pub(crate) cluster: ClusterId,
    /// Whether the log of the cluster that this host leaves is gone already.
    pub(crate) cleared: bool,
    /// The members of the new cluster, this host included.
    pub(crate) members: Vec<Expected>,
}

/// A member as a join keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    host: HostId,
    name: String,
    addresses: Vec<String>,
}

/// How far a change of this host's key is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Rotation {
    /// The agent makes the new key; no other host knows it.
    Making,
    /// This host has asked the cluster to take the new key, and does not know the answer. It uses the old key.
    Proposed {
        /// The new key.
        host: HostId,
    },
    /// The new key is a member's, and the old one is not.
    Admitted {
        /// The new key.
        host: HostId,
        /// What it joins.
        joining: Joining,
    },
}

/// What happens to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A cluster admitted it.
    Admitted(Joining),
    /// The log of the cluster that it left is gone.
    Cleared,
    /// It has applied its own admission.
    Joined,
    /// Another host has joined its cluster.
    Grown,
    /// It is no member of this cluster any more; `at` as in [`Life::Removed`].
    Removed { cluster: ClusterId, at: Option<u64> },
    /// Its own log has a later admission than its removal.
    Readmitted { at: u64 },
    /// An administrator asks for another key.
    KeyAsked,
    /// The new key is about to be proposed.
    KeyProposed { host: HostId },
    /// The cluster has taken the new key.
    KeyAdmitted(Joining),
    /// The cluster has not, and will not.
    KeyKept,
    /// The agent uses the new key.
    KeyTaken,
    /// An administrator has this host go on alone.
    RecoveryAsked { cluster: ClusterId },
    /// Its log is that of a cluster of its own.
    Recovered,
}

/// The event is not allowed in this state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this host {life}, so it cannot {event} now")]
pub(crate) struct Forbidden {
    /// The state, in words that follow `this host`.
    pub(crate) life: &'static str,
    /// What was to happen, in words.
    pub(crate) event: &'static str,
}

impl Life {
    /// The state that follows.
    pub(crate) fn after(&self, event: Event) -> Result<Self, Forbidden> {
        let forbidden = Forbidden {
            life: self.words(),
            event: event.words(),
        };
        Ok(match (self.clone(), event) {
            // The later of two admissions counts.
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
            // A member has read more than this host's log has.
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
            // No member is left that could tell whether the cluster took the new key: this host keeps the old one.
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

    /// Whether the gateway must begin again before it goes on: with another log, or another key.
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

    /// The join that is under way, if one is.
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
