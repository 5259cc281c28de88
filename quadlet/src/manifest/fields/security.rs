//! The security contexts of pods and containers.
//!
//! Pure: constants.

use super::{Area, ours, refused_but, refused_elsewhere, right, warned, warned_but};

const NO_PROFILE: &str =
    "Podman ignores it: Podman's own profile is used where the host has AppArmor";
const WINDOWS: &str = "Podman ignores it: every host runs Linux";
const RULE: &str = "needs a rule of the policy";

pub(super) static POD_SECURITY: Area = Area {
    api: "PodSecurityContext",
    title: Some("Security context of pods: `securityContext`"),
    rows: &[
        right("runAsUser", ""),
        right("runAsGroup", ""),
        ours(
            "runAsNonRoot",
            "a container that would run as root does not start",
        ),
        ours("supplementalGroups", ""),
        refused_but(
            "supplementalGroupsPolicy",
            "the groups that the image gives its user would stay: only `Merge` is supported",
            &["Merge"],
        ),
        ours(
            "fsGroup",
            "the group of new volumes; files that a claim already has keep theirs",
        ),
        warned(
            "fsGroupChangePolicy",
            "a volume gets its group when it is made: files that are in it keep theirs",
        ),
        right("seLinuxOptions", RULE).of(&SE_LINUX),
        warned_but(
            "seLinuxChangePolicy",
            "Podman ignores it: it labels the files of a volume one by one",
            &["Recursive"],
        ),
        right(
            "sysctls",
            "those that Kubernetes calls safe; others need a rule of the policy",
        )
        .each(&SYSCTL),
        ours("seccompProfile", "").of(&SECCOMP),
        warned_but("appArmorProfile", NO_PROFILE, &["RuntimeDefault"]),
        warned("windowsOptions", WINDOWS),
    ],
    base: None,
};

static SECCOMP: Area = Area {
    api: "SeccompProfile",
    title: None,
    rows: &[
        ours(
            "type",
            "`RuntimeDefault`, and `Unconfined` under a rule of the policy; `Localhost` is refused",
        ),
        refused_elsewhere("localhostProfile", "Podman takes no file for it"),
    ],
    base: None,
};

static SE_LINUX: Area = Area {
    api: "SELinuxOptions",
    title: None,
    rows: &[
        right("level", RULE),
        right("role", RULE),
        right("type", RULE),
        right("user", RULE),
    ],
    base: None,
};

static SYSCTL: Area = Area {
    api: "Sysctl",
    title: None,
    rows: &[right("name", ""), right("value", "")],
    base: None,
};

pub(super) static CONTAINER_SECURITY: Area = Area {
    api: "SecurityContext",
    title: Some("Security context of containers: `securityContext`"),
    rows: &[
        right("runAsUser", ""),
        right("runAsGroup", ""),
        ours(
            "runAsNonRoot",
            "a container that would run as root does not start",
        ),
        ours("readOnlyRootFilesystem", ""),
        right("allowPrivilegeEscalation", ""),
        right("privileged", RULE),
        right("procMount", RULE),
        right("capabilities", "").of(&CAPABILITIES),
        right("seLinuxOptions", RULE).of(&SE_LINUX),
        ours("seccompProfile", "").of(&SECCOMP),
        warned_but("appArmorProfile", NO_PROFILE, &["RuntimeDefault"]),
        warned("windowsOptions", WINDOWS),
    ],
    base: None,
};

static CAPABILITIES: Area = Area {
    api: "Capabilities",
    title: None,
    rows: &[
        right(
            "add",
            "those that Podman gives to every container; others need a rule of the policy",
        ),
        right("drop", ""),
    ],
    base: None,
};
