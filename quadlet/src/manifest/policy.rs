//! The policy of a cluster: what manifests may request of the hosts that run them.
//!
//! Pure: no I/O, no clock, no randomness. [`Policy::read`] parses a document into rules, and [`Policy::text`] writes
//! the rules as a document, one on each line. Admission reports what the rules refuse of an object. The rules govern
//! what Podman lets a pod do to its host, and the default refuses all of it.

mod check;
mod document;
mod path;

pub(super) use check::{annotations, pod};
pub(super) use document::{CAPABILITIES, capability};

use beemesh_protocol::version::Version;

/// The longest document in bytes. A longer one is refused unread: the policy is replicated as one log entry and is part
/// of each snapshot.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// A rule that allows a feature or refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Switch {
    Privileged,
    HostNetwork,
    HostPid,
    HostIpc,
    SeccompUnconfined,
    ProcUnmasked,
    SeLinuxOptions,
}

impl Switch {
    const ALL: [Self; 7] = [
        Self::Privileged,
        Self::HostNetwork,
        Self::HostPid,
        Self::HostIpc,
        Self::SeccompUnconfined,
        Self::ProcUnmasked,
        Self::SeLinuxOptions,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::HostNetwork => "hostNetwork",
            Self::HostPid => "hostPID",
            Self::HostIpc => "hostIPC",
            Self::SeccompUnconfined => "seccompUnconfined",
            Self::ProcUnmasked => "procUnmasked",
            Self::SeLinuxOptions => "seLinuxOptions",
        }
    }
}

/// A rule that lists the allowed values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    HostPaths,
    Devices,
    Capabilities,
    Sysctls,
    Annotations,
    MountOptions,
    HostPorts,
    ProbeHosts,
}

impl List {
    const ALL: [Self; 8] = [
        Self::HostPaths,
        Self::Devices,
        Self::Capabilities,
        Self::Sysctls,
        Self::Annotations,
        Self::MountOptions,
        Self::HostPorts,
        Self::ProbeHosts,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::HostPaths => "hostPaths",
            Self::Devices => "devices",
            Self::Capabilities => "capabilities",
            Self::Sysctls => "sysctls",
            Self::Annotations => "annotations",
            Self::MountOptions => "mountOptions",
            Self::HostPorts => "hostPorts",
            Self::ProbeHosts => "probeHosts",
        }
    }

    /// The release that added the rule, if 0.2.0 does not know it.
    fn since(self) -> Option<Version> {
        match self {
            Self::HostPorts => Some(Version::new(0, 2, 1)),
            Self::ProbeHosts => Some(Version::new(0, 3, 0)),
            Self::HostPaths
            | Self::Devices
            | Self::Capabilities
            | Self::Sysctls
            | Self::Annotations
            | Self::MountOptions => None,
        }
    }

    /// The values that the default policy allows.
    fn safe(self) -> &'static [&'static str] {
        match self {
            // A probe reaches what the host itself reaches.
            Self::HostPaths | Self::Devices | Self::ProbeHosts => &[],
            // The capabilities that Podman gives to every container: a request for them changes nothing.
            Self::Capabilities => &[
                "CHOWN",
                "DAC_OVERRIDE",
                "FOWNER",
                "FSETID",
                "KILL",
                "NET_BIND_SERVICE",
                "SETFCAP",
                "SETGID",
                "SETPCAP",
                "SETUID",
                "SYS_CHROOT",
            ],
            // The sysctls that Kubernetes calls safe: they belong to the pod alone and cost the host nothing.
            Self::Sysctls => &[
                "kernel.shm_rmid_forced",
                "net.ipv4.ip_local_port_range",
                "net.ipv4.ip_local_reserved_ports",
                "net.ipv4.ip_unprivileged_port_start",
                "net.ipv4.ping_group_range",
                "net.ipv4.tcp_fin_timeout",
                "net.ipv4.tcp_keepalive_intvl",
                "net.ipv4.tcp_keepalive_probes",
                "net.ipv4.tcp_keepalive_time",
                "net.ipv4.tcp_rmem",
                "net.ipv4.tcp_syncookies",
                "net.ipv4.tcp_wmem",
            ],
            // The owner of the files of a volume of the pod itself.
            Self::Annotations => &["volume.podman.io/gid", "volume.podman.io/uid"],
            Self::MountOptions => &["ro", "rw"],
            // Admission refuses the ports of the host's own programs under any policy.
            Self::HostPorts => &["1-65535"],
        }
    }
}

/// All rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    switches: [bool; Switch::ALL.len()],
    lists: [Vec<String>; List::ALL.len()],
    grace_seconds: i64,
}

/// The rule on the longest grace period of a pod.
const GRACE: &str = "terminationGracePeriodSeconds";

/// The release that added it.
const GRACE_SINCE: Version = Version::new(0, 2, 1);

/// The longest grace period in the default policy: an hour.
const GRACE_SECONDS: i64 = 3600;

/// The safe default: nothing that lets a pod out of its container.
impl Default for Policy {
    fn default() -> Self {
        let safe = |list: List| {
            list.safe()
                .iter()
                .map(|entry| (*entry).to_owned())
                .collect()
        };
        Self {
            switches: [false; Switch::ALL.len()],
            lists: List::ALL.map(safe),
            grace_seconds: GRACE_SECONDS,
        }
    }
}

impl Policy {
    fn allows(&self, switch: Switch) -> bool {
        self.switches[switch as usize]
    }

    /// The release that every host of the cluster must run to read this policy; `None` if release 0.2.0 can.
    #[must_use]
    pub fn since(&self) -> Option<Version> {
        let safe = Self::default();
        let grace = (self.grace_seconds != safe.grace_seconds).then_some(GRACE_SINCE);
        let is_set = |list: &List| self.list(*list) != safe.list(*list);
        let lists = List::ALL.into_iter().filter(is_set);
        lists.filter_map(List::since).chain(grace).max()
    }

    fn list(&self, list: List) -> &[String] {
        &self.lists[list as usize]
    }
}

/// The policy of a cluster, for the check of manifests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The version, which every change increments; 0 is the default that no administrator has changed.
    pub version: u64,
    /// The rules.
    pub policy: Policy,
}

#[cfg(test)]
mod tests;
