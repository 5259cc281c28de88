use std::collections::{BTreeMap, BTreeSet};

use beemesh_protocol::workload::{
    WORKLOAD_BYTES_MAX, kube_file, unit_name, workload_name, yaml_file,
};
use proptest::{collection::vec, prelude::*};

use super::*;

/// Names that look like parts of Beemesh's names: `pvc`, the letters of kinds and hashes, joined by dashes and dots.
fn part() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => Just("pvc".to_owned()),
        4 => "[ecs]",
        2 => "[a-c]{1,3}",
        1 => Just("own".to_owned()),
        1 => "[0-9a-f]{12}",
        1 => "[0-9a-f]{64}".prop_map(|hex| hex[..63].to_owned()),
    ];
    vec(word, 1..3).prop_map(|words| words.join("-"))
}

fn label() -> impl Strategy<Value = String> {
    part().prop_filter("a label", |name| is_label(name))
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => label(),
        2 => vec(label(), 1..4).prop_map(|parts| parts.join(".")),
        1 => "[a-b]{60,63}(\\.[a-b]{60,63}){0,2}",
    ]
    .prop_filter("a name", |name| is_name(name) && name.len() <= 253)
}

fn workload() -> impl Strategy<Value = String> {
    let namespace = prop_oneof![Just("default".to_owned()), label()];
    (namespace, name())
        .prop_map(|(namespace, name)| workload_name(&namespace, &name))
        .prop_filter("it fits", |workload| workload.len() <= WORKLOAD_BYTES_MAX)
}

/// An object of a user. Two equal objects share one name; different objects never do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    EmptyDir(String),
    Memory(String, Option<u64>, Option<u32>),
    Content(bool, String, Vec<u8>, Option<String>),
}

fn thing() -> impl Strategy<Value = Thing> {
    let content = (
        any::<bool>(),
        name(),
        vec(0_u8..2, 0..3),
        proptest::option::of("[ab]"),
    );
    prop_oneof![
        label().prop_map(Thing::EmptyDir),
        (
            label(),
            proptest::option::of(any::<u64>()),
            proptest::option::of(any::<u32>())
        )
            .prop_map(|(volume, size, group)| Thing::Memory(volume, size, group)),
        (
            label(),
            proptest::option::of(0_u64..2),
            proptest::option::of(0_u32..2)
        )
            .prop_map(|(volume, size, group)| Thing::Memory(volume, size, group)),
        content.prop_map(|(secret, name, body, view)| Thing::Content(secret, name, body, view)),
    ]
}

fn named(workload: &str, thing: &Thing) -> String {
    match thing {
        Thing::EmptyDir(volume) => empty_dir(workload, volume),
        Thing::Memory(volume, size, group) => memory(workload, volume, *size, *group),
        Thing::Content(secret, name, body, view) => Content {
            letter: if *secret { 's' } else { 'c' },
            name,
            body,
        }
        .private_name(workload, view),
    }
}

/// The name that release 0.2.0 gave it.
fn named_before(workload: &str, thing: &Thing) -> String {
    match thing {
        Thing::EmptyDir(volume) | Thing::Memory(volume, ..) => {
            format!("beemesh__{workload}__e__{volume}")
        }
        Thing::Content(secret, name, body, view) => {
            let letter = if *secret { 's' } else { 'c' };
            let hash =
                |bytes: &[u8], digits| Hex(&Sha256::digest(bytes)).to_string()[..digits].to_owned();
            let view = view
                .iter()
                .map(|view| format!("__{}", hash(view.as_bytes(), 8)));
            let view: String = view.collect();
            format!(
                "beemesh__{workload}__{letter}__{name}__{}{view}",
                hash(body, 12)
            )
        }
    }
}

/// Whether release 0.2.0 removes the name with the workload.
fn removed_before(name: &str, workload: &str) -> bool {
    name.starts_with(&format!("beemesh__{workload}__"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_two_things_share_a_name_and_no_workload_removes_anothers(
        things in vec((workload(), thing()), 2..12),
        claims in vec((label(), name()), 1..6),
    ) {
        let mut owners: BTreeMap<String, (String, Thing)> = BTreeMap::new();
        let workloads: BTreeSet<&str> = things.iter().map(|(workload, _)| workload.as_str()).chain(["pvc", "e_pvc"]).collect();
        for (workload, thing) in &things {
            let name = named(workload, thing);
            prop_assert!(name.len() <= NAME_BYTES_MAX, "{}", name);
            if let Some(other) = owners.insert(name.clone(), (workload.clone(), thing.clone())) {
                prop_assert_eq!(&other, &(workload.clone(), thing.clone()), "{}", name);
            }
            for other in &workloads {
                prop_assert_eq!(belongs_to(&name, other), other == workload, "{} of {}", name, other);
                // A host that still runs release 0.2.0 does not remove it either.
                prop_assert!(!removed_before(&name, other), "{} by {}", name, other);
            }
            let before = named_before(workload, thing);
            let could_be_a_claim = workload == "pvc" && matches!(thing, Thing::EmptyDir(_) | Thing::Memory(..));
            for other in &workloads {
                let its_own = other == workload && !could_be_a_claim;
                prop_assert_eq!(belongs_to(&before, other), its_own, "{} of {}", before, other);
            }
        }
        let names: BTreeSet<String> = claims.iter().map(|(namespace, name)| claim(namespace, name)).collect();
        prop_assert_eq!(names.len(), claims.iter().collect::<BTreeSet<_>>().len());
        for name in &names {
            prop_assert!(!owners.contains_key(name), "{}", name);
            for workload in &workloads {
                prop_assert!(!belongs_to(name, workload), "{} of {}", name, workload);
            }
        }
    }

    #[test]
    fn no_two_workloads_share_a_pod_a_unit_or_a_file(
        one in (prop_oneof![Just("default".to_owned()), label()], name(), 0_u64..1000),
        other in (prop_oneof![Just("default".to_owned()), label()], name(), 0_u64..1000),
    ) {
        let files = |(namespace, name, index): &(String, String, u64)| {
            let workload = workload_name(namespace, name);
            [kube_file(&workload), unit_name(&workload), yaml_file(&workload, *index), private_prefix(&workload), workload]
        };
        let (ones, others) = (files(&one), files(&other));
        let same = (&one.0, &one.1) == (&other.0, &other.1);
        for (place, file) in ones.iter().enumerate() {
            let is_yaml = place == 2;
            let expected = same && (!is_yaml || one.2 == other.2);
            prop_assert_eq!(others.contains(file), expected, "{}", file);
        }
    }
}

#[test]
fn what_is_left_of_the_release_before_goes_unless_it_may_be_a_claim() {
    let left =
        |name: &str, workload: &str| belongs_to(&format!("beemesh__{workload}__{name}"), workload);
    for name in [
        "c__conf__0123456789ab",
        "s__key__0123456789ab__01234567",
        "e__cache",
    ] {
        assert!(left(name, "web"), "{name}");
        assert_eq!(left(name, "pvc"), name != "e__cache", "{name}");
    }
    for claim in [
        "default__precious",
        "e__secret",
        "c__data",
        "s__data",
        "pvc__pvc",
    ] {
        assert!(!left(claim, "pvc"), "{claim}");
    }
    for stranger in [
        "",
        "e__",
        "mine",
        "x__a__b",
        "c__conf__0123456789aX",
        "c__a__b__0123456789ab",
    ] {
        assert!(!left(stranger, "web"), "{stranger}");
    }
}
