//! The Quadlet of an earlier release keeps running, and is reported.

use super::*;

#[test]
fn an_old_rendering_is_left_running_and_listed() {
    let mut state = State::default();
    let found = Change::Found {
        cluster: CLUSTER,
        host: me(),
    };
    view(&mut state, 2, found);
    let apply = Change::Apply {
        manifest: "web".into(),
        objects: vec![object("{1}")],
        policy: None,
        keep: false,
        if_index: None,
    };
    let view = view(&mut state, 9, apply);
    let unsafe_names = Some("written by Beemesh 0.2.0 or before: web;");
    let unfaithful = Some("written by an earlier release: web;");
    for (format, message) in [
        ("", unsafe_names),
        ("Format=1\n", unsafe_names),
        ("Format=2\n", unfaithful),
        ("Format=3\n", None),
    ] {
        let kube = format!(
            "[X-Beemesh]\nWorkload=web\nRevision=1\nIndex=9\nCluster={CLUSTER}\n{format}\n[Kube]\nYaml=beemesh-pod-web.9.yaml\n"
        );
        let running = UnitState {
            kube,
            ..unit("active", true, UP)
        };
        let units = BTreeMap::from([("web".to_owned(), running)]);
        let plan = Reconciler::default().look(&Seen {
            now: Instant::now(),
            host: HOST,
            view: &view,
            units: &units,
        });
        assert_eq!(
            plan.begin,
            [("web".to_owned(), Work::Settle(9))],
            "{format}"
        );
        let told: Vec<&str> = plan
            .strange
            .iter()
            .filter(|line| line.starts_with("written by"))
            .map(String::as_str)
            .collect();
        assert_eq!(told.len(), usize::from(message.is_some()), "{told:?}");
        assert!(
            told.iter()
                .all(|line| message.is_some_and(|begin| line.starts_with(begin))),
            "{told:?}"
        );
    }
    let many: Vec<String> = (0..20).map(|n| format!("w{n}")).collect();
    let many: Vec<(&str, u32)> = many.iter().map(|name| (name.as_str(), 1)).collect();
    let lines = tell::old(&many);
    assert!(lines[0].contains("w7 and 12 more;"), "{lines:?}");
}
