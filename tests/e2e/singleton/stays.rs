//! What happens on the host that runs it: the unit, restarts of programs, updates, and a drain.

use harness::{Host, secs};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    START_MAX, SURPLUS_MAX, TERM_OF_LEADER, UNIT, apply,
    beats::{Beats, now, singleton},
    formed, goes_on, has_none, others, start,
};

/// How often a restart may be tried, until one was fast enough for the lease to last. The machine may be busy.
const TRIES: usize = 3;

/// Sends a signal to all processes of a program of the host.
pub(crate) fn signal(host: &Host, program: &str, signal: Signal) -> Vec<u32> {
    let pids = host.processes().remove(program).unwrap_or_default();
    send(&pids, signal);
    pids
}

pub(crate) fn send(pids: &[u32], signal: Signal) {
    for pid in pids {
        // It may have ended already.
        let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
    }
}

#[test]
fn it_runs_on_one_host_and_nothing_else_starts_it() {
    let cluster = formed("singleton-unit", 3);
    let mut beats = Beats::of(&cluster, "web");
    let run = start(&cluster, &mut beats, &singleton("web", "exit 0", 1));
    let host = cluster.host(run.host);
    for other in others(&cluster, host) {
        assert!(other.containers("web").is_empty(), "{}", other.name);
    }
    // No target and no other unit wants it, so a boot does not start it.
    for property in ["WantedBy", "RequiredBy"] {
        assert_eq!(host.unit(UNIT, property), "", "{property}");
    }
    let quadlet = host
        .sh("cat /etc/containers/systemd/beemesh/beemesh-pod-web.kube")
        .ok();
    assert!(!quadlet.contains("[Install]"), "{quadlet}");
    // Podman restarts none of its containers, not even by podman-restart.service.
    let policies = "podman inspect --format '{{.HostConfig.RestartPolicy.Name}}' \
                    $(podman ps -aq --filter label=beemesh.io/workload=web)";
    let policies = host.sh(policies).ok();
    let is_never = |line: &str| matches!(line.trim(), "no" | "");
    assert!(policies.lines().all(is_never), "{policies}");
    without_beemesh(host, &mut beats);
    eprintln!("{}", beats.hold());
}

/// The stock unit refuses to start, in words. With the drop-in the administrator can start it again.
fn without_beemesh(host: &Host, beats: &mut Beats) {
    let folder = "/usr/lib/systemd/system/beemesh-pod-.service.d";
    let _ = host
        .sh(&format!(
            "mv {folder} /root/dropin && systemctl daemon-reload"
        ))
        .ok();
    let _ = host.run(&["systemctl", "stop", UNIT]);
    // A unit that is skipped by its condition is no failure of the command.
    let _ = host.run(&["systemctl", "start", UNIT]).ok();
    let seen = (
        host.unit(UNIT, "ActiveState"),
        host.unit(UNIT, "ConditionResult"),
    );
    assert_eq!(seen, ("inactive".to_owned(), "no".to_owned()));
    has_none(host, secs(30));
    let _ = host
        .sh(&format!(
            "mv /root/dropin {folder} && systemctl daemon-reload && systemctl start {UNIT}"
        ))
        .ok();
    let _ = beats.after(now(), START_MAX + TERM_OF_LEADER);
}

#[test]
fn programs_that_restart_do_not_move_it() {
    let cluster = formed("singleton-restarts", 3);
    let mut beats = Beats::of(&cluster, "web");
    let run = start(&cluster, &mut beats, &singleton("web", "exit 0", 1));
    let host = cluster.host(run.host);
    for program in ["beemesh-gateway", "beemesh-agent"] {
        let is_undisturbed = (0..TRIES).any(|_| {
            let before = beats.run();
            assert!(!signal(host, program, Signal::SIGKILL).is_empty());
            cluster.ready();
            let stamp = beats.after(now(), START_MAX + TERM_OF_LEADER);
            assert_eq!(stamp.host, run.host, "it stays where it is");
            stamp.begun == before.begun
        });
        assert!(
            is_undisturbed,
            "{program} was killed, and the pod did not go on"
        );
    }
    for what in ["its supervisor", "its container"] {
        let before = beats.run();
        if what == "its supervisor" {
            let _ = signal(host, "beemesh-pod", Signal::SIGKILL);
        } else {
            let pid = host.containers("web")["web-main"].pid;
            let _ = host.sh(&format!("kill -9 {pid}")).ok();
        }
        let new = beats.wait(&format!("a new run after {what}"), START_MAX, |stamp| {
            stamp.begun != before.begun
        });
        assert_eq!(new.host, run.host, "{what} was killed, and it has moved");
    }
    eprintln!("{}", beats.hold());
}

#[test]
fn an_update_stays_on_its_host_and_a_drain_moves_it() {
    let cluster = formed("singleton-update", 3);
    let mut beats = Beats::of(&cluster, "web");
    let yaml = singleton("web", "exit 0", 1);
    let first = start(&cluster, &mut beats, &yaml);
    let via = cluster.host(1);

    let update = yaml.replace(
        "        volumeMounts",
        "        env: [{name: NEW, value: \"2\"}]\n        volumeMounts",
    );
    apply(via, &update);
    let second = beats.wait("the new pod", START_MAX, |stamp| stamp.begun > first.last);
    assert_eq!(second.host, first.host, "an update moved it");

    let _ = via.beemesh(&["stop", "web"]).ok();
    has_none(cluster.host(first.host), START_MAX);
    let stopped = now();
    let _ = via.beemesh(&["start", "web"]).ok();
    let _ = beats.after(stopped, START_MAX + TERM_OF_LEADER);

    let run = beats.run();
    let drained = cluster.host(run.host);
    let _ = via.beemesh(&["host", "drain", &drained.name]).ok();
    let moved = beats.wait("it to run elsewhere", TERM_OF_LEADER + START_MAX, |stamp| {
        stamp.host != run.host
    });
    has_none(drained, SURPLUS_MAX);
    let _ = via.beemesh(&["host", "undrain", &drained.name]).ok();
    cluster.ready();
    let run = beats.run();
    assert_eq!((run.host, run.begun), (moved.host, moved.begun));
    goes_on(&mut beats, run);
    eprintln!("{}", beats.hold());
}
