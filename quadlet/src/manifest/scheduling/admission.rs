//! Checks the scheduling rules of a pod: values that Kubernetes refuses, rules that contradict each other, and those that
//! have no effect here.
//!
//! Pure, like its parent.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec,
        TopologySpreadConstraint, WeightedPodAffinityTerm,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::{HOSTNAME, HostTerm, Operator, PodTerm, Requirement};
use crate::manifest::{
    field::{Field, cut},
    findings::Scope,
};

/// The only field of hosts that `matchFields` can name.
const NAME_FIELD: &str = "metadata.name";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const WITHOUT_REPLICAS: &str =
    "has no effect: without `replicas` every host that matches `nodeSelector` runs a pod";

/// Checks the rules of the pod at the path `at`. `is_counted` is true if the cluster chooses the hosts of its pods.
pub(in crate::manifest) fn check(
    spec: &PodSpec,
    is_counted: bool,
    at: &Field,
    scope: &mut Scope<'_>,
) {
    let affinity = spec.affinity.as_ref();
    let spread = spec.topology_spread_constraints.iter().flatten();
    if !is_counted {
        without_effect(spec, at, scope);
    }
    for (index, one) in spread.enumerate() {
        let at = at.key("topologySpreadConstraints").index(index);
        check_spread(one, &at, scope);
    }
    let Some(affinity) = affinity else {
        return;
    };
    let at = at.key("affinity");
    if let Some(hosts) = &affinity.node_affinity {
        check_hosts(
            hosts,
            spec.node_selector.as_ref(),
            &at.key("nodeAffinity"),
            scope,
        );
    }
    let near = affinity.pod_affinity.as_ref();
    let apart = affinity.pod_anti_affinity.as_ref();
    let near_terms = near.and_then(|one| {
        one.required_during_scheduling_ignored_during_execution
            .as_deref()
    });
    let apart_terms = apart.and_then(|one| {
        one.required_during_scheduling_ignored_during_execution
            .as_deref()
    });
    let near_preferred = near.and_then(|one| {
        one.preferred_during_scheduling_ignored_during_execution
            .as_deref()
    });
    let apart_preferred = apart.and_then(|one| {
        one.preferred_during_scheduling_ignored_during_execution
            .as_deref()
    });
    for (key, required, preferred) in [
        ("podAffinity", near_terms, near_preferred),
        ("podAntiAffinity", apart_terms, apart_preferred),
    ] {
        check_pods(required, preferred, &at.key(key), scope);
    }
    contradiction(
        near_terms,
        apart_terms,
        &at.key("podAntiAffinity").key(REQUIRED),
        scope,
    );
}

/// The labels that the node affinity requires of every host, if it requires nothing else: one term, with one value for each
/// label.
pub(in crate::manifest) fn fixed(spec: &PodSpec) -> Option<BTreeMap<String, String>> {
    let hosts = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = hosts
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let [term] = required.node_selector_terms.as_slice() else {
        return None;
    };
    let term = HostTerm::of(term);
    let names = term.names.iter().map(|one| (HOSTNAME, one));
    let labels = term.labels.iter().map(|one| (one.key.as_str(), one));
    let all = names
        .chain(labels)
        .map(|(key, one)| match one.values.as_slice() {
            [value] if one.operator == Operator::In => Some((key.to_owned(), value.clone())),
            _ => None,
        });
    all.collect()
}

/// Warns about rules of a workload that every host runs.
fn without_effect(spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    let spread = spec.topology_spread_constraints.as_ref();
    if spread.is_some_and(|all| !all.is_empty()) {
        scope.not_done(&at.key("topologySpreadConstraints"), WITHOUT_REPLICAS);
    }
    let Some(affinity) = &spec.affinity else {
        return;
    };
    let at = at.key("affinity");
    if let Some(hosts) = &affinity.node_affinity {
        let at = at.key("nodeAffinity");
        let required = &hosts.required_during_scheduling_ignored_during_execution;
        if required.is_some() && fixed(spec).is_none() {
            let message = "has no effect: without `replicas` only one term with one value for each label is followed";
            scope.not_done(&at.key(REQUIRED), message);
        }
        if hosts
            .preferred_during_scheduling_ignored_during_execution
            .is_some()
        {
            scope.not_done(&at.key(PREFERRED), WITHOUT_REPLICAS);
        }
    }
    for (key, is_there) in [
        ("podAffinity", affinity.pod_affinity.is_some()),
        ("podAntiAffinity", affinity.pod_anti_affinity.is_some()),
    ] {
        if is_there {
            scope.not_done(&at.key(key), WITHOUT_REPLICAS);
        }
    }
}

