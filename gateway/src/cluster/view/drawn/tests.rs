use std::collections::BTreeMap;

use beemesh_protocol::{
    peer::{HostReport, Phase, WorkloadReport},
    state::{self, Change, Command, Kind, Object, Reference, TokenRecord},
};

use super::{
    super::tests::{changed, h, pod, report, scene, with},
    *,
};

/// A sequence of pseudo-random numbers that depends on the seed only.
struct Dice(u64);

impl Dice {
    /// A number below `n`.
    fn roll(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % n
    }

    fn host(&mut self) -> HostId {
        h(u8::try_from(1 + self.roll(6)).unwrap())
    }

    fn workload(&mut self) -> String {
        format!("w{}", self.roll(8))
    }
}

/// A cluster that changes at random.
struct World {
    dice: Dice,
    scene: Scene,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut scene = scene();
        let token = TokenRecord {
            id: [1; 8],
            secret_hash: [2; 32],
            expires_ms: 1000,
            uses: 200,
        };
        changed(&mut scene, 7, Change::PutToken(token));
        Self {
            dice: Dice(seed),
            scene,
        }
    }

    fn step(&mut self) {
        match self.dice.roll(10) {
            0..=3 => self.agree(),
            4..=6 => self.report(),
            7 => {
                let host = self.dice.host();
                if self.scene.reachable.remove(&host) {
                    self.scene.lost.insert(host, self.dice.roll(1000) as u64);
                } else {
                    self.scene.lost.remove(&host);
                    self.scene.reachable.insert(host);
                }
            }
            8 => {
                let leader = self.dice.host();
                self.scene.consensus.leader = Some(leader).filter(|_| self.dice.roll(4) > 0);
                self.scene.consensus.term += 1;
                self.scene.consensus.voters.insert(leader);
            }
            _ => {
                let host = self.dice.host();
                self.scene.consensus.voters.remove(&host);
                self.scene.removed = self.dice.roll(8) == 0;
                Arc::make_mut(&mut self.scene.reports).remove(&host);
            }
        }
    }

    /// Applies one change to the state, which may refuse it.
    fn agree(&mut self) {
        let change = self.change();
        self.scene.applied += 1;
        let state = Arc::make_mut(&mut self.scene.state);
        state.apply(self.scene.applied, &Command::unasked(5, change));
    }

    fn change(&mut self) -> Change {
        let (host, workload) = (self.dice.host(), self.dice.workload());
        let ordinal = u32::try_from(self.dice.roll(3)).unwrap();
        let found = self.scene.state.workload(&workload);
        let index = found.map_or(0, |found| found.index);
        let seats = self.scene.state.seats(&workload);
        let seat = seats.iter().find(|seat| seat.ordinal == ordinal);
        let (from, attempt) = seat.map_or((None, 0), |seat| (seat.host, seat.index));
        match self.dice.roll(14) {
            0..=3 => self.apply(workload),
            4 => Change::DeleteWorkload { workload },
            5 => Change::DrainHost {
                host,
                drained: self.dice.roll(2) == 0,
            },
            6 => Change::LabelHost {
                host,
                set: BTreeMap::from([("n".into(), self.dice.roll(4).to_string())]),
                remove: vec![],
            },
            7 => Change::RemoveHost { host },
            8 => Change::Admit {
                token: [1; 8],
                secret_hash: [2; 32],
                host: self.member(host),
                replaces: None,
            },
            9 => Change::PutHost(self.member(host)),
            10 => Change::RaiseLevel { level: 1 },
            11 | 12 => Change::Assign {
                workload,
                ordinal,
                index,
                from,
                host: Some(host).filter(|_| self.dice.roll(4) > 0),
            },
            _ => Change::EndJob {
                workload,
                ordinal,
                index: attempt,
                succeeded: self.dice.roll(2) == 0,
                reason: "code 3".into(),
                again: self.dice.roll(2) == 0,
            },
        }
    }

    fn member(&mut self, host: HostId) -> state::Host {
        state::Host {
            id: host,
            name: format!("h{}", host.0[0]),
            addresses: vec![format!("/ip4/10.0.0.{}/tcp/1", self.dice.roll(4))],
            labels: BTreeMap::from([("n".into(), self.dice.roll(4).to_string())]),
            drained: false,
            claims_as: None,
            votes_from_ms: 0,
            lost_at_ms: 0,
            declared_lost: false,
            steady_at_ms: 0,
        }
    }

    /// A manifest with one workload of any kind, and a claim that it may share with others.
    fn apply(&mut self, workload: String) -> Change {
        let selector = match self.dice.roll(3) {
            0 => vec![("n", "2")],
            _ => vec![],
        };
        let claim = (self.dice.roll(3) == 0).then(|| format!("data-{workload}"));
        let shared = format!("data-{}", self.dice.workload());
        let name = |name: &str| Reference {
            kind: Kind::PersistentVolumeClaim,
            name: name.to_owned(),
            optional: true,
        };
        let kind = [Kind::Pod, Kind::Deployment, Kind::Job][self.dice.roll(3)];
        let replicas = u32::try_from(self.dice.roll(4)).unwrap();
        let mut object = Object {
            kind,
            replicas: (kind == Kind::Deployment).then_some(replicas),
            hash: [u8::try_from(self.dice.roll(200)).unwrap(); 32],
            references: claim.iter().map(|claim| name(claim)).collect(),
            ..pod(&workload, &selector)
        };
        if self.dice.roll(3) == 0 {
            object.references.push(name(&shared));
        }
        let volume = claim.map(|claim| Object {
            kind: Kind::PersistentVolumeClaim,
            ..pod(&claim, &[])
        });
        Change::Apply {
            manifest: workload,
            objects: [object].into_iter().chain(volume).collect(),
            policy: None,
            keep: false,
            if_index: None,
        }
    }

    /// A host sends another report of some workloads.
    fn report(&mut self) {
        let host = self.dice.host();
        let before = self.scene.reports.get(&host);
        let mut said = before.map_or_else(HostReport::default, |before| (**before).clone());
        said.applied = self.scene.applied;
        for _ in 0..self.dice.roll(3) {
            let workload = self.dice.workload();
            let at = said
                .workloads
                .iter()
                .position(|one| one.workload == workload);
            let one = self.said(&workload);
            match at {
                Some(at) if self.dice.roll(3) == 0 => drop(said.workloads.remove(at)),
                Some(at) => said.workloads[at] = one,
                None => {
                    let at = self.dice.roll(said.workloads.len() + 1);
                    said.workloads.insert(at, one);
                }
            }
        }
        Arc::make_mut(&mut self.scene.reports).insert(host, Arc::new(said));
    }

    fn said(&mut self, workload: &str) -> WorkloadReport {
        let phases = [
            Phase::Pending,
            Phase::Running,
            Phase::Running,
            Phase::Failed,
            Phase::Succeeded,
        ];
        let index = self.scene.state.workload(workload);
        let index = index.map_or(3, |found| found.index + u64::from(self.dice.roll(3) > 0));
        let healthy = u32::try_from(self.dice.roll(3)).unwrap();
        let phase = phases[self.dice.roll(phases.len())];
        report(workload, index, phase, healthy)
    }

    /// The scene without an index.
    fn plain(&self) -> Scene {
        Scene {
            index: OnceLock::new(),
            ..self.scene.clone()
        }
    }
}

