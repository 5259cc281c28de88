//! The leader, which grants the leases, dies or is cut off.

use harness::{Cluster, Host, Run};
use nix::sys::signal::Signal;

use super::{
    AFTER, START_MAX, TERM, TERM_OF_LEADER,
    beats::{Beats, left, now, singleton},
    formed, goes_on, others, start_on,
    stays::signal,
    taken_back,
};

/// How many leaders are killed, one after the other.
const KILLS: usize = 4;

/// How often a leader may be cut off until its successor was elected before the lease was over. The machine may be busy.
const TRIES: usize = 3;

fn leader_but<'a>(cluster: &'a Cluster, host: &Host) -> Option<&'a Host> {
    let leader = cluster.leader(host);
    (leader.name != host.name).then_some(leader)
}

#[test]
fn a_new_leader_goes_on_with_the_lease() {
    let cluster = formed("singleton-leader", 3);
    let mut beats = Beats::of(&cluster, "web");
    let first = cluster.leader(cluster.host(1));
    let host = others(&cluster, first)[0];
    let run = start_on(&cluster, host, &mut beats, &singleton("web", "exit 0", 1));

    // It is killed while it grants; its host, too, may be elected.
    for _ in 0..KILLS {
        let leader = cluster.leader(host);
        assert!(!signal(leader, "beemesh-gateway", Signal::SIGKILL).is_empty());
        cluster.ready();
        let stamp = beats.after(now(), START_MAX + TERM_OF_LEADER);
        assert_eq!(stamp.host, run.host, "it has moved");
    }
    eprintln!("{}", beats.hold());
    a_leader_that_is_cut_off(&cluster, &mut beats, host);
}

/// Its host is another one, which gets the lease from the next leader: it neither moves nor, most times, ends.
fn a_leader_that_is_cut_off(cluster: &Cluster, beats: &mut Beats, host: &Host) {
    for _ in 0..TRIES {
        let Some(leader) = leader_but(cluster, host) else {
            let _ = signal(host, "beemesh-gateway", Signal::SIGKILL);
            cluster.ready();
            continue;
        };
        let before = beats.run();
        let since = now();
        cluster.isolate(leader);
        // A lease of the leader that is cut off would be over by then.
        let stamp = beats.after(since + TERM, AFTER + TERM_OF_LEADER + START_MAX);
        assert_eq!(stamp.host, before.host, "it has moved");
        cluster.heal();
        taken_back(leader, host);
        cluster.ready();
        eprintln!("{}", beats.hold());
        if beats.run().begun == before.begun {
            return;
        }
    }
    panic!("no new leader has kept it at work");
}

#[test]
fn a_leader_that_runs_it_and_is_cut_off_ends_it() {
    let cluster = formed("singleton-own", 3);
    let mut beats = Beats::of(&cluster, "web");
    let leader = cluster.leader(cluster.host(1));
    let run: Run = start_on(&cluster, leader, &mut beats, &singleton("web", "", 60));
    let leader = cluster.host(run.host);
    let since = now();
    cluster.isolate(leader);
    let bound = left(since, AFTER + TERM_OF_LEADER + START_MAX);
    let _ = beats.wait("it to run elsewhere", bound, |stamp| stamp.host != run.host);
    let last = beats.last_on(run.host).expect("it has run there");
    assert!(last < since + TERM, "{last:?} is too late after {since:?}");
    eprintln!("{}", beats.hold());
    let moved = beats.run();
    cluster.heal();
    taken_back(leader, cluster.host(moved.host));
    goes_on(&mut beats, moved);
    eprintln!("{}", beats.hold());
}
