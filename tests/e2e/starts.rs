//! Pods whose containers the supervisor starts one by one: they survive the death of the supervisor, a power cut and
//! the removal of Beemesh like all others, and their probes and hooks run.

use harness::{Cluster, Host, IMAGE, secs, wait_for};

const UNIT: &str = "beemesh-pod-web.service";

/// An init container that runs until /go exists on the volume, a sidecar, and two containers that share the volume.
fn web() -> String {
    let mount = "volumeMounts: [{name: v, mountPath: /v}]";
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  terminationGracePeriodSeconds: 2\n  initContainers:\n  \
         - {{name: first, image: {IMAGE}, command: [sh, -c, 'echo first >>/v/order; while ! [ -e /v/go ]; do sleep 1; done'], {mount}}}\n  \
         - {{name: side, image: {IMAGE}, restartPolicy: Always, command: [sh, -c, 'echo side >>/v/order; while :; do sleep 1; done'], {mount}}}\n  \
         - {{name: second, image: {IMAGE}, command: [sh, -c, 'echo second >>/v/order'], {mount}}}\n  containers:\n  \
         - {{name: one, image: {IMAGE}, command: [sh, -c, 'echo app >>/v/order; while :; do sleep 1; done'], {mount}}}\n  \
         - {{name: two, image: {IMAGE}, command: [sh, -c, 'while :; do sleep 1; done']}}\n  volumes:\n  - {{name: v, emptyDir: {{}}}}\n"
    )
}

fn status(host: &Host, unit: &str) -> String {
    host.unit(unit, "StatusText")
}

#[track_caller]
fn says(host: &Host, unit: &str, part: &str) {
    wait_for(&format!("{part} of {unit}"), secs(60), || {
        let found = status(host, unit);
        match found.contains(part) {
            true => Ok(()),
            false => Err(found),
        }
    });
}

#[track_caller]
fn removes(host: &Host, workload: &str) {
    let _ = host.beemesh(&["delete", workload]).ok();
    wait_for(&format!("the end of {workload}"), secs(60), || {
        let left = host.leftovers(workload);
        match left.is_empty() {
            true => Ok(()),
            false => Err(left),
        }
    });
}

/// Lets the first init container end.
fn go(host: &Host) {
    // The command may fail although it wrote the file: its container ends at once.
    let _ = host.run(&["podman", "exec", "web-first", "sh", "-c", "echo >/v/go"]);
}

#[track_caller]
fn order(host: &Host) -> String {
    host.run(&["podman", "exec", "web-one", "cat", "/v/order"])
        .ok()
}

#[test]
fn a_start_continues_when_processes_die_and_a_boot_begins_anew() {
    let cluster = Cluster::formed("starts", 1);
    let host = cluster.host(1);
    let _ = host.try_apply(&web(), &[]);
    let first = "waiting until init container first has ended";
    says(host, UNIT, first);
    let before = host
        .run(&[
            "podman",
            "inspect",
            "-f",
            "{{.State.StartedAt}}",
            "web-first",
        ])
        .ok();

    for line in [
        format!("systemctl kill --kill-whom=main -s KILL {UNIT}"),
        "kill -9 $(pgrep -x beemesh-gateway)".to_owned(),
    ] {
        let _ = host.sh(&line).ok();
        cluster.ready();
        says(host, UNIT, first);
    }
    let after = host
        .run(&[
            "podman",
            "inspect",
            "-f",
            "{{.State.StartedAt}}",
            "web-first",
        ])
        .ok();
    assert_eq!(after, before, "the init container was left alone");

    cluster.crash(&[host]);
    cluster.boot(&[host]);
    cluster.ready();
    says(host, UNIT, first);
    go(host);
    says(host, UNIT, "3/3 healthy");
    let names = host
        .run(&["podman", "ps", "-a", "--format", "{{.Names}}"])
        .ok();
    for name in ["web-first", "web-second"] {
        assert!(!names.contains(name), "it has done its work: {names}");
    }
    assert!(
        order(host).ends_with("first\nside\nsecond\napp\n"),
        "{}",
        order(host)
    );
    // Every user may write to an emptyDir.
    let mode = host
        .run(&[
            "podman", "exec", "web-one", "busybox", "stat", "-c", "%a", "/v",
        ])
        .ok();
    assert_eq!(mode.trim(), "777");

    // A container that runs is adopted when its supervisor dies.
    let before = host.containers("web");
    let _ = host
        .sh(&format!("systemctl kill --kill-whom=main -s KILL {UNIT}"))
        .ok();
    says(host, UNIT, "3/3 healthy");
    assert_eq!(host.containers("web"), before);

    removes(host, "web");
}

