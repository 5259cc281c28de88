use beemesh_protocol::{
    ClusterId,
    peer::Outcome,
    pod::{LastExit, Told},
    state::{Command, Host, Kind, Object, Origin, ResolvedImage, RevisionEnd, TokenRecord},
};
use sha2::{Digest, Sha256};

use super::*;

mod away;
mod history;
mod images;
mod restarts;
mod seats;
mod stopped;

fn h(n: u8) -> HostId {
    HostId([n; 32])
}

/// How the pods of a revision behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    /// They are ready after one second.
    Good,
    /// Their image is missing, so the pod before them goes on.
    NoImage,
    /// A container of them ends again and again.
    Loops,
    /// They are never ready.
    Unready,
}

/// A pod on a host: the log index of its revision, and when it was started.
#[derive(Debug, Clone, Copy)]
struct Running {
    index: u64,
    since: u64,
}

/// A cluster with hosts that follow the state, and its leader.
struct World {
    state: State,
    index: u64,
    now: u64,
    begin: Instant,
    watch: Watch,
    reachable: BTreeSet<HostId>,
    /// The hosts that the leader has no report of.
    silent: BTreeSet<HostId>,
    /// The hosts whose gateway has just started, and has not looked at its units yet.
    starting: BTreeSet<HostId>,
    /// The hosts that write the storage of their pods to disk.
    busy: BTreeSet<HostId>,
    /// The hosts that pull the image of their next pod.
    pulling: BTreeSet<HostId>,
    pods: BTreeMap<HostId, Running>,
    /// The image of the pods on each host.
    images: BTreeMap<HostId, ResolvedImage>,
    /// By log index of the revision.
    behaviours: BTreeMap<u64, Behaviour>,
    /// The proposals, in the form `20 to 1 2` and `20 ready`.
    log: Vec<String>,
    /// The most hosts that lacked a ready pod at the same time, though they are reachable and had one before.
    lacking_most: usize,
}

impl World {
    fn of(hosts: u8) -> Self {
        let mut world = Self {
            state: State::default(),
            index: 0,
            now: 0,
            begin: Instant::now(),
            watch: Watch::default(),
            reachable: (1..=hosts).map(h).collect(),
            silent: BTreeSet::new(),
            starting: BTreeSet::new(),
            busy: BTreeSet::new(),
            pulling: BTreeSet::new(),
            pods: BTreeMap::new(),
            images: BTreeMap::new(),
            behaviours: BTreeMap::new(),
            log: Vec::new(),
            lacking_most: 0,
        };
        let host = |n: u8| Host {
            id: h(n),
            name: format!("h{n}"),
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            drained: false,
            claims_as: None,
            votes_from_ms: 0,
            lost_at_ms: 0,
            declared_lost: false,
            steady_at_ms: 0,
        };
        world.apply(Change::Found {
            cluster: ClusterId([1; 16]),
            host: host(1),
        });
        world.apply(Change::PutToken(TokenRecord {
            id: [7; 8],
            secret_hash: [8; 32],
            expires_ms: u64::MAX,
            uses: 99,
        }));
        for n in 2..=hosts {
            world.apply(Change::Admit {
                token: [7; 8],
                secret_hash: [8; 32],
                host: host(n),
                replaces: None,
            });
        }
        world.apply(Change::RequireLevel { level: 2 });
        world
    }

    fn try_apply(&mut self, change: Change) -> Outcome {
        self.index += 1;
        let command = Command {
            at_ms: self.now,
            change,
            origin: Some(Origin {
                host: h(1),
                who: "uid 0".into(),
                from: "pid 1".into(),
            }),
        };
        let outcome = self.state.apply(self.index, &command);
        let again = State::from_snapshot(self.state.to_snapshot());
        assert_eq!(again, self.state, "a snapshot has the whole state");
        outcome
    }

    fn apply(&mut self, change: Change) -> u64 {
        let outcome = self.try_apply(change.clone());
        assert!(
            !matches!(outcome, Outcome::Refused(_)),
            "{change:?}: {outcome:?}"
        );
        self.index
    }

