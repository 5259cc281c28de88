//! Decides which hosts to dial, which connections to keep, and when a stranger's time is over.
//!
//! Pure: no I/O, no clock, no randomness. The caller passes `now` and carries out the [`Effect`]s. A host dials a
//! member until it is connected: the host with the smaller id begins, the other follows after [`GRACE`]. Of several
//! connections to a member both sides keep the same one. Every other host is a stranger, and its connection is closed
//! at a deadline.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use beemesh_protocol::{HostId, backoff::doubled};
use libp2p::{Multiaddr, swarm::ConnectionId};

use super::gate::Role;

/// How long the host with the larger id waits for the other to dial.
const GRACE: Duration = Duration::from_secs(1);
/// The shortest and the longest pause before a member is dialled again.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Addresses of one member from the local network, true or forged.
const HEARD_MAX: usize = 4;
/// A connection that lasted this long resets the pause.
const GOOD: Duration = Duration::from_secs(10);
/// Two connections made within this time crossed each other. Of two that are further apart, the older is dead, because
/// a host does not dial a member that it is connected to.
const CROSSED: Duration = Duration::from_secs(2);
/// How long a stranger's connection may last.
pub(super) const STRANGER_TIME: Duration = Duration::from_secs(10);
/// How long a connection that this host made in order to join may last.
pub(super) const JOIN_TIME: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Dial(HostId, Vec<Multiaddr>),
    Close(ConnectionId),
    /// The member is connected.
    Up(HostId),
    /// The member is no longer connected.
    Down(HostId),
}

#[derive(Debug)]
pub(super) struct Peers {
    me: HostId,
    members: BTreeMap<HostId, Member>,
    connections: BTreeMap<ConnectionId, Connection>,
}

#[derive(Debug)]
struct Member {
    addresses: Vec<Multiaddr>,
    /// Addresses from the local network, the latest first. A connection to the member clears them.
    heard: Vec<Multiaddr>,
    up: bool,
    attempts: u32,
    dial: Dial,
}

#[derive(Debug, PartialEq, Eq)]
enum Dial {
    /// Connected: no dial is needed.
    Rest,
    /// Dial at this time.
    Due(Instant),
    /// A dial is under way.
    Busy,
}

#[derive(Debug)]
struct Connection {
    host: HostId,
    role: Role,
    dialed: bool,
    since: Instant,
    /// An application for membership is in progress on it.
    joining: bool,
    /// Made for one application of this host; carries no other stream.
    dedicated: bool,
}

impl Peers {
    pub(super) fn new(me: HostId) -> Self {
        Self {
            me,
            members: BTreeMap::new(),
            connections: BTreeMap::new(),
        }
    }

    /// Replaces the member list.
    pub(super) fn set_members(
        &mut self,
        list: BTreeMap<HostId, Vec<Multiaddr>>,
        now: Instant,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        let gone = |host: &HostId| !list.contains_key(host);
        for (host, member) in self.members.extract_if(.., |host, _| gone(host)) {
            if member.up {
                effects.push(Effect::Down(host));
            }
        }
        for (host, addresses) in list {
            if host == self.me {
                continue;
            }
            let grace = if self.me < host {
                Duration::ZERO
            } else {
                GRACE
            };
            self.members
                .entry(host)
                .and_modify(|member| {
                    // New addresses are worth an immediate dial.
                    if member.addresses != addresses && matches!(member.dial, Dial::Due(_)) {
                        member.dial = Dial::Due(now + grace);
                    }
                    member.addresses.clone_from(&addresses);
                })
                .or_insert_with(|| Member {
                    addresses,
                    heard: Vec::new(),
                    up: false,
                    attempts: 0,
                    dial: Dial::Due(now + grace),
                });
        }
        for (id, connection) in &self.connections {
            if connection.role != self.role(connection.host) && !connection.joining {
                effects.push(Effect::Close(*id));
            }
        }
        effects
    }