fn check_hosts(
    hosts: &NodeAffinity,
    selector: Option<&BTreeMap<String, String>>,
    at: &Field,
    scope: &mut Scope<'_>,
) {
    if let Some(required) = &hosts.required_during_scheduling_ignored_during_execution {
        let at = at.key(REQUIRED).key("nodeSelectorTerms");
        if required.node_selector_terms.is_empty() {
            scope.wrong(&at, "is empty: no host would match");
        }
        let mut possible = 0;
        for (index, term) in required.node_selector_terms.iter().enumerate() {
            check_term(term, &at.index(index), scope);
            possible += usize::from(is_possible(term, selector));
        }
        if possible == 0 && !required.node_selector_terms.is_empty() {
            let message = match selector {
                Some(_) => "no host can match this together with `nodeSelector`",
                None => "no host can match this",
            };
            scope.wrong(&at, message);
        }
    }
    let preferred = hosts
        .preferred_during_scheduling_ignored_during_execution
        .iter()
        .flatten();
    for (index, one) in preferred.enumerate() {
        let at = at.key(PREFERRED).index(index);
        weight(one.weight, &at, scope);
        check_term(&one.preference, &at.key("preference"), scope);
    }
}

/// Returns false if the requirements of the term contradict each other or the selector.
fn is_possible(term: &NodeSelectorTerm, selector: Option<&BTreeMap<String, String>>) -> bool {
    let term = HostTerm::of(term);
    let fixed = selector
        .into_iter()
        .flatten()
        .map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.clone()],
        });
    let all: Vec<Requirement> = term.labels.iter().cloned().chain(fixed).collect();
    all.iter().all(|one| {
        let same = all.iter().filter(|other| other.key == one.key);
        let same: Vec<_> = same.collect();
        match one.operator {
            Operator::In => one
                .values
                .iter()
                .any(|value| same.iter().all(|other| other.is_met_by(Some(value)))),
            Operator::Exists => !same
                .iter()
                .any(|other| other.operator == Operator::DoesNotExist),
            _ => true,
        }
    })
}

fn check_term(term: &NodeSelectorTerm, at: &Field, scope: &mut Scope<'_>) {
    let labels = term.match_expressions.iter().flatten();
    for (index, one) in labels.enumerate() {
        requirement(one, &at.key("matchExpressions").index(index), scope);
    }
    let fields = term.match_fields.iter().flatten();
    for (index, one) in fields.enumerate() {
        let at = at.key("matchFields").index(index);
        if one.key != NAME_FIELD {
            let message = format!(
                "`{}` is not a field of hosts: only `{NAME_FIELD}` is",
                cut(&one.key)
            );
            scope.wrong(&at.key("key"), message);
        }
        requirement(one, &at, scope);
    }
}

fn requirement(one: &NodeSelectorRequirement, at: &Field, scope: &mut Scope<'_>) {
    let values = one.values.as_deref().unwrap_or_default();
    let is_number = |text: &String| text.parse::<i64>().is_ok();
    let wrong = match one.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            Some("is missing: the operator needs values".to_owned())
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            Some("must be empty: the operator takes no values".to_owned())
        }
        "Gt" | "Lt" if values.len() != 1 || !values.iter().all(is_number) => {
            Some("must be one integer".to_owned())
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => None,
        other => {
            let message = format!(
                "`{}` is not one of In, NotIn, Exists, DoesNotExist, Gt, Lt",
                cut(other)
            );
            scope.wrong(&at.key("operator"), message);
            None
        }
    };
    if let Some(message) = wrong {
        scope.wrong(&at.key("values"), message);
    }
}

