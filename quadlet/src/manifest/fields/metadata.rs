//! The metadata of objects and of pods in templates, and selectors.
//!
//! Pure: constants.

use super::{Area, idle, right, warned, warned_but};

const BY_SERVER: &str = "set by the API server of Kubernetes; removed";
const OF_TEMPLATE: &str = "Kubernetes does not use it in a template, either";

/// The metadata of an object.
pub(super) static OBJECT: Area = Area {
    api: "ObjectMeta",
    title: Some("Metadata of objects: `metadata`"),
    rows: &[
        right(
            "name",
            "required; workloads of different kinds cannot share a name, because it is that of their unit",
        ),
        right(
            "namespace",
            "a part of the name; it needs no object of its own",
        ),
        right("labels", ""),
        right(
            "annotations",
            "those that Podman acts on need a rule of the policy; `beemesh.io/stopped: \"true\"` stops a workload",
        ),
        warned_but(
            "finalizers",
            "nothing holds back a deletion: the object is deleted at once",
            &[r#"["kubernetes.io/pvc-protection"]"#],
        ),
        warned(
            "ownerReferences",
            "an object is not deleted with its owner: objects that belong together are one manifest",
        ),
        idle("generateName", "an object without a `name` is refused"),
        idle("creationTimestamp", BY_SERVER),
        idle("deletionGracePeriodSeconds", BY_SERVER),
        idle("deletionTimestamp", BY_SERVER),
        idle("generation", BY_SERVER),
        idle("managedFields", BY_SERVER),
        idle("resourceVersion", BY_SERVER),
        idle("selfLink", BY_SERVER),
        idle("uid", BY_SERVER),
    ],
    base: None,
};

/// The metadata of a template.
pub(super) static TEMPLATE: Area = Area {
    api: "ObjectMeta",
    title: Some("Metadata of pods: `spec.template.metadata`"),
    rows: &[
        right("labels", ""),
        right(
            "annotations",
            "those that Podman acts on need a rule of the policy",
        ),
        idle("name", OF_TEMPLATE),
        idle("generateName", OF_TEMPLATE),
        idle("namespace", "the pod has the namespace of the workload"),
        warned(
            "finalizers",
            "nothing holds back a deletion: a pod is deleted at once",
        ),
        warned("ownerReferences", "a pod belongs to its workload alone"),
        idle("creationTimestamp", OF_TEMPLATE),
        idle("deletionGracePeriodSeconds", OF_TEMPLATE),
        idle("deletionTimestamp", OF_TEMPLATE),
        idle("generation", OF_TEMPLATE),
        idle("managedFields", OF_TEMPLATE),
        idle("resourceVersion", OF_TEMPLATE),
        idle("selfLink", OF_TEMPLATE),
        idle("uid", OF_TEMPLATE),
    ],
    base: None,
};

pub(super) const MATCHES: &str =
    "may be left out; one that does not match the template's labels is refused";

/// The selector of a controller.
pub(super) static SELECTOR: Area = Area {
    api: "LabelSelector",
    title: None,
    rows: &[
        right("matchLabels", MATCHES),
        right("matchExpressions", MATCHES).each(&EXPRESSION),
    ],
    base: None,
};

static EXPRESSION: Area = Area {
    api: "LabelSelectorRequirement",
    title: None,
    rows: &[
        right("key", MATCHES),
        right("operator", MATCHES),
        right("values", MATCHES),
    ],
    base: None,
};
