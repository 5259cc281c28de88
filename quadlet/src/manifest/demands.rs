//! Demands of a workload: keys of ConfigMaps and Secrets, ports of its hosts, and names on its hosts.
//!
//! Pure: no I/O, no clock, no randomness. Input: an object that was accepted. Output: its [`Demand`]s, each with its
//! field. The gateway compares them with the state of the cluster, and the renderer with the objects of the host.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use beemesh_protocol::{
    state::{Kind, Object},
    workload::workload_name,
};
use serde::{Deserialize, de::IgnoredAny};

use super::{field::Field, is_workload, kind_name};
/// The container that Beemesh may add to any pod.
const HOLDER: &str = "holder";

/// A thing that a workload needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// A key of a ConfigMap or Secret that the workload requires.
    Key(KeyOf),
    /// A port of its hosts.
    Port(Port),
    /// A name among the pods and containers of its hosts.
    Name {
        /// The name in Podman.
        name: String,
        /// The container's name in the manifest; empty for the pod itself.
        container: String,
    },
    /// A Podman that sends another signal than SIGTERM when it stops a container whose probe fails.
    StopSignal,
    /// Hosts with this label, over which the pods must be spread.
    Topology(String),
}

/// A key of a ConfigMap or Secret in the workload's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOf {
    /// The kind of the object: ConfigMap or Secret.
    pub kind: Kind,
    /// The name of the object.
    pub name: String,
    /// The key.
    pub key: String,
    /// Whether it is mounted as a file, for which binary data serves, too.
    pub file: bool,
}

/// A port of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The address; `None` means every address.
    pub address: Option<IpAddr>,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port number, from 1.
    pub port: u16,
}

/// The transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Port {
    /// Whether one host can provide only one of the two ports.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let same = match (self.address, other.address) {
            (Some(one), Some(two)) => one == two,
            (None, _) | (_, None) => true,
        };
        same && self.protocol == other.protocol && self.port == other.port
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        match self.address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{}/{protocol}", self.port),
            Some(address) => write!(f, "{address}:{}/{protocol}", self.port),
            None => write!(f, "{}/{protocol}", self.port),
        }
    }
}

impl fmt::Display for KeyOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "key `{}` of {} `{}`",
            self.key,
            kind_name(self.kind),
            self.name
        )
    }
}

/// A demand and its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demanded {
    /// The demand.
    pub demand: Demand,
    /// The document, counted from 1.
    pub document: u32,
    /// The line in the file, counted from 1.
    pub line: u32,
    /// The field, as in `spec.containers[0].ports[0].hostPort`.
    pub field: String,
}

/// The demands of an accepted object; empty for an object that is no workload.
#[must_use]
pub fn demands(object: &Object) -> Vec<Demand> {
    with_fields(object)
        .into_iter()
        .map(|(_, demand)| demand)
        .collect()
}

/// The keys of an object: those with text, and all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    text: BTreeSet<String>,
    files: BTreeSet<String>,
}

impl Keys {
    /// The keys of a ConfigMap or Secret; empty for any other object.
    #[must_use]
    pub fn of(object: &Object) -> Self {
        let data: Data = match object.kind {
            Kind::ConfigMap | Kind::Secret => {
                serde_json::from_slice(&object.body).unwrap_or_default()
            }
            _ => Data::default(),
        };
        let text: BTreeSet<_> = data
            .data
            .into_keys()
            .chain(data.string_data.into_keys())
            .collect();
        let files = text
            .iter()
            .cloned()
            .chain(data.binary_data.into_keys())
            .collect();
        Self { text, files }
    }

    /// Whether the object has the needed key.
    #[must_use]
    pub fn has(&self, needed: &KeyOf) -> bool {
        let keys = if needed.file { &self.files } else { &self.text };
        keys.contains(&needed.key)
    }

