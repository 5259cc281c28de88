//! Judges whether this host's Podman is recent enough.
//!
//! Pure: version in, verdict out.

use beemesh_protocol::version::Version;

/// Before it, Quadlet does not know `DefaultDependencies=`, which the units need to start without a network.
const NEEDED: Version = Version::new(5, 3, 0);
/// Before it, `podman kube play` follows symbolic links in the volumes of ConfigMaps and Secrets.
const MENDED: Version = Version::new(5, 6, 1);

/// The verdict on a version, with messages for the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The version is recent enough.
    Fine,
    /// Beemesh works with this version, but the administrator should know of a problem.
    Warned(String),
    /// Beemesh does not work with this version.
    Refused(String),
}

/// Judges the version that Podman reports.
pub(crate) fn judge(version: &str) -> Verdict {
    let Some(parsed) = Version::parse(version) else {
        return Verdict::Warned(format!(
            "Podman reports version `{version}`; Beemesh needs 5.3 or later"
        ));
    };
    if parsed < NEEDED {
        return Verdict::Refused(format!(
            "Podman {version} is too old, Beemesh needs 5.3 or later: update the package `podman` of this host, then \
             `systemctl start beemesh-agent`"
        ));
    }
    if parsed < MENDED {
        return Verdict::Warned(format!(
            "Podman {version} has CVE-2025-9566 unless your distribution has fixed it: before 5.6.1 a container can overwrite files of the host through a ConfigMap or Secret that is played again. Workloads of Beemesh mount these read-only; update the package `podman` for everything else that you play"
        ));
    }
    Verdict::Fine
}

/// The version in the head of an answer to `/_ping`.
pub(super) fn of_ping(answer: &[u8]) -> Option<&str> {
    let lines = answer.split(|byte| *byte == b'\n').map(str::from_utf8);
    let head = lines.map_while(Result::ok).map(str::trim_end);
    let mut headers = head.take_while(|line| !line.is_empty());
    headers.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_version = name.eq_ignore_ascii_case("Libpod-API-Version");
        Some(value.trim()).filter(|value| is_version && !value.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_podmans_are_refused_and_mendable_ones_warned_about() {
        let kind = |version: &str| match judge(version) {
            Verdict::Fine => "fine",
            Verdict::Warned(words) | Verdict::Refused(words) if !words.contains(version) => {
                "does not name it"
            }
            Verdict::Warned(words) if words.contains("CVE-2025-9566") => "cve",
            Verdict::Warned(_) => "strange",
            Verdict::Refused(words) if words.contains("update the package `podman`") => "refused",
            Verdict::Refused(_) => "does not help",
        };
        for (version, expected) in [
            ("4.9.4", "refused"),
            ("5.2.99", "refused"),
            ("5.3.0", "cve"),
            ("5.4.2", "cve"),
            ("5.6.0-rhel", "cve"),
            ("5.6.1", "fine"),
            ("5.10.0", "fine"),
            ("6.0.0-dev", "fine"),
            ("5", "strange"),
            ("", "strange"),
            ("new", "strange"),
        ] {
            assert_eq!(kind(version), expected, "{version}");
        }
    }

    #[test]
    fn the_version_is_found_in_the_head_only() {
        for (answer, expected) in [
            (
                "HTTP/1.0 200 OK\r\nServer: Libpod/5.4.2 (linux)\r\nLibpod-Api-Version: 5.4.2\r\n\r\nOK",
                Some("5.4.2"),
            ),
            ("HTTP/1.0 200 OK\r\n\r\nLibpod-API-Version: 1.0.0\r\n", None),
            ("HTTP/1.0 200 OK\r\nLibpod-API-Version:\r\n\r\n", None),
            ("", None),
        ] {
            assert_eq!(of_ping(answer.as_bytes()), expected, "{answer}");
        }
    }
}
