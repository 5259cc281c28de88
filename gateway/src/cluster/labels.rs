//! The labels that tell the kind of a host's machine, as Kubernetes' nodes have them.
//!
//! Pure: no I/O, no clock. Charts ask for them by default. They are replicated like labels that people give, so that gateways of
//! every release place by the same ones; each gateway gives them to its own host, and nobody else changes them.

use std::collections::BTreeMap;

use beemesh_protocol::state::Host;

/// The operating system.
pub(crate) const OS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];
/// The architecture, in Go's words.
pub(crate) const ARCH: [&str; 2] = ["kubernetes.io/arch", "beta.kubernetes.io/arch"];

/// Rust's and Go's words for the same architectures, of machines that run Podman.
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

/// Whether a gateway gives its host this label.
pub(crate) fn is_automatic(label: &str) -> bool {
    OS.contains(&label) || ARCH.contains(&label)
}

/// Whether the gateway of this host has still to give it such a label.
pub(crate) fn is_unlabelled(host: &Host) -> bool {
    let mut all = OS.iter().chain(&ARCH);
    all.any(|label| !host.labels.contains_key(*label))
}

/// What a machine with this architecture, in Rust's words, has.
pub(crate) fn of_machine(arch: &str) -> BTreeMap<String, String> {
    let known = ARCHITECTURES.iter().find(|(rust, _)| *rust == arch);
    let arch = known.map_or(arch, |(_, go)| go);
    let os = OS.map(|label| (label, "linux"));
    let arch = ARCH.map(|label| (label, arch));
    let all = os.into_iter().chain(arch);
    all.map(|(label, value)| (label.to_owned(), value.to_owned()))
        .collect()
}

/// Those of a machine's labels that its host has not, or has of the machine whose place it took. What its administrator wrote
/// before such labels came by themselves stays, because workloads may run by it.
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
        // A new machine took the place of one of another kind.
        labelled.labels = of_machine("aarch64");
        let corrected = to_set(&labelled, &machine);
        assert_eq!(corrected.keys().collect::<Vec<_>>(), [ARCH[1], ARCH[0]]);
    }
}