    fn role(&self, host: HostId) -> Role {
        if self.members.contains_key(&host) {
            Role::Member
        } else {
            Role::Stranger
        }
    }

    /// Adds a connection.
    pub(super) fn connected(
        &mut self,
        host: HostId,
        id: ConnectionId,
        role: Role,
        dialed: bool,
        now: Instant,
    ) -> Vec<Effect> {
        let connection = Connection {
            host,
            role,
            dialed,
            since: now,
            joining: false,
            dedicated: false,
        };
        self.connections.insert(id, connection);
        if role != self.role(host) {
            return vec![Effect::Close(id)];
        }
        let mut effects = self.surplus(host);
        if let Some(member) = self.members.get_mut(&host) {
            member.dial = Dial::Rest;
            member.heard.clear();
            if !member.up {
                member.up = true;
                effects.push(Effect::Up(host));
            }
        }
        effects
    }

    /// Notes a connection that this host made for one application. The other side may treat this host as a stranger
    /// although it is on this host's list of members, and ends a stranger's connection at its second stream. So no
    /// gateway stream uses this connection.
    pub(super) fn dedicated(&mut self, host: HostId, id: ConnectionId, role: Role, now: Instant) {
        let connection = Connection {
            host,
            role,
            dialed: true,
            since: now,
            joining: false,
            dedicated: true,
        };
        self.connections.insert(id, connection);
    }

    /// Closes the connections that this host made for an application at that host.
    pub(super) fn applied(&self, host: HostId) -> Vec<Effect> {
        let all = self.connections.iter();
        let all = all.filter(|(_, found)| found.host == host && found.dedicated);
        all.map(|(id, _)| Effect::Close(*id)).collect()
    }

    /// Removes a connection that has ended.
    pub(super) fn closed(&mut self, id: ConnectionId, now: Instant) -> Vec<Effect> {
        let Some(connection) = self.connections.remove(&id) else {
            return Vec::new();
        };
        let host = connection.host;
        let connected = self.link(host).is_some();
        let pause_first = self.me > host;
        let Some(member) = self.members.get_mut(&host) else {
            return Vec::new();
        };
        if connected {
            return Vec::new();
        }
        if now.duration_since(connection.since) >= GOOD && !connection.dedicated {
            member.attempts = 0;
        }
        if member.dial == Dial::Rest || connection.dedicated && member.dial == Dial::Busy {
            let grace = if pause_first { GRACE } else { Duration::ZERO };
            member.dial = Dial::Due(now + pause(member.attempts) + grace);
            member.attempts += 1;
        }
        if std::mem::take(&mut member.up) {
            return vec![Effect::Down(host)];
        }
        Vec::new()
    }

    /// Adds addresses that a member announced on the local network, and returns true if they are new. The next dial
    /// tries them first. They do not shorten the pause, because the announcement may be forged.
    pub(super) fn heard(&mut self, host: HostId, addresses: Vec<Multiaddr>, now: Instant) -> bool {
        let Some(member) = self.members.get_mut(&host) else {
            return false;
        };
        let known = |one: &Multiaddr| member.heard.contains(one);
        if member.up || addresses.iter().all(known) {
            return false;
        }
        member.heard.retain(|one| !addresses.contains(one));
        member.heard.splice(..0, addresses);
        member.heard.truncate(HEARD_MAX);
        if let Dial::Due(at) = &mut member.dial {
            *at = (*at).min(now + PAUSE_MIN);
        }
        true
    }

    /// Returns the number of members that are not connected.
    pub(super) fn missing(&self) -> usize {
        self.members.values().filter(|member| !member.up).count()
    }

    /// Schedules the next dial after a failed one.
    pub(super) fn dial_failed(&mut self, host: HostId, now: Instant) {
        if let Some(member) = self.members.get_mut(&host)
            && member.dial == Dial::Busy
        {
            member.dial = Dial::Due(now + pause(member.attempts));
            member.attempts += 1;
        }
    }

