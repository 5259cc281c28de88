//! The properties of each replicated change, in one place.
//!
//! Pure. A new change gets its name, its subject, its size and the release that introduced it here, and its effect in
//! [`State::apply`](super::state::State::apply). The names are in the audit log and in the journal's fields, so they
//! must not change.

use std::collections::BTreeMap;

use beemesh_protocol::{
    HostId,
    state::{Change, Command, Host, Object, Origin, ResolvedImages},
    version::Version,
};
use beemesh_quadlet::manifest::{is_workload, workload_name};

use super::state::ROLLED;

/// Approximate size of a change in a log entry without its texts, in bytes.
const REST: usize = 256;
/// Approximate size of a text in a list without the text itself, in bytes.
const PART_REST: usize = 32;

/// Approximate size of a resolved image without its reference, in bytes.
const RESOLVED_REST: usize = 96;

/// Longest detail of a change in the audit log, which keeps a thousand.
const DETAIL_MAX: usize = 128;

/// The properties of a change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    /// The noun and the verb of the change for messages: `manifest`, `applied`.
    pub(crate) verb: (&'static str, &'static str),
    /// The subject of the change.
    pub(crate) subject: Subject<'a>,
    /// The objects in the change.
    objects: &'a [Object],
    /// The size of its other parts without a fixed limit, in bytes.
    bytes: usize,
    /// The first release whose gateways know the change; a gateway of an older release stops when it reads it. `None`
    /// if the gateways of all releases know it.
    since: Option<Version>,
}

/// The subject of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Subject<'a> {
    /// A subject with this name.
    Named(&'a str),
    /// A host, whose name the state has.
    Host(HostId),
    /// A join token.
    Token([u8; 8]),
    /// A level of the state machine's rules.
    Level(u32),
}

impl Subject<'_> {
    /// The subject's name for messages. Call this before the change, which may remove the subject.
    pub(crate) fn name(self, hosts: &BTreeMap<HostId, Host>) -> String {
        match self {
            Self::Named(name) => name.to_owned(),
            Self::Host(id) => match hosts.get(&id) {
                Some(host) => host.name.clone(),
                None => id.to_string(),
            },
            Self::Token(id) => token_id(&id),
            Self::Level(level) => level.to_string(),
        }
    }
}

/// A join token's id as text.
pub(crate) fn token_id(id: &[u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(*id))
}

