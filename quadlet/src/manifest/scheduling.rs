//! The rules by which a manifest chooses hosts for its pods, besides `nodeSelector`.
//!
//! Pure: no I/O, no clock, no randomness. Input: an object of the state, or the pod of a manifest. Output: its
//! [`Scheduling`], which placement follows, or findings.

mod admission;

use std::collections::BTreeMap;

use beemesh_protocol::state::{Kind, Object};
use k8s_openapi::{
    api::core::v1::{
        Affinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec,
        TopologySpreadConstraint,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector as WrittenSelector,
};
use serde::Deserialize;

use super::{Demand, Port, Room, demands, requests_of};

pub(super) use admission::{check, fixed};

/// The label that every host has without being set: its name.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// The labels of a host or a pod.
pub type Labels = BTreeMap<String, String>;

/// The rules of a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// The labels of its pods.
    pub labels: Labels,
    /// A host must match one of these; `None` if there is no such rule.
    pub hosts: Option<Vec<HostTerm>>,
    /// Hosts that match are preferred by this weight.
    pub preferred_hosts: Vec<(i64, HostTerm)>,
    /// The pods that a host's domain must have.
    pub near: Vec<PodTerm>,
    /// The pods that a host's domain must not have.
    pub apart: Vec<PodTerm>,
    /// Domains with these pods are preferred by this weight, or avoided if it is negative.
    pub preferred_pods: Vec<(i64, PodTerm)>,
    /// How evenly its pods are spread.
    pub spread: Vec<Spread>,
    /// What a pod requests of its host.
    pub requests: Room,
    /// The ports of the host that a pod takes.
    pub ports: Vec<Port>,
    /// A pod uses the network of its host.
    pub host_network: bool,
}

/// A condition on a host: all of it must hold. An empty one matches no host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostTerm {
    /// On its labels.
    pub labels: Vec<Requirement>,
    /// On its name.
    pub names: Vec<Requirement>,
}

/// A condition on the value of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// What it is compared with.
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// It has one of the values.
    In,
    /// It has none of the values, or does not exist.
    NotIn,
    /// It exists.
    Exists,
    /// It does not exist.
    DoesNotExist,
    /// It is a number above the value.
    Gt,
    /// It is a number below the value.
    Lt,
}

/// Pods in the domain of a host: in all hosts with the same value of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodTerm {
    /// The label of hosts.
    pub topology: String,
    /// The pods; an empty one selects all, `None` selects none.
    pub selector: Option<Vec<Requirement>>,
    /// The namespaces of the pods: that of the workload if empty, all if `None`.
    pub namespaces: Option<Vec<String>>,
}

/// How evenly pods are spread over the values of a label of hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// The label of hosts.
    pub topology: String,
    /// The most pods that a domain may have more than another one.
    pub skew: i64,
    /// A pod waits rather than exceed it.
    pub is_required: bool,
    /// The pods; an empty one selects all.
    pub selector: Vec<Requirement>,
}

impl Requirement {
    /// Returns true if these labels meet it.
    #[must_use]
    pub fn is_met(&self, labels: &Labels) -> bool {
        self.is_met_by(labels.get(&self.key).map(String::as_str))
    }

    /// Returns true if this value of the label meets it.
    #[must_use]
    pub fn is_met_by(&self, value: Option<&str>) -> bool {
        let is_listed = || value.is_some_and(|value| self.values.iter().any(|one| one == value));
        let compared = || {
            let number = |text: &str| text.parse::<i64>().ok();
            let limit = self.values.first().and_then(|limit| number(limit))?;
            Some(value.and_then(number)?.cmp(&limit))
        };
        match self.operator {
            Operator::In => is_listed(),
            Operator::NotIn => !is_listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => compared().is_some_and(std::cmp::Ordering::is_gt),
            Operator::Lt => compared().is_some_and(std::cmp::Ordering::is_lt),
        }
    }
}

impl HostTerm {
    /// Returns true if a host with this name and these labels matches.
    #[must_use]
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        let value = |key: &str| match key {
            HOSTNAME => Some(name),
            key => labels.get(key).map(String::as_str),
        };
        let has_any = !self.labels.is_empty() || !self.names.is_empty();
        has_any
            && self.labels.iter().all(|one| one.is_met_by(value(&one.key)))
            && self.names.iter().all(|one| one.is_met_by(Some(name)))
    }
}

impl PodTerm {
    /// Returns true if it selects a pod with these labels; `own` is the namespace of the workload with the rule.
    #[must_use]
    pub fn selects(&self, own: &str, namespace: &str, labels: &Labels) -> bool {
        let is_in = match &self.namespaces {
            None => true,
            Some(all) if all.is_empty() => own == namespace,
            Some(all) => all.iter().any(|one| one == namespace),
        };
        let selector = self.selector.as_ref();
        is_in && selector.is_some_and(|all| all.iter().all(|one| one.is_met(labels)))
    }
}

