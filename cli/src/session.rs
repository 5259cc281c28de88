//! The login and the unit of the process that runs this command, for the audit log.
//!
//! [`session`] is pure; [`own`] reads `/proc` and `/etc/passwd`. The gateway runs in a container, and knows only the
//! user ID of a caller.

use std::fs;

/// The value of `/proc/self/loginuid` in a process without a login, such as a service.
const NO_LOGIN: u32 = u32::MAX;

/// The session of this process, such as `alice, session-3.scope`. Empty if it is unknown.
pub(crate) fn own() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    session(
        &read("/proc/self/loginuid"),
        &read("/proc/self/cgroup"),
        &read("/etc/passwd"),
    )
}

/// The login and the unit, if these files contain them. The result contains only visible ASCII characters and spaces.
fn session(loginuid: &str, cgroup: &str, passwd: &str) -> String {
    let uid: Option<u32> = loginuid.trim().parse().ok();
    let login = uid.filter(|uid| *uid != NO_LOGIN);
    let login = login.map(|uid| user_name(uid, passwd).unwrap_or_else(|| format!("uid {uid}")));
    let parts: Vec<String> = login.into_iter().chain(unit(cgroup)).collect();
    let visible = |character: &char| (' '..='~').contains(character);
    parts.join(", ").chars().filter(visible).collect()
}

fn user_name(uid: u32, passwd: &str) -> Option<String> {
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

/// The unit of a process, from its cgroup in systemd's hierarchy: that of version 2, or the named one of version 1. A host
/// can have both and use one.
fn unit(cgroup: &str) -> Option<String> {
    let paths = cgroup.lines().filter_map(|line| {
        let unified = line.strip_prefix("0::");
        unified.or_else(|| line.split_once(":name=systemd:").map(|(_, path)| path))
    });
    let is_unit = |name: &&str| name.ends_with(".service") || name.ends_with(".scope");
    let mut units = paths.filter_map(|path| path.rsplit('/').find(is_unit));
    units.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_a_login_and_a_unit_as_far_as_they_are_known() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        let scope = "0::/user.slice/user-1000.slice/session-3.scope\n";
        for (loginuid, cgroup, expected) in [
            ("1000\n", scope, "alice, session-3.scope"),
            ("1001", scope, "uid 1001, session-3.scope"),
            (
                "4294967295",
                "0::/system.slice/backup.service/inner",
                "backup.service",
            ),
            (
                "0",
                "5:cpu:/a\n1:name=systemd:/system.slice/sshd.service\n",
                "root, sshd.service",
            ),
            (
                "0",
                "9:name=systemd:/\n0::/system.slice/run-p604.service\n",
                "root, run-p604.service",
            ),
            ("", "0::/\n", ""),
            ("", "0::/a\u{7}\u{e9}b.service", "ab.service"),
        ] {
            assert_eq!(
                session(loginuid, cgroup, passwd),
                expected,
                "{loginuid} {cgroup}"
            );
        }
    }
}
