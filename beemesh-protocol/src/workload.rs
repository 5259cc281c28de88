//! The name of a workload, and the names of its unit and files.
//!
//! Pure: no I/O, no clock, no randomness. Input: the name of a workload, or of a unit or file. Output: the other one. A
//! name that does not follow the grammar belongs to no workload.
//!
//! ```text
//! WORKLOAD                      NAME, or NAMESPACE_NAME outside namespace `default`
//! POD                           WORKLOAD, or WORKLOAD__NUMBER for the pods beside the first one on a host
//! beemesh-pod-POD.service       its unit
//! beemesh-pod-POD.kube          its Quadlet
//! beemesh-pod-POD.INDEX.yaml    the YAML of the revision at this log index
//! ```
//!
//! A workload's name has only lower-case letters, digits, `-` and `.`, and at most one `_`, between two other characters.
//! So a file of it stays in its folder, systemd expands nothing in it, `__` never occurs in it, and the name of a unit or
//! file identifies its pod.

/// The unit of the gateway.
pub const GATEWAY_UNIT: &str = "beemesh-gateway.service";

/// The pattern by which systemd lists the units of all workloads.
pub const UNIT_PATTERN: &str = "beemesh-pod-*.service";

/// Maximum length of a workload's name, `NAME` or `NAMESPACE_NAME`, in bytes. Names of files and units (at most 255
/// bytes) consist of a prefix, this name, an index and suffixes. Podman's names (at most 253 bytes) consist of this
/// name, the names of objects, two hashes and separators. All code that admits, writes or reads workloads observes this
/// limit.
pub const WORKLOAD_BYTES_MAX: usize = 127;

/// Maximum number of pods of a workload on one host, as the default of a kubelet for all pods is 110.
pub const PODS_PER_HOST_MAX: u32 = 100;

const PREFIX: &str = "beemesh-pod-";
/// Between the name of a workload and the number of a pod.
const BEFORE_NUMBER: &str = "__";
const NAMESPACE_DEFAULT: &str = "default";

/// The name of a workload in pod and unit names: `NAME`, or `NAMESPACE_NAME` outside namespace `default`.
///
/// No Kubernetes name contains `_`, so two workloads never have the same name.
#[must_use]
pub fn workload_name(namespace: &str, name: &str) -> String {
    if namespace == NAMESPACE_DEFAULT {
        name.to_owned()
    } else {
        format!("{namespace}_{name}")
    }
}

/// Returns true if [`workload_name`] can make this name from a [label](is_label) and a [name](is_name).
#[must_use]
pub fn is_workload_name(text: &str) -> bool {
    let (namespace, name) = text.split_once('_').unwrap_or((NAMESPACE_DEFAULT, text));
    text.len() <= WORKLOAD_BYTES_MAX && is_label(namespace) && is_name(name)
}

/// The name of a pod of a workload on its host: `WORKLOAD`, or `WORKLOAD__NUMBER` for a number above 0.
///
/// No workload has such a name, because no workload's name has `__`.
#[must_use]
pub fn pod_name(workload: &str, number: u32) -> String {
    match number {
        0 => workload.to_owned(),
        number => format!("{workload}{BEFORE_NUMBER}{number}"),
    }
}

/// The workload and the number of a pod of this name; `None` if no pod has it.
#[must_use]
pub fn split_pod_name(pod: &str) -> Option<(&str, u32)> {
    let (workload, number) = match pod.split_once(BEFORE_NUMBER) {
        None => (pod, 0),
        Some((workload, number)) => (workload, number.parse().ok()?),
    };
    // `01` and `+1` parse as numbers, too, but are no valid number.
    let is_one = is_workload_name(workload)
        && number < PODS_PER_HOST_MAX
        && pod == pod_name(workload, number);
    is_one.then_some((workload, number))
}

/// Returns true if [`pod_name`] can make this name.
#[must_use]
pub fn is_pod_name(text: &str) -> bool {
    split_pod_name(text).is_some()
}

/// Returns true for a DNS label, which is the grammar of a namespace, a container or a volume.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| is_inner(&byte))
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Returns true for DNS labels joined by dots, which is the grammar of an object's name and of the DNS name before a
/// label's key.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// The unit of a pod.
#[must_use]
pub fn unit_name(pod: &str) -> String {
    format!("{PREFIX}{pod}.service")
}

/// The pod of a unit; `None` if it is not a pod's unit.
#[must_use]
pub fn unit_pod(unit: &str) -> Option<&str> {
    stem_pod(unit.strip_suffix(".service")?)
}

/// The pod of a unit without its suffix, which is systemd's `%N`.
#[must_use]
pub fn stem_pod(stem: &str) -> Option<&str> {
    let pod = stem.strip_prefix(PREFIX)?;
    is_pod_name(pod).then_some(pod)
}

