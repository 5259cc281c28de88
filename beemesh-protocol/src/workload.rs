//! The name of a workload, and the names of its unit and files.
//!
//! Pure: no I/O, no clock, no randomness. Input: the name of a workload, or of a unit or file. Output: the other one. A
//! name that does not follow the grammar belongs to no workload.
//!
//! ```text
//! WORKLOAD                           NAME, or NAMESPACE_NAME outside namespace `default`
//! beemesh-pod-WORKLOAD.service       its unit
//! beemesh-pod-WORKLOAD.kube          its Quadlet
//! beemesh-pod-WORKLOAD.INDEX.yaml    the YAML of the revision at this log index
//! ```
//!
//! A workload's name has only lower-case letters, digits, `-` and `.`, and at most one `_`. So a file of it stays in
//! its folder, systemd expands nothing in it, and the name of a unit or file identifies its workload.

/// The unit of the gateway.
pub const GATEWAY_UNIT: &str = "beemesh-gateway.service";

/// The pattern by which systemd lists the units of all workloads.
pub const UNIT_PATTERN: &str = "beemesh-pod-*.service";

/// Maximum length of a workload's name, `NAME` or `NAMESPACE_NAME`, in bytes. Names of files and units (at most 255
/// bytes) consist of a prefix, this name, an index and suffixes. Podman's names (at most 253 bytes) consist of this
/// name, the names of objects, two hashes and separators. All code that admits, writes or reads workloads observes this
/// limit.
pub const WORKLOAD_BYTES_MAX: usize = 127;

const PREFIX: &str = "beemesh-pod-";
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

/// The unit of a workload.
#[must_use]
pub fn unit_name(workload: &str) -> String {
    format!("{PREFIX}{workload}.service")
}

/// The workload of a unit; `None` if it is not a workload's unit.
#[must_use]
pub fn unit_workload(unit: &str) -> Option<&str> {
    stem_workload(unit.strip_suffix(".service")?)
}

/// The workload of a unit without its suffix, which is systemd's `%N`.
#[must_use]
pub fn stem_workload(stem: &str) -> Option<&str> {
    let workload = stem.strip_prefix(PREFIX)?;
    is_workload_name(workload).then_some(workload)
}

/// The `.kube` file of a workload.
#[must_use]
pub fn kube_file(workload: &str) -> String {
    format!("{PREFIX}{workload}.kube")
}

/// The workload of a `.kube` file.
#[must_use]
pub fn kube_workload(file: &str) -> Option<&str> {
    stem_workload(file.strip_suffix(".kube")?)
}

/// The YAML file of a revision of a workload.
#[must_use]
pub fn yaml_file(workload: &str, index: u64) -> String {
    format!("{PREFIX}{workload}.{index}.yaml")
}

/// The workload of a YAML file of any revision.
#[must_use]
pub fn yaml_workload(file: &str) -> Option<&str> {
    let (stem, index) = file.strip_suffix(".yaml")?.rsplit_once('.')?;
    let workload = stem_workload(stem)?;
    // `01` and `+1` parse as numbers, too, but are no valid index.
    (file == yaml_file(workload, index.parse().ok()?)).then_some(workload)
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
    }

    #[test]
    fn no_name_leaves_a_folder_or_breaks_the_name_of_a_unit() {
        let label = "a".repeat(64);
        let long = format!("{0}_{0}.a", "a".repeat(63));
        for wrong in [
            "", ".", "..", "a/b", "../web", "a..b", "Web", "web ", "we%nb", "-web", "web-",
            "a_b_c", "_web", "web_", "a.b_web", "we\nb", "a@b", "a\\x2d", "ä", &label, &long,
        ] {
            assert!(!is_workload_name(wrong), "{wrong:?}");
            assert_eq!(unit_workload(&unit_name(wrong)), None, "{wrong:?}");
            assert_eq!(kube_workload(&kube_file(wrong)), None, "{wrong:?}");
            assert_eq!(yaml_workload(&yaml_file(wrong, 7)), None, "{wrong:?}");
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
            assert_eq!(unit_workload(unit), None, "{unit}");
        }
        for file in [
            "beemesh-pod-web.yaml",
            "beemesh-pod-web.07.yaml",
            "beemesh-pod-web.+7.yaml",
            "beemesh-pod-web.7.yaml.partial",
        ] {
            assert_eq!(yaml_workload(file), None, "{file}");
        }
        assert_eq!(kube_workload("beemesh-pod-web.kube.partial"), None);
    }

    fn label() -> impl Strategy<Value = String> {
        "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"
    }

    proptest! {
        #[test]
        fn a_workload_is_found_by_each_of_its_names(
            namespace in label(),
            name in prop::collection::vec(label(), 1..4),
            index in any::<u64>(),
        ) {
            let workload = workload_name(&namespace, &name.join("."));
            prop_assume!(workload.len() <= WORKLOAD_BYTES_MAX);
            let (unit, kube) = (unit_name(&workload), kube_file(&workload));
            let yaml = yaml_file(&workload, index);
            prop_assert_eq!(unit_workload(&unit), Some(workload.as_str()));
            prop_assert_eq!(kube_workload(&kube), Some(workload.as_str()));
            prop_assert_eq!(yaml_workload(&yaml), Some(workload.as_str()));
            for name in [unit, kube, yaml + ".partial"] {
                prop_assert!(name.len() <= 255 && !name.contains('/'));
            }
        }
    }
}
