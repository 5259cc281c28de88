//! The program that the kernel runs on each packet for a socket, before this process sees it.
//!
//! Pure: no I/O, no clock, no randomness. Input: [`Rules`]. Output: a classic BPF program, which needs no capability to
//! attach. The kernel starts it at the UDP or TCP header.

use std::{collections::BTreeSet, net::IpAddr};

use super::Share;

/// Addresses of each list. A program has at most 4,096 instructions, and the kernel charges its memory to the socket.
const IPV4_MAX: usize = 384;
const IPV6_MAX: usize = 96;

/// Offsets for loads from the network header, from the kernel's metadata of the packet, and of a random number.
const NETWORK: u32 = 0xfff0_0000;
const PROTOCOL: u32 = 0xffff_f000;
const RANDOM: u32 = 0xffff_f000 + 56;
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;

const LOAD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const LOAD_KEPT: u16 = 0x60;
const KEEP: u16 = 0x02;
const AND: u16 = 0x54;
const GO: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// The kind of socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// QUIC over UDP.
    Quic,
    /// A TCP listener: the program judges only segments that open a connection.
    Tcp,
}

/// What the program passes.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Rules {
    /// Addresses whose packets pass, except those that begin a QUIC connection.
    pub(crate) known: BTreeSet<IpAddr>,
    /// The share of packets from known addresses that begin a QUIC connection and pass. The source address may be
    /// forged.
    pub(crate) known_starts: Share,
    /// Networks whose packets are dropped.
    pub(crate) barred: BTreeSet<IpAddr>,
    /// The share of all other packets that passes.
    pub(crate) strange: Share,
}

/// One instruction, in the kernel's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) code: u16,
    pub(crate) jump_true: u8,
    pub(crate) jump_false: u8,
    pub(crate) value: u32,
}

/// The target of a jump that is too far for a conditional jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Ipv4,
    Known,
    KnownStart,
    Strange,
    Pass,
    Drop,
}

/// Instructions, some of which jump to labels that are not placed yet.
#[derive(Debug, Default)]
struct Assembler {
    steps: Vec<Step>,
    jumps: Vec<(usize, Label)>,
    places: Vec<(Label, usize)>,
}

impl Assembler {
    fn step(&mut self, code: u16, value: u32) {
        self.branch(code, value, 0, 0);
    }

    fn branch(&mut self, code: u16, value: u32, jump_true: u8, jump_false: u8) {
        self.steps.push(Step {
            code,
            jump_true,
            jump_false,
            value,
        });
    }

    fn go(&mut self, label: Label) {
        self.jumps.push((self.steps.len(), label));
        self.step(GO, 0);
    }

    /// Jumps to `label` if the condition holds.
    fn go_if(&mut self, code: u16, value: u32, label: Label) {
        self.branch(code, value, 0, 1);
        self.go(label);
    }

    fn place(&mut self, label: Label) {
        self.places.push((label, self.steps.len()));
    }

    fn assemble(mut self) -> Vec<Step> {
        for (at, label) in self.jumps {
            let place = self.places.iter().find(|(placed, _)| *placed == label);
            let far = place.map_or(0, |(_, place)| place - at - 1);
            self.steps[at].value = u32::try_from(far).unwrap_or(0);
        }
        self.steps
    }

    fn share(&mut self, share: Share) {
        if let Some(bound) = share.bound() {
            self.step(LOAD, RANDOM);
            self.go_if(IF_AT_LEAST, bound, Label::Drop);
        }
        self.go(Label::Pass);
    }

    /// Jumps to `label` if the saved words of the source address begin with `words`.
    fn go_if_words(&mut self, words: &[u32], label: Label) {
        let mut skip = u8::try_from(2 * words.len() - 1).unwrap_or(u8::MAX);
        for (at, word) in (0..).zip(words) {
            self.step(LOAD_KEPT, at);
            self.branch(IF_EQUAL, *word, 0, skip);
            skip = skip.saturating_sub(2);
        }
        self.go(label);
    }
}

fn words(ip: &IpAddr) -> Vec<u32> {
    match ip {
        IpAddr::V4(ip) => vec![ip.to_bits()],
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            let words = octets.chunks_exact(4);
            words
                .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
                .collect()
        }
    }
}

impl Rules {
    /// Returns true if every packet passes.
    pub(crate) fn pass_all(&self) -> bool {
        let whole = |share: Share| share.bound().is_none();
        whole(self.known_starts) && whole(self.strange) && self.barred.is_empty()
    }

    /// Returns true if there is a flood, and not only a suspicion of one.
    pub(crate) fn keep_most_out(&self) -> bool {
        self.strange.is_small() || !self.barred.is_empty()
    }

