//! The containers of a pod that was only created are started one by one, and probed and hooked by the supervisor.

use std::sync::Arc;

use beemesh_protocol::pod::ProbeKind;

use super::*;
use crate::health::has_ended;
use crate::render::Staged;
use crate::supervisor::probes::spec::{self, ContainerSpec};
use crate::supervisor::probes::{Fault, Outcome};

/// A container of the pod: its name in the manifest, state, exit code, and the second in which it was started.
type One = (&'static str, Run, i32, u64);

fn staged_pod(init: &[&str], sidecars: &[&str], all: &[One], specs: &[ContainerSpec]) -> SeenPod {
    let mut pod = pod(Some(OLD), Run::Running, Run::Created, 0).unwrap();
    pod.containers.retain(|one| one.role == Role::Infra);
    for infra in &mut pod.containers {
        infra.name = "web-infra".into();
    }
    let names = |names: &[&str]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
    let is_init = |one: &&One| init.contains(&one.0);
    let staged = Staged {
        containers: all
            .iter()
            .filter(|one| !is_init(one))
            .map(|one| one.0.to_owned())
            .collect(),
        init: names(init),
        sidecars: names(sidecars).into_iter().collect(),
        ..Staged::default()
    };
    let second = |second: u64| i64::try_from(CLOCK + second).unwrap();
    pod.containers
        .extend(all.iter().map(|(name, run, code, at)| Container {
            id: (*name).to_owned(),
            name: format!("web-{name}"),
            exit_code: *code,
            started_at: if *run == Run::Created {
                -1
            } else {
                second(*at)
            },
            exited_at: if *run == Run::Exited { second(*at) } else { -1 },
            ..container(Role::Member, *run, 0)
        }));
    staged.give_roles("web", &mut pod.containers);
    pod.staged = Some(staged);
    pod.specs = Arc::new(specs.to_vec());
    pod
}

fn sees(second: u64, pod: SeenPod) -> Event {
    saw_at(second, OLD, Some(pod))
}

fn starts(container: &str) -> Effect {
    Effect::Start {
        container: container.into(),
        folders: Vec::new(),
        working_dir: None,
    }
}

fn started() -> Event {
    Event::Started
}

fn spec(text: &str) -> ContainerSpec {
    let yaml = format!(
        r#"{{"kind":"Pod","metadata":{{"name":"web"}},"spec":{{"containers":[{{"name":"app",{text}}}]}}}}"#
    );
    spec::read(yaml.as_bytes()).remove(0)
}

/// The effects of a look, without those on the processes of containers and the ledger.
fn told(supervisor: &mut Supervisor, event: Event, now: Instant) -> Vec<Effect> {
    let effects = step(supervisor, event, now).into_iter();
    let effects = effects.filter(|one| !matches!(one, Effect::Keep(_) | Effect::Attach(_)));
    effects.map(shown).collect()
}

#[test]
fn init_containers_run_one_after_the_other_before_the_rest() {
    use Run::{Created, Exited, Running};
    let seen = |one: &[One]| staged_pod(&["one", "two"], &[], one, &[]);
    let waits = |name: &str| starting(7, &format!("waiting until init container {name} has ended"));
    let all = |one, two, app| {
        let all: [Option<One>; 3] = [one, two, Some(app)];
        all.into_iter().flatten().collect::<Vec<One>>()
    };
    let app = ("app", Created, 0, 0);
    let two = Some(("two", Created, 0, 0));
    tell(vec![
        (
            0,
            sees(0, seen(&all(Some(("one", Created, 0, 0)), two, app))),
            vec![
                Effect::Attach(vec![11, 12]),
                starting(7, "starting the containers"),
                starts("one"),
            ],
        ),
        (0, Event::Attached(vec![11, 12]), vec![]),
        (0, started(), vec![]),
        (
            1,
            sees(1, seen(&all(Some(("one", Running, 0, 0)), two, app))),
            vec![waits("one"), Effect::Ready],
        ),
        (
            5,
            sees(5, seen(&all(Some(("one", Exited, 0, 0)), two, app))),
            vec![Effect::Remove {
                container: "one".into(),
            }],
        ),
        (5, started(), vec![]),
        (
            6,
            sees(6, seen(&all(None, two, app))),
            vec![starting(7, "starting the containers"), starts("two")],
        ),
        (7, sees(7, seen(&all(None, None, app))), vec![starts("app")]),
        (
            8,
            sees(8, seen(&all(None, None, ("app", Running, 0, 8)))),
            vec![running(7, 1, 0)],
        ),
    ]);
}

#[test]
fn a_pod_that_may_not_be_prepared_is_played_again() {
    let created = || staged_pod(&[], &[], &[("app", Run::Created, 0, 0)], &[]);
    let is_played_again = |pod: SeenPod| {
        let mut supervisor = Supervisor::new("web", Ledger::default(), Instant::now());
        let effects = told(&mut supervisor, sees(0, pod), Instant::now());
        let plays = effects.contains(&Effect::Play { revision: 7 });
        assert_ne!(plays, effects.contains(&starts("app")), "{effects:?}");
        plays
    };
    assert!(!is_played_again(created()));
    let interrupted = SeenPod {
        interrupted: true,
        ..created()
    };
    assert!(is_played_again(interrupted.clone()));
    // Its creation ends with the start of its network.
    let mut powerless = created();
    powerless.containers[0].run = Run::Created;
    assert!(is_played_again(powerless));
    // A container that has been started has a pod that was prepared: the mark is of a later play.
    let mut begun = interrupted;
    begun.containers[0].run = Run::Running;
    begun.containers.push(Container {
        id: "two".into(),
        name: "web-two".into(),
        ..container(Role::Member, Run::Running, 0)
    });
    assert!(!is_played_again(begun));
}

#[test]
fn the_folders_of_a_container_are_made_at_its_start() {
    use crate::render::{LateFolder, PreparedVolume};
    let volume = PreparedVolume {
        name: "v".into(),
        late: vec![LateFolder {
            container: "app".into(),
            folder: "a/b".into(),
        }],
        ..PreparedVolume::default()
    };
    let mut pod = staged_pod(
        &[],
        &[],
        &[("app", Run::Created, 0, 0), ("two", Run::Created, 0, 0)],
        &[],
    );
    let staged = pod.staged.as_mut().unwrap();
    staged.volumes = vec![volume.clone()];
    staged.working_dirs = [("app".to_owned(), "/usr/new".to_owned())].into();
    let mut supervisor = Supervisor::new("web", Ledger::default(), Instant::now());
    let effects = told(&mut supervisor, sees(0, pod), Instant::now());
    let needed = PreparedVolume {
        folders: vec!["a/b".into()],
        late: Vec::new(),
        ..volume
    };
    let app = Effect::Start {
        container: "app".into(),
        folders: vec![needed],
        working_dir: Some("/usr/new".into()),
    };
    assert!(effects.ends_with(&[app, starts("two")]), "{effects:?}");
}

#[test]
fn an_init_container_that_fails_starts_again_after_a_pause() {
    let seen = |run, code, at| {
        let all = [("one", run, code, at), ("app", Run::Created, 0, 0)];
        staged_pod(&["one"], &[], &all, &[])
    };
    let began = Instant::now();
    let mut supervisor = Supervisor::new("web", Ledger::default(), began);
    let mut at = |second: u64, pod: SeenPod| {
        let now = began + Duration::from_secs(second);
        let effects = told(&mut supervisor, sees(second, pod), now);
        let restarts = effects
            .iter()
            .filter(|one| matches!(one, Effect::Start { .. }));
        restarts.count()
    };
    assert_eq!(at(0, seen(Run::Created, 0, 0)), 1);
    assert_eq!(at(1, seen(Run::Running, 0, 0)), 0);
    // It failed in its first run, and starts again at once.
    assert_eq!(at(2, seen(Run::Exited, 3, 2)), 1);
    assert_eq!(at(3, seen(Run::Running, 0, 3)), 0);
    assert_eq!(at(4, seen(Run::Exited, 3, 4)), 0, "ten seconds of pause");
    assert_eq!(at(13, seen(Run::Exited, 3, 4)), 0);
    assert_eq!(at(14, seen(Run::Exited, 3, 4)), 1);
}

#[test]
fn an_init_container_that_fails_under_never_ends_the_unit() {
    let all = [("one", Run::Exited, 3, 0), ("app", Run::Created, 0, 0)];
    let mut seen = staged_pod(&["one"], &[], &all, &[]);
    seen.restart = Restart::Never;
    let now = Instant::now();
    let mut supervisor = Supervisor::new("web", Ledger::default(), now);
    let mut effects = told(&mut supervisor, sees(1, seen.clone()), now);
    // Its last output was asked for.
    effects.extend(told(&mut supervisor, sees(1, seen), now));
    assert_eq!(effects.last(), Some(&Effect::Exit(EXIT_BEYOND_REPAIR)));
}

#[test]
fn the_pod_of_an_earlier_boot_is_played_again() {
    let all = [("one", Run::Exited, 0, 0), ("app", Run::Created, 0, 0)];
    let mut seen = staged_pod(&["one"], &[], &all, &[]);
    for container in &mut seen.containers {
        if container.role == Role::Infra {
            container.run = Run::Exited;
        }
        // A power cut leaves no time of exit.
        container.exited_at = -1;
        assert!(!has_ended(container));
    }
    tell(vec![(0, sees(0, seen), play(7))]);
}

#[test]
fn a_command_that_can_never_start_ends_the_unit_with_its_reason() {
    let seen = staged_pod(&[], &[], &[("app", Run::Created, 0, 0)], &[]);
    let reason =
        "start container app: crun: executable file `/nope` not found in $PATH: No such file";
    tell(vec![
        (
            0,
            sees(0, seen),
            vec![
                Effect::Attach(vec![11, 12]),
                starting(7, "starting the containers"),
                starts("app"),
            ],
        ),
        (
            0,
            Event::NotStarted {
                id: "app".into(),
                failure: Failure::Refused(reason.into()),
            },
            vec![
                failed(
                    "start container web-app: crun: executable file `/nope` not found in $PATH: No such file",
                ),
                Effect::Exit(EXIT_BEYOND_REPAIR),
            ],
        ),
    ]);
}

#[test]
fn a_sidecar_counts_and_does_not_keep_the_pod() {
    let all = [("side", Run::Running, 0, 0), ("app", Run::Exited, 0, 5)];
    let mut seen = staged_pod(&["side"], &["side"], &all, &[]);
    seen.restart = Restart::Never;
    let now = Instant::now();
    let mut supervisor = Supervisor::new("web", Ledger::default(), now);
    let effects = told(&mut supervisor, sees(6, seen), now);
    let is_completed = |effect: &Effect| {
        matches!(
            effect,
            Effect::Say(Report {
                status: Status::Completed { .. },
                ..
            })
        )
    };
    assert!(effects.iter().any(is_completed), "{effects:?}");
    assert!(
        effects.contains(&Effect::Rest),
        "the sidecar is stopped: {effects:?}"
    );
}

/// Runs the probes of a supervisor for some seconds, each with this outcome. Returns the effects other than the runs.
fn probe_for(
    supervisor: &mut Supervisor,
    began: Instant,
    seconds: std::ops::Range<u64>,
    outcome: &Outcome,
) -> Vec<Effect> {
    let mut all = Vec::new();
    for second in seconds {
        let now = began + Duration::from_secs(second);
        for effect in supervisor.step(Event::Woken, now) {
            let Effect::Probe(due) = effect else { continue };
            let (ticket, outcome) = (due.ticket, outcome.clone());
            all.extend(supervisor.step(Event::ProbeRan { ticket, outcome }, now));
        }
    }
    all
}

fn fault() -> Outcome {
    Outcome::Failure(Fault {
        exit: Some(1),
        output: "no route to db".into(),
        ..Fault::default()
    })
}

#[test]
fn a_container_is_ended_when_its_liveness_probe_has_failed_too_often() {
    let probe = r#""livenessProbe":{"exec":{"command":["true"]},"periodSeconds":1,"failureThreshold":2,
        "terminationGracePeriodSeconds":4}"#;
    let spec = spec(probe);
    let seen = || {
        staged_pod(
            &[],
            &[],
            &[("app", Run::Running, 0, 0)],
            std::slice::from_ref(&spec),
        )
    };
    let began = Instant::now();
    let mut supervisor = Supervisor::new("web", Ledger::default(), began);
    let effects = told(&mut supervisor, sees(0, seen()), began);
    assert_eq!(effects, [running(7, 1, 0), Effect::Ready]);
    assert_eq!(
        probe_for(&mut supervisor, began, 0..10, &Outcome::Success),
        []
    );
    let effects = probe_for(&mut supervisor, began, 10..20, &fault());
    let condemned: Vec<&Effect> = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Condemn { .. }))
        .collect();
    let [
        Effect::Condemn {
            container,
            grace,
            holder,
            ..
        },
    ] = condemned.as_slice()
    else {
        panic!("{effects:?}")
    };
    assert_eq!((container.as_str(), grace.as_secs()), ("app", 4));
    assert_eq!(holder.as_deref(), Some("image"), "the pod stays");

    // The container is still ending when the supervisor looks again. The pod must not lose its holder.
    let mut ending = seen();
    ending.held.insert("app".into());
    let now = began + Duration::from_secs(21);
    let effects = told(&mut supervisor, sees(21, ending), now);
    let releases = |one: &Effect| matches!(one, Effect::Release { .. });
    assert!(!effects.iter().any(releases), "{effects:?}");
}

