//! An attempt of a Job is started at most once on a host, and its end is reported until the state has it.

use beemesh_protocol::state::Object;

use super::*;

/// The Job `web`, whose attempt began on this host at log index 10.
struct Rig {
    state: State,
    index: u64,
    now: Instant,
    reconciler: Reconciler,
    units: BTreeMap<String, UnitState>,
}

const RUNS: &str = "1/1 healthy · rev 1 · 0 restarts";

impl Rig {
    fn new(body: &str) -> Self {
        let mut rig = Self {
            state: State::default(),
            index: 1,
            now: Instant::now(),
            reconciler: Reconciler::default(),
            units: BTreeMap::new(),
        };
        let cluster = CLUSTER;
        rig.apply(Change::Found {
            cluster,
            host: me(),
        });
        rig.apply(Change::RaiseLevel { level: 1 });
        rig.index = 8;
        rig.put(body);
        rig.assign(None);
        rig
    }

    fn apply(&mut self, change: Change) {
        self.index += 1;
        let outcome = self
            .state
            .apply(self.index, &Command::unasked(self.index, change));
        assert!(
            !matches!(outcome, beemesh_protocol::peer::Outcome::Refused(_)),
            "{outcome:?}"
        );
    }

    fn put(&mut self, body: &str) {
        let job = Object {
            kind: Kind::Job,
            ..object(body)
        };
        self.apply(Change::Apply {
            manifest: "web".into(),
            objects: vec![job],
            policy: None,
            keep: false,
            if_index: None,
        });
    }

    fn assign(&mut self, from: Option<HostId>) {
        let index = self.state.workload("web").unwrap().index;
        self.apply(Change::Assign {
            workload: "web".into(),
            ordinal: 0,
            index,
            from,
            host: Some(HOST),
        });
    }

    /// The leader records the end of this attempt.
    fn end(&mut self, attempt: u64, succeeded: bool, again: bool) {
        self.apply(Change::EndJob {
            workload: "web".into(),
            ordinal: 0,
            index: attempt,
            succeeded,
            reason: String::new(),
            again,
        });
    }

    fn look(&mut self) -> Plan {
        let view = View {
            applied: self.index,
            state: Arc::new(self.state.clone()),
        };
        self.reconciler.look(&Seen {
            now: self.now,
            host: HOST,
            view: &view,
            units: &self.units,
        })
    }

    /// The operations that the host starts; `[]` is none.
    fn begins(&mut self) -> Vec<Work> {
        self.look()
            .begin
            .into_iter()
            .map(|(_, work)| work)
            .collect()
    }

    /// The phase, the message, and whether the report contains the end.
    fn says(&mut self) -> (Phase, String, bool) {
        let mut plan = self.look();
        assert_eq!(plan.reports.len(), 1, "{plan:?}");
        let report = plan.reports.remove(0);
        (report.phase, report.message, report.ended)
    }

    /// The disk has the attempt of this log index, and its unit has this state.
    fn unit(&mut self, index: u64, active: &str, started: bool, status: &str) {
        let unit = UnitState {
            kube: format!(
                "[X-Beemesh]\nWorkload=web\nRevision=1\nIndex={index}\nCluster={CLUSTER}\nFormat=3\n\n[Kube]\n\
                 Yaml=beemesh-pod-web.{index}.yaml\n"
            ),
            ..unit(active, started, status)
        };
        self.units.insert("web".into(), unit);
    }

    /// The operation in progress succeeds.
    fn done(&mut self) {
        self.reconciler.reached("web", Step::Tidy);
        self.reconciler.ended(self.now, "web", Ending::Done);
        // systemd has reported everything by now.
        self.now += NEWS_MAX + Duration::from_secs(1);
    }

    /// Starts the attempt of log index 10.
    fn bring(&mut self) {
        assert_eq!(self.begins(), [Work::Bring(10)]);
        self.unit(10, "active", true, RUNS);
        self.done();
        assert_eq!((self.begins(), self.says().0), (vec![], Phase::Running));
    }

    /// The gateway restarts, with the stored ends.
    fn restart(&mut self, ends: &[End]) {
        let ends = ends.iter().map(|end| ("web".to_owned(), end.clone()));
        self.reconciler = Reconciler::after(BTreeSet::new(), ends.collect());
    }

    /// The end is made durable, stored and reported.
    fn conclude(&mut self) -> End {
        let plan = self.look();
        assert_eq!(plan.begin, [("web".to_owned(), Work::Conclude(10))]);
        assert!(!plan.reports[0].ended, "not before it is durable");
        self.done();
        let plan = self.look();
        let [(_, end)] = plan.record.as_slice() else {
            panic!("{plan:?}");
        };
        assert!(!plan.reports[0].ended, "not before it is kept");
        self.reconciler.recorded("web", end.index);
        assert!(self.says().2);
        end.clone()
    }
}

