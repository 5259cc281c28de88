use std::collections::BTreeMap;

use super::*;
use crate::health::{Container, Health, Probe, Restart};
use crate::podman::Schedule;
use crate::supervisor::termination::EndedRun;

/// The time at the start of each test, by the host's clock.
const CLOCK: u64 = 1_000_000;

const OLD: Persisted = Persisted {
    revision: 7,
    index: 70,
};
const NEW: Persisted = Persisted {
    revision: 8,
    index: 80,
};

fn container(role: Role, run: Run, restarts: u32) -> Container {
    Container {
        id: format!("{role:?}"),
        name: "web-app".into(),
        role,
        run,
        probe: Probe::Absent,
        restarts,
        exit_code: 0,
        started_at: 100,
        exited_at: if run == Run::Exited { 200 } else { -1 },
    }
}

fn pod(labels: Option<Persisted>, infra: Run, member: Run, restarts: u32) -> Option<SeenPod> {
    Some(SeenPod {
        id: "pod".into(),
        labels,
        containers: vec![
            container(Role::Infra, infra, 0),
            container(Role::Member, member, restarts),
        ],
        restart: Restart::Always,
        held: BTreeSet::new(),
        failures_max: None,
        image: "image".into(),
        schedules: BTreeMap::new(),
        failing: BTreeMap::new(),
        out_of_memory: BTreeSet::new(),
        messages: BTreeMap::new(),
        has_init: false,
        missing: None,
        staged: None,
        interrupted: false,
        needs_lease: false,
        specs: std::sync::Arc::default(),
        conmons: if infra == Run::Running {
            vec![11, 12]
        } else {
            vec![]
        },
    })
}

fn up(labels: Persisted) -> Option<SeenPod> {
    pod(Some(labels), Run::Running, Run::Running, 0)
}

fn saw(persisted: Persisted, pod: Option<SeenPod>) -> Event {
    saw_at(0, persisted, pod)
}

fn saw_at(second: u64, persisted: Persisted, pod: Option<SeenPod>) -> Event {
    Event::Looked(Box::new(Sight {
        persisted: Some(persisted),
        pod,
        clock: Duration::from_secs(CLOCK + second),
        released: false,
        lease: None,
    }))
}

fn running(revision: u64, healthy: u32, restarts: u32) -> Effect {
    troubled(revision, (healthy, 1), restarts, "")
}

/// The report of a pod with this number of healthy containers.
fn troubled(revision: u64, (healthy, total): (u32, u32), restarts: u32, words: &str) -> Effect {
    let health = Health {
        healthy,
        total,
        restarts,
    };
    Effect::Say(Report {
        trouble: words.into(),
        ..Status::Running { health, revision }.into()
    })
}

fn says(status: Status) -> Effect {
    Effect::Say(status.into())
}

fn starting(revision: u64, doing: &str) -> Effect {
    says(Status::Starting {
        revision,
        doing: doing.into(),
    })
}

fn failed(reason: &str) -> Effect {
    says(Status::Failed {
        reason: reason.into(),
    })
}

fn play(revision: u64) -> Vec<Effect> {
    vec![
        starting(revision, "playing the pod"),
        Effect::Play { revision },
    ]
}

/// The last line of every container that is asked for it.
const LAST_LINE: &str = "a secret of the lock";

/// Events with their time in seconds, and the effects that each must have. Only the line of a report is compared.
fn tell(story: Vec<(u64, Event, Vec<Effect>)>) {
    let began = Instant::now();
    let mut supervisor = Supervisor::new("web", Ledger::default(), began);
    for (second, event, expected) in story {
        let words = format!("second {second}: {event:?}");
        let effects = step(&mut supervisor, event, began + Duration::from_secs(second));
        let effects: Vec<_> = effects
            .into_iter()
            // The tests of the ledger check what is stored.
            .filter(|effect| !matches!(effect, Effect::Keep(_)))
            .map(shown)
            .collect();
        assert_eq!(effects, expected, "{words}");
    }
}