/// The properties of this change.
pub(crate) fn about(change: &Change) -> About<'_> {
    use Subject::{Level, Named, Token};
    const V0_2_0: Version = Version::new(0, 2, 0);
    const V0_2_1: Version = Version::new(0, 2, 1);
    const V0_4_0: Version = Version::new(0, 4, 0);
    const V0_5_0: Version = Version::new(0, 5, 0);
    match change {
        Change::Found { host, .. } => {
            About::new("cluster", "founded", Named(&host.name)).bytes(host_size(host))
        }
        Change::Apply {
            manifest,
            objects,
            if_index,
            ..
        } => About {
            objects,
            since: if_index.map(|_| V0_4_0),
            ..About::new("manifest", "applied", Named(manifest))
        },
        Change::DeleteWorkload { workload } => About::new("workload", "deleted", Named(workload)),
        Change::DeleteManifest { manifest } => About::new("manifest", "deleted", Named(manifest)),
        Change::PutToken(token) => About::new("join token", "created", Token(token.id)),
        Change::RevokeToken { token } => {
            About::new("join token", "revoked", Token(*token)).since(V0_2_0)
        }
        Change::Admit { host, replaces, .. } => About {
            since: replaces.map(|_| V0_2_0),
            ..About::new("host", "admitted", Named(&host.name)).bytes(host_size(host))
        },
        Change::PutHost(host) => {
            About::new("host", "updated", Named(&host.name)).bytes(host_size(host))
        }
        Change::RemoveHost { host } => About::new("host", "removed", Subject::Host(*host)),
        Change::LabelHost { host, set, remove } => {
            let remove = remove.iter().map(|key| key.len() + PART_REST);
            About::new("host", "labelled", Subject::Host(*host))
                .bytes(labels_size(set) + remove.sum::<usize>())
                .since(V0_2_0)
        }
        Change::DrainHost { host, drained } => {
            let verb = if *drained { "drained" } else { "undrained" };
            About::new("host", verb, Subject::Host(*host)).since(V0_2_0)
        }
        Change::DemoteHost { host } => {
            About::new("host", "demoted", Subject::Host(*host)).since(V0_2_0)
        }
        Change::LoseHost { host, .. } => {
            About::new("host", "lost", Subject::Host(*host)).since(V0_5_0)
        }
        Change::ReturnHost { host, .. } => {
            About::new("host", "returned", Subject::Host(*host)).since(V0_5_0)
        }
        Change::PutAuthority { authority, .. } => {
            About::new("authority", "made", Named("remote API"))
                .bytes(authority.certificate.len() + authority.sealed.len())
                .since(V0_2_0)
        }
        Change::PutUser(user) => About::new("user", "created", Named(&user.name)).since(V0_2_0),
        Change::RevokeUser { user } => About::new("user", "revoked", Named(user)).since(V0_2_0),
        Change::SetPolicy { document, .. } => About::new("policy", "set", Named("manifests"))
            .bytes(document.len())
            .since(V0_2_0),
        Change::RaiseLevel { level } => About::new("level", "raised", Level(*level)).since(V0_2_1),
        Change::RequireLevel { level } => {
            let since = if *level > ROLLED { V0_5_0 } else { V0_4_0 };
            About::new("level", "raised", Level(*level)).since(since)
        }
        Change::Assign { workload, .. } => {
            About::new("workload", "assigned", Named(workload)).since(V0_2_1)
        }
        Change::EndJob {
            workload, reason, ..
        } => About::new("job", "ended", Named(workload))
            .bytes(reason.len())
            .since(V0_2_1),
        Change::Roll {
            workload,
            hosts,
            numbers,
            ..
        } => About::new("workload", "moved to a revision", Named(workload))
            .bytes(size_of_val(&hosts[..]) + size_of_val(&numbers[..]))
            .since(if numbers.is_empty() { V0_4_0 } else { V0_5_0 }),
        Change::EndRollout {
            workload,
            reason,
            images,
            ..
        } => About::new("rollout", "ended", Named(workload))
            .bytes(reason.len() + images_size(images))
            .since(V0_4_0),
        Change::PauseRollout { workload, paused } => {
            let verb = if *paused { "paused" } else { "resumed" };
            About::new("rollout", verb, Named(workload)).since(V0_4_0)
        }
        Change::Undo { workload, .. } => {
            About::new("rollout", "undone", Named(workload)).since(V0_4_0)
        }
    }
}

