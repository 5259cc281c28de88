//! The sockets that a sieve filters.
//!
//! Shell: finds the sockets of this process, attaches programs to them, and reads the kernel's counters. libp2p does
//! not return its sockets, but `/proc` lists them.

use std::{
    collections::HashMap,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use socket2::{SockFilter, SockRef};

use super::{Kind, Rules};

/// The line of a socket in `/proc/self/net/udp` or `tcp`: its port, state, inode and dropped packets.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    port: u16,
    state: &'a str,
    inode: u64,
    dropped: u64,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, port) = fields.get(1)?.rsplit_once(':')?;
        Some(Self {
            port: u16::from_str_radix(port, 16).ok()?,
            state: fields.get(3)?,
            inode: fields.get(9)?.parse().ok()?,
            // TCP has another column at this position.
            dropped: fields
                .get(12)
                .and_then(|field| field.parse().ok())
                .unwrap_or(0),
        })
    }
}

impl Kind {
    fn tables(self) -> [&'static str; 2] {
        match self {
            Self::Quic => ["/proc/self/net/udp", "/proc/self/net/udp6"],
            Self::Tcp => ["/proc/self/net/tcp", "/proc/self/net/tcp6"],
        }
    }

    /// The state to look for: unconnected for UDP, listening for TCP.
    fn state(self) -> &'static str {
        match self {
            Self::Quic => "07",
            Self::Tcp => "0A",
        }
    }
}

/// The dropped packets of each socket on one of these ports, by inode.
fn drops(kind: Kind, ports: &[u16]) -> HashMap<u64, u64> {
    // The host may lack one of the tables.
    let tables = kind
        .tables()
        .map(|table| fs::read_to_string(table).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let lines = lines.filter_map(Line::parse);
    lines
        .filter(|line| ports.contains(&line.port) && line.state == kind.state())
        .map(|line| (line.inode, line.dropped))
        .collect()
}

/// The filter of some sockets. Dropping it leaves the filter attached until the sockets are closed.
#[derive(Debug)]
pub(crate) struct Sieve {
    kind: Kind,
    ports: Vec<u16>,
    sockets: Vec<OwnedFd>,
    /// `None` if no program is attached.
    attached: Option<Rules>,
    dropped: u64,
    /// Whether the journal has a line about the flood, and one about a filter that the kernel refused.
    told: bool,
    failed: bool,
}

impl Sieve {
    /// A filter for one socket.
    pub(crate) fn on(kind: Kind, socket: &impl AsFd) -> io::Result<Self> {
        Ok(Self::new(
            kind,
            vec![socket.as_fd().try_clone_to_owned()?],
            Vec::new(),
        ))
    }

    /// A filter for the sockets of this process on these ports.
    pub(crate) fn on_ports(kind: Kind, ports: &[u16]) -> io::Result<Self> {
        let inodes = drops(kind, ports);
        let mut found = HashMap::new();
        for entry in fs::read_dir("/proc/self/fd")?.flatten() {
            // The descriptor that read the directory is closed by now.
            let Ok(link) = fs::read_link(entry.path()) else {
                continue;
            };
            let inode = link.to_str().and_then(|link| {
                link.strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .parse()
                    .ok()
            });
            let number: Option<RawFd> = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let (Some(inode), Some(number)) = (inode, number)
                && inodes.contains_key(&inode)
            {
                found.insert(inode, number);
            }
        }
        let sockets = found
            .into_values()
            .map(duplicate)
            .collect::<io::Result<_>>()?;
        Ok(Self::new(kind, sockets, ports.to_vec()))
    }

    fn new(kind: Kind, sockets: Vec<OwnedFd>, ports: Vec<u16>) -> Self {
        Self {
            kind,
            ports,
            sockets,
            attached: None,
            dropped: 0,
            told: false,
            failed: false,
        }
    }

    /// The number of sockets.
    pub(crate) fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Attaches these rules to the sockets.
    pub(crate) fn keep_to(&mut self, rules: Rules) {
        let rules = (!rules.pass_all()).then_some(rules);
        if rules == self.attached {
            return;
        }
        let tried = self.sockets.iter().try_for_each(|socket| match &rules {
            Some(rules) => attach(socket, rules, self.kind),
            None => SockRef::from(socket).detach_filter(),
        });
        match tried {
            Ok(()) => {
                if self.attached.is_some() != rules.is_some() {
                    self.dropped = self.count();
                }
                let flood = rules.as_ref().is_some_and(Rules::keep_most_out);
                if flood && !self.told {
                    let kind = self.kind;
                    tracing::info!(
                        ?kind,
                        "a flood of strangers: most of their packets are dropped"
                    );
                    self.told = true;
                } else if rules.is_none() && self.told {
                    let kind = self.kind;
                    tracing::info!(
                        ?kind,
                        "the flood has ended: packets of strangers are accepted again"
                    );
                    self.told = false;
                }
                self.attached = rules;
            }
            Err(error) => {
                if std::mem::replace(&mut self.failed, true) {
                    return;
                }
                match self.kind {
                    Kind::Quic => {
                        tracing::warn!(%error, "the kernel refused the filter of a socket, so nothing limits a flood of strangers");
                    }
                    // Some kernels require CAP_NET_ADMIN for this filter. The rate of accepted connections is limited,
                    // too.
                    Kind::Tcp => tracing::debug!(%error, "the kernel refused the filter for TCP"),
                }
            }
        }
    }

    /// Returns the packets that the kernel dropped since the last call; 0 while no program is attached.
    pub(crate) fn dropped(&mut self) -> u64 {
        if self.attached.is_none() || self.kind == Kind::Tcp {
            return 0;
        }
        let count = self.count();
        count.saturating_sub(std::mem::replace(&mut self.dropped, count))
    }

    fn count(&self) -> u64 {
        drops(self.kind, &self.ports).values().sum()
    }
}

fn attach(socket: &OwnedFd, rules: &Rules, kind: Kind) -> io::Result<()> {
    let steps = rules.program(kind);
    let steps = steps
        .iter()
        .map(|step| SockFilter::new(step.code, step.jump_true, step.jump_false, step.value));
    SockRef::from(socket).attach_filter(&steps.collect::<Vec<_>>())
}

fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    #[expect(
        unsafe_code,
        reason = "libp2p does not hand its sockets out; the number is borrowed for one call, which fails when it is closed"
    )]
    // SAFETY: the number is passed only to `fcntl(F_DUPFD_CLOEXEC)`, which returns a new descriptor or fails.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned()
}