/// A pod with so many volumes that their preparation takes a while. A claim and an emptyDir are at both ends.
fn wide() -> String {
    let (mut mounts, mut volumes) = (String::new(), String::new());
    for n in 0..VOLUMES {
        mounts += &format!("{{name: v{n}, mountPath: /v/{n}, subPath: a/b}}, ");
        volumes += &format!("  - {{name: v{n}, emptyDir: {{}}}}\n");
    }
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: data}}\nspec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  securityContext: {{runAsUser: 1000, runAsGroup: 1000, fsGroup: 3000}}\n  terminationGracePeriodSeconds: 2\n  initContainers:\n  \
         - {{name: once, image: {IMAGE}, command: [sh, -c, 'echo once >>/data/once'], volumeMounts: [{{name: data, mountPath: /data}}]}}\n  containers:\n  \
         - name: one\n    image: {IMAGE}\n    command: [sh, -c, 'for n in $(seq 0 {}); do : >/v/$n/file || exit 1; done; while :; do sleep 1; done']\n    \
         volumeMounts: [{mounts}{{name: data, mountPath: /data}}]\n  volumes:\n{volumes}  - {{name: data, persistentVolumeClaim: {{claimName: data}}}}\n",
        VOLUMES - 1
    )
}

/// How many volumes the pod of [`wide`] has.
const VOLUMES: usize = 40;

/// Kills a process when it prepares the volumes of the pod. That it has not ended this is shown by the lock file, which only
/// the end of a play removes.
#[track_caller]
fn kills_while_preparing(host: &Host, process: &str) {
    let holder = r#"curl -sS -m 60 --unix-socket /run/podman/podman.sock "http://podman/v5.0.0/libpod/containers/web-_holder/exists" -o /dev/null -w '%{http_code}'"#;
    let line = format!(
        "for i in $(seq 2000); do [ \"$({holder})\" = 204 ] && {{ {process}; ls /run/beemesh/playing-web.lock; exit; }}; sleep 0.03; done; exit 1"
    );
    let _ = host.sh(&line).ok();
}

#[test]
fn volumes_are_prepared_although_processes_die_meanwhile() {
    let cluster = Cluster::formed("starts-torn", 1);
    let host = cluster.host(1);
    // Not waited for: the gateway that would answer dies.
    let file = host.root().join("root/wide.yaml");
    std::fs::write(&file, wide()).expect("a file on the host");
    let _ = host
        .sh("systemd-run -q beemesh apply -f /root/wide.yaml")
        .ok();
    kills_while_preparing(host, "kill -9 $(pgrep -x beemesh-gateway)");
    cluster.ready();
    says(host, UNIT, "1/1 healthy");
    let _ = host
        .run(&["podman", "exec", "web-one", "sh", "-c", ": >/data/mine"])
        .ok();
    assert_eq!(once(host), "once\n", "the init container ran once");

    // The same for its supervisor, which plays a pod that somebody removed.
    let _ = host.sh("systemd-run -q podman pod rm -f -t 0 web").ok();
    kills_while_preparing(
        host,
        &format!("systemctl kill --kill-whom=main -s KILL {UNIT}"),
    );
    says(host, UNIT, "1/1 healthy");
    assert_eq!(once(host), "once\nonce\n", "of a new pod once more");
    removes(host, "web");
}

#[track_caller]
fn once(host: &Host) -> String {
    host.run(&["podman", "exec", "web-one", "cat", "/data/once"])
        .ok()
}

