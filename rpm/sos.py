# Copyright the Beemesh authors
# SPDX-License-Identifier: Apache-2.0
"""Beemesh in sos reports. Without Secrets: neither the log of the cluster, nor the YAML of workloads."""

from sos.report.plugins import IndependentPlugin, Plugin


class Beemesh(Plugin, IndependentPlugin):
    """Cluster of Podman hosts"""

    short_desc = "Beemesh"
    plugin_name = "beemesh"
    profiles = ("container", "cluster")
    packages = ("beemesh", "beemesh-gateway")
    services = ("beemesh-agent", "beemesh-gateway")

    def setup(self):
        self.add_forbidden_path(
            [
                "/var/lib/beemesh",
                "/etc/containers/systemd/beemesh/*.yaml",
            ]
        )
        self.add_copy_spec(
            [
                "/etc/beemesh/",
                "/usr/lib/beemesh/agent.toml",
                "/etc/containers/systemd/beemesh/*.kube",
            ]
        )
        self.add_cmd_output(
            [
                "beemesh status",
                "beemesh get hosts --stale",
                "beemesh get workloads --stale",
                "beemesh get manifests --stale",
                "busctl introspect io.beemesh.Agent1 /io/beemesh/Agent1",
                "systemctl status --no-pager beemesh-*",
                "podman pod ps --filter label=beemesh.io/workload",
                "ls -lR /var/lib/beemesh /run/beemesh",
            ]
        )
        self.add_journal(units="beemesh-agent")
        self.add_journal(units="beemesh-gateway")
        self.add_journal(units="beemesh-pod-*")
