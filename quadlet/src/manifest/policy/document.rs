//! Reads a policy from a document and writes it as one: YAML or JSON with one rule on each line.
//!
//! Pure: no I/O, no clock, no randomness. A rule that the document leaves out has its default.

use serde_json::{Map, Value};

use super::{DOCUMENT_BYTES_MAX, List, Policy, Switch, path};
use crate::manifest::{
    Problem,
    field::{Field, cut},
    findings::{Findings, Scope},
    outline, typed,
};

/// The largest number of entries in one list.
const ENTRIES_MAX: usize = 256;
/// The largest number of bytes of one entry.
const ENTRY_BYTES_MAX: usize = 1024;
/// The longest grace period that a policy can allow, in seconds: 31 days.
const GRACE_MAX: i64 = 31 * 86_400;

/// All capabilities of Linux, and the word for all of them.
pub(in crate::manifest) const CAPABILITIES: [&str; 42] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

impl Policy {
    /// Parses a document, or finds all its problems, each with its line.
    ///
    /// # Errors
    ///
    /// The document is not YAML, is longer than [`DOCUMENT_BYTES_MAX`], has a key that is no rule, or a value that is
    /// invalid for its rule.
    pub fn read(text: &str) -> Result<Self, Vec<Problem>> {
        let whole = |message: String| {
            vec![Problem {
                document: 0,
                line: 0,
                field: String::new(),
                message,
            }]
        };
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(whole(format!(
                "the policy has {} bytes, at most {DOCUMENT_BYTES_MAX} are accepted",
                text.len()
            )));
        }
        let outline = outline::read(text);
        if let Some(fault) = outline.fault {
            return Err(vec![fault]);
        }
        let [document] = outline.documents.as_slice() else {
            let message = match outline.documents.is_empty() {
                true => "contains no rule: `beemesh policy show` prints all rules",
                false => "is more than one document",
            };
            return Err(whole(message.to_owned()));
        };
        let mut findings = Findings::new(true);
        let mut scope = Scope {
            findings: &mut findings,
            outline: &outline,
            document,
            number: 1,
            object: Field::default(),
            unread: Vec::new(),
            rules: None,
        };
        let mut policy = Self::default();
        if outline.tagged {
            scope.wrong(&Field::default(), "a YAML tag is not allowed here");
        } else if document.duplicates.is_empty() {
            match outline.value(document) {
                Ok(value) => {
                    let json = typed::to_json(value, &Field::default(), &mut scope);
                    policy.take(&json, &mut scope);
                }
                Err(words) => scope.wrong(&Field::default(), format!("not YAML: {words}")),
            }
        }
        for (field, line) in &document.duplicates {
            findings.wrong(Problem {
                document: 1,
                line: *line,
                field: field.to_string(),
                message: "appears twice".to_owned(),
            });
        }
        findings.finish().map(|_| policy)
    }

    fn take(&mut self, json: &Value, scope: &mut Scope<'_>) {
        let Some(entries) = json.as_object() else {
            return scope.wrong(
                &Field::default(),
                "is not a mapping: write one rule on each line, as `privileged: false`",
            );
        };
        for (key, value) in entries {
            let at = Field::default().key(key);
            let switch = Switch::ALL.into_iter().find(|one| one.name() == key);
            let list = List::ALL.into_iter().find(|one| one.name() == key);
            if key == super::GRACE {
                self.take_grace(value, &at, scope);
                continue;
            }
            match (switch, list) {
                (Some(switch), _) => match value.as_bool() {
                    Some(allowed) => self.switches[switch as usize] = allowed,
                    None => scope.wrong(&at, "is neither true nor false"),
                },
                (None, Some(list)) => self.lists[list as usize] = taken(list, value, &at, scope),
                (None, None) => {
                    let names = Switch::ALL.map(Switch::name).into_iter();
                    let names: Vec<_> = names
                        .chain(List::ALL.map(List::name))
                        .chain([super::GRACE])
                        .collect();
                    scope.wrong(
                        &at,
                        format!("is not a rule; the rules are {}", names.join(", ")),
                    );
                }
            }
        }
    }

    fn take_grace(&mut self, value: &Value, at: &Field, scope: &mut Scope<'_>) {
        match value
            .as_i64()
            .filter(|seconds| (0..=GRACE_MAX).contains(seconds))
        {
            Some(seconds) => self.grace_seconds = seconds,
            None => scope.wrong(
                at,
                format!("is not a number of seconds from 0 to {GRACE_MAX}"),
            ),
        }
    }

    /// The rules as a document, one on each line.
    #[must_use]
    pub fn text(&self) -> String {
        let switches = Switch::ALL.map(|switch| self.switch_line(switch));
        let lists = List::ALL.map(|list| self.list_line(list));
        let lines = switches.into_iter().chain(lists).chain([self.grace_line()]);
        lines.map(|line| line + "\n").collect()
    }

    /// The document as the cluster stores it: a rule that Beemesh 0.2.0 does not know is left out if it has its
    /// default.
    #[must_use]
    pub fn stored(&self) -> String {
        let safe = Self::default();
        let switches = Switch::ALL.map(|switch| self.switch_line(switch));
        let lists = List::ALL
            .into_iter()
            .filter(|list| list.since().is_none() || self.list(*list) != safe.list(*list));
        let lists = lists.map(|list| self.list_line(list));
        let grace = (self.grace_seconds != safe.grace_seconds).then(|| self.grace_line());
        let lines = switches.into_iter().chain(lists).chain(grace);
        lines.map(|line| line + "\n").collect()
    }

    /// The rules as JSON.
    #[must_use]
    pub fn json(&self) -> Map<String, Value> {
        let switches = Switch::ALL.map(|one| (one.name().to_owned(), self.allows(one).into()));
        let lists = List::ALL.map(|one| (one.name().to_owned(), self.list(one).to_vec().into()));
        let grace = [(super::GRACE.to_owned(), self.grace_seconds.into())];
        switches.into_iter().chain(lists).chain(grace).collect()
    }

    pub(super) fn grace_line(&self) -> String {
        format!("{}: {}", super::GRACE, self.grace_seconds)
    }

    pub(super) fn switch_line(&self, switch: Switch) -> String {
        format!("{}: {}", switch.name(), self.allows(switch))
    }

    pub(super) fn list_line(&self, list: List) -> String {
        let entries: Vec<_> = self.list(list).iter().map(|entry| quoted(entry)).collect();
        format!("{}: [{}]", list.name(), entries.join(", "))
    }
}

