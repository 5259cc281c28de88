//! One short round of `make torture`.

use harness::torture::{Options, run};

#[test]
fn a_few_faults_lose_nothing() {
    let options = Options {
        seed: 1,
        rounds: 1,
        faults: 15,
        hosts: 3,
        only: Vec::new(),
        report: None,
    };
    assert!(run(&options).expect("no page is written"));
}
