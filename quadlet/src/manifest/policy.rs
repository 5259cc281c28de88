//! What manifests may ask of the hosts that run them: rules that hold for the whole cluster.
//!
//! Pure: no I/O, no clock, no randomness. [`Policy::read`] makes rules of a document, [`Policy::text`] a document of rules,
//! one on each line; what they refuse of an object is found while it is admitted. The rules are about what Podman lets a
//! pod do to its host, and the default refuses all of it.

mod check;
mod document;
mod path;

pub(super) use check::{annotations, pod};

/// Documents that are longer are refused unread: the policy is replicated as one entry, and is part of each snapshot.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// A rule that allows something or does not.
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

/// A rule that lists what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    HostPaths,
    Devices,
    Capabilities,
    Sysctls,
    Annotations,
    MountOptions,
    HostPorts,
}

impl List {
    const ALL: [Self; 7] = [
        Self::HostPaths,
        Self::Devices,
        Self::Capabilities,
        Self::Sysctls,
        Self::Annotations,
        Self::MountOptions,
        Self::HostPorts,
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
        }
    }

    /// What a pod may have with the default policy.
    fn safe(self) -> &'static [&'static str] {
        match self {
            Self::HostPaths | Self::Devices => &[],
            // What Podman gives to every container: to ask for it changes nothing.
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
            // Those that Kubernetes calls safe: they are the pod's own, and cost the host nothing.
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
            // Whom the files of a volume of its own belong to.
            Self::Annotations => &["volume.podman.io/gid", "volume.podman.io/uid"],
            Self::MountOptions => &["ro", "rw"],
            // Those of the hosts themselves are refused whatever the policy says.
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

/// The rule that bounds how long a pod may take to end.
const GRACE: &str = "terminationGracePeriodSeconds";

/// What a pod may take to end with the default policy: an hour.
const GRACE_SECONDS: i64 = 3600;

/// The safe policy: nothing that lets a pod out of its container.
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

    /// Whether it says more than Beemesh 0.2.0 can read, which the whole cluster must then be able to.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        let safe = Self::default();
        self.grace_seconds != safe.grace_seconds
            || self.list(List::HostPorts) != safe.list(List::HostPorts)
    }

    fn list(&self, list: List) -> &[String] {
        &self.lists[list as usize]
    }
}

/// The policy of a cluster, as manifests are checked by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Counts up with every change; 0 is the default, which nobody has set.
    pub version: u64,
    /// The rules.
    pub policy: Policy,
}

#[cfg(test)]
mod tests;