/// Kubernetes runs no health check of an image. Podman would call the container unhealthy after a second.
#[track_caller]
fn ignores_the_health_check_of_an_image(host: &Host) {
    let checked = "localhost/checked:1";
    let make = format!(
        "podman run --name made {IMAGE} true && podman commit -q --format docker --change 'HEALTHCHECK --interval=1s --retries=1 CMD false' made {checked} && podman rm made"
    );
    let _ = host.sh(&make).ok();
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: checked}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
         - {{name: main, image: '{checked}', command: [sh, -c, 'while :; do sleep 1; done']}}\n"
    );
    let _ = host.try_apply(&yaml, &[]);
    says(host, "beemesh-pod-checked.service", "1/1 healthy");
    let found = host.run(&[
        "podman",
        "inspect",
        "-f",
        "{{.Config.Healthcheck.Test}}",
        "checked-main",
    ]);
    assert_eq!(found.ok().trim(), "[NONE]");
    removes(host, "checked");
}

/// A container with a liveness probe that hangs after /tmp/hang exists, a readiness probe, and hooks.
fn probed() -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: probed}}\nspec:\n  terminationGracePeriodSeconds: 4\n  containers:\n  \
         - name: main\n    image: {IMAGE}\n    command: [sh, -c, 'mkdir /w; httpd -p 8080 -h /w; trap \"echo told; exit 0\" TERM; while :; do echo tick; sleep 1 & wait $!; done']\n    \
         ports: [{{name: http, containerPort: 8080}}]\n    \
         readinessProbe: {{httpGet: {{path: /ready, port: http}}, periodSeconds: 1, failureThreshold: 1}}\n    \
         livenessProbe: {{exec: {{command: [sh, -c, 'if [ -e /tmp/hang ]; then sleep 600; fi']}}, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 2}}\n    \
         lifecycle:\n      postStart: {{exec: {{command: [sh, -c, 'echo posted >/tmp/posted']}}}}\n      \
         preStop: {{exec: {{command: [sh, -c, 'echo hook >/proc/1/fd/1']}}}}\n"
    )
}

#[test]
fn probes_and_hooks_run_as_in_kubernetes() {
    let cluster = Cluster::formed("starts-probes", 1);
    let host = cluster.host(1);
    let unit = "beemesh-pod-probed.service";
    let _ = host.try_apply(&probed(), &[]);
    says(host, unit, "readiness probe failed");
    says(host, unit, "0/1 healthy");
    let inside = |line: &str| host.run(&["podman", "exec", "probed-main", "sh", "-c", line]);
    assert_eq!(inside("cat /tmp/posted").ok().trim(), "posted");
    let _ = inside("echo yes >/w/ready").ok();
    says(host, unit, "1/1 healthy");
    let before = host.containers("probed");

    // A supervisor that is killed does not make the container unready.
    let _ = host
        .sh(&format!("systemctl kill --kill-whom=main -s KILL {unit}"))
        .ok();
    says(host, unit, "1/1 healthy");
    assert_eq!(host.containers("probed"), before);

    let _ = inside("echo >/tmp/hang").ok();
    says(host, unit, "liveness probe failed 2 of 2, timed out");
    says(host, unit, "1 restart");
    let pods = host.run(&["podman", "ps", "--format", "{{.Names}}"]).ok();
    assert!(pods.contains("probed-main"), "{pods}");
    let left = host.sh("pgrep -xfc 'sleep 600'; true").ok();
    assert_eq!(left.trim(), "0", "the hanging probes are gone");
    // Podman would keep two processes for five minutes after each run of a probe.
    let conmons = host.sh("pgrep -xc conmon").ok();
    let conmons: u32 = conmons.trim().parse().unwrap();
    assert!(conmons <= 12, "{conmons} processes of conmon");
    // journald takes a second to learn that the restarted container belongs to the unit.
    let ticks = || {
        let line = format!("journalctl -u {unit} _COMM=conmon -o cat | grep -c tick; true");
        host.sh(&line).ok().trim().parse::<u32>().unwrap()
    };
    let before = ticks();
    wait_for(
        "the restarted container in the unit's journal",
        secs(30),
        || match ticks() {
            more if more > before => Ok(()),
            same => Err(same),
        },
    );

    removes(host, "probed");
    ignores_the_health_check_of_an_image(host);
    let log = host.sh(&format!("journalctl -u {unit} -o cat")).ok();
    let end: Vec<&str> = log
        .lines()
        .filter(|line| ["hook", "told"].contains(line))
        .collect();
    assert!(
        end.ends_with(&["hook", "told"]),
        "the hook before the signal: {end:?}"
    );
}