    /// Marks whether an application is in progress on a connection. A stranger's connection ends with its application.
    pub(super) fn joining(&mut self, id: ConnectionId, joining: bool) -> Vec<Effect> {
        let Some(connection) = self.connections.get_mut(&id) else {
            return Vec::new();
        };
        connection.joining = joining;
        if !joining && connection.role == Role::Stranger {
            return vec![Effect::Close(id)];
        }
        Vec::new()
    }

    /// Returns true if an application is in progress on the connection.
    pub(super) fn is_joining(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|found| found.joining)
    }

    /// Returns the connection to use for a member, which is the one that both sides keep.
    pub(super) fn link(&self, host: HostId) -> Option<ConnectionId> {
        let all = self.connections.iter();
        let mut all = all.filter(|(_, found)| found.host == host && found.links());
        let first = all.next()?;
        let kept = all.fold(first, |a, b| if self.outlives(a.1, b.1) { a } else { b });
        Some(*kept.0)
    }

    /// Returns any connection to a host, including a stranger's.
    pub(super) fn any(&self, host: HostId) -> Option<ConnectionId> {
        let mut all = self.connections.iter();
        self.link(host).or_else(|| {
            Some(
                *all.find(|(_, found)| found.host == host && !found.dedicated)?
                    .0,
            )
        })
    }

    /// Closes all connections to a host because the caller dials a new one.
    pub(super) fn renew(&mut self, host: HostId) -> Vec<Effect> {
        if let Some(member) = self.members.get_mut(&host) {
            member.dial = Dial::Busy;
        }
        let all = self.connections.iter();
        let all = all.filter(|(_, found)| found.host == host);
        all.map(|(id, _)| Effect::Close(*id)).collect()
    }

    /// Returns the effects that are due at this time.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (host, member) in &mut self.members {
            if matches!(member.dial, Dial::Due(at) if at <= now) {
                member.dial = Dial::Busy;
                let all = member.heard.iter().chain(&member.addresses);
                effects.push(Effect::Dial(*host, all.cloned().collect()));
            }
        }
        for (id, connection) in &self.connections {
            if connection.deadline().is_some_and(|at| at <= now) {
                effects.push(Effect::Close(*id));
            }
        }
        effects
    }

    /// Returns the time at which [`Peers::due`] has the next effect.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let dials = self
            .members
            .values()
            .filter_map(|member| match member.dial {
                Dial::Due(at) => Some(at),
                Dial::Rest | Dial::Busy => None,
            });
        let deadlines = self.connections.values().filter_map(Connection::deadline);
        dials.chain(deadlines).min()
    }

    /// Closes the connections to a member that are not the one to keep.
    fn surplus(&self, host: HostId) -> Vec<Effect> {
        let kept = self.link(host);
        let all = self.connections.iter();
        all.filter(|(id, found)| found.host == host && found.links() && Some(**id) != kept)
            .map(|(id, _)| Effect::Close(*id))
            .collect()
    }

    /// Returns true if `a` is kept rather than `b`. Both sides decide alike.
    fn outlives(&self, a: &Connection, b: &Connection) -> bool {
        let (older, younger) = (a.since.min(b.since), a.since.max(b.since));
        if a.dialed == b.dialed || younger.duration_since(older) > CROSSED {
            return a.since > b.since;
        }
        // They crossed: keep the one that the smaller id dialled.
        a.dialed == (self.me < a.host)
    }
}

impl Connection {
    /// Returns true if gateway streams may use this connection.
    fn links(&self) -> bool {
        self.role == Role::Member && !self.dedicated
    }

    fn deadline(&self) -> Option<Instant> {
        let time = match (self.role, self.dialed) {
            (Role::Member, _) if !self.dedicated => return None,
            (Role::Member, _) => JOIN_TIME,
            (Role::Stranger, false) => STRANGER_TIME,
            (Role::Stranger, true) => JOIN_TIME,
        };
        Some(self.since + time)
    }
}