#[test]
fn a_container_is_ready_when_its_readiness_probe_says_so() {
    let probe =
        r#""readinessProbe":{"exec":{"command":["true"]},"periodSeconds":1,"failureThreshold":1}"#;
    let spec = spec(probe);
    let seen = || {
        staged_pod(
            &[],
            &[],
            &[("app", Run::Running, 0, 0)],
            std::slice::from_ref(&spec),
        )
    };
    let began = Instant::now();
    let mut supervisor = Supervisor::new("web", Ledger::default(), began);
    let healthy = |supervisor: &mut Supervisor, second: u64| {
        let now = began + Duration::from_secs(second);
        supervisor
            .step(sees(second, seen()), now)
            .into_iter()
            .find_map(|effect| match effect {
                Effect::Say(Report {
                    status: Status::Running { health, .. },
                    containers,
                    ..
                }) => {
                    let probe = containers.first().and_then(|one| one.probe.as_ref());
                    Some((health.healthy, probe.map(|probe| probe.kind)))
                }
                _ => None,
            })
    };
    assert_eq!(healthy(&mut supervisor, 0), Some((0, None)));
    probe_for(&mut supervisor, began, 0..3, &Outcome::Success);
    assert_eq!(healthy(&mut supervisor, 3), Some((1, None)));
    probe_for(&mut supervisor, began, 3..6, &fault());
    assert_eq!(
        healthy(&mut supervisor, 6),
        Some((0, Some(ProbeKind::Readiness)))
    );
    probe_for(&mut supervisor, began, 6..9, &Outcome::Success);
    assert_eq!(healthy(&mut supervisor, 9), Some((1, None)));
}

