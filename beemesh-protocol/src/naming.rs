//! The name of a host.
//!
//! Pure: no I/O, no clock. A host is identified by its key; its name is for users, and for a `nodeSelector`. A member
//! keeps its name until its administrator configures another one, because a DHCP lease may change the host name of the
//! system. Input: the name from the system or the configuration, and the members. Output: the name, and a message if
//! there is a problem with it. The gateway uses it to decide what to propose, and the agent to write its status line.

use crate::HostId;

/// The host name of a system without a configured name.
pub const UNNAMED: &str = "localhost";

/// The name that a host reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said<'a> {
    /// Its configured name, or else the host name of its system.
    pub name: &'a str,
    /// Whether `name` is configured.
    pub is_set: bool,
}

/// The name of the member `host`, and a message if there is a problem with the reported name; otherwise the message is
/// empty. `None` if the host is no member.
pub fn decide<'a>(
    host: HostId,
    said: Said<'a>,
    members: impl IntoIterator<Item = (HostId, &'a str)>,
) -> Option<(&'a str, String)> {
    let (mut known, mut other) = (None, None);
    for (id, name) in members {
        if id == host {
            known = Some(name);
        } else if name == said.name {
            other = Some(id);
        }
    }
    let known = known?;
    let Said { name, is_set } = said;
    let decided = match (is_set, other) {
        _ if name == known => (known, String::new()),
        (true, None) => (name, String::new()),
        (true, Some(other)) => (
            known,
            format!(
                "`name` is set to {name}, but {other} is a member of that name: this host stays {known}; set another `name` in /etc/beemesh/agent.toml.d and reload beemesh-agent"
            ),
        ),
        // The member has only the default name so far.
        (false, None) if known == UNNAMED => (name, String::new()),
        (false, other) => {
            let twice = match other {
                Some(_) => ", as another member is",
                None => "",
            };
            (
                known,
                format!(
                    "the host name of the system is {name}{twice}: in the cluster this host stays {known}; restore the host name, or set `name` in /etc/beemesh/agent.toml.d and reload beemesh-agent"
                ),
            )
        }
    };
    Some(decided)
}

#[cfg(test)]
mod tests {
    use super::*;

    const H2: HostId = HostId([2; 32]);

    fn decided(name: &str, is_set: bool, members: &[(u8, &str)]) -> Option<(String, String)> {
        let members = members.iter().map(|(n, name)| (HostId([*n; 32]), *name));
        let decided = decide(H2, Said { name, is_set }, members);
        decided.map(|(name, trouble)| (name.to_owned(), trouble))
    }

    #[test]
    fn a_member_keeps_its_name_until_another_one_is_configured() {
        let members = [(1, "h1"), (2, "h2"), (3, "h3")];
        for (name, is_set, expected, words) in [
            ("h2", false, "h2", ""),
            ("h2", true, "h2", ""),
            ("db", true, "db", ""),
            ("localhost", true, "localhost", ""),
            (
                "localhost",
                false,
                "h2",
                "the host name of the system is localhost: ",
            ),
            ("db", false, "h2", "the host name of the system is db: "),
            ("h3", false, "h2", "is h3, as another member is: "),
            ("h3", true, "h2", "`name` is set to h3, but 12D3Koo"),
        ] {
            let (found, trouble) = decided(name, is_set, &members).unwrap();
            assert_eq!(found, expected, "{name} {is_set}");
            assert_eq!(trouble.is_empty(), words.is_empty(), "{trouble}");
            assert!(trouble.contains(words), "{trouble}");
            let stays = trouble.is_empty() || trouble.contains("this host stays h2; ");
            assert!(stays, "{trouble}");
        }
    }

    #[test]
    fn a_member_without_a_name_takes_its_first_name() {
        let took =
            |name: &str, others: &[(u8, &str)]| decided(name, false, others).map(|(name, _)| name);
        let unnamed = (2, "localhost");
        assert_eq!(took("h2", &[unnamed]).as_deref(), Some("h2"));
        assert_eq!(took("localhost", &[unnamed]).as_deref(), Some("localhost"));
        let taken = [unnamed, (1, "h1")];
        assert_eq!(took("h1", &taken).as_deref(), Some("localhost"));
        assert_eq!(took("h2", &[(1, "h1")]), None, "it is no member yet");
    }
}