/// A reader that received the state of the cluster, and receives its changes.
#[derive(Default)]
struct Reader {
    workloads: Table<String, Workload>,
    hosts: Table<HostId, Host>,
    has: BTreeMap<String, Workload>,
    knows: BTreeMap<HostId, Host>,
}

impl Reader {
    /// Reads the changes; returns whether its rows then equal those of the view.
    fn hear(&mut self, view: &View) -> bool {
        let mut is_new = true;
        let (workloads, hosts) = (view.workload_rows(), view.host_rows());
        for name in workloads.gone(&self.workloads) {
            assert!(self.has.remove(name).is_some(), "{name} was never there");
        }
        for row in workloads.news(&self.workloads) {
            let before = self.has.insert(row.shown.name.clone(), row.shown.clone());
            is_new &= before.as_ref() != Some(&row.shown);
        }
        for id in hosts.gone(&self.hosts) {
            self.knows.remove(id);
        }
        let news = hosts.news(&self.hosts).into_iter().map(|row| &row.shown);
        self.knows.extend(news.map(|host| (host.id, host.clone())));
        (self.workloads, self.hosts) = (workloads.clone(), hosts.clone());
        is_new
    }

    fn check(&self, view: &View) {
        let has: Vec<_> = self.has.values().cloned().collect();
        assert_eq!(has, view.workloads());
        let alike = |host: &Host| Host {
            applied: 0,
            ..host.clone()
        };
        let knows: Vec<_> = self.knows.values().map(alike).collect();
        let rows = view.host_rows().rows();
        assert_eq!(knows, rows.map(|row| alike(&row.shown)).collect::<Vec<_>>());
    }
}

