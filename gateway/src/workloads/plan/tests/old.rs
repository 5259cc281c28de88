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
    };
    let view = view(&mut state, 9, apply);
    for (format, listed) in [("", true), ("Format=1\n", true), ("Format=2\n", false)] {
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
        let told = plan
            .strange
            .iter()
            .any(|line| line.contains("0.2.0 or before: web;"));
        assert_eq!(told, listed, "{:?}", plan.strange);
    }
    let many: Vec<String> = (0..20).map(|n| format!("w{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let line = tell::old(&many).unwrap();
    assert!(line.contains("w7 and 12 more;"), "{line}");
}