    /// Compiles the rules. The kernel drops a packet that is too short for a load.
    pub(crate) fn program(&self, kind: Kind) -> Vec<Step> {
        let mut program = Assembler::default();
        if kind == Kind::Tcp {
            // SYN without ACK.
            program.step(LOAD_BYTE, 13);
            program.step(AND, 0x12);
            program.branch(IF_EQUAL, 0x02, 1, 0);
            program.go(Label::Pass);
        }
        program.step(LOAD, PROTOCOL);
        program.go_if(IF_EQUAL, IPV4, Label::Ipv4);
        program.branch(IF_EQUAL, IPV6, 1, 0);
        program.go(Label::Strange);
        for word in 0..4 {
            program.step(LOAD, NETWORK + 8 + 4 * word);
            program.step(KEEP, word);
        }
        self.sources(&mut program, IpAddr::is_ipv6, IPV6_MAX);
        program.place(Label::Ipv4);
        program.step(LOAD, NETWORK + 12);
        program.step(KEEP, 0);
        self.sources(&mut program, IpAddr::is_ipv4, IPV4_MAX);
        program.place(Label::Known);
        if kind == Kind::Quic && self.known_starts.bound().is_some() {
            // Passes a short header, and a handshake packet of version 1.
            program.step(LOAD_BYTE, 8);
            program.branch(IF_ANY_BIT, 0x80, 1, 0);
            program.go(Label::Pass);
            program.step(LOAD, 9);
            program.branch(IF_EQUAL, 1, 1, 0);
            program.go(Label::KnownStart);
            program.step(LOAD_BYTE, 8);
            program.step(AND, 0x30);
            program.go_if(IF_EQUAL, 0x20, Label::Pass);
            program.place(Label::KnownStart);
            program.share(self.known_starts);
        } else {
            program.go(Label::Pass);
        }
        program.place(Label::Strange);
        program.share(self.strange);
        program.place(Label::Pass);
        program.step(RETURN, u32::MAX);
        program.place(Label::Drop);
        program.step(RETURN, 0);
        program.assemble()
    }

