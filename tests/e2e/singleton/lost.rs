//! Its host is cut off, dead, or without the programs of Beemesh: the pod ends there by itself, and only then it starts
//! elsewhere. When the host is back, nothing moves again.

use std::time::Duration;

use harness::{Cluster, Host, Run, secs, wait_for};
use nix::sys::signal::Signal;

use super::{
    AFTER, START_MAX, SURPLUS_MAX, TERM, TERM_OF_LEADER, UNIT,
    beats::{Beats, left, now, singleton},
    formed, goes_on, has_none, others, start,
    stays::{send, signal},
    taken_back,
};

/// The programs that renew leases, and what starts them.
const PROGRAMS: &str = "beemesh-agent.service beemesh-gateway.service";

/// The pod of a run has ended by itself within a lease after `since`, and another host runs it in time. Returns the run there.
#[track_caller]
fn moves(beats: &mut Beats, run: Run, since: Duration) -> Run {
    let bound = left(since, AFTER + TERM_OF_LEADER + START_MAX);
    let _ = beats.wait("it to run elsewhere", bound, |stamp| stamp.host != run.host);
    eprintln!("{}", beats.hold());
    let last = beats.last_on(run.host).expect("it has run there");
    assert!(last < since + TERM, "{last:?} is too late after {since:?}");
    beats.run()
}

/// The host is back, has no pod, and the other one goes on.
#[track_caller]
fn nothing_moves_again(cluster: &Cluster, beats: &mut Beats, back: &Host, run: Run) {
    let via = cluster.host(run.host);
    taken_back(back, via);
    has_none(back, SURPLUS_MAX);
    cluster.ready();
    goes_on(beats, run);
    eprintln!("{}", beats.hold());
}

/// SIGTERM does not end it, and its grace period is longer than a lease.
#[test]
fn a_host_that_is_cut_off_ends_it_before_another_one_starts_it() {
    let cluster = formed("singleton-cut", 3);
    let mut beats = Beats::of(&cluster, "web");
    let run = start(&cluster, &mut beats, &singleton("web", "", 60));
    let cut = cluster.host(run.host);
    let since = now();
    cluster.isolate(cut);
    let moved = moves(&mut beats, run, since);
    // The supervisor has not given up: it waits.
    wait_for("the words of the supervisor", secs(10), || {
        let words = cut.unit(UNIT, "StatusText");
        match words.contains("lease") {
            true => Ok(()),
            false => Err(words),
        }
    });
    cluster.heal();
    nothing_moves_again(&cluster, &mut beats, cut, moved);
}

#[test]
fn a_host_whose_agent_and_gateway_do_nothing_ends_it() {
    let cluster = formed("singleton-programs", 3);
    let mut beats = Beats::of(&cluster, "web");
    let run = start(&cluster, &mut beats, &singleton("web", "exit 0", 1));

    let paused = cluster.host(run.host);
    let since = now();
    let mut pids = signal(paused, "beemesh-gateway", Signal::SIGSTOP);
    pids.extend(signal(paused, "beemesh-agent", Signal::SIGSTOP));
    let moved = moves(&mut beats, run, since);
    send(&pids, Signal::SIGCONT);
    nothing_moves_again(&cluster, &mut beats, paused, moved);

    let dead = cluster.host(moved.host);
    // The units of Beemesh come back only when the administrator says so.
    let mask = format!("systemctl mask --quiet --runtime {PROGRAMS}");
    let _ = dead.sh(&mask).ok();
    let since = now();
    for program in ["beemesh-gateway", "beemesh-agent"] {
        let _ = signal(dead, program, Signal::SIGKILL);
    }
    let again = moves(&mut beats, moved, since);
    // A socket whose service is masked may have failed.
    let unmask = format!(
        "systemctl unmask --quiet --runtime {PROGRAMS} && systemctl restart beemesh-agent.socket && systemctl start {PROGRAMS}"
    );
    let _ = dead.sh(&unmask).ok();
    nothing_moves_again(&cluster, &mut beats, dead, again);
}

/// Nobody on the host acts but systemd.
#[test]
fn a_supervisor_that_is_stopped_on_a_host_that_is_cut_off_is_ended_by_systemd() {
    let cluster = formed("singleton-supervisor", 3);
    let mut beats = Beats::of(&cluster, "web");
    let run = start(&cluster, &mut beats, &singleton("web", "", 60));
    let cut = cluster.host(run.host);
    let restarts = |host: &Host| host.unit(UNIT, "NRestarts").parse::<u32>().unwrap_or(0);
    let before = restarts(cut);
    let since = now();
    cluster.isolate(cut);
    assert!(!signal(cut, "beemesh-pod", Signal::SIGSTOP).is_empty());
    let moved = moves(&mut beats, run, since);
    assert!(restarts(cut) > before, "systemd has started it again");
    cluster.heal();
    nothing_moves_again(&cluster, &mut beats, cut, moved);
}

#[test]
fn a_host_that_boots_runs_nothing_before_it_has_the_lease() {
    let cluster = formed("singleton-boot", 3);
    let mut beats = Beats::of(&cluster, "web");
    let run = start(&cluster, &mut beats, &singleton("web", "exit 0", 1));
    let dead = cluster.host(run.host);
    // It boots without the others, so it does not learn that it has no right to run anything.
    let since = now();
    cluster.isolate(dead);
    cluster.crash(&[dead]);
    let off = now();
    cluster.boot(&[dead]);
    wait_for("the gateway without the others", secs(60), || {
        let status = dead.status();
        match status["quorum"] == false {
            true => Ok(()),
            false => Err(status),
        }
    });
    let moved = moves(&mut beats, run, since);
    cluster.heal();
    nothing_moves_again(&cluster, &mut beats, dead, moved);
    let last = beats.last_on(run.host).expect("it has run there");
    assert!(last < off, "it ran on the host that booted without a lease");

    // All at once: no leader remembers who has which lease.
    cluster.crash(&cluster.all());
    let off = now();
    cluster.boot(&cluster.all());
    cluster.ready();
    let _ = beats.after(off, AFTER + TERM_OF_LEADER + START_MAX);
    let run = beats.run();
    for other in others(&cluster, cluster.host(run.host)) {
        assert!(other.containers("web").is_empty(), "{}", other.name);
    }
    goes_on(&mut beats, run);
    eprintln!("{}", beats.hold());
}
