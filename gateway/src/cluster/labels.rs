//! The labels for the operating system and the architecture of a host, as nodes in Kubernetes have them.
//!
//! Pure: no I/O, no clock. Many charts select by them. They are replicated like labels from users, so that gateways of
//! all releases use the same labels for placement. Each gateway sets them for its own host only.

use std::collections::BTreeMap;

use beemesh_protocol::state::Host;

/// The operating system.
pub(crate) const OS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];
/// The architecture, with Go's names.
pub(crate) const ARCH: [&str; 2] = ["kubernetes.io/arch", "beta.kubernetes.io/arch"];

/// The names of Rust and of Go for the architectures on which Podman runs.
const ARCHITECTURES: [(&str, &str); 9] = [
    ("x86_64", "amd64"),
    ("aarch64", "arm64"),
    ("arm", "arm"),
    ("x86", "386"),
    ("powerpc64", "ppc64le"),
    ("riscv64", "riscv64"),
    ("s390x", "s390x"),
    ("loongarch64", "loong64"),
    ("mips64", "mips64le"),
];

/// Whether gateways set this label automatically.
pub(crate) fn is_automatic(label: &str) -> bool {
    OS.contains(&label) || ARCH.contains(&label)
}

/// Whether this host lacks such a label, which its gateway must set.
pub(crate) fn is_unlabelled(host: &Host) -> bool {
    let mut all = OS.iter().chain(&ARCH);
    all.any(|label| !host.labels.contains_key(*label))
}

/// The labels of a machine with this architecture, which has Rust's name.
pub(crate) fn of_machine(arch: &str) -> BTreeMap<String, String> {
    let known = ARCHITECTURES.iter().find(|(rust, _)| *rust == arch);
    let arch = known.map_or(arch, |(_, go)| go);
    let os = OS.map(|label| (label, "linux"));
    let arch = ARCH.map(|label| (label, arch));
    let all = os.into_iter().chain(arch);
    all.map(|(label, value)| (label.to_owned(), value.to_owned()))
        .collect()
}

/// The labels of the machine that the host lacks, or has from the machine that it replaced. A value from an
/// administrator, set before gateways set these labels, stays because workloads may select by it.
pub(crate) fn to_set(host: &Host, machine: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_arch = |value: &String| ARCHITECTURES.iter().any(|(_, go)| go == value);
    let lacks = |(label, value): &(&String, &String)| match host.labels.get(*label) {
        None => true,
        Some(has) => has != *value && is_arch(has),
    };
    let all = machine.iter().filter(lacks);
    all.map(|(label, value)| (label.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::HostId;

    use super::*;

    fn host(labels: &[(&str, &str)]) -> Host {
        let labels = labels.iter();
        Host {
            id: HostId([1; 32]),
            name: "h1".into(),
            addresses: Vec::new(),
            labels: labels
                .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
                .collect(),
            drained: false,
            claims_as: None,
            votes_from_ms: 0,
            lost_at_ms: 0,
            declared_lost: false,
            steady_at_ms: 0,
        }
    }

    #[test]
    fn a_machine_is_labelled_as_kubernetes_does() {
        let told = |arch| {
            let labels = of_machine(arch);
            let told = labels
                .iter()
                .map(|(label, value)| format!("{label}={value}"));
            told.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            told("x86_64"),
            "beta.kubernetes.io/arch=amd64 beta.kubernetes.io/os=linux kubernetes.io/arch=amd64 kubernetes.io/os=linux"
        );
        assert!(told("aarch64").contains("kubernetes.io/arch=arm64"));
        assert!(told("sparc64").contains("kubernetes.io/arch=sparc64"));
    }

    #[test]
    fn what_is_missing_is_set_and_what_a_person_wrote_stays() {
        let machine = of_machine("x86_64");
        let set = |labels: &[(&str, &str)]| to_set(&host(labels), &machine).len();
        assert_eq!(set(&[("disk", "ssd")]), 4);
        assert!(is_unlabelled(&host(&[("disk", "ssd")])));
        let mut labelled = host(&[]);
        labelled.labels = machine.clone();
        assert!(to_set(&labelled, &machine).is_empty() && !is_unlabelled(&labelled));
        assert_eq!(set(&[("kubernetes.io/arch", "amd64")]), 3);
        assert_eq!(set(&[("kubernetes.io/arch", "x86_64")]), 3);
        // The host replaced a machine of another architecture.
        labelled.labels = of_machine("aarch64");
        let corrected = to_set(&labelled, &machine);
        assert_eq!(corrected.keys().collect::<Vec<_>>(), [ARCH[1], ARCH[0]]);
    }
}