/// A step in which every container that is asked for its last line answers at once.
fn step(supervisor: &mut Supervisor, event: Event, now: Instant) -> Vec<Effect> {
    let effects = supervisor.step(event, now);
    let answered = effects.into_iter().flat_map(|effect| match effect {
        Effect::Hear { container, .. } => {
            let heard = Event::Heard {
                container,
                message: String::new(),
                output: LAST_LINE.to_owned(),
            };
            supervisor.step(heard, now)
        }
        effect => vec![effect],
    });
    answered.collect()
}

fn shown(effect: Effect) -> Effect {
    match effect {
        Effect::Say(report) => {
            let line = report.line();
            assert!(!line.contains("secret"), "for every local user: {line}");
            Effect::Say(crate::health::parse(&line).unwrap())
        }
        effect => effect,
    }
}

fn adopted(revision: Persisted) -> (u64, Event, Vec<Effect>) {
    let effects = vec![
        Effect::Attach(vec![11, 12]),
        running(revision.revision, 1, 0),
        Effect::Ready,
    ];
    (0, saw(revision, up(revision)), effects)
}

#[test]
fn a_running_pod_is_adopted_and_left_alone() {
    tell(vec![
        (0, Event::Woken, vec![Effect::Await, Effect::Look]),
        adopted(OLD),
        (0, Event::Attached(vec![11, 12]), vec![]),
        (45, saw(OLD, up(OLD)), vec![]),
    ]);
}

#[test]
fn a_process_that_was_not_attached_is_attached_at_the_next_look() {
    tell(vec![
        adopted(OLD),
        (0, Event::Attached(vec![11]), vec![]),
        (1, saw(OLD, up(OLD)), vec![Effect::Attach(vec![12])]),
    ]);
}

#[test]
fn after_a_boot_the_persisted_revision_is_played() {
    let dead = |labels| pod(Some(labels), Run::Exited, Run::Exited, 0);
    for found in [None, dead(OLD), dead(NEW)] {
        tell(vec![
            (0, saw(NEW, found), play(8)),
            (1, Event::Played, vec![Effect::Look]),
        ]);
    }
}

#[test]
fn an_update_is_waited_for() {
    let updating = says(Status::Updating { from: 7, to: 8 });
    tell(vec![
        adopted(OLD),
        (
            1,
            saw(NEW, up(OLD)),
            vec![updating.clone(), Effect::Await, Effect::Look],
        ),
        (1, saw(NEW, up(OLD)), vec![]),
        (2, Event::Woken, vec![Effect::Await, Effect::Look]),
        (2, saw(NEW, None), vec![]),
        (
            3,
            saw(NEW, pod(Some(NEW), Run::Created, Run::Created, 0)),
            vec![starting(8, "the pod is being played")],
        ),
        (
            4,
            saw(NEW, up(NEW)),
            vec![Effect::Attach(vec![11, 12]), running(8, 1, 0)],
        ),
        (5, Event::Woken, vec![Effect::Look]),
    ]);
    // The gateway died during the replacement.
    for left in [up(OLD), None] {
        tell(vec![
            adopted(OLD),
            (
                1,
                saw(NEW, left.clone()),
                vec![updating.clone(), Effect::Await, Effect::Look],
            ),
            (1, saw(NEW, left.clone()), vec![]),
            (60, saw(NEW, left.clone()), vec![]),
            (61, saw(NEW, left), play(8)),
        ]);
    }
}

#[test]
fn a_pod_that_went_away_is_played_again_but_not_for_ever() {
    let mut story = vec![adopted(OLD)];
    for second in 1..=5 {
        story.push((second, saw(OLD, None), play(7)));
        let effects = vec![Effect::Attach(vec![11, 12]), running(7, 1, 0)];
        story.push((second, saw(OLD, up(OLD)), effects));
    }
    let reason = "the pod went away 5 times within 10 minutes";
    story.push((9, saw(OLD, None), vec![failed(reason), Effect::Exit(70)]));
    tell(story);
}

#[test]
fn a_pod_whose_container_was_not_started_is_played_again_to_learn_why() {
    let half = || pod(Some(OLD), Run::Running, Run::Created, 0);
    let reason = "container web-app cannot start: no such file";
    tell(vec![
        (
            0,
            saw(OLD, half()),
            vec![starting(7, "the pod is being played")],
        ),
        (2, saw(OLD, half()), vec![]),
        (3, saw(OLD, half()), play(7)),
        (
            4,
            Event::Failed(Failure::Hopeless(reason.into())),
            vec![failed(reason), Effect::Exit(70)],
        ),
        (5, Event::Hint, vec![]),
    ]);
}