fn check_pods(
    required: Option<&[PodAffinityTerm]>,
    preferred: Option<&[WeightedPodAffinityTerm]>,
    at: &Field,
    scope: &mut Scope<'_>,
) {
    for (index, term) in required.into_iter().flatten().enumerate() {
        check_pod_term(term, &at.key(REQUIRED).index(index), scope);
    }
    for (index, one) in preferred.into_iter().flatten().enumerate() {
        let at = at.key(PREFERRED).index(index);
        weight(one.weight, &at, scope);
        check_pod_term(&one.pod_affinity_term, &at.key("podAffinityTerm"), scope);
    }
}

fn check_pod_term(term: &PodAffinityTerm, at: &Field, scope: &mut Scope<'_>) {
    topology(&term.topology_key, at, scope);
    if let Some(selector) = &term.label_selector {
        check_selector(selector, &at.key("labelSelector"), scope);
    }
    if let Some(selector) = &term.namespace_selector {
        let has_any = selector
            .match_labels
            .as_ref()
            .is_some_and(|all| !all.is_empty())
            || selector
                .match_expressions
                .as_ref()
                .is_some_and(|all| !all.is_empty());
        if has_any {
            let message =
                "namespaces have no labels here: name them in `namespaces`, or write `{}` for all";
            scope.wrong(&at.key("namespaceSelector"), message);
        }
    }
}

fn check_selector(selector: &LabelSelector, at: &Field, scope: &mut Scope<'_>) {
    let expressions = selector.match_expressions.iter().flatten();
    for (index, one) in expressions.enumerate() {
        let at = at.key("matchExpressions").index(index);
        let has_values = one.values.as_ref().is_some_and(|values| !values.is_empty());
        match (one.operator.as_str(), has_values) {
            ("In" | "NotIn", true) | ("Exists" | "DoesNotExist", false) => {}
            ("In" | "NotIn", false) => {
                scope.wrong(&at.key("values"), "is missing: the operator needs values");
            }
            ("Exists" | "DoesNotExist", true) => {
                scope.wrong(
                    &at.key("values"),
                    "must be empty: the operator takes no values",
                );
            }
            (other, _) => {
                let message = format!(
                    "`{}` is not one of In, NotIn, Exists, DoesNotExist",
                    cut(other)
                );
                scope.wrong(&at.key("operator"), message);
            }
        }
    }
}

fn check_spread(one: &TopologySpreadConstraint, at: &Field, scope: &mut Scope<'_>) {
    topology(&one.topology_key, at, scope);
    if one.max_skew < 1 {
        scope.wrong(&at.key("maxSkew"), "must be at least 1");
    }
    if !matches!(
        one.when_unsatisfiable.as_str(),
        "DoNotSchedule" | "ScheduleAnyway"
    ) {
        let message = format!(
            "`{}` is neither `DoNotSchedule` nor `ScheduleAnyway`",
            cut(&one.when_unsatisfiable)
        );
        scope.wrong(&at.key("whenUnsatisfiable"), message);
    }
    if let Some(selector) = &one.label_selector {
        check_selector(selector, &at.key("labelSelector"), scope);
    }
}

fn topology(key: &str, at: &Field, scope: &mut Scope<'_>) {
    if key.is_empty() {
        scope.wrong(
            &at.key("topologyKey"),
            "is missing: it names a label of hosts",
        );
    }
}

fn weight(weight: i32, at: &Field, scope: &mut Scope<'_>) {
    if !(1..=100).contains(&weight) {
        scope.wrong(
            &at.key("weight"),
            format!("{weight} is not between 1 and 100"),
        );
    }
}

/// Refuses pods that must be near the pods from which they must be apart.
fn contradiction(
    near: Option<&[PodAffinityTerm]>,
    apart: Option<&[PodAffinityTerm]>,
    at: &Field,
    scope: &mut Scope<'_>,
) {
    let none = BTreeMap::new();
    let read = |terms: Option<&[PodAffinityTerm]>| -> Vec<PodTerm> {
        let terms = terms.into_iter().flatten();
        terms.map(|term| PodTerm::of(term, &none)).collect()
    };
    let near = read(near);
    for (index, term) in read(apart).iter().enumerate() {
        if near.contains(term) {
            let message = "contradicts podAffinity: the same pods must be near and apart";
            scope.wrong(&at.index(index), message);
        }
    }
}