    /// Applies a new version of `web`; `spec` is a part of its JSON.
    fn put(&mut self, behaviour: Behaviour, spec: &str) -> u64 {
        self.put_on(behaviour, spec, None)
    }

    fn put_on(&mut self, behaviour: Behaviour, spec: &str, replicas: Option<u32>) -> u64 {
        let body = format!(r#"{{"v":{},"spec":{{{spec}}}}}"#, self.index);
        let object = Object {
            kind: Kind::Deployment,
            namespace: "default".into(),
            name: "web".into(),
            hash: Sha256::digest(&body).into(),
            body: body.into(),
            references: Vec::new(),
            replicas,
            selector: BTreeMap::new(),
        };
        let index = self.apply(Change::Apply {
            manifest: "web".into(),
            objects: vec![object],
            policy: None,
            keep: true,
            if_index: None,
        });
        self.behaviours.insert(index, behaviour);
        index
    }

    /// Lets reachable hosts follow the state.
    fn follow(&mut self) {
        let workload = self.state.workload("web").unwrap().clone();
        for host in self.reachable.clone() {
            if !placement::is_on(&self.state, &workload, host) {
                self.pods.remove(&host);
                continue;
            }
            let (_, index) = self.state.assigned(&workload, Place::first(host));
            let lacks_image = self.behaviours[&index] == Behaviour::NoImage;
            let runs = self.pods.get(&host).map(|pod| pod.index);
            if runs != Some(index) && !lacks_image && !self.pulling.contains(&host) {
                let since = self.now;
                self.pods.insert(host, Running { index, since });
            }
        }
    }

    fn is_ready(&self, host: HostId) -> bool {
        self.pods.get(&host).is_some_and(|pod| {
            self.behaviours[&pod.index] == Behaviour::Good && self.now >= pod.since + 1000
        })
    }

    fn report(&self, host: HostId) -> WorkloadReport {
        let workload = self.state.workload("web").unwrap();
        let (_, wanted) = self.state.assigned(workload, Place::first(host));
        let mut report = WorkloadReport {
            workload: "web".into(),
            total: 1,
            ..WorkloadReport::default()
        };
        if self.behaviours[&wanted] == Behaviour::NoImage {
            report.index = wanted;
            report.phase = Phase::Failed;
            report.message = "no such image".into();
            report.healthy = u32::from(self.is_ready(host));
            return report;
        }
        let Some(pod) = self.pods.get(&host) else {
            return report;
        };
        report.index = pod.index;
        report.images = ResolvedImages(self.images.get(&host).cloned().into_iter().collect());
        report.phase = match self.busy.union(&self.pulling).any(|one| *one == host) {
            true => Phase::Starting,
            false => Phase::Running,
        };
        report.healthy = u32::from(self.is_ready(host));
        if self.behaviours[&pod.index] == Behaviour::Loops {
            let ends = u32::try_from((self.now - pod.since) / 5000).unwrap();
            report.restarts = ends;
            report.containers = Told(vec![ContainerReport {
                name: "app".into(),
                ends,
                exit: Some(LastExit {
                    code: Some(127),
                    output: "not found".into(),
                    ..LastExit::default()
                }),
                ..ContainerReport::default()
            }]);
        }
        report
    }

    /// Plans and applies the plan once, and lets a tenth of a second pass.
    fn step(&mut self) {
        self.follow();
        let told = self.reachable.difference(&self.silent).map(|host| {
            let report = HostReport {
                applied: self.index,
                workloads: match self.starting.contains(host) {
                    true => Vec::new(),
                    false => vec![self.report(*host)],
                },
                ..HostReport::default()
            };
            (*host, Arc::new(report))
        });
        let reports: BTreeMap<_, _> = told.collect();
        let now = self.begin + Duration::from_millis(self.now);
        let state = self.state.clone();
        let plan = plan(
            &mut self.watch,
            &Seen {
                known_at: None,
                state: &state,
                reports: &reports,
                reachable: &self.reachable,
                now,
            },
        );
        for change in plan.changes {
            self.log.push(told_of(&change));
            self.apply(change);
        }
        let had = |host: &&HostId| self.pods.contains_key(*host) && !self.is_ready(**host);
        let lacking = self.reachable.iter().filter(had).count();
        self.lacking_most = self.lacking_most.max(lacking);
        self.now += 100;
    }

    /// Lets this number of seconds pass. Returns the proposals since then.
    fn pass(&mut self, seconds: u64) -> Vec<String> {
        let before = self.log.len();
        for _ in 0..seconds * 10 {
            self.step();
        }
        self.log[before..].to_vec()
    }

    /// The first revision, rolled out.
    fn rolled_out(hosts: u8, spec: &str) -> (Self, u64) {
        let mut world = Self::of(hosts);
        let first = world.put(Behaviour::Good, spec);
        let log = world.pass(5);
        assert_eq!(log, [format!("{first} ready")]);
        world.lacking_most = 0;
        (world, first)
    }

    fn on(&self, n: u8) -> u64 {
        self.pods[&h(n)].index
    }

    fn end(&self, index: u64) -> RevisionEnd {
        let revision = self.state.revision_at("web", index);
        revision.and_then(|one| one.end.clone()).unwrap()
    }
}

fn told_of(change: &Change) -> String {
    match change {
        Change::Roll { to, hosts, .. } => {
            let hosts: Vec<_> = hosts.iter().map(|host| host.0[0].to_string()).collect();
            format!("{to} to {}", hosts.join(" "))
        }
        Change::EndRollout {
            index,
            outcome: RevisionOutcome::Ready,
            reason,
            ..
        } => format!("{index} ready {reason}").trim_end().to_owned(),
        Change::EndRollout {
            index,
            outcome,
            reason,
            ..
        } => format!("{index} {outcome:?} {reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_update_takes_one_host_after_the_other() {
    let (mut world, _) = World::rolled_out(3, "");
    let new = world.put(Behaviour::Good, "");
    let log = world.pass(12);
    let expected = ["to 1", "to 2", "to 3", "ready"].map(|what| format!("{new} {what}"));
    assert_eq!(log, expected);
    assert_eq!(world.lacking_most, 1);
    assert!(world.state.rollout("web").is_none());
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [new; 3]);
    assert_eq!(world.end(new).outcome, RevisionOutcome::Ready);
}

#[test]
fn as_many_hosts_are_replaced_as_the_strategy_allows() {
    for (strategy, steps, most) in [
        (
            r#""strategy":{"rollingUpdate":{"maxUnavailable":2}}"#,
            vec!["to 1 2", "to 3 4", "to 5"],
            2,
        ),
        (
            r#""strategy":{"rollingUpdate":{"maxUnavailable":"60%"}}"#,
            vec!["to 1 2 3", "to 4 5"],
            3,
        ),
        (r#""strategy":{"type":"Recreate"}"#, vec!["to 1 2 3 4 5"], 5),
    ] {
        let (mut world, _) = World::rolled_out(5, strategy);
        let new = world.put(Behaviour::Good, strategy);
        let log = world.pass(20);
        let mut expected: Vec<_> = steps.iter().map(|what| format!("{new} {what}")).collect();
        expected.push(format!("{new} ready"));
        assert_eq!(log, expected, "{strategy}");
        assert_eq!(world.lacking_most, most, "{strategy}");
    }
}

#[test]
fn a_revision_that_fails_reaches_no_second_host_and_is_rolled_back() {
    for (behaviour, reason) in [
        (Behaviour::NoImage, "h1: no such image"),
        (Behaviour::Loops, "h1: app: exit 127, 2 times: not found"),
    ] {
        let (mut world, first) = World::rolled_out(3, "");
        let bad = world.put(behaviour, "");
        let log = world.pass(30);
        let expected = [
            format!("{bad} to 1"),
            format!("{bad} RolledBack {reason}"),
            format!("{first} to 1"),
        ];
        assert_eq!(log, expected);
        assert!(world.lacking_most <= 1);
        assert_eq!([1, 2, 3].map(|n| world.on(n)), [first; 3]);
        assert_eq!(world.end(bad).reason, reason);
        // The next change begins from the revision that runs.
        let good = world.put(Behaviour::Good, "");
        assert_eq!(world.pass(15).len(), 4);
        assert_eq!([1, 2, 3].map(|n| world.on(n)), [good; 3]);
        assert_eq!(world.lacking_most, 1);
    }
}

#[test]
fn a_pod_that_is_never_ready_fails_at_the_deadline() {
    let spec = r#""progressDeadlineSeconds":20"#;
    let (mut world, first) = World::rolled_out(3, spec);
    let bad = world.put(Behaviour::Unready, spec);
    assert_eq!(world.pass(19), [format!("{bad} to 1")]);
    let log = world.pass(5);
    assert_eq!(
        log,
        [
            format!("{bad} RolledBack no progress for 20 s: h1: is not ready"),
            format!("{first} to 1")
        ]
    );
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [first; 3]);
}

#[test]
fn a_failed_revision_stays_for_a_look_if_the_manifest_says_so() {
    let (mut world, _) = World::rolled_out(3, "");
    let body = r#"{"metadata":{"annotations":{"beemesh.io/on-failure":"pause"}}}"#;
    let object = Object {
        body: body.into(),
        hash: [9; 32],
        ..(*world.state.workload("web").unwrap().object).clone()
    };
    let bad = world.apply(Change::Apply {
        manifest: "web".into(),
        objects: vec![object],
        policy: None,
        keep: true,
        if_index: None,
    });
    world.behaviours.insert(bad, Behaviour::NoImage);
    let log = world.pass(10);
    assert_eq!(
        log,
        [
            format!("{bad} to 1"),
            format!("{bad} Failed h1: no such image")
        ]
    );
    let rollout = world.state.rollout("web").unwrap();
    let on = |n| rollout.on(Place::first(h(n)));
    assert_eq!((on(1), on(2) == bad), (bad, false));
}

#[test]
fn a_pause_holds_the_next_host_also_under_another_leader() {
    let (mut world, first) = World::rolled_out(3, "");
    let new = world.put(Behaviour::Good, "");
    world.pass(1);
    let pause = |paused| Change::PauseRollout {
        workload: "web".into(),
        paused,
    };
    world.apply(pause(true));
    assert!(world.pass(10).is_empty());
    world.watch = Watch::default();
    assert!(world.pass(10).is_empty());
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [new, first, first]);
    world.apply(pause(false));
    assert_eq!(world.pass(10).len(), 3);
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [new; 3]);
    // A workload that is paused while nothing is rolled out holds its next change.
    world.apply(pause(true));
    let next = world.put(Behaviour::Good, "");
    assert!(world.pass(10).is_empty());
    world.apply(pause(false));
    world.pass(15);
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [next; 3]);
    assert!(world.state.rollout("web").is_none());
}

