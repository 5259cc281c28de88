//! The scheduling rules of a pod.
//!
//! Pure: constants.

use super::{Area, idle, ours, refused_elsewhere, warned_but};

pub(super) const COUNTED: &str = "for a workload with `replicas` and a Job; otherwise every host runs a pod, and only a node affinity with one term, and one value for each label, is followed";

pub(super) static AFFINITY: Area = Area {
    api: "Affinity",
    title: None,
    rows: &[
        ours("nodeAffinity", "").of(&HOSTS),
        ours("podAffinity", "").of(&NEAR),
        ours("podAntiAffinity", "").of(&APART),
    ],
    base: None,
};

static HOSTS: Area = Area {
    api: "NodeAffinity",
    title: None,
    rows: &[
        ours("requiredDuringSchedulingIgnoredDuringExecution", "").of(&HOST_SELECTOR),
        ours("preferredDuringSchedulingIgnoredDuringExecution", "").each(&PREFERRED_HOSTS),
    ],
    base: None,
};

static HOST_SELECTOR: Area = Area {
    api: "NodeSelector",
    title: None,
    rows: &[ours("nodeSelectorTerms", "").each(&HOST_TERM)],
    base: None,
};

static PREFERRED_HOSTS: Area = Area {
    api: "PreferredSchedulingTerm",
    title: None,
    rows: &[ours("weight", ""), ours("preference", "").of(&HOST_TERM)],
    base: None,
};

static HOST_TERM: Area = Area {
    api: "NodeSelectorTerm",
    title: None,
    rows: &[
        ours("matchExpressions", "the labels of hosts").each(&HOST_REQUIREMENT),
        ours("matchFields", "only `metadata.name`, the name of a host").each(&HOST_REQUIREMENT),
    ],
    base: None,
};

static HOST_REQUIREMENT: Area = Area {
    api: "NodeSelectorRequirement",
    title: None,
    rows: &[ours("key", ""), ours("operator", ""), ours("values", "")],
    base: None,
};

static NEAR: Area = Area {
    api: "PodAffinity",
    title: None,
    rows: &[
        ours("requiredDuringSchedulingIgnoredDuringExecution", "").each(&POD_TERM),
        ours("preferredDuringSchedulingIgnoredDuringExecution", "").each(&PREFERRED_PODS),
    ],
    base: None,
};

static APART: Area = Area {
    api: "PodAntiAffinity",
    title: None,
    rows: &[
        ours("requiredDuringSchedulingIgnoredDuringExecution", "").each(&POD_TERM),
        ours("preferredDuringSchedulingIgnoredDuringExecution", "").each(&PREFERRED_PODS),
    ],
    base: None,
};

static PREFERRED_PODS: Area = Area {
    api: "WeightedPodAffinityTerm",
    title: None,
    rows: &[
        ours("weight", ""),
        ours("podAffinityTerm", "").of(&POD_TERM),
    ],
    base: None,
};

static POD_TERM: Area = Area {
    api: "PodAffinityTerm",
    title: None,
    rows: &[
        ours("topologyKey", "a label of hosts"),
        ours("labelSelector", "the labels of pods").of(&PODS),
        ours("matchLabelKeys", ""),
        ours("mismatchLabelKeys", ""),
        ours("namespaces", ""),
        refused_elsewhere("namespaceSelector", "only `{}`: namespaces have no labels"),
    ],
    base: None,
};

pub(super) static SPREAD: Area = Area {
    api: "TopologySpreadConstraint",
    title: None,
    rows: &[
        ours("maxSkew", ""),
        ours("topologyKey", "a label of hosts"),
        ours("whenUnsatisfiable", ""),
        ours("labelSelector", "the labels of pods").of(&PODS),
        ours("matchLabelKeys", ""),
        warned_but(
            "minDomains",
            "Beemesh ignores it: all domains that hosts have count",
            &["1"],
        ),
        warned_but(
            "nodeAffinityPolicy",
            "Beemesh ignores it: hosts that do not match the affinity do not count",
            &["Honor"],
        ),
        idle("nodeTaintsPolicy", "hosts have no taints"),
    ],
    base: None,
};

static PODS: Area = Area {
    api: "LabelSelector",
    title: None,
    rows: &[
        ours("matchLabels", ""),
        ours("matchExpressions", "").each(&POD_REQUIREMENT),
    ],
    base: None,
};

static POD_REQUIREMENT: Area = Area {
    api: "LabelSelectorRequirement",
    title: None,
    rows: &[ours("key", ""), ours("operator", ""), ours("values", "")],
    base: None,
};
