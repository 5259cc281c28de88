//! Tests of members.

use super::*;
use crate::cluster::state::hosts::LABELS_MAX;

#[test]
fn a_new_host_takes_the_place_of_a_lost_one_in_one_change() {
    let mut state = founded();
    let lost = HostId([1; 32]);
    let token = TokenRecord {
        id: [7; 8],
        secret_hash: [8; 32],
        expires_ms: 100,
        uses: 1,
    };
    let label = Change::LabelHost {
        host: lost,
        set: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        remove: vec![],
    };
    let drain = Change::DrainHost {
        host: lost,
        drained: true,
    };
    let demote = Change::DemoteHost { host: lost };
    let moved = Change::PutHost(host(1, "h1"));
    for change in [Change::PutToken(token), label, drain, demote, moved] {
        assert_eq!(state.apply(2, &at(0, change)), Outcome::Done);
    }
    assert_eq!(state.hosts()[&lost].votes_from_ms, DEMOTED_MS);
    let admit = |hash, replaces| Change::Admit {
        token: [7; 8],
        secret_hash: [hash; 32],
        host: host(2, "h1"),
        replaces,
    };
    let before = state.clone();
    for (change, words) in [
        (admit(8, None), "--replace h1"),
        (admit(9, Some(lost)), "token is unknown"),
        (admit(8, Some(HostId([3; 32]))), "is not a member"),
    ] {
        match state.apply(3, &at(0, change)) {
            Outcome::Refused(reasons) => {
                assert!(reasons[0].message.contains(words), "{reasons:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(state, before, "the token can still be used");
    // A client that lost the answer repeats its request.
    for _ in 0..2 {
        let admitted = state.apply(3, &at(0, admit(8, Some(lost))));
        assert!(matches!(admitted, Outcome::Admitted(members) if members.len() == 1));
    }
    let expected = Host {
        labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        drained: true,
        claims_as: Some(lost),
        ..host(2, "h1")
    };
    assert_eq!(state.hosts().values().collect::<Vec<_>>(), [&expected]);
    assert_eq!(state.tokens(50).count(), 0);
}

#[test]
fn a_host_keeps_its_labels_and_its_drain_when_its_address_changes() {
    let mut state = founded();
    let id = HostId([1; 32]);
    let label = |set: &[(&str, &str)], remove: &[&str]| Change::LabelHost {
        host: id,
        set: set
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        remove: remove.iter().map(|key| (*key).to_owned()).collect(),
    };
    let drain = |host| Change::DrainHost {
        host,
        drained: true,
    };
    for change in [
        label(&[("disk", "hdd"), ("zone", "a")], &[]),
        label(&[("disk", "ssd")], &["zone", "none"]),
        drain(id),
        Change::PutHost(host(1, "new")),
    ] {
        assert_eq!(state.apply(2, &at(0, change)), Outcome::Done);
    }
    let expected = Host {
        labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        drained: true,
        ..host(1, "new")
    };
    assert_eq!(state.hosts()[&id], expected);
    assert_eq!(State::from_snapshot(state.to_snapshot()), state);
    let before = state.clone();
    let many: Vec<_> = (0..LABELS_MAX).map(|n| format!("l{n}")).collect();
    let many: Vec<_> = many.iter().map(|key| (key.as_str(), "")).collect();
    for change in [label(&many, &[]), drain(HostId([2; 32]))] {
        assert!(matches!(
            state.apply(3, &at(0, change)),
            Outcome::Refused(_)
        ));
    }
    assert_eq!(state, before);
}
