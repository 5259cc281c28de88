//! A policy: arbitrary YAML that an administrator sets, and the form in which it is stored.

#![no_main]

use beemesh_quadlet::manifest::policy::Policy;

libfuzzer_sys::fuzz_target!(|document: &str| {
    let Ok(policy) = Policy::read(document) else {
        return;
    };
    let written = policy.text();
    let again = Policy::read(&written).expect("what is written can be read");
    assert_eq!(again.text(), written);
});
