//! Packages in a root without a running systemd, as in the build of a host image.

use harness::{Cluster, Host};

use crate::{answers, started};

/// Some files of each package.
const FILES: [&str; 5] = [
    "/usr/bin/beemesh",
    "/usr/libexec/beemesh/beemesh-agent",
    "/usr/lib/systemd/system/beemesh-agent.service",
    "/usr/share/beemesh/gateway.oci.tar",
    "/usr/share/containers/systemd/beemesh-gateway.kube",
];

/// The files of this list that the root contains.
fn present(host: &Host) -> Vec<&'static str> {
    let lie = |file: &&str| host.root().join(file.trim_start_matches('/')).exists();
    FILES.into_iter().filter(lie).collect()
}

#[track_caller]
fn is_installed(host: &Host, this_release: bool) {
    assert_eq!(present(host), FILES);
    let said = host.run_unbooted(&["beemesh", "--version"]).ok();
    let ours = said.trim().ends_with(env!("CARGO_PKG_VERSION"));
    assert_eq!(ours, this_release, "{said}");
    let enabled = host.run_unbooted(&[
        "systemctl",
        "is-enabled",
        "beemesh-agent.service",
        "beemesh-agent.socket",
    ]);
    assert_eq!(enabled.out, "disabled\ndisabled\n", "{enabled}");
}

#[test]
fn packages_come_and_go_without_a_running_systemd_and_the_image_boots() {
    let cluster = Cluster::bare("package-image", 1);
    let host = cluster.host(1);
    host.power_off();
    host.dnf_unbooted(&["--repo=previous", "install", "beemesh"]);
    is_installed(host, false);
    host.dnf_unbooted(&["upgrade", "beemesh"]);
    is_installed(host, true);
    host.dnf_unbooted(&["remove", "beemesh"]);
    assert_eq!(present(host), [""; 0]);
    assert_eq!(host.run_unbooted(&["rpm", "-qa", "beemesh*"]).out, "");

    host.dnf_unbooted(&["install", "beemesh"]);
    cluster.boot(&[host]);
    assert_eq!(
        host.unit("beemesh-agent.service", "ActiveState"),
        "inactive"
    );
    started(host);
    answers(host);
}