#[test]
fn a_pod_that_lacks_a_container_is_played_again() {
    let part = || {
        let part = up(OLD).map(|pod| SeenPod {
            missing: Some("web-log".into()),
            ..pod
        });
        saw(OLD, part)
    };
    let missing = || starting(7, "container web-log is missing");
    let (_, whole, adopted) = adopted(OLD);
    tell(vec![
        (0, part(), vec![missing()]),
        (2, part(), vec![]),
        (3, part(), play(7)),
        (4, Event::Played, vec![Effect::Look]),
        (4, whole, adopted),
        // A user removes it by hand.
        (9, part(), vec![missing()]),
        (12, part(), play(7)),
    ]);
}

#[test]
fn trouble_is_waited_out_and_then_left_to_systemd() {
    let passing = || Failure::Passing("/run/podman/podman.sock: Connection refused".into());
    let blind = || Event::Blind {
        persisted: Some(OLD),
        failure: passing(),
    };
    let waiting = says(Status::Waiting {
        revision: 7,
        wait: "/run/podman/podman.sock: Connection refused".into(),
    });
    let ended = vec![
        failed("/run/podman/podman.sock: Connection refused"),
        Effect::Exit(75),
    ];
    tell(vec![
        (0, blind(), vec![waiting.clone()]),
        (299, blind(), vec![]),
        (300, blind(), ended),
    ]);
    // The supervisor of a running pod keeps running while Podman does not answer.
    tell(vec![
        adopted(OLD),
        (1, blind(), vec![waiting]),
        (900, blind(), vec![]),
        (
            901,
            saw(OLD, up(OLD)),
            vec![Effect::Attach(vec![11, 12]), running(7, 1, 0)],
        ),
    ]);
    let refused = || Event::Failed(Failure::Refused("no".into()));
    tell(vec![
        (0, refused(), vec![starting(0, "no; trying again")]),
        (1, refused(), vec![]),
        (2, refused(), vec![failed("no"), Effect::Exit(75)]),
    ]);
}

#[test]
fn damage_is_repaired_once() {
    let damaged = || Failure::Damaged("readlink".into());
    let repair = || {
        vec![
            starting(7, "repairing Podman's storage: readlink"),
            Effect::Repair,
        ]
    };
    tell(vec![
        (0, saw(OLD, None), play(7)),
        (1, Event::Failed(damaged()), repair()),
        (2, Event::Repaired(Ok(())), vec![Effect::Look]),
        (3, saw(OLD, None), play(7)),
        (
            4,
            Event::Failed(damaged()),
            vec![
                failed("readlink (Podman's storage was repaired without success)"),
                Effect::Exit(70),
            ],
        ),
    ]);
    tell(vec![(
        0,
        Event::Blind {
            persisted: Some(OLD),
            failure: damaged(),
        },
        repair(),
    )]);
}

#[test]
fn what_is_not_beemeshs_is_left_alone() {
    let reason =
        "a pod named web exists that does not belong to Beemesh; `podman pod rm -f web` removes it";
    let foreign = saw(OLD, pod(None, Run::Running, Run::Running, 0));
    tell(vec![(0, foreign, vec![failed(reason), Effect::Exit(70)])]);
    let nothing = Event::Looked(Box::new(Sight {
        persisted: None,
        pod: None,
        clock: Duration::ZERO,
        released: false,
        lease: None,
    }));
    tell(vec![(
        0,
        nothing,
        vec![
            failed("the Quadlet of workload web is missing"),
            Effect::Exit(70),
        ],
    )]);
}

#[test]
fn a_stop_takes_the_pod_down() {
    let effects = vec![says(Status::Stopping), Effect::Down, Effect::Exit(0)];
    tell(vec![
        adopted(OLD),
        (1, Event::Terminated, effects),
        (2, Event::Woken, vec![]),
    ]);
}

mod bursts;
mod leases;
mod restarts;
mod starts;
mod terminations;