/// The detail of a change for the audit log, such as `zone=a` or `replaces h3`. At most [`DETAIL_MAX`] bytes; empty if
/// the verb says all.
pub(crate) fn detail(change: &Change, origin: &Origin, hosts: &BTreeMap<HostId, Host>) -> String {
    let text = match change {
        Change::LabelHost { set, remove, .. } => {
            let set = set.iter().map(|(key, value)| format!("{key}={value}"));
            let removed = remove.iter().map(|key| format!("{key}-"));
            set.chain(removed).collect::<Vec<_>>().join(" ")
        }
        // A host requests its own replacement only if it changes its key.
        Change::Admit {
            replaces: Some(old),
            ..
        } if *old == origin.host => "new key".to_owned(),
        Change::Admit {
            replaces: Some(old),
            ..
        } => format!("replaces {}", Subject::Host(*old).name(hosts)),
        Change::PutUser(user) => format!("role {}", user.role.name()),
        Change::PutToken(token) => match token.uses {
            1 => "for 1 host".to_owned(),
            uses => format!("for {uses} hosts"),
        },
        Change::PutHost(host) => host.name.clone(),
        Change::LoseHost { declared: true, .. } => "declared".to_owned(),
        Change::ReturnHost { steady_at_ms, .. } if *steady_at_ms > 0 => "comes and goes".to_owned(),
        Change::Undo { revision, .. } => format!("to revision {revision}"),
        Change::Found { .. }
        | Change::Apply { .. }
        | Change::DeleteWorkload { .. }
        | Change::DeleteManifest { .. }
        | Change::RevokeToken { .. }
        | Change::Admit { replaces: None, .. }
        | Change::RemoveHost { .. }
        | Change::DrainHost { .. }
        | Change::DemoteHost { .. }
        | Change::LoseHost { .. }
        | Change::ReturnHost { .. }
        | Change::PutAuthority { .. }
        | Change::RevokeUser { .. }
        | Change::SetPolicy { .. }
        | Change::RaiseLevel { .. }
        | Change::RequireLevel { .. }
        | Change::Assign { .. }
        | Change::EndJob { .. }
        | Change::Roll { .. }
        | Change::EndRollout { .. }
        | Change::PauseRollout { .. } => String::new(),
    };
    let end = text.floor_char_boundary(DETAIL_MAX);
    text[..end].to_owned()
}

impl<'a> About<'a> {
    fn new(noun: &'static str, verb: &'static str, subject: Subject<'a>) -> Self {
        Self {
            verb: (noun, verb),
            subject,
            objects: &[],
            bytes: 0,
            since: None,
        }
    }

    fn bytes(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    fn since(self, since: Version) -> Self {
        Self {
            since: Some(since),
            ..self
        }
    }

    /// The first release that applies this change correctly, and a name of the change for messages.
    pub(crate) fn needs(&self) -> Option<(Version, &'static str)> {
        // Release 0.2.0 removes such a workload together with the volumes of all claims that no container uses.
        if self.objects.iter().any(is_named_like_claims) {
            return Some((Version::new(0, 2, 1), "a workload named `pvc`"));
        }
        Some((self.since?, "this"))
    }

    /// Approximate size of the change in a log entry, in bytes.
    fn size(&self) -> usize {
        let name = match self.subject {
            Subject::Named(name) => name.len(),
            Subject::Host(_) | Subject::Token(_) | Subject::Level(_) => 0,
        };
        let objects = self.objects.iter().map(object_size);
        REST + name + self.bytes + objects.sum::<usize>()
    }
}

/// Approximate size of a command in a log entry, in bytes.
pub(crate) fn size_of(command: &Command) -> usize {
    let origin = command.origin.as_ref();
    let origin = origin.map_or(0, |origin| origin.who.len() + origin.from.len());
    about(&command.change).size() + origin
}

fn object_size(object: &Object) -> usize {
    let references = object.references.iter();
    let references = references.map(|one| one.name.len() + PART_REST);
    REST + object.body.len() + references.sum::<usize>() + labels_size(&object.selector)
}

fn host_size(host: &Host) -> usize {
    let addresses = host.addresses.iter().map(|one| one.len() + PART_REST);
    addresses.sum::<usize>() + labels_size(&host.labels)
}

fn images_size(images: &ResolvedImages) -> usize {
    let images = images.0.iter();
    let images = images.map(|image| image.reference.len() + RESOLVED_REST);
    images.sum()
}

fn labels_size(labels: &BTreeMap<String, String>) -> usize {
    let labels = labels.iter();
    labels.map(|(k, v)| k.len() + v.len() + PART_REST).sum()
}

fn is_named_like_claims(object: &Object) -> bool {
    is_workload(object.kind)
        && object.name == "pvc"
        && workload_name(&object.namespace, &object.name) == "pvc"
}

#[cfg(test)]
mod tests;