/// An entry in YAML, without quotes if it needs none.
fn quoted(entry: &str) -> String {
    let plain = entry.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && entry
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/._-=*".contains(&byte));
    // No entry of these lists is a word with a meaning in YAML, except some that a user might write.
    let word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    match plain && !word.contains(&entry.to_ascii_lowercase().as_str()) {
        true => entry.to_owned(),
        false => Value::from(entry).to_string(),
    }
}

/// The entries of a list, each normalized for comparison.
fn taken(list: List, value: &Value, at: &Field, scope: &mut Scope<'_>) -> Vec<String> {
    let Some(entries) = value.as_array() else {
        scope.wrong(at, "is not a list: write `[]` for nothing");
        return Vec::new();
    };
    if entries.len() > ENTRIES_MAX {
        scope.wrong(at, format!("has more than {ENTRIES_MAX} entries"));
        return Vec::new();
    }
    let mut taken = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let at = at.index(index);
        let port = entry.as_u64().filter(|_| list == List::HostPorts);
        let port = port.map(|port| port.to_string());
        match port.as_deref().or(entry.as_str()) {
            None => scope.wrong(&at, "is not a string: quote it"),
            Some(text) if text.len() > ENTRY_BYTES_MAX => {
                scope.wrong(&at, format!("has more than {ENTRY_BYTES_MAX} bytes"));
            }
            Some(text) => match normal(list, text) {
                Ok(entry) => taken.push(entry),
                Err(reason) => scope.wrong(&at, format!("`{}` {reason}", cut(text))),
            },
        }
    }
    taken
}

/// The entry normalized for comparison, or the reason why it can allow nothing.
fn normal(list: List, text: &str) -> Result<String, &'static str> {
    let is_path = |path: &str| path::components(path).is_some() && !path.contains(':');
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"[]{},#'\"".contains(&b))
    };
    let accepted = match list {
        List::HostPaths => is_path(text.strip_suffix(":ro").unwrap_or(text)),
        List::Devices => {
            is_path(text) || (!text.starts_with('/') && text.contains('=') && is_name(text))
        }
        List::Capabilities => {
            let name = capability(text);
            return match CAPABILITIES.contains(&name.as_str()) {
                true => Ok(name),
                false => Err("is not a capability: write it as NET_RAW, or ALL"),
            };
        }
        List::Annotations => super::check::is_governed(text.trim_end_matches('*')),
        List::Sysctls | List::MountOptions => is_name(text),
        List::HostPorts => super::check::ports(text).is_some(),
        List::ProbeHosts => text.parse::<std::net::IpAddr>().is_ok(),
    };
    let expected = match list {
        List::HostPaths => "is not a path such as /srv or /srv/data:ro, absolute and without `..`",
        List::Devices => {
            "is neither a path such as /dev/kvm nor a device such as nvidia.com/gpu=all"
        }
        List::Annotations => "is not an annotation that a policy can refuse",
        List::HostPorts => "is neither a port such as 443 nor a range such as 8000-8999",
        List::ProbeHosts => "is not an IP address: probes look up no names",
        List::Capabilities | List::Sysctls | List::MountOptions => "is not a name",
    };
    match accepted {
        true => Ok(text.to_owned()),
        false => Err(expected),
    }
}

/// The normalized name of a capability: Podman accepts it in any case, with or without `CAP_`.
pub(in crate::manifest) fn capability(text: &str) -> String {
    let upper = text.to_ascii_uppercase();
    upper
        .strip_prefix("CAP_")
        .map_or(upper.clone(), str::to_owned)
}
