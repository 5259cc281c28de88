//! Parses the kernel's socket tables and conmon's command line.
//!
//! Pure: text in, values out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Protocol;

/// The state of a listening TCP socket.
const LISTENS: &str = "0A";

/// A socket that receives on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receiver {
    pub(super) address: IpAddr,
    pub(super) inode: u64,
}

/// The sockets in a table of `/proc/net` that receive on a port.
pub(super) fn receivers(table: &str, protocol: Protocol, port: u16) -> Vec<Receiver> {
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, local) = fields.get(1)?.rsplit_once(':')?;
        let state = *fields.get(3)?;
        let receives = protocol == Protocol::Udp || state == LISTENS;
        let inode = fields.get(9)?.parse().ok()?;
        let address = self::address(address)?;
        (receives && u16::from_str_radix(local, 16) == Ok(port))
            .then_some(Receiver { address, inode })
    };
    table.lines().filter_map(of_line).collect()
}

/// An address in a table: words of 32 bits in hexadecimal, each in the byte order of the host.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// The id of the container that a process runs in, from its control group.
pub(super) fn container(cgroup: &str) -> Option<String> {
    let parts = cgroup.split(['/', '\n']);
    let mut ids = parts.filter_map(|part| {
        let id = part.strip_prefix("libpod-")?;
        let id = id.strip_prefix("payload-").unwrap_or(id);
        let id = id.strip_suffix(".scope").unwrap_or(id);
        let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| id.to_owned())
    });
    ids.next_back()
}

/// The id and name of the container that a conmon watches, from its command line.
pub(super) fn conmon(line: &str) -> Option<(String, String)> {
    let words: Vec<&str> = line.split('\0').collect();
    let program = words.first()?.rsplit('/').next()?;
    let after = |flag: &str| {
        let at = words.iter().position(|word| *word == flag)?;
        words.get(at + 1).map(|word| (*word).to_owned())
    };
    (program == "conmon").then(|| Some((after("-c")?, after("-n")?)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_sockets_of_a_port() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                   0: 00000000:125D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
                   1: 0100007F:125D 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n\
                   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n";
        let receiver = |address: &str, inode| Receiver {
            address: address.parse().unwrap(),
            inode,
        };
        let found = receivers(tcp, Protocol::Tcp, 4701);
        assert_eq!(found, [receiver("0.0.0.0", 4711)]);
        let udp = "  sl  local_address                         remote_address                        st tx_queue rx_queue\n\
                   1523: 00000000000000000000000000000000:125D 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 815 2 0 0\n";
        let found = receivers(udp, Protocol::Udp, 4701);
        assert_eq!(found, [receiver("::", 815)]);
        assert!(receivers("no table", Protocol::Udp, 4701).is_empty());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn addresses_are_read() {
        for (text, expected) in [
            ("0100007F", Some("127.0.0.1")),
            ("00000000", Some("0.0.0.0")),
            ("00000000000000000000000001000000", Some("::1")),
            ("0000000000000000FFFF00000100007F", Some("127.0.0.1")),
            ("B80D0120000000000000000007000000", Some("2001:db8::7")),
            ("01", None),
            ("ZZ00007F", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(address(text), expected, "{text}");
        }
    }

    #[test]
    fn a_container_is_known_by_its_control_group_and_named_by_its_conmon() {
        let id = "5f".repeat(32);
        for group in [
            format!("0::/machine.slice/libpod-{id}.scope/container\n"),
            format!("0::/system.slice/beemesh-pod-web.service/libpod-payload-{id}\n"),
        ] {
            assert_eq!(container(&group), Some(id.clone()), "{group}");
        }
        assert_eq!(container("0::/system.slice/sshd.service\n"), None);
        assert_eq!(container("0::/system.slice/libpod-conmon-x.scope\n"), None);
        let line = format!("/usr/bin/conmon\0--api-version\01\0-c\0{id}\0-u\0{id}\0-n\0web-main\0");
        assert_eq!(conmon(&line), Some((id, "web-main".to_owned())));
        assert_eq!(conmon("nc\0-l\0-n\0-c\0"), None);
    }
}
