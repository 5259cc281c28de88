//! Publishes this host's state on the system bus as `io.beemesh.Agent1`, for tools that do not use Beemesh's API.
//!
//! Shell. Input: [`Shown`], by value, whenever it may have changed. Output: properties, and a `PropertiesChanged`
//! signal for each change. The contract is `systemd/dbus-1/interfaces/io.beemesh.Agent1.xml`; the policy beside it says
//! who may read.

mod keep;

use beemesh_protocol::HostId;
use zbus::{Connection, object_server::InterfaceRef};

pub(crate) use keep::keep;

const NAME: &str = "io.beemesh.Agent1";
const PATH: &str = "/io/beemesh/Agent1";

/// The values of the properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The id of this host.
    pub(crate) peer_id: HostId,
    /// The word for [`beemesh_protocol::ipc::HostRole`].
    pub(crate) role: String,
    /// The leader's name; empty if none is known.
    pub(crate) leader: String,
    /// The connected members, sorted.
    pub(crate) peers: Vec<String>,
    /// The workloads that have a unit on this host, sorted.
    pub(crate) workloads: Vec<String>,
    /// The agent's version.
    pub(crate) version: String,
}

/// The object on the bus. Dropping it releases the bus name.
#[derive(Clone)]
pub(crate) struct Face {
    interface: InterfaceRef<Agent1>,
    bus: Connection,
}

impl std::fmt::Debug for Face {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Face")
            .field("bus", &self.bus)
            .finish_non_exhaustive()
    }
}

struct Agent1(Shown);

#[zbus::interface(name = "io.beemesh.Agent1", introspection_docs = false)]
impl Agent1 {
    #[zbus(property(emits_changed_signal = "const"))]
    fn peer_id(&self) -> String {
        self.0.peer_id.to_string()
    }

    #[zbus(property)]
    fn role(&self) -> &str {
        &self.0.role
    }

    #[zbus(property)]
    fn leader(&self) -> &str {
        &self.0.leader
    }

    #[zbus(property)]
    fn peers(&self) -> &[String] {
        &self.0.peers
    }

    #[zbus(property)]
    fn workloads(&self) -> &[String] {
        &self.0.workloads
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        &self.0.version
    }
}

impl Face {
    /// Acquires the name on the system bus. Fails if the bus is not running or its policy does not let this process own
    /// the name.
    pub(crate) async fn publish(shown: Shown) -> zbus::Result<Self> {
        let bus = zbus::connection::Builder::system()
            .serve_at(PATH, Agent1(shown))
            .name(NAME)
            .build()
            .await?;
        let interface = bus.object_server().interface(PATH).await?;
        Ok(Self { interface, bus })
    }

    /// Waits until the bus closes the connection. The caller must then publish a new object.
    pub(crate) async fn closed(&self) {
        self.bus.closed().await;
    }

    /// Updates the properties and signals those that have changed.
    pub(crate) async fn show(&self, shown: Shown) -> zbus::Result<()> {
        let mut agent = self.interface.get_mut().await;
        let before = std::mem::replace(&mut agent.0, shown);
        let (now, emitter) = (&agent.0, self.interface.signal_emitter());
        if before.role != now.role {
            agent.role_changed(emitter).await?;
        }
        if before.leader != now.leader {
            agent.leader_changed(emitter).await?;
        }
        if before.peers != now.peers {
            agent.peers_changed(emitter).await?;
        }
        if before.workloads != now.workloads {
            agent.workloads_changed(emitter).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use zbus::object_server::Interface;

    use super::*;

    /// The tags of the document, without comments, document type and whitespace.
    fn tags(xml: &str) -> Vec<String> {
        let mut xml = xml.to_owned();
        for (begin, end) in [("<!--", "-->"), ("<!DOCTYPE", ">")] {
            while let Some(at) = xml.find(begin) {
                let length = xml[at..].find(end).expect("every comment ends") + end.len();
                xml.replace_range(at..at + length, "");
            }
        }
        let words = |tag: &str| tag.split_whitespace().collect::<Vec<_>>().join(" ");
        xml.split('<')
            .map(words)
            .filter(|tag| !tag.is_empty())
            .collect()
    }

    #[test]
    fn the_interface_is_the_one_in_the_contract() {
        let shown = Shown {
            peer_id: HostId([1; 32]),
            role: String::new(),
            leader: String::new(),
            peers: Vec::new(),
            workloads: Vec::new(),
            version: String::new(),
        };
        let mut served = String::from("<node>");
        Agent1(shown).introspect_to_writer(&mut served, 2);
        served.push_str("</node>");
        let contract = include_str!("../../systemd/dbus-1/interfaces/io.beemesh.Agent1.xml");
        assert_eq!(tags(contract), tags(&served));
    }
}
