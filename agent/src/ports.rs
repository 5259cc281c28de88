//! Which ports of the host a process has already, whoever's it is: what a new revision of a workload would find when the one of before
//! is taken down.
//!
//! Pure: no I/O, no clock, no randomness. Input: the YAML of both revisions, and the kernel's tables of sockets
//! (`/proc/self/net/tcp` and its like). Output: the first port that the new one wants, the old one does not have, and
//! somebody else has.

use core::{fmt, net::{IpAddr, Ipv4Addr, Ipv6Addr}};

use serde_json::Value;

/// The kernel's tables, and the protocol of each.
pub(crate) const TABLES: [(&str, &str); 4] = [
    ("/proc/self/net/tcp", "TCP"),
    ("/proc/self/net/tcp6", "TCP"),
    ("/proc/self/net/udp", "UDP"),
    ("/proc/self/net/udp6", "UDP"),
];

/// The states of a socket that nobody else can have the port of: TCP that listens, and UDP that is not connected.
const LISTENS: [(&str, &str); 2] = [("TCP", "0A"), ("UDP", "07")];

/// A port that somebody has or wants; without an address, at each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    address: Option<IpAddr>,
    protocol: String,
    number: u16,
}

impl Port {
    fn meets(&self, other: &Self) -> bool {
        let same = self.address.is_none() || other.address.is_none() || self.address == other.address;
        same && self.protocol == other.protocol && self.number == other.number
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol.to_ascii_lowercase())
    }
}

fn address(address: IpAddr) -> Option<IpAddr> {
    let address = address.to_canonical();
    (!address.is_unspecified()).then_some(address)
}

/// The ports of the host that a pod has, by the YAML that is played.
pub(crate) fn of_yaml(yaml: &[u8]) -> Vec<Port> {
    let text = str::from_utf8(yaml).unwrap_or_default();
    if !text.contains("\"hostPort\"") && !text.contains("\"hostNetwork\"") {
        return Vec::new();
    }
    let documents = text.split("\n---\n").filter_map(|text| serde_json::from_str::<Value>(text).ok());
    documents.flat_map(|document| of_pod(&document["spec"])).collect()
}

fn of_pod(spec: &Value) -> Vec<Port> {
    let of_host = spec["hostNetwork"] == true;
    let containers = spec["containers"].as_array().into_iter().flatten();
    let ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let port = |port: &Value| {
        let published = port["hostPort"].as_u64().filter(|number| *number > 0);
        let number = published.or(port["containerPort"].as_u64().filter(|_| of_host))?;
        let at = port["hostIP"].as_str().and_then(|text| text.parse().ok());
        Some(Port {
            address: at.and_then(address).filter(|_| !of_host),
            protocol: port["protocol"].as_str().unwrap_or("TCP").to_owned(),
            number: u16::try_from(number).ok()?,
        })
    };
    ports.filter_map(port).collect()
}

/// The ports in a table of the kernel that nobody else can have.
pub(crate) fn of_table(table: &str, protocol: &str) -> Vec<Port> {
    let state = LISTENS.iter().find(|(name, _)| *name == protocol).map(|(_, state)| *state);
    let port = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, is) = (fields.next()?, fields.next()?, fields.next()?);
        let (host, number) = local.split_once(':')?;
        (Some(is) == state).then_some(())?;
        Some(Port {
            address: address(of_hex(host)?),
            protocol: protocol.to_owned(),
            number: u16::from_str_radix(number, 16).ok()?,
        })
    };
    table.lines().skip(1).filter_map(port).collect()
}

/// An address as the kernel prints it: 32 bits at a time, each in the order of this machine.
fn of_hex(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

/// The first port that the new revision wants, the old one does not have, and somebody has.
pub(crate) fn taken(wanted: &[Port], before: &[Port], there: &[Port]) -> Option<Port> {
    let new = wanted.iter().filter(|port| !before.iter().any(|old| old.meets(port)));
    let mut taken = new.filter(|port| there.iter().any(|other| other.meets(port)));
    taken.next().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
        0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n   \
        1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0\n   \
        2: 0100007F:0051 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0\n";
    const TCP6: &str = "  sl  local_address                         remote_address                        st\n   \
        0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 0 0 0\n   \
        1: 0000000000000000FFFF00000100007F:0052 00000000000000000000000000000000:0000 0A 0 0 0\n";

    fn pod(ports: &str) -> Vec<Port> {
        let yaml = format!(
            "{{\"kind\": \"ConfigMap\"}}\n---\n{{\"kind\": \"Pod\", \"spec\": {{\"containers\": [{{\"ports\": [{ports}]}}]}}}}\n"
        );
        of_yaml(yaml.as_bytes())
    }

    #[test]
    fn what_somebody_else_has_is_found_in_the_kernels_tables() {
        let there: Vec<Port> = [of_table(TCP, "TCP"), of_table(TCP6, "TCP"), of_table("", "UDP")].concat();
        let found = |wanted: &str, before: &str| {
            taken(&pod(wanted), &pod(before), &there).map(|port| port.to_string())
        };
        let port = |number: u16, more: &str| format!("{{\"containerPort\": 1, \"hostPort\": {number}{more}}}");
        for (wanted, taken) in [
            (port(80, ""), true),
            (port(80, ", \"hostIP\": \"10.0.0.1\""), true),
            (port(80, ", \"protocol\": \"UDP\""), false),
            (port(8080, ""), true),
            (port(8080, ", \"hostIP\": \"127.0.0.1\""), true),
            (port(8080, ", \"hostIP\": \"10.0.0.1\""), false),
            (port(443, ""), true),
            (port(82, ", \"hostIP\": \"127.0.0.1\""), true),
            (port(81, ""), false),
            (port(83, ""), false),
        ] {
            assert_eq!(found(&wanted, "").is_some(), taken, "{wanted}");
        }
        assert_eq!(found(&port(80, ""), &port(80, "")), None, "its own");
        assert_eq!(found(&port(80, ""), &port(81, "")).as_deref(), Some("80/tcp"));
        assert_eq!(of_table("junk\n1: 2\n3: xyz:1 4 0A\n", "TCP"), []);
    }
}