    /// The keys that the object has, as text for a user.
    #[must_use]
    pub fn words(&self) -> String {
        const SHOWN: usize = 10;
        let mut shown: Vec<&str> = self.files.iter().take(SHOWN).map(String::as_str).collect();
        if self.files.len() > SHOWN {
            shown.push("…");
        }
        match shown.is_empty() {
            true => "it has none".to_owned(),
            false => format!("it has {}", shown.join(", ")),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Data {
    data: BTreeMap<String, IgnoredAny>,
    string_data: BTreeMap<String, IgnoredAny>,
    binary_data: BTreeMap<String, IgnoredAny>,
}

/// The parts of a workload that are read. They are few, so that reading is quick: a gateway reads the demands of all
/// workloads.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body<S> {
    spec: S,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Controller {
    template: Body<Pod>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Pod {
    host_network: bool,
    init_containers: Vec<Container>,
    containers: Vec<Container>,
    volumes: Vec<Volume>,
    topology_spread_constraints: Vec<Spread>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spread {
    topology_key: String,
    when_unsatisfiable: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    name: String,
    ports: Vec<ContainerPort>,
    env: Vec<Variable>,
    lifecycle: Lifecycle,
    restart_policy: String,
    liveness_probe: Option<serde::de::IgnoredAny>,
    startup_probe: Option<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Lifecycle {
    stop_signal: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerPort {
    container_port: i64,
    host_port: i64,
    #[serde(rename = "hostIP")]
    host_ip: String,
    protocol: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Variable {
    value_from: Source,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Source {
    config_map_key_ref: Option<KeyRef>,
    secret_key_ref: Option<KeyRef>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KeyRef {
    name: String,
    key: String,
    optional: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Volume {
    config_map: Option<Files>,
    secret: Option<Files>,
    projected: Projected,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Projected {
    sources: Vec<Projection>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Projection {
    config_map: Option<Files>,
    secret: Option<Files>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Files {
    #[serde(alias = "secretName")]
    name: String,
    items: Vec<Item>,
    optional: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Item {
    key: String,
}

/// The demands with their fields, relative to the object.
pub(super) fn with_fields(object: &Object) -> Vec<(Field, Demand)> {
    if !is_workload(object.kind) {
        return Vec::new();
    }
    let (pod, at) = match object.kind {
        Kind::Pod => {
            let body = serde_json::from_slice::<Body<Pod>>(&object.body);
            (body.unwrap_or_default().spec, "spec")
        }
        _ => {
            let body = serde_json::from_slice::<Body<Controller>>(&object.body);
            (
                body.unwrap_or_default().spec.template.spec,
                "spec.template.spec",
            )
        }
    };
    let mut found = Found {
        pod: workload_name(&object.namespace, &object.name),
        all: Vec::new(),
    };
    let at = Field::default().then(at);
    found.name(&Field::default().then("metadata.name"), "");
    found.all.push((
        Field::default().then("metadata.name"),
        Demand::Name {
            name: format!("{}-{HOLDER}", found.pod),
            container: HOLDER.to_owned(),
        },
    ));
    for (index, volume) in pod.volumes.iter().enumerate() {
        let at = at.key("volumes").index(index);
        for (kind, name, files) in [
            (Kind::ConfigMap, "configMap", &volume.config_map),
            (Kind::Secret, "secret", &volume.secret),
        ] {
            if let Some(files) = files {
                found.files(kind, files, &at.key(name));
            }
        }
        for (index, source) in volume.projected.sources.iter().enumerate() {
            let at = at.then("projected.sources").index(index);
            for (kind, name, files) in [
                (Kind::ConfigMap, "configMap", &source.config_map),
                (Kind::Secret, "secret", &source.secret),
            ] {
                if let Some(files) = files {
                    found.files(kind, files, &at.key(name));
                }
            }
        }
    }
    for (index, spread) in pod.topology_spread_constraints.iter().enumerate() {
        if spread.when_unsatisfiable != "ScheduleAnyway" {
            let at = at.key("topologySpreadConstraints").index(index);
            let label = Demand::Topology(spread.topology_key.clone());
            found.all.push((at.key("topologyKey"), label));
        }
    }
    for (index, container) in pod.init_containers.iter().enumerate() {
        let at = at.key("initContainers").index(index);
        found.container(container, &at);
        // Only a sidecar runs when the pod does.
        if container.restart_policy == "Always" {
            found.ports(container, pod.host_network, &at);
        }
    }
    for (index, container) in pod.containers.iter().enumerate() {
        let at = at.key("containers").index(index);
        found.container(container, &at);
        found.ports(container, pod.host_network, &at);
    }
    found.all
}

/// The host ports of a rendered pod.
pub(crate) fn ports_of(pod: &str) -> Vec<Port> {
    let body = serde_json::from_str::<Body<Pod>>(pod).unwrap_or_default();
    let mut found = Found {
        pod: String::new(),
        all: Vec::new(),
    };
    for port in body
        .spec
        .containers
        .iter()
        .flat_map(|container| &container.ports)
    {
        found.port(port, body.spec.host_network, &Field::default());
    }
    let port = |(_, demand)| match demand {
        Demand::Port(port) => Some(port),
        Demand::Key(_) | Demand::Name { .. } | Demand::StopSignal | Demand::Topology(_) => None,
    };
    found.all.into_iter().filter_map(port).collect()
}

/// The demands found in one workload.
struct Found {
    pod: String,
    all: Vec<(Field, Demand)>,
}

impl Found {
    fn name(&mut self, at: &Field, container: &str) {
        let name = match container {
            "" => self.pod.clone(),
            container => format!("{}-{container}", self.pod),
        };
        let container = container.to_owned();
        self.all
            .push((at.clone(), Demand::Name { name, container }));
    }

    fn files(&mut self, kind: Kind, files: &Files, at: &Field) {
        if files.optional {
            return;
        }
        for (index, item) in files.items.iter().enumerate() {
            let needed = KeyOf {
                kind,
                name: files.name.clone(),
                key: item.key.clone(),
                file: true,
            };
            let at = at.key("items").index(index).key("key");
            self.all.push((at, Demand::Key(needed)));
        }
    }

    fn container(&mut self, container: &Container, at: &Field) {
        self.name(&at.key("name"), &container.name);
        for (index, var) in container.env.iter().enumerate() {
            let at = at.key("env").index(index).key("valueFrom");
            for (kind, name, from) in [
                (
                    Kind::ConfigMap,
                    "configMapKeyRef",
                    &var.value_from.config_map_key_ref,
                ),
                (Kind::Secret, "secretKeyRef", &var.value_from.secret_key_ref),
            ] {
                if let Some(from) = from.as_ref().filter(|from| !from.optional) {
                    let needed = KeyOf {
                        kind,
                        name: from.name.clone(),
                        key: from.key.clone(),
                        file: false,
                    };
                    self.all
                        .push((at.key(name).key("key"), Demand::Key(needed)));
                }
            }
        }
        let is_probed = container.liveness_probe.is_some() || container.startup_probe.is_some();
        let signal = container.lifecycle.stop_signal.as_deref();
        if is_probed && signal.is_some_and(|signal| signal != "SIGTERM") {
            self.all
                .push((at.then("lifecycle.stopSignal"), Demand::StopSignal));
        }
    }

    fn ports(&mut self, container: &Container, of_host: bool, at: &Field) {
        for (index, port) in container.ports.iter().enumerate() {
            self.port(port, of_host, &at.key("ports").index(index));
        }
    }

    /// In the host's network every port of a container is a port of the host, published or not.
    fn port(&mut self, port: &ContainerPort, of_host: bool, at: &Field) {
        let (number, key) = match (port.host_port, of_host) {
            (0, true) => (port.container_port, "containerPort"),
            (host_port, _) => (host_port, "hostPort"),
        };
        let Some(number) = u16::try_from(number).ok().filter(|number| *number > 0) else {
            return;
        };
        let address = port
            .host_ip
            .parse::<IpAddr>()
            .ok()
            .filter(|address| !address.is_unspecified() && !of_host);
        let found = Port {
            address: address.map(|address| address.to_canonical()),
            protocol: match port.protocol.as_str() {
                "UDP" => Protocol::Udp,
                "SCTP" => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            port: number,
        };
        self.all.push((at.key(key), Demand::Port(found)));
    }
}