#[test]
fn a_leader_without_reports_takes_no_pod_for_one_that_is_not_ready() {
    let (mut world, first) = World::rolled_out(3, "");
    world.silent = [h(1), h(2), h(3)].into();
    let new = world.put(Behaviour::Good, "");
    assert!(world.pass(10).is_empty());
    world.silent.remove(&h(2));
    assert!(
        world.pass(10).is_empty(),
        "the pods of two hosts may not be ready"
    );
    world.silent.remove(&h(3));
    assert!(
        world.pass(10).is_empty(),
        "that of one host may not be ready"
    );
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [first; 3]);
    world.silent.clear();
    world.pass(12);
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [new; 3]);
    assert_eq!(world.lacking_most, 1);
}

#[test]
fn a_second_apply_takes_over_and_keeps_what_hosts_run() {
    let (mut world, first) = World::rolled_out(3, "");
    let second = world.put(Behaviour::Good, "");
    world.pass(4);
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [second, second, first]);
    let third = world.put(Behaviour::NoImage, "");
    world.pass(20);
    // The third one fails on the first host, and the last revision that was ready on all is the first one.
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [first; 3]);
    assert_eq!(world.lacking_most, 1);
    assert_eq!(world.end(second).outcome, RevisionOutcome::Superseded);
    assert_eq!(world.end(third).outcome, RevisionOutcome::RolledBack);
}