#[test]
fn probes_wait_for_the_hook_and_a_failed_hook_ends_the_container() {
    let hook = r#""lifecycle":{"postStart":{"exec":{"command":["false"]}}}"#;
    let spec = spec(hook);
    let seen = || {
        staged_pod(
            &[],
            &[],
            &[("app", Run::Running, 0, 0)],
            std::slice::from_ref(&spec),
        )
    };
    let now = Instant::now();
    let mut supervisor = Supervisor::new("web", Ledger::default(), now);
    let first = told(&mut supervisor, sees(0, seen()), now);
    let posts = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Post { container, run, .. } => Some((container.clone(), run.clone())),
            _ => None,
        })
    };
    let (container, run) = posts(&first).expect("the hook runs");
    assert!(
        first.contains(&troubled(7, (0, 1), 0, "app: waits for its startup probe"))
            || first.iter().any(|one| matches!(one, Effect::Say(_))),
        "{first:?}"
    );
    let again = told(&mut supervisor, sees(1, seen()), now);
    assert_eq!(posts(&again), None, "once for each run of the container");
    let outcome = Err("exited with 1".to_owned());
    let ended = supervisor.step(
        Event::Posted {
            container,
            run,
            outcome,
        },
        now,
    );
    assert!(
        ended
            .iter()
            .any(|one| matches!(one, Effect::Condemn { .. })),
        "{ended:?}"
    );
    let after = told(&mut supervisor, sees(2, seen()), now);
    assert_eq!(posts(&after), None);
}