impl Scheduling {
    /// Returns true if no rule but `nodeSelector`, and no request, limits the hosts of the pods.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let none = Self {
            labels: self.labels.clone(),
            ..Self::default()
        };
        *self == none
    }

    /// The rules of a workload. What cannot be read counts as absent: admission refuses it.
    #[must_use]
    pub fn of(object: &Object) -> Self {
        #[derive(Deserialize)]
        struct Pod {
            #[serde(default)]
            metadata: Metadata,
            #[serde(default)]
            spec: Option<PodSpec>,
        }
        #[derive(Default, Deserialize)]
        struct Metadata {
            #[serde(default)]
            labels: Labels,
        }
        #[derive(Deserialize)]
        struct Body {
            spec: Outer,
        }
        #[derive(Deserialize)]
        struct Outer {
            template: Pod,
        }
        let read = match object.kind {
            Kind::Pod => serde_json::from_slice::<Pod>(&object.body),
            _ => serde_json::from_slice::<Body>(&object.body).map(|body| body.spec.template),
        };
        match read {
            Ok(Pod {
                metadata,
                spec: Some(spec),
            }) => Self {
                ports: demands(object).into_iter().filter_map(port).collect(),
                ..Self::of_pod(metadata.labels, &spec)
            },
            _ => Self::default(),
        }
    }

    fn of_pod(labels: Labels, spec: &PodSpec) -> Self {
        let mut found = Self {
            labels,
            requests: requests_of(spec),
            host_network: spec.host_network == Some(true),
            ..Self::default()
        };
        if let Some(affinity) = &spec.affinity {
            found.read(affinity);
        }
        let spread = spec.topology_spread_constraints.iter().flatten();
        found.spread = spread.map(|one| Spread::of(one, &found.labels)).collect();
        found
    }

    fn read(&mut self, affinity: &Affinity) {
        if let Some(hosts) = &affinity.node_affinity {
            let required = hosts
                .required_during_scheduling_ignored_during_execution
                .as_ref();
            self.hosts =
                required.map(|one| one.node_selector_terms.iter().map(HostTerm::of).collect());
            let preferred = hosts
                .preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten();
            self.preferred_hosts = preferred
                .map(|one| (i64::from(one.weight), HostTerm::of(&one.preference)))
                .collect();
        }
        if let Some(near) = &affinity.pod_affinity {
            let required = near
                .required_during_scheduling_ignored_during_execution
                .iter()
                .flatten();
            self.near = required.map(|one| PodTerm::of(one, &self.labels)).collect();
            let preferred = near
                .preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten();
            for one in preferred {
                let term = PodTerm::of(&one.pod_affinity_term, &self.labels);
                self.preferred_pods.push((i64::from(one.weight), term));
            }
        }
        if let Some(apart) = &affinity.pod_anti_affinity {
            let required = apart
                .required_during_scheduling_ignored_during_execution
                .iter()
                .flatten();
            self.apart = required.map(|one| PodTerm::of(one, &self.labels)).collect();
            let preferred = apart
                .preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten();
            for one in preferred {
                let term = PodTerm::of(&one.pod_affinity_term, &self.labels);
                self.preferred_pods.push((-i64::from(one.weight), term));
            }
        }
    }
}

impl HostTerm {
    fn of(term: &NodeSelectorTerm) -> Self {
        let all = |list: &Option<Vec<NodeSelectorRequirement>>| {
            let list = list.iter().flatten();
            list.filter_map(|one| requirement(&one.key, &one.operator, one.values.as_ref()))
                .collect()
        };
        Self {
            labels: all(&term.match_expressions),
            names: all(&term.match_fields),
        }
    }
}

impl PodTerm {
    /// `own` are the labels of the pods with the rule.
    fn of(term: &PodAffinityTerm, own: &Labels) -> Self {
        let selector = term.label_selector.as_ref().map(selector);
        let selector = selector.map(|mut all| {
            for (keys, operator) in [
                (&term.match_label_keys, Operator::In),
                (&term.mismatch_label_keys, Operator::NotIn),
            ] {
                all.extend(own_labels(keys.as_ref(), operator, own));
            }
            all
        });
        Self {
            topology: term.topology_key.clone(),
            selector,
            namespaces: match term.namespace_selector {
                Some(_) => None,
                None => Some(term.namespaces.clone().unwrap_or_default()),
            },
        }
    }
}

impl Spread {
    fn of(written: &TopologySpreadConstraint, own: &Labels) -> Self {
        let mut all = written
            .label_selector
            .as_ref()
            .map(selector)
            .unwrap_or_default();
        all.extend(own_labels(
            written.match_label_keys.as_ref(),
            Operator::In,
            own,
        ));
        Self {
            topology: written.topology_key.clone(),
            skew: i64::from(written.max_skew),
            is_required: written.when_unsatisfiable != "ScheduleAnyway",
            selector: all,
        }
    }

    /// Returns true if it counts a pod with these labels.
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> bool {
        self.selector.iter().all(|one| one.is_met(labels))
    }
}

/// What `matchLabelKeys` and `mismatchLabelKeys` add to a selector: the values that the pod itself has.
fn own_labels(keys: Option<&Vec<String>>, operator: Operator, own: &Labels) -> Vec<Requirement> {
    let keys = keys.into_iter().flatten();
    let all = keys.filter_map(|key| {
        Some(Requirement {
            key: key.clone(),
            operator,
            values: vec![own.get(key)?.clone()],
        })
    });
    all.collect()
}

fn selector(written: &WrittenSelector) -> Vec<Requirement> {
    let labels = written.match_labels.iter().flatten();
    let labels = labels.map(|(key, value)| Requirement {
        key: key.clone(),
        operator: Operator::In,
        values: vec![value.clone()],
    });
    let expressions = written.match_expressions.iter().flatten();
    let expressions =
        expressions.filter_map(|one| requirement(&one.key, &one.operator, one.values.as_ref()));
    labels.chain(expressions).collect()
}

/// `None` if the operator does not exist, which admission refuses.
fn requirement(key: &str, operator: &str, values: Option<&Vec<String>>) -> Option<Requirement> {
    let operator = match operator {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Gt,
        "Lt" => Operator::Lt,
        _ => return None,
    };
    Some(Requirement {
        key: key.to_owned(),
        operator,
        values: values.cloned().unwrap_or_default(),
    })
}

fn port(demand: Demand) -> Option<Port> {
    match demand {
        Demand::Port(port) => Some(port),
        Demand::Key(_) | Demand::Name { .. } | Demand::StopSignal | Demand::Topology(_) => None,
    }
}

#[cfg(test)]
mod tests;
