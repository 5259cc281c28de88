//! Beemesh as users install it: by dnf, from the repository that `make repo` creates.

#[path = "package/image.rs"]
mod image;
#[path = "package/kinds.rs"]
mod kinds;
#[path = "package/load.rs"]
mod load;
#[path = "package/releases.rs"]
mod releases;

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _, thread, time::Instant};

use harness::{Cluster, Host, pod, secs, two_containers, wait_for};

/// Installs the previous release.
fn install_previous(host: &Host) {
    host.dnf(&["--repo=previous", "install", "beemesh"]);
}

/// Files, users, units and other traces of Beemesh on a host.
fn traces(host: &Host) -> BTreeSet<String> {
    let looked = host.sh(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /srv -o -path /tmp -o -path /run/systemd -o -path /var/log \
           -o -path /var/cache -o -path /var/lib/dnf -o -path /usr/lib/sysimage \\) -prune -o -name '*beemesh*' -print; \
         find /run /var/lib/containers/storage/volumes /etc/beemesh -name '*beemesh*' 2>/dev/null; \
         systemctl list-units --all --plain --no-legend '*beemesh*' | cut -d' ' -f1; \
         systemctl list-unit-files --no-legend '*beemesh*' | cut -d' ' -f1; \
         podman pod ps --format 'pod {{.Name}}'; podman ps -a --format 'container {{.Names}}'; \
         podman images --format 'image {{.Repository}}:{{.Tag}}'; podman volume ls --format 'volume {{.Name}}'; \
         podman secret ls --format 'secret {{.Name}}'; ss -Hlnt; ss -Hlnu; true",
    );
    let lines = looked.ok();
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    // Podman makes this image for the first pod of any Quadlet. The group stays, as Fedora's packaging guidelines
    // require.
    let lines = lines.filter(|line| !line.contains("podman-pause"));
    lines.map(str::to_owned).collect()
}

fn started(host: &Host) {
    let _ = host
        .run(&["systemctl", "enable", "--now", "beemesh-agent"])
        .ok();
}

fn answers(host: &Host) {
    wait_for(&format!("the gateway of {}", host.name), secs(60), || {
        let status = host.status();
        if status["quorum"] == true {
            Ok(())
        } else {
            Err(status)
        }
    });
}

#[test]
fn a_host_runs_a_workload_ten_seconds_after_its_install_and_nothing_stays_after_a_purge() {
    let cluster = Cluster::bare("package-purge", 1);
    let host = cluster.host(1);
    let before = traces(host);
    let limit = "sysctl -n fs.inotify.max_user_instances";
    let _ = host.sh("sysctl -qw fs.inotify.max_user_instances=128").ok();
    let begun = Instant::now();
    host.dnf(&["install", "beemesh"]);
    assert_eq!(host.sh(limit).ok(), "2048\n", "for a thousand workloads");
    let enabled = host.run(&["systemctl", "is-enabled", "beemesh-agent.service"]);
    assert_eq!(enabled.out, "disabled\n", "an administrator enables it");
    started(host);
    let answer = host.apply(&two_containers("web", "first"));
    let took = begun.elapsed();
    assert_eq!(answer["settled"], true, "{answer}");
    eprintln!("from `dnf install` to a running workload: {took:?}");
    assert!(took < secs(10), "{took:?}");
    assert_eq!(
        host.run(&["systemctl", "--failed", "--plain", "--no-legend"])
            .ok(),
        ""
    );

    let purge = ["/usr/libexec/beemesh/beemesh-agent", "purge"];
    let refused = host.run(&purge);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.out.contains("workload web"), "{refused}");
    assert_eq!(host.containers("web").len(), 2, "only --yes removes");
    let _ = host.run(&[&purge[..], &["--yes"]].concat()).ok();
    host.dnf(&["remove", "beemesh"]);
    let after = traces(host);
    let left: Vec<_> = after.difference(&before).collect();
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn workloads_stay_without_the_package_and_are_adopted_with_it() {
    let cluster = Cluster::bare("package-remove", 1);
    let host = cluster.host(1);
    host.dnf(&["install", "beemesh"]);
    started(host);
    let answer = host.apply(&pod("web", "first"));
    assert_eq!(answer["settled"], true, "{answer}");
    let before = host.containers("web");

    host.dnf(&["remove", "beemesh"]);
    assert_eq!(host.containers("web"), before, "removal stops no pod");
    assert_eq!(host.sh("rpm -qa 'beemesh*'").out, "");
    assert_eq!(
        host.sh("podman images -q localhost/beemesh-gateway").out,
        ""
    );
    let _ = host.sh("sync").ok();
    cluster.crash(&[host]);
    cluster.boot(&[host]);
    wait_for("web as a plain Quadlet", secs(90), || {
        let state = host.unit("beemesh-pod-web.service", "ActiveState");
        match (state.as_str(), host.containers("web").len()) {
            ("active", 1) => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    });
    let start = host.unit("beemesh-pod-web.service", "ExecStart");
    assert!(start.contains("podman kube play"), "{start}");

    let before = host.containers("web");
    host.dnf(&["install", "beemesh"]);
    started(host);
    answers(host);
    cluster.running("web", 1, &[host]);
    assert_eq!(host.containers("web"), before, "adopted as it runs");
}

/// rpm alone renames a new file to its final name before the content is on the disk, at an unknown time.
#[test]
fn no_file_is_empty_after_a_power_cut_in_an_upgrade_or_right_after_it() {
    let cluster = Cluster::formed("package-power", 1);
    cluster.offer();
    let host = cluster.host(1);
    let answer = host.apply(&pod("web", "first"));
    assert_eq!(answer["settled"], true, "{answer}");
    for in_the_middle in [true, false] {
        let programs = ["usr/libexec/beemesh/beemesh-agent", "usr/bin/beemesh"];
        let inodes = || {
            programs.map(|path| {
                fs::metadata(host.root().join(path))
                    .map(|file| file.ino())
                    .ok()
            })
        };
        let before = inodes();
        let upgraded = host.clone();
        let upgrade = thread::spawn(move || {
            upgraded.run(&[
                "dnf",
                "-y",
                "reinstall",
                "beemesh",
                "beemesh-cli",
                "beemesh-gateway",
            ])
        });
        wait_for("a new program", secs(60), || {
            if inodes() == before {
                Err("the old ones")
            } else {
                Ok(())
            }
        });
        let said = (!in_the_middle).then(|| upgrade.join());
        // A sync of any file commits the names of all new files to the disk, but not their content.
        let _ = host.sh("echo >/root/synced && sync /root/synced").ok();
        cluster.crash(&[host]);
        if let Some(said) = said {
            let said = said.expect("it does not panic");
            assert_eq!(said.code, 0, "{said}");
        }
        cluster.boot(&[host]);
        let line = "find /usr /etc -xdev -path '*beemesh*' ! -name '*;*' -type f -empty";
        assert_eq!(host.sh(line).ok(), "", "empty files");
        cluster.ready();
        cluster.running("web", 1, &[host]);
    }
}
