//! The packet that hosts announce themselves with: a multicast DNS answer with one SRV record.
//!
//! Pure: no I/O, no clock, no randomness. `HOST._beemesh._udp.local` is served at a port of `HOST.local`; the address
//! is the source address of the packet. The reader accepts this form only, so it follows no pointers and counts no
//! records.

use beemesh_protocol::HostId;

/// Longer packets belong to other programs.
pub(super) const BYTES_MAX: usize = 512;

/// The header of an unsolicited authoritative answer with one record.
const HEADER: [u8; 12] = [0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
/// Type SRV, class Internet with the cache-flush bit, and a time to live of two minutes.
const SERVICE: [u8; 8] = [0, 33, 0x80, 1, 0, 0, 0, 120];

fn name(labels: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in labels {
        // A host id has 52 characters, and DNS allows 63.
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// Encodes the announcement of a host and its port.
pub(super) fn write(host: HostId, port: u16) -> Vec<u8> {
    let id = host.to_string();
    let target = name(&[&id, "local"]);
    let length = u16::try_from(6 + target.len()).unwrap_or(0);
    let mut packet = HEADER.to_vec();
    packet.extend(name(&[&id, "_beemesh", "_udp", "local"]));
    packet.extend(SERVICE);
    packet.extend(length.to_be_bytes());
    // Priority and weight are zero.
    packet.extend([0; 4]);
    packet.extend(port.to_be_bytes());
    packet.extend(target);
    packet
}

/// Decodes an announcement into host and port; `None` for every other packet.
pub(super) fn read(packet: &[u8]) -> Option<(HostId, u16)> {
    let rest = packet.strip_prefix(&HEADER)?;
    let (length, rest) = rest.split_first()?;
    let id = rest.get(..usize::from(*length).min(63))?;
    let host: HostId = std::str::from_utf8(id).ok()?.parse().ok()?;
    let target = name(&[std::str::from_utf8(id).ok()?, "local"]).len();
    let at = packet.len().checked_sub(target + 2)?;
    let port = u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?);
    (port > 0 && write(host, port) == packet).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_reads_back_and_every_other_one_is_ignored() {
        let host = HostId([7; 32]);
        let packet = write(host, 4701);
        assert_eq!(read(&packet), Some((host, 4701)));
        assert!(packet.len() < BYTES_MAX);
        assert_eq!(read(&write(host, 0)), None);
        for at in 0..packet.len() {
            assert_eq!(read(&packet[..at]), None, "cut at {at}");
            for flip in [1, 0x20, 0x80] {
                let mut other = packet.clone();
                other[at] ^= flip;
                let read = read(&other);
                assert!(
                    read.is_none_or(|(found, port)| found == host && port != 4701),
                    "byte {at}"
                );
            }
        }
        assert_eq!(read(&[&packet[..], &[0]].concat()), None);
        assert_eq!(read(&[0xff; 600]), None);
    }
}
