//! Manifests mean what Kubernetes says, or are refused in words: the cases of `tests/conformance`.

use harness::conformance::{Options, run};

#[test]
fn no_case_differs_from_kubernetes_in_silence() {
    let options =
        Options::from_environment().expect("BEEMESH_CONFORMANCE names a part, such as 2/3");
    assert!(run(&options).expect("all cases are read"), "see above");
}