    fn sources(&self, program: &mut Assembler, of: impl Fn(&IpAddr) -> bool, max: usize) {
        for ip in self.known.iter().filter(|ip| of(ip)).take(max) {
            program.go_if_words(&words(ip), Label::Known);
        }
        for ip in self.barred.iter().filter(|ip| of(ip)).take(max) {
            let mut words = words(ip);
            // The first half of an IPv6 address is its network.
            words.truncate(2);
            program.go_if_words(&words, Label::Drop);
        }
        program.go(Label::Strange);
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use socket2::{SockFilter, SockRef};

    use super::*;

    /// Interprets the program as the kernel does; `random` is the random number.
    fn run(program: &[Step], header: &[u8], network: &[u8], protocol: u32, random: u32) -> bool {
        let (mut held, mut kept, mut at) = (0_u32, [0_u32; 16], 0);
        loop {
            let step = program[at];
            let jump = |holds: bool| {
                usize::from(if holds {
                    step.jump_true
                } else {
                    step.jump_false
                })
            };
            let word = |of: &[u8], from: u32| {
                let from = usize::try_from(from).unwrap();
                let word = of.get(from..from + 4)?;
                Some(u32::from_be_bytes(word.try_into().unwrap()))
            };
            at += 1;
            match step.code {
                LOAD => {
                    let loaded = match step.value {
                        PROTOCOL => Some(protocol),
                        RANDOM => Some(random),
                        from if from >= NETWORK => word(network, from - NETWORK),
                        from => word(header, from),
                    };
                    let Some(loaded) = loaded else { return false };
                    held = loaded;
                }
                LOAD_BYTE => match header.get(usize::try_from(step.value).unwrap()) {
                    Some(byte) => held = u32::from(*byte),
                    None => return false,
                },
                LOAD_KEPT => held = kept[usize::try_from(step.value).unwrap()],
                KEEP => kept[usize::try_from(step.value).unwrap()] = held,
                AND => held &= step.value,
                GO => at += usize::try_from(step.value).unwrap(),
                IF_EQUAL => at += jump(held == step.value),
                IF_AT_LEAST => at += jump(held >= step.value),
                IF_ANY_BIT => at += jump(held & step.value != 0),
                RETURN => return step.value > 0,
                other => panic!("{other:#x}"),
            }
        }
    }

    fn set(all: &[&str]) -> BTreeSet<IpAddr> {
        all.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn rules() -> Rules {
        Rules {
            known: set(&["10.0.0.7", "10.0.0.8", "fd00::7", "fd00::8"]),
            known_starts: Share::new(0.5),
            barred: set(&["10.0.9.9", "fd00:0:0:9::"]),
            strange: Share::new(0.25),
        }
    }

    /// Returns how many of a hundred packets pass, with evenly spaced random numbers.
    fn passed(rules: &Rules, kind: Kind, from: &str, header: &[u8]) -> usize {
        let program = rules.program(kind);
        let (network, protocol) = match from.parse().unwrap() {
            IpAddr::V4(ip) => ([&[0; 12][..], &ip.octets()].concat(), IPV4),
            IpAddr::V6(ip) => ([&[0; 8][..], &ip.octets()].concat(), IPV6),
        };
        let draws = (0..100).map(|n| n * (u32::MAX / 100));
        draws
            .filter(|draw| run(&program, header, &network, protocol, *draw))
            .count()
    }

    fn quic(first: u8, version: u32) -> Vec<u8> {
        let mut datagram = vec![0; 8 + 1200];
        datagram[8] = first;
        datagram[9..13].copy_from_slice(&version.to_be_bytes());
        datagram
    }

    fn tcp(flags: u8) -> Vec<u8> {
        let mut segment = vec![0; 20];
        segment[13] = flags;
        segment
    }

    #[test]
    fn of_strangers_a_share_is_let_through_and_of_barred_ones_nothing() {
        for header in [quic(0xc0, 1), quic(0x40, 7), quic(0xe0, 1)] {
            for from in ["10.0.0.9", "fd00::9", "fd00:0:0:8::7"] {
                let some = passed(&rules(), Kind::Quic, from, &header);
                assert!((25..=26).contains(&some), "{from}: {some}");
            }
            for from in ["10.0.9.9", "fd00:0:0:9::1", "fd00:0:0:9:ffff::"] {
                assert_eq!(passed(&rules(), Kind::Quic, from, &header), 0, "{from}");
            }
        }
    }

    #[test]
    fn what_members_have_begun_goes_on_whatever_is_claimed_in_their_name() {
        for from in ["10.0.0.7", "10.0.0.8", "fd00::7", "fd00::8"] {
            for goes_on in [quic(0x40, 7), quic(0x7f, 1), quic(0xe0, 1)] {
                assert_eq!(passed(&rules(), Kind::Quic, from, &goes_on), 100, "{from}");
            }
            for begins in [
                quic(0xc0, 1),
                quic(0xd0, 1),
                quic(0xe0, 0x6b33_43cf),
                quic(0xc0, 9),
            ] {
                let some = passed(&rules(), Kind::Quic, from, &begins);
                assert!((50..=51).contains(&some), "{from}: {some}");
            }
        }
        let calm = Rules {
            known_starts: Share::WHOLE,
            ..rules()
        };
        assert_eq!(passed(&calm, Kind::Quic, "10.0.0.7", &quic(0xc0, 1)), 100);
    }

    #[test]
    fn of_tcp_only_what_asks_for_a_connection_is_judged() {
        for flags in [0x10, 0x11, 0x12, 0x18, 0x04] {
            for from in ["10.0.9.9", "10.0.0.9", "fd00:0:0:9::1"] {
                assert_eq!(passed(&rules(), Kind::Tcp, from, &tcp(flags)), 100);
            }
        }
        // With and without the congestion bits.
        for flags in [0x02, 0xc2] {
            assert_eq!(passed(&rules(), Kind::Tcp, "10.0.9.9", &tcp(flags)), 0);
            assert_eq!(passed(&rules(), Kind::Tcp, "10.0.0.7", &tcp(flags)), 100);
            let some = passed(&rules(), Kind::Tcp, "10.0.0.9", &tcp(flags));
            assert!((25..=26).contains(&some), "{some}");
        }
    }

    #[test]
    fn the_longest_program_is_one_that_the_kernel_takes() {
        let many = |last: u8| {
            let v4 =
                (0..2000_u32).map(move |n| IpAddr::from((n << 8 | u32::from(last)).to_be_bytes()));
            let v6 = (0..2000_u128)
                .map(move |n| IpAddr::from((n << 64 | u128::from(last)).to_be_bytes()));
            v4.chain(v6).collect()
        };
        let rules = Rules {
            known: many(1),
            barred: many(2),
            ..rules()
        };
        for kind in [Kind::Quic, Kind::Tcp] {
            let program = rules.program(kind);
            assert!(program.len() <= 4096, "{}", program.len());
        }
    }

    #[test]
    fn the_kernel_runs_it() {
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        to.set_read_timeout(Some(std::time::Duration::from_millis(100)))
            .unwrap();
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        let heard = |rules: &Rules| {
            let steps = rules.program(Kind::Quic);
            let steps = steps
                .iter()
                .map(|s| SockFilter::new(s.code, s.jump_true, s.jump_false, s.value));
            SockRef::from(&to)
                .attach_filter(&steps.collect::<Vec<_>>())
                .unwrap();
            let sent = [vec![0xc0, 0, 0, 0, 1], vec![0x40; 20]];
            for datagram in &sent {
                from.send_to(datagram, to.local_addr().unwrap()).unwrap();
            }
            std::iter::from_fn(|| to.recv(&mut [0; 100]).ok()).collect::<Vec<_>>()
        };
        let none = Rules {
            strange: Share::NONE,
            known_starts: Share::NONE,
            ..Rules::default()
        };
        assert_eq!(heard(&none), [0; 0]);
        assert_eq!(
            heard(&Rules {
                known: set(&["127.0.0.1"]),
                ..none.clone()
            }),
            [20]
        );
        assert_eq!(
            heard(&Rules {
                strange: Share::WHOLE,
                ..none.clone()
            }),
            [5, 20]
        );
        let barred = set(&["127.0.0.1"]);
        assert_eq!(
            heard(&Rules {
                strange: Share::WHOLE,
                barred,
                ..none
            }),
            [0; 0]
        );
    }
}
