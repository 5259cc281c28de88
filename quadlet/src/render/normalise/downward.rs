//! What a pod may ask about itself: its name, labels, annotations, user ID and resources.
//!
//! Pure: no I/O, no clock, no randomness. The values are those of the manifest, taken before anything in it is written
//! in Podman's way. A revision gives the same values on each host, so a pod's `metadata.uid` belongs to the revision.

use std::collections::BTreeMap;

use beemesh_protocol::{hex::Hex, state::Kind};
use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceFieldSelector, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};
use sha2::{Digest, Sha256};

use super::{Revision, Template};
use crate::manifest::{environment, quantity};

/// The service account of a pod that names none.
const SERVICE_ACCOUNT: &str = "default";

/// The labels that Kubernetes gives to the pods of a Job, with its name.
const JOB_NAME: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// What is known about a pod when it is rendered.
pub(super) struct Downward {
    name: String,
    namespace: String,
    uid: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    service_account: String,
    resources: BTreeMap<String, ResourceRequirements>,
}

/// The value of a container's resource.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Amount {
    /// As text, in units of the divisor.
    Known(String),
    /// That of the host, because the container has no limit.
    OfHost,
}

impl Downward {
    pub(super) fn of(revision: &Revision<'_>, template: &Template) -> Self {
        let Template { metadata, spec, .. } = template;
        let object = revision.object;
        let account = spec.service_account_name.as_ref();
        let account = account.or(spec.service_account.as_ref());
        let account = account.filter(|name| !name.is_empty());
        let mut labels = metadata.labels.clone().unwrap_or_default();
        if object.kind == Kind::Job {
            let job = JOB_NAME.map(|key| (key.to_owned(), object.name.clone()));
            labels.extend(job);
        }
        Self {
            name: revision.name(),
            namespace: object.namespace.clone(),
            uid: uid(revision),
            labels,
            annotations: metadata.annotations.clone().unwrap_or_default(),
            service_account: account.map_or_else(|| SERVICE_ACCOUNT.to_owned(), Clone::clone),
            resources: resources(spec),
        }
    }

    pub(super) fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    pub(super) fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// The value of a field; `None` for one that is not known when the pod is rendered. A label or annotation that the
    /// pod lacks is empty, as in Kubernetes.
    pub(super) fn field(&self, path: &str) -> Option<String> {
        let entry = |map: &BTreeMap<String, String>, key: &str| {
            Some(map.get(key).cloned().unwrap_or_default())
        };
        match (environment::entry(path), path) {
            (Some(("labels", key)), _) => entry(&self.labels, key),
            (Some((_, key)), _) => entry(&self.annotations, key),
            (None, "metadata.name") => Some(self.name.clone()),
            (None, "metadata.namespace") => Some(self.namespace.clone()),
            (None, "metadata.uid") => Some(self.uid.clone()),
            (None, "spec.serviceAccountName") => Some(self.service_account.clone()),
            (None, _) => None,
        }
    }

    /// The value that a container reads; `None` if it names a container or a resource that does not exist.
    pub(super) fn resource(&self, of: &str, asked: &ResourceFieldSelector) -> Option<Amount> {
        let of = asked.container_name.as_deref().unwrap_or(of);
        let resources = self.resources.get(of)?;
        let (list, name) = asked.resource.split_once('.')?;
        let list = match list {
            "limits" => &resources.limits,
            "requests" => &resources.requests,
            _ => return None,
        };
        let value = list.as_ref().and_then(|list| list.get(name));
        let value = value.and_then(|value| quantity::parse(&value.0).ok());
        let value = value.filter(|value| !value.is_zero());
        let of_host = matches!(name, "cpu" | "memory" | "ephemeral-storage");
        let Some(value) = value else {
            return Some(match asked.resource.starts_with("limits.") && of_host {
                true => Amount::OfHost,
                false => Amount::Known("0".to_owned()),
            });
        };
        let divisor = asked.divisor.as_ref();
        let divisor = divisor.and_then(|divisor| quantity::parse(&divisor.0).ok());
        let divisor = divisor.filter(|divisor| !divisor.is_zero());
        let (value, divisor) = match name {
            "cpu" => (value.millis(), divisor.map_or(1000, |by| by.millis())),
            _ => (value.units(), divisor.map_or(1, |by| by.units())),
        };
        let whole = value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) > 0);
        Some(Amount::Known(whole.to_string()))
    }

    /// Whether the container has this limit or request itself.
    pub(super) fn has(&self, container: &str, resource: &str) -> bool {
        let asked = ResourceFieldSelector {
            resource: resource.to_owned(),
            ..ResourceFieldSelector::default()
        };
        matches!(self.resource(container, &asked), Some(Amount::Known(_)))
    }
}

/// The resources of each container. A request that is not written is the limit, as in Kubernetes.
fn resources(spec: &PodSpec) -> BTreeMap<String, ResourceRequirements> {
    let init = spec.init_containers.iter().flatten();
    let of = |container: &Container| {
        let mut resources = container.resources.clone().unwrap_or_default();
        let limits: Vec<(String, Quantity)> = resources.limits.iter().flatten().map(own).collect();
        let requests = resources.requests.get_or_insert_default();
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
        (container.name.clone(), resources)
    };
    init.chain(&spec.containers).map(of).collect()
}

fn own((name, value): (&String, &Quantity)) -> (String, Quantity) {
    (name.clone(), value.clone())
}

/// The UUID of a workload's revision in its cluster: of version 8, whose bits are those of a hash.
fn uid(revision: &Revision<'_>) -> String {
    let object = revision.object;
    let head = (&object.namespace, &object.name, revision.index);
    let mut hash = Sha256::new();
    hash.update(b"pod");
    hash.update(revision.cluster.0);
    hash.update(serde_json::to_vec(&head).unwrap_or_default());
    if revision.number > 0 {
        hash.update(revision.number.to_be_bytes());
    }
    let mut bytes: [u8; 16] = [0; 16];
    for (byte, hashed) in bytes.iter_mut().zip(hash.finalize()) {
        *byte = hashed;
    }
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = Hex(&bytes).to_string();
    let parts = [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ];
    parts.join("-")
}
