//! Checks that the selector of a controller matches the labels of its pods.
//!
//! Pure: no I/O, no clock, no randomness. Beemesh knows the pods of a workload without a selector, so that it may be
//! left out. One that does not match is a mistake of the manifest, which Kubernetes refuses.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::PodTemplateSpec,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};

use super::{
    field::{Field, cut},
    findings::Scope,
};

type Labels = BTreeMap<String, String>;

/// Checks the selector at the path `at` that is a map of labels.
pub(super) fn labels(
    selector: &Labels,
    template: &PodTemplateSpec,
    at: &Field,
    scope: &mut Scope<'_>,
) {
    of_pods(
        selector,
        labels_of(template).unwrap_or(&Labels::new()),
        at,
        scope,
    );
}

/// Checks the selector at the path `at`.
pub(super) fn check(
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    at: &Field,
    scope: &mut Scope<'_>,
) {
    let none = Labels::new();
    let labels = labels_of(template).unwrap_or(&none);
    if let Some(selected) = &selector.match_labels {
        of_pods(selected, labels, &at.key("matchLabels"), scope);
    }
    for (index, one) in selector.match_expressions.iter().flatten().enumerate() {
        let at = at.key("matchExpressions").index(index);
        expression(one, labels, &at, scope);
    }
}

fn labels_of(template: &PodTemplateSpec) -> Option<&Labels> {
    template.metadata.as_ref()?.labels.as_ref()
}

/// Reports selected labels that the pods do not have.
fn of_pods(selected: &Labels, labels: &Labels, at: &Field, scope: &mut Scope<'_>) {
    for (key, value) in selected {
        if labels.get(key) != Some(value) {
            let message = format!(
                "`{}: {}` is not among the labels of the template: a selector matches the pods of its own workload",
                cut(key),
                cut(value)
            );
            scope.differs(&at.key(key), message);
        }
    }
}

fn expression(one: &LabelSelectorRequirement, labels: &Labels, at: &Field, scope: &mut Scope<'_>) {
    let values = one.values.as_deref().unwrap_or_default();
    let label = labels.get(&one.key);
    let is_listed = label.is_some_and(|label| values.contains(label));
    let (matches, has_values) = match one.operator.as_str() {
        "In" => (is_listed, true),
        "NotIn" => (!is_listed, true),
        "Exists" => (label.is_some(), false),
        "DoesNotExist" => (label.is_none(), false),
        other => {
            let message = format!(
                "`{}` is not one of In, NotIn, Exists, DoesNotExist",
                cut(other)
            );
            return scope.differs(&at.key("operator"), message);
        }
    };
    if values.is_empty() == has_values {
        let message = match has_values {
            true => format!("`{}` needs values", one.operator),
            false => format!("`{}` has no values", one.operator),
        };
        return scope.differs(&at.key("values"), message);
    }
    if !matches {
        let message = "does not match the labels of the template: a selector matches the pods of its own workload";
        scope.differs(at, message);
    }
}
