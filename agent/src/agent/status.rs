//! The agent's status line.
//!
//! Pure: state in, text out.

use beemesh_protocol::ipc::{HostRole, Report};

/// The input of the status line.
#[derive(Debug, Clone)]
pub(super) struct View<'a> {
    /// The gateway's report; `None` while no gateway is connected.
    pub(super) report: Option<&'a Report>,
    /// The `ActiveState` of the gateway's unit.
    pub(super) gateway: &'a str,
    /// Connected members, without this host.
    pub(super) connected: usize,
    /// Why D-Bus is unusable; empty if it works.
    pub(super) trouble: &'a str,
    /// Why the cluster does not use the host's name, as a message; empty if it does.
    pub(super) name: &'a str,
    /// The ports that another process occupies, of the mesh and of the API; empty if there are none.
    pub(super) ports: [String; 2],
}

/// The text for `systemctl status beemesh-agent`.
pub(super) fn status(view: &View<'_>) -> String {
    let mut parts = Vec::new();
    match view.report {
        None => parts.push(waiting(view.gateway)),
        Some(report) if report.role == HostRole::Removed => {
            parts.push("no longer a member of the cluster".to_owned());
        }
        Some(report) => {
            parts.push(
                match (&report.role, report.role.word(), &*report.leader_name) {
                    (_, "", _) => "the gateway is starting".to_owned(),
                    (HostRole::Leader, role, _) => role.to_owned(),
                    (_, role, "") => format!("{role}, no leader"),
                    (_, role, leader) => format!("{role} of {leader}"),
                },
            );
            parts.push(format!(
                "{}/{} hosts",
                view.connected + 1,
                report.hosts.max(1)
            ));
            let plural = if report.workloads == 1 { "" } else { "s" };
            parts.push(format!(
                "{} workload{plural}, {} healthy",
                report.workloads, report.healthy
            ));
        }
    }
    if !view.trouble.is_empty() {
        parts.push(format!("waiting for D-Bus: {}", view.trouble));
    }
    if !view.name.is_empty() {
        parts.push(view.name.to_owned());
    }
    parts.extend(view.ports.iter().filter(|words| !words.is_empty()).cloned());
    parts.join(" · ")
}

/// The text while no gateway is connected. A gateway that cannot start logs the reason in its journal between many
/// messages of Podman, so the hint filters by ERROR.
fn waiting(gateway: &str) -> String {
    let hint = match gateway {
        "activating" | "deactivating" | "failed" => {
            ", see `journalctl -u beemesh-gateway -g ERROR`"
        }
        _ => "",
    };
    format!("waiting for the gateway: beemesh-gateway.service is {gateway}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_names_a_stopped_gateway() {
        assert_eq!(
            waiting("inactive"),
            "waiting for the gateway: beemesh-gateway.service is inactive"
        );
    }

    #[test]
    fn status_says_what_counts() {
        let report = |role, leader: &str, hosts, workloads| Report {
            role,
            leader_name: leader.to_owned(),
            hosts,
            workloads,
            healthy: 1,
            ..Report::default()
        };
        for (report, connected, trouble, expected) in [
            (
                Some(report(HostRole::Follower, "h1", 3, 1)),
                2,
                "",
                "follower of h1 · 3/3 hosts · 1 workload, 1 healthy",
            ),
            (
                Some(report(HostRole::Leader, "h1", 3, 2)),
                1,
                "",
                "leader · 2/3 hosts · 2 workloads, 1 healthy",
            ),
            (
                Some(report(HostRole::Candidate, "", 3, 1)),
                0,
                "connection refused",
                "candidate, no leader · 1/3 hosts · 1 workload, 1 healthy · waiting for D-Bus: connection refused",
            ),
            (
                None,
                0,
                "",
                "waiting for the gateway: beemesh-gateway.service is activating, see `journalctl -u beemesh-gateway -g ERROR`",
            ),
        ] {
            let view = View {
                report: report.as_ref(),
                gateway: "activating",
                connected,
                trouble,
                name: "",
                ports: [String::new(), String::new()],
            };
            assert_eq!(status(&view), expected);
        }
        let called = View {
            report: Some(&report(HostRole::Follower, "h1", 3, 1)),
            gateway: "active",
            connected: 2,
            trouble: "",
            name: "the host name of the system is localhost",
            ports: [String::new(), String::new()],
        };
        assert_eq!(
            status(&called),
            "follower of h1 · 3/3 hosts · 1 workload, 1 healthy · the host name of the system is localhost"
        );
        let taken = "TCP port 4701 is taken by nc (process 812): stop it, the agent will retry";
        let view = View {
            report: Some(&report(HostRole::Follower, "h1", 3, 1)),
            gateway: "active",
            connected: 2,
            trouble: "",
            name: "",
            ports: [taken.to_owned(), String::new()],
        };
        let expected = format!("follower of h1 · 3/3 hosts · 1 workload, 1 healthy · {taken}");
        assert_eq!(status(&view), expected);
    }
}