/// The `.kube` file of a pod.
#[must_use]
pub fn kube_file(pod: &str) -> String {
    format!("{PREFIX}{pod}.kube")
}

/// The pod of a `.kube` file.
#[must_use]
pub fn kube_pod(file: &str) -> Option<&str> {
    stem_pod(file.strip_suffix(".kube")?)
}

/// The YAML file of a revision of a pod.
#[must_use]
pub fn yaml_file(pod: &str, index: u64) -> String {
    format!("{PREFIX}{pod}.{index}.yaml")
}

/// The pod of a YAML file of any revision.
#[must_use]
pub fn yaml_pod(file: &str) -> Option<&str> {
    let (stem, index) = file.strip_suffix(".yaml")?.rsplit_once('.')?;
    let pod = stem_pod(stem)?;
    // `01` and `+1` parse as numbers, too, but are no valid index.
    (file == yaml_file(pod, index.parse().ok()?)).then_some(pod)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_workload_has_these_names() {
        assert_eq!(unit_name("shop_web"), "beemesh-pod-shop_web.service");
        assert_eq!(kube_file("web.v2"), "beemesh-pod-web.v2.kube");
        assert_eq!(yaml_file("web", 7), "beemesh-pod-web.7.yaml");
        assert_eq!(workload_name("default", "web"), "web");
        assert_eq!(workload_name("shop", "web"), "shop_web");
        assert_eq!(pod_name("shop_web", 0), "shop_web");
        assert_eq!(pod_name("shop_web", 12), "shop_web__12");
    }

    #[test]
    fn no_name_leaves_a_folder_or_breaks_the_name_of_a_unit() {
        let label = "a".repeat(64);
        let long = format!("{0}_{0}.a", "a".repeat(63));
        for wrong in [
            "",
            ".",
            "..",
            "a/b",
            "../web",
            "a..b",
            "Web",
            "web ",
            "we%nb",
            "-web",
            "web-",
            "a_b_c",
            "_web",
            "web_",
            "a.b_web",
            "we\nb",
            "a@b",
            "a\\x2d",
            "ä",
            "web__",
            "__1",
            "web__0",
            "web__01",
            "web__+1",
            "web__100",
            "web__1__1",
            "web__a",
            "web___1",
            "web__-1",
            &label,
            &long,
        ] {
            assert!(!is_workload_name(wrong) && !is_pod_name(wrong), "{wrong:?}");
            assert_eq!(unit_pod(&unit_name(wrong)), None, "{wrong:?}");
            assert_eq!(kube_pod(&kube_file(wrong)), None, "{wrong:?}");
            assert_eq!(yaml_pod(&yaml_file(wrong, 7)), None, "{wrong:?}");
        }
        for name in ["a", "a-b", "a.b-1", "0"] {
            assert!(is_name(name), "{name}");
        }
    }

    #[test]
    fn names_of_others_are_no_workloads() {
        for unit in [
            "web.service",
            "beemesh-pod-web.socket",
            "beemesh-pod-.service",
            GATEWAY_UNIT,
        ] {
            assert_eq!(unit_pod(unit), None, "{unit}");
        }
        for file in [
            "beemesh-pod-web.yaml",
            "beemesh-pod-web.07.yaml",
            "beemesh-pod-web.+7.yaml",
            "beemesh-pod-web.7.yaml.partial",
        ] {
            assert_eq!(yaml_pod(file), None, "{file}");
        }
        assert_eq!(kube_pod("beemesh-pod-web.kube.partial"), None);
    }

    fn label() -> impl Strategy<Value = String> {
        "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"
    }

    proptest! {
        #[test]
        fn a_workload_is_found_by_each_of_its_names(
            namespace in label(),
            name in prop::collection::vec(label(), 1..4),
            number in 0..PODS_PER_HOST_MAX,
            index in any::<u64>(),
        ) {
            let workload = workload_name(&namespace, &name.join("."));
            prop_assume!(workload.len() <= WORKLOAD_BYTES_MAX);
            let pod = pod_name(&workload, number);
            prop_assert_eq!(split_pod_name(&pod), Some((workload.as_str(), number)));
            prop_assert_eq!(is_workload_name(&pod), number == 0, "no pod has the name of another workload");
            let (unit, kube) = (unit_name(&pod), kube_file(&pod));
            let yaml = yaml_file(&pod, index);
            prop_assert_eq!(unit_pod(&unit), Some(pod.as_str()));
            prop_assert_eq!(kube_pod(&kube), Some(pod.as_str()));
            prop_assert_eq!(yaml_pod(&yaml), Some(pod.as_str()));
            for name in [unit, kube, yaml + ".partial"] {
                prop_assert!(name.len() <= 255 && !name.contains('/'));
            }
        }
    }
}
