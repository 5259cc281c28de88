//! One host's state in the mesh, and the connections between hosts.
//!
//! Pure except for the queues to the gateways. As with real agents, two hosts are connected while each has the other in
//! its member list and neither is cut off.

use std::collections::BTreeSet;

use beemesh_protocol::{
    HostId,
    ipc::{FromAgent, Welcome},
};
use tokio::sync::{mpsc, watch};

use super::Switch;

/// A host.
#[derive(Debug)]
pub(super) struct Seat {
    name: String,
    /// The gateway's control connection: its number and its outgoing queue.
    pub(super) control: Option<(u64, mpsc::Sender<FromAgent>)>,
    /// The hosts that its gateway calls members.
    pub(super) members: BTreeSet<HostId>,
    connected: BTreeSet<HostId>,
    /// Whether its network is cut off.
    pub(super) cut: watch::Sender<bool>,
}

impl Seat {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            control: None,
            members: BTreeSet::new(),
            connected: BTreeSet::new(),
            cut: watch::channel(false).0,
        }
    }

    pub(super) fn cuts(&self) -> watch::Receiver<bool> {
        self.cut.subscribe()
    }

    pub(super) fn welcome(&self, host: HostId) -> Welcome {
        Welcome {
            host,
            name: self.name.clone(),
            addresses: vec![format!("/dns4/{}.test/udp/4701/quic-v1", self.name)],
            version: env!("CARGO_PKG_VERSION").to_owned(),
            connected: self.connected.iter().copied().collect(),
            reserved_ports: Vec::new(),
            name_is_set: false,
        }
    }
}

impl Switch {
    /// Queues a message to a host's gateway; `false` if there is none. A gateway that does not keep up loses its
    /// connection.
    pub(super) fn tell(&mut self, host: HostId, message: FromAgent) -> bool {
        let Some(seat) = self.seats.get_mut(&host) else {
            return false;
        };
        let told = seat
            .control
            .as_ref()
            .is_some_and(|(_, tell)| tell.try_send(message).is_ok());
        if !told {
            seat.control = None;
        }
        told
    }

    /// Whether two hosts are connected.
    pub(super) fn connected(&self, one: HostId, other: HostId) -> bool {
        let seat = self.seats.get(&one);
        seat.is_some_and(|seat| seat.connected.contains(&other))
    }

    /// Connects a host with its peers as their member lists allow, disconnects it from all others, and tells both ends.
    pub(super) fn reconnect(&mut self, host: HostId) {
        let others: Vec<HostId> = self.seats.keys().copied().collect();
        for other in others.into_iter().filter(|other| *other != host) {
            let wanted = self.may_connect(host, other);
            for (one, far) in [(host, other), (other, host)] {
                let Some(seat) = self.seats.get_mut(&one) else {
                    continue;
                };
                let changed = if wanted {
                    seat.connected.insert(far)
                } else {
                    seat.connected.remove(&far)
                };
                if changed && seat.control.is_some() {
                    let peer = FromAgent::Peer {
                        host: far,
                        connected: wanted,
                    };
                    self.tell(one, peer);
                }
            }
        }
    }

    fn may_connect(&self, one: HostId, other: HostId) -> bool {
        let (Some(near), Some(far)) = (self.seats.get(&one), self.seats.get(&other)) else {
            return false;
        };
        let cut = *near.cut.borrow() || *far.cut.borrow();
        near.members.contains(&other) && far.members.contains(&one) && !cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_connected_while_both_are_members_of_each_other_and_neither_is_cut_off() {
        let mut switch = Switch::default();
        let hosts = [1, 2, 3].map(|n| HostId([n; 32]));
        for host in hosts {
            switch.seats.insert(host, Seat::new("h"));
        }
        let [one, two, three] = hosts;
        let learn = |switch: &mut Switch, host: HostId, members: &[HostId]| {
            switch.seats.get_mut(&host).unwrap().members = members.iter().copied().collect();
            switch.reconnect(host);
        };
        learn(&mut switch, one, &hosts);
        assert!(!switch.connected(one, two));
        learn(&mut switch, two, &[one, two]);
        learn(&mut switch, three, &[two, three]);
        assert!(switch.connected(one, two) && switch.connected(two, one));
        assert!(!switch.connected(two, three) && !switch.connected(one, three));
        switch.seats[&one].cut.send_replace(true);
        switch.reconnect(one);
        assert!(!switch.connected(two, one));
    }
}