#[test]
fn an_undo_is_a_new_revision_with_the_old_contents() {
    let (mut world, first) = World::rolled_out(3, "");
    let old = Arc::clone(&world.state.workload("web").unwrap().object);
    world.put(Behaviour::Good, "");
    world.pass(12);
    let undo = |revision| Change::Undo {
        workload: "web".into(),
        revision,
        policy: None,
    };
    let third = world.apply(undo(1));
    world.behaviours.insert(third, Behaviour::Good);
    let log = world.pass(12);
    assert_eq!(log.len(), 4, "{log:?}");
    let web = world.state.workload("web").unwrap();
    assert_eq!((web.revision, web.index), (3, third));
    assert_eq!(web.object, old);
    assert_eq!(world.lacking_most, 1);
    // Again, it changes nothing; a revision that never was is refused.
    world.apply(undo(1));
    assert_eq!(world.state.workload("web").unwrap().revision, 3);
    let refused = world.try_apply(undo(7));
    let Outcome::Refused(reasons) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        reasons[0].message,
        "workload `web` has no revision 7: kept are 1, 2, 3"
    );
    assert!(world.state.revision_at("web", first).is_some());
}

#[test]
fn a_failed_revision_is_tried_again_when_what_it_uses_is_applied_again() {
    let mut world = World::of(2);
    let object = |kind, name: &str, body: &str| Object {
        kind,
        namespace: "default".into(),
        name: name.into(),
        body: body.into(),
        hash: Sha256::digest(body).into(),
        references: match kind {
            Kind::ConfigMap => Vec::new(),
            _ => vec![beemesh_protocol::state::Reference {
                kind: Kind::ConfigMap,
                name: "conf".into(),
                optional: false,
            }],
        },
        replicas: None,
        selector: BTreeMap::new(),
    };
    let conf = |body: &str| object(Kind::ConfigMap, "conf", body);
    let put = |world: &mut World, objects: Vec<Object>, behaviour| {
        let index = world.apply(Change::Apply {
            manifest: "conf".into(),
            objects,
            policy: None,
            keep: true,
            if_index: None,
        });
        let web = world.state.workload("web").unwrap();
        world.behaviours.insert(web.index, behaviour);
        (index, web.index, web.revision)
    };
    let web = object(Kind::DaemonSet, "web", "{}");
    put(&mut world, vec![conf("1"), web], Behaviour::Good);
    world.pass(5);
    let (index, on, _) = put(&mut world, vec![conf("2")], Behaviour::NoImage);
    assert_eq!(on, index);
    world.pass(5);
    assert_eq!(world.end(on).outcome, RevisionOutcome::RolledBack);
    let (index, on, revision) = put(&mut world, vec![conf("2")], Behaviour::Good);
    assert_eq!((on, revision), (index, 3), "it is tried again");
    world.pass(12);
    assert_eq!(world.end(on).outcome, RevisionOutcome::Ready);
    let (index, on, _) = put(&mut world, vec![conf("2")], Behaviour::Good);
    assert!(on < index, "nothing has failed, so nothing changes");
}

#[test]
fn a_broken_workload_is_repaired_at_once() {
    let mut world = World::of(3);
    world.put(Behaviour::Loops, "");
    let log = world.pass(20);
    assert_eq!(log.len(), 1);
    assert!(log[0].contains("Failed h1: app: exit 127"), "{log:?}");
    let good = world.put(Behaviour::Good, "");
    let log = world.pass(5);
    assert_eq!(log, [format!("{good} to 1 2 3"), format!("{good} ready")]);
}