fn pause(attempts: u32) -> Duration {
    doubled(PAUSE_MIN, PAUSE_MAX, attempts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: HostId = HostId([1; 32]);
    const LARGE: HostId = HostId([2; 32]);

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn knowing(me: HostId, other: HostId, now: Instant) -> Peers {
        let mut peers = Peers::new(me);
        assert_eq!(
            peers.set_members([(me, vec![]), (other, vec![])].into(), now),
            []
        );
        peers
    }

    #[test]
    fn the_smaller_id_dials_first_and_pauses_grow() {
        let start = Instant::now();
        for (me, other, first) in [(SMALL, LARGE, 0), (LARGE, SMALL, 1000)] {
            let mut peers = knowing(me, other, start);
            let mut dialed = Vec::new();
            while dialed.len() < 8 {
                let at = peers.next_due().unwrap();
                assert_eq!(peers.due(at), [Effect::Dial(other, vec![])]);
                dialed.push(at.duration_since(start).as_millis() - first);
                peers.dial_failed(other, at);
            }
            assert_eq!(
                dialed,
                [0, 250, 750, 1750, 3750, 7750, 12750, 17750],
                "{me}"
            );
        }
    }

    #[test]
    fn what_the_local_network_says_of_a_member_is_tried_first_and_of_a_stranger_never() {
        let start = Instant::now();
        let at = |text: &str| -> Multiaddr { text.parse().unwrap() };
        let [listed, a, b, c] = [1, 2, 3, 4].map(|n| at(&format!("/ip4/10.0.0.{n}/tcp/4701")));
        let mut peers = Peers::new(SMALL);
        let members = [(LARGE, vec![listed.clone()])];
        assert_eq!(peers.set_members(members.into(), start), []);
        assert_eq!(peers.missing(), 1);
        assert_eq!(
            peers.due(start),
            [Effect::Dial(LARGE, vec![listed.clone()])]
        );
        let mut late = start;
        for _ in 0..8 {
            peers.dial_failed(LARGE, late);
            late = peers.next_due().unwrap();
            let _ = peers.due(late);
        }
        peers.dial_failed(LARGE, late);
        assert!(peers.next_due().unwrap() > late + PAUSE_MIN);
        assert!(peers.heard(LARGE, vec![a.clone()], late));
        assert!(
            !peers.heard(LARGE, vec![a.clone()], late),
            "that is not new"
        );
        assert_eq!(peers.next_due(), Some(late + PAUSE_MIN));
        for one in [&b, &c, &a, &b] {
            let _ = peers.heard(LARGE, vec![one.clone(), listed.clone()], late);
        }
        let Effect::Dial(LARGE, dialed) = peers.due(late + PAUSE_MIN).remove(0) else {
            panic!("a dial");
        };
        assert_eq!(dialed.len(), HEARD_MAX + 1, "{dialed:?}");
        assert!(!peers.heard(HostId([3; 32]), vec![a], late));
        assert_eq!(peers.missing(), 1);
        let up = peers.connected(LARGE, id(1), Role::Member, true, late);
        assert_eq!((up, peers.missing()), (vec![Effect::Up(LARGE)], 0));
        assert!(!peers.heard(LARGE, vec![b], late), "it is connected");
        assert_eq!(peers.closed(id(1), late), [Effect::Down(LARGE)]);
        let due = peers.next_due().unwrap();
        assert_eq!(peers.due(due), [Effect::Dial(LARGE, vec![listed])]);
    }

    #[test]
    fn both_sides_keep_the_same_one_of_two_connections() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        // For each case: whether the smaller id dialled the first and the second, the time between them, and which one
        // is kept.
        for (first_by_small, second_by_small, apart, kept) in [
            (true, false, 100, 1),
            (false, true, 100, 2),
            (true, false, 5000, 2),
            (false, true, 5000, 2),
            (true, true, 100, 2),
            (false, false, 100, 2),
        ] {
            for (me, other) in [(SMALL, LARGE), (LARGE, SMALL)] {
                let mut peers = knowing(me, other, start);
                let mine = |by_small| by_small == (me == SMALL);
                assert_eq!(
                    peers.connected(other, id(1), Role::Member, mine(first_by_small), at(0)),
                    [Effect::Up(other)]
                );
                assert_eq!(
                    peers.connected(other, id(2), Role::Member, mine(second_by_small), at(apart)),
                    [Effect::Close(id(3 - kept))]
                );
                assert_eq!(peers.link(other), Some(id(kept)));
                assert_eq!(peers.closed(id(3 - kept), at(apart)), []);
                assert_eq!(peers.next_due(), None);
                assert_eq!(peers.closed(id(kept), at(apart)), [Effect::Down(other)]);
            }
        }
    }

    #[test]
    fn a_member_is_not_up_by_a_connection_that_was_made_for_an_application() {
        let start = Instant::now();
        let mut peers = knowing(SMALL, LARGE, start);
        assert_eq!(peers.due(start), [Effect::Dial(LARGE, vec![])]);
        let up = peers.connected(LARGE, id(1), Role::Member, true, start);
        assert_eq!(up, [Effect::Up(LARGE)]);
        assert_eq!(peers.renew(LARGE), [Effect::Close(id(1))]);
        assert_eq!(peers.closed(id(1), start), [Effect::Down(LARGE)]);
        assert_eq!(peers.next_due(), None, "the application dials");
        peers.dedicated(LARGE, id(2), Role::Member, start);
        assert_eq!((peers.link(LARGE), peers.any(LARGE)), (None, None));
        assert_eq!(peers.next_due(), Some(start + JOIN_TIME));
        assert_eq!(
            peers.due(start + JOIN_TIME),
            [Effect::Close(id(2))],
            "no answer ended it"
        );
        assert_eq!(peers.applied(LARGE), [Effect::Close(id(2))]);
        assert_eq!(peers.closed(id(2), start), []);
        let due = peers.next_due().unwrap();
        assert!(due <= start + PAUSE_MAX, "the member is dialled again");
        assert_eq!(peers.due(due), [Effect::Dial(LARGE, vec![])]);

        // A connection that the other side made in the meantime carries gateway streams, and stays.
        peers.dedicated(LARGE, id(3), Role::Member, due);
        let up = peers.connected(LARGE, id(4), Role::Member, false, due);
        assert_eq!(up, [Effect::Up(LARGE)]);
        assert_eq!(peers.link(LARGE), Some(id(4)));
        assert_eq!(peers.applied(LARGE), [Effect::Close(id(3))]);
        assert_eq!(peers.closed(id(3), due), []);
        assert_eq!(peers.next_due(), None);
    }

    #[test]
    fn a_stranger_stays_only_for_its_application() {
        let start = Instant::now();
        let mut peers = knowing(SMALL, SMALL, start);
        assert_eq!(
            peers.connected(LARGE, id(1), Role::Stranger, false, start),
            []
        );
        assert_eq!(peers.link(LARGE), None);
        let deadline = start + STRANGER_TIME;
        assert_eq!(peers.next_due(), Some(deadline));
        assert_eq!(peers.due(deadline), [Effect::Close(id(1))]);

        // Admitted in the middle of its application: the host reads the answer first, and then connects again.
        assert_eq!(peers.joining(id(1), true), []);
        assert_eq!(peers.set_members([(LARGE, vec![])].into(), start), []);
        assert_eq!(peers.joining(id(1), false), [Effect::Close(id(1))]);
        assert_eq!(peers.closed(id(1), start), []);
        assert_eq!(peers.due(start), [Effect::Dial(LARGE, vec![])]);
        assert_eq!(
            peers.connected(LARGE, id(2), Role::Member, true, start),
            [Effect::Up(LARGE)]
        );
        assert_eq!(
            peers.set_members(BTreeMap::new(), start),
            [Effect::Down(LARGE), Effect::Close(id(2))]
        );
    }
}