/// The processor time that this process has used.
pub(crate) fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        time::Duration,
    };

    use super::*;
    use crate::sieve::Share;

    #[test]
    fn a_line_of_the_kernels_table_is_read() {
        let line = "  631: 00000000:125D 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 27342 2 0000000000000000 12";
        let expected = Line {
            port: 4701,
            state: "07",
            inode: 27342,
            dropped: 12,
        };
        assert_eq!(Line::parse(line), Some(expected));
        assert_eq!(Line::parse("  sl  local_address rem_address   st"), None);
    }

    #[test]
    fn sockets_are_found_by_their_port_and_what_is_dropped_is_counted() {
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        to.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut sieve = Sieve::on_ports(Kind::Quic, &[to.local_addr().unwrap().port()]).unwrap();
        assert_eq!(sieve.len(), 1);
        let heard = || {
            from.send_to(b"anything long enough", to.local_addr().unwrap())
                .unwrap();
            to.recv(&mut [0; 100]).is_ok()
        };
        assert!(heard());
        let none = Rules {
            strange: Share::NONE,
            ..Rules::default()
        };
        sieve.keep_to(none);
        assert_eq!([heard(), heard()], [false, false]);
        assert_eq!([sieve.dropped(), sieve.dropped()], [2, 0]);
        sieve.keep_to(Rules::default());
        assert!(heard());
    }

    #[test]
    fn connections_that_a_listener_took_go_on_when_it_takes_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut sieve = Sieve::on_ports(Kind::Tcp, &[address.port()]).unwrap();
        assert_eq!(sieve.len(), 1);
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200));
        let (before, _) = (connect().unwrap(), listener.accept().unwrap());
        sieve.keep_to(Rules {
            strange: Share::NONE,
            ..Rules::default()
        });
        assert!(connect().is_err());
        io::Write::write_all(&mut &before, b"still here").unwrap();
        sieve.keep_to(Rules::default());
        assert!(connect().is_ok());
    }
}