#[test]
fn an_attempt_that_has_ended_is_not_started_again_by_anything() {
    for (active, status, succeeded, phase, words) in [
        (
            "active",
            "completed · rev 1 · 0 restarts",
            true,
            Phase::Succeeded,
            "",
        ),
        (
            "failed",
            "ended: container web-main ended with code 3",
            false,
            Phase::Failed,
            "container web-main ended with code 3",
        ),
    ] {
        let mut rig = Rig::new("{}");
        rig.bring();
        rig.unit(10, active, true, status);
        let end = rig.conclude();
        assert_eq!((end.succeeded, end.reason.as_str()), (succeeded, words));
        let told = (phase, words.to_owned(), true);
        // After a boot no unit has run; after a restart of the agent there is no unit; after a restart of the gateway
        // there are only the stored ends.
        for recorded in [false, true] {
            if recorded {
                rig.end(10, succeeded, false);
            }
            for (active, started) in [("active", true), ("inactive", true), ("inactive", false)] {
                rig.restart(std::slice::from_ref(&end));
                rig.unit(10, active, started, if started { status } else { "" });
                rig.now += Duration::from_secs(3600);
                assert_eq!(rig.begins(), [], "{active} {started} {recorded}");
                assert_eq!(rig.says(), told, "{active} {started} {recorded}");
            }
        }
        // The host is drained and undrained, and the same manifest is applied again.
        for drained in [true, false] {
            rig.apply(Change::DrainHost {
                host: HOST,
                drained,
            });
            assert_eq!((rig.begins(), rig.says()), (vec![], told.clone()));
        }
        rig.put("{}");
        assert_eq!((rig.begins(), rig.says()), (vec![], told));
        // A change makes it another Job.
        rig.put("{ }");
        rig.assign(None);
        assert_eq!(rig.begins(), [Work::Bring(rig.index)]);
    }
}

#[test]
fn an_attempt_that_was_interrupted_has_failed() {
    let mut rig = Rig::new("{}");
    rig.bring();
    rig.restart(&[]);
    rig.unit(10, "inactive", false, "");
    let end = rig.conclude();
    assert!(
        !end.succeeded && end.reason.contains("interrupted"),
        "{end:?}"
    );
    // The next attempt is a new one.
    rig.end(10, false, true);
    assert_eq!(rig.begins(), []);
    rig.assign(Some(HOST));
    assert_eq!(rig.begins(), [Work::Bring(rig.index)]);
}

#[test]
fn an_attempt_that_the_cluster_has_given_up_is_not_started() {
    let mut rig = Rig::new("{}");
    rig.end(10, false, false);
    assert_eq!(rig.look(), Plan::default(), "it never came here");

    let mut rig = Rig::new("{}");
    rig.bring();
    // The attempt ran on here, without a connection, after its time had run out.
    rig.apply(Change::Assign {
        workload: "web".into(),
        ordinal: 0,
        index: 9,
        from: Some(HOST),
        host: None,
    });
    assert_eq!(rig.begins(), [Work::Remove(10)]);
}

#[test]
fn what_0_2_0_had_every_boot_start_is_disarmed_and_not_started_again() {
    let mut rig = Rig::new("{}");
    rig.bring();
    rig.unit(10, "active", true, RUNS);
    if let Some(unit) = rig.units.get_mut("web") {
        unit.kube.push_str("\n[Install]\nWantedBy=default.target\n");
    }
    assert_eq!(rig.begins(), [Work::Disarm(10)]);
    rig.unit(10, "active", true, RUNS);
    rig.done();
    assert_eq!(rig.begins(), []);
}

/// The gateway was killed between writing the Quadlet of the new revision and replacing its pod.
#[test]
fn what_was_done_before_a_change_says_nothing_about_the_change() {
    let mut rig = Rig::new("{}");
    rig.bring();
    let completed = "completed · rev 1 · 0 restarts";
    rig.unit(10, "active", true, completed);
    let end = rig.conclude();
    rig.end(10, true, false);
    rig.put("{ }");
    rig.assign(None);
    let second = rig.index;
    rig.unit(second, "active", true, completed);
    if let Some(unit) = rig.units.get_mut("web") {
        unit.kube = unit.kube.replace("Revision=1", "Revision=2");
    }
    rig.restart(&[end]);
    assert_eq!(rig.begins(), [Work::Conclude(second)]);
    let (phase, words, _) = rig.says();
    assert!(
        phase == Phase::Failed && words.contains("interrupted"),
        "{words}"
    );
}

/// systemd reports the state of the new attempt a little after its start.
#[test]
fn what_an_attempt_left_is_not_the_end_of_the_next_one() {
    let mut rig = Rig::new("{}");
    rig.bring();
    let failed = "ended: container web-main ended with code 3";
    rig.unit(10, "failed", true, failed);
    rig.conclude();
    rig.end(10, false, true);
    rig.assign(Some(HOST));
    let second = rig.index;
    assert_eq!(rig.begins(), [Work::Bring(second)]);
    rig.unit(second, "failed", true, failed);
    rig.reconciler.reached("web", Step::Tidy);
    rig.reconciler.ended(rig.now, "web", Ending::Done);
    let plan = rig.look();
    assert!(
        plan.begin.is_empty() && plan.due == Some(rig.now + NEWS_MAX),
        "{plan:?}"
    );
    rig.unit(second, "active", true, RUNS);
    rig.now += NEWS_MAX;
    assert_eq!((rig.begins(), rig.says().0), (vec![], Phase::Running));
    rig.unit(second, "failed", true, failed);
    assert_eq!(rig.begins(), [Work::Conclude(second)]);
}