#[test]
fn a_view_that_follows_from_others_is_the_one_that_is_made_from_scratch() {
    let (mut kinds, mut most) = (BTreeSet::new(), 0);
    for seed in 0..30 {
        let mut world = World::new(seed);
        let mut view = View::of(world.scene.clone());
        let (mut prompt, mut slow) = (Reader::default(), Reader::default());
        for step in 0..120 {
            for _ in 0..=world.dice.roll(3) {
                world.step();
            }
            view = view.next(world.scene.clone()).unwrap_or(view);
            let plain = world.plain();
            let names = plain.state.workloads().map(|workload| &workload.name);
            let drawn: Vec<_> = names.filter_map(|name| plain.workload(name)).collect();
            assert!(
                prompt.hear(&view),
                "seed {seed}, step {step}: that is no news"
            );
            assert_eq!(view.workloads(), drawn, "seed {seed}, step {step}");
            assert_eq!(view.hosts(), plain.hosts(), "seed {seed}, step {step}");
            let status = view.status(Own::default());
            let healthy = drawn.iter().filter(|workload| is_met(workload)).count();
            assert_eq!(status, View::of(plain.clone()).status(Own::default()));
            assert_eq!(
                (status.workloads.healthy, plain.healthy()),
                (healthy, healthy)
            );
            assert_eq!(
                View::of(plain).workloads(),
                drawn,
                "seed {seed}, step {step}"
            );
            if world.dice.roll(9) == 0 {
                slow.hear(&view);
                slow.check(&view);
            }
            kinds.extend(
                drawn
                    .iter()
                    .map(|one| (one.settled, one.stuck, one.kind.clone())),
            );
            most = most.max(drawn.len());
        }
        prompt.check(&view);
    }
    assert!(
        kinds.len() >= 8 && most == 10,
        "not much happened: {kinds:?}, {most}"
    );
}

#[test]
fn what_nothing_touched_is_shared() {
    let mut scene = scene();
    for host in 1..=3 {
        with(
            &mut scene,
            host,
            6,
            vec![report("web", 5, Phase::Running, 2)],
        );
    }
    let before = View::of(scene.clone());
    let (workloads, hosts) = (before.workload_rows().clone(), before.host_rows().clone());
    assert!(before.next(scene.clone()).is_none(), "nothing is different");
    with(&mut scene, 2, 6, vec![report("web", 5, Phase::Running, 1)]);
    let after = before.next(scene.clone()).unwrap();
    let news = after.workload_rows().news(&workloads).into_iter();
    let news: Vec<_> = news.map(|row| row.shown.name.as_str()).collect();
    assert_eq!(news, ["web"]);
    for (table, name, is_shared) in [
        (after.workload_rows(), "lone", true),
        (after.workload_rows(), "web", false),
    ] {
        let rows = [table, &workloads].map(|table| table.get(name).unwrap());
        assert_eq!(Arc::ptr_eq(rows[0], rows[1]), is_shared, "{name}");
    }
    assert_eq!(after.host_rows().news(&hosts).len(), 0);

    // Rows of workloads contain neither addresses nor the leader.
    let mut host = scene.state.hosts()[&h(3)].clone();
    host.addresses = vec!["/ip4/10.9.9.9/tcp/1".into()];
    changed(&mut scene, 7, Change::PutHost(host));
    scene.consensus.leader = Some(h(2));
    let last = after.next(scene).unwrap();
    let rows = last.workload_rows();
    assert_eq!(rows.news(after.workload_rows()).len(), 0);
    assert_eq!(last.host_rows().news(after.host_rows()).len(), 2);
}

#[test]
fn nothing_is_drawn_before_somebody_asks() {
    let mut scene = scene();
    let view = View::of(scene.clone());
    assert_eq!(view.workload("web"), scene.workload("web"));
    assert_eq!(view.workloads().len(), 2);
    changed(
        &mut scene,
        7,
        Change::DeleteWorkload {
            workload: "web".into(),
        },
    );
    let next = view.next(scene).unwrap();
    assert!(view.workloads.get().is_none() && next.workloads.get().is_none());
    // Two tables drawn independently still show their differences.
    let (rows, told) = (next.workload_rows(), view.workload_rows());
    assert_eq!((rows.news(told).len(), rows.gone(told).len()), (0, 1));
    let names: Vec<_> = next
        .workloads_of("lone")
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(names, ["lone"]);
    assert_eq!(next.workload("web"), None);
}
