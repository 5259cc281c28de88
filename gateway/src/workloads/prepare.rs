//! Answers what prevents this host from running workloads that are about to be applied, and pulls their images ahead.
//!
//! Shell over [`listens`]: asks this host's Podman for images, and its agent for listeners on ports and for a dry run of
//! Podman's generator. Input: a [`Question`]. Output: an [`Answer`]. Nothing is kept but the pulled images. The number of
//! answers and of pulls at a time, the rate of pulls and the use of the disk are limited, because a user may ask without
//! ever applying.

mod pulls;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use beemesh_protocol::{
    ipc::{Checked, Done, Listener, PortAsked, Request, Transport},
    prepare::{
        Answer, Cause, Doubt, ITEMS_MAX, PortProtocol, PullPolicy, Pulling, Question, Wanted,
        WantedPort,
    },
    version::Version,
};
use beemesh_quadlet::{
    manifest::{Port, Protocol},
    podman::{LABEL_WORKLOAD, Podman},
    render::{TRIAL, trial},
};
use futures::{StreamExt as _, future::join_all, stream};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use self::pulls::{Pulled, Pulls};
use super::on_disk;
use crate::agent_link::Link;

/// Maximum number of requests to Podman and the agent at the same time, of all questions; further ones wait. A question
/// that waits for a pull makes none.
const LOOKS_MAX: usize = 8;
/// The longest time that an answer waits for pulls.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The longest time that the agent has for its checks. They take tens of milliseconds.
const CHECK_MAX: Duration = Duration::from_secs(2);
/// The first release whose agent checks workloads.
const CHECK_SINCE: Version = Version::new(0, 4, 0);
/// Maximum length of a reason in an answer, in bytes.
const REASON_MAX: usize = 512;

/// The handles that answers need.
pub(crate) struct Settings {
    pub(crate) podman: Podman,
    pub(crate) link: Link,
    /// The folder of the workloads' Quadlets.
    pub(crate) units: PathBuf,
}

/// Answers questions, within the limits of this host.
pub(crate) struct Prepare {
    settings: Settings,
    looks: Semaphore,
    pulls: Pulls,
}

impl Prepare {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            pulls: Pulls::new(settings.podman.clone()),
            settings,
            looks: Semaphore::new(LOOKS_MAX),
        }
    }

    /// Answers a question. It waits for pulls no longer than the question says.
    pub(crate) async fn answer(&self, question: &Question) -> Answer {
        let wait = Duration::from_millis(question.wait_ms).min(WAIT_MAX);
        let until = Instant::now() + wait;
        let (images, hosted) = tokio::join!(self.images(question, until), self.hosted(question));
        let (mut doubts, pulling) = images;
        doubts.extend(hosted);
        doubts.sort();
        Answer { doubts, pulling }
    }

    /// Looks for the images, and pulls those that are missing.
    async fn images(&self, question: &Question, until: Instant) -> (Vec<Doubt>, Vec<Pulling>) {
        let mut users: BTreeMap<String, (PullPolicy, Vec<String>)> = BTreeMap::new();
        for wanted in &question.workloads {
            for image in wanted.images.iter().take(ITEMS_MAX) {
                let entry = users.entry(image.reference.clone());
                let (policy, names) = entry.or_insert((image.pull, Vec::new()));
                *policy = stricter(*policy, image.pull);
                names.push(wanted.workload.clone());
            }
        }
        let found = stream::iter(users)
            .map(|(image, (policy, names))| async move {
                let pulled = self.image(question, &image, policy, until).await;
                (image, names, pulled)
            })
            .buffer_unordered(LOOKS_MAX);
        let found: Vec<_> = found.collect().await;
        let (mut doubts, mut pulling) = (Vec::new(), Vec::new());
        for (image, names, pulled) in found {
            match pulled {
                Pulled::Here => {}
                Pulled::UnderWay { seconds } => pulling.push(Pulling { image, seconds }),
                Pulled::Failed(reason) => {
                    let reason = short(reason);
                    doubts.extend(about(names, &Cause::Image { image, reason }));
                }
                Pulled::Unknown(reason) => {
                    let reason = short(reason);
                    doubts.extend(about(names, &Cause::Podman { reason }));
                }
            }
        }
        pulling.sort_by(|one, other| one.image.cmp(&other.image));
        (doubts, pulling)
    }

    async fn image(
        &self,
        question: &Question,
        image: &str,
        policy: PullPolicy,
        until: Instant,
    ) -> Pulled {
        let failed = |reason: &str| Pulled::Failed(reason.to_owned());
        match self.look(self.settings.podman.image_exists(image)).await {
            Err(error) => return Pulled::Unknown(error.to_string()),
            Ok(true) if policy != PullPolicy::Always || !question.pulls => return Pulled::Here,
            Ok(false) if policy == PullPolicy::Never => {
                return failed("is not there, and its pull policy is Never");
            }
            Ok(false) if !question.pulls => return failed("is not there"),
            Ok(_) => {}
        }
        self.pulls.pull(image, &question.who, until).await
    }

    /// Makes one request, within the limit of all questions.
    async fn look<T>(&self, request: impl Future<Output = T>) -> T {
        // The semaphore is never closed.
        let _permit = self.looks.acquire().await;
        request.await
    }

    /// Checks the ports, and tries out Podman's generator.
    async fn hosted(&self, question: &Question) -> Vec<Doubt> {
        // Quadlets differ in nothing else.
        let forms: BTreeSet<(bool, u32)> = question
            .workloads
            .iter()
            .map(|wanted| (wanted.job, wanted.grace_seconds))
            .collect();
        let mut asked: Vec<PortAsked> = Vec::new();
        let ports = question.workloads.iter().flat_map(|wanted| &wanted.ports);
        for port in ports.filter_map(asked_of).take(ITEMS_MAX) {
            if !asked.contains(&port) {
                asked.push(port);
            }
        }
        let checks = forms.into_iter().enumerate().map(|(at, form)| {
            // The ports are the same for all forms.
            let ports = if at == 0 { asked.clone() } else { Vec::new() };
            async move { (form, self.check(form, ports).await) }
        });
        let checked = join_all(checks).await;
        let mut doubts = Vec::new();
        let mut listeners = Vec::new();
        for (form, checked) in checked {
            let checked = match checked {
                Ok(checked) => checked,
                // An agent of an earlier release does not answer. Then nothing is known, as before.
                Err(error) => {
                    tracing::debug!(%error, "the agent checks no workload");
                    continue;
                }
            };
            listeners.extend(checked.listeners.clone());
            if checked.unit.is_empty() {
                continue;
            }
            let of_form = question
                .workloads
                .iter()
                .filter(|wanted| (wanted.job, wanted.grace_seconds) == form);
            let names = of_form.map(|wanted| wanted.workload.clone());
            let reason = short(checked.unit);
            doubts.extend(about(names, &Cause::Unit { reason }));
        }
        if !listeners.is_empty() {
            doubts.extend(self.taken(&question.workloads, &listeners).await);
        }
        doubts
    }

    async fn check(&self, (job, grace): (bool, u32), ports: Vec<PortAsked>) -> io::Result<Checked> {
        if !*self.settings.link.synced().borrow() || !self.is_known() {
            return Err(io::Error::other(
                "the agent is not connected, or of an earlier release",
            ));
        }
        let request = Request::Check {
            workload: TRIAL.to_owned(),
            kube: trial(grace, job),
            ports,
        };
        let answer = timeout(CHECK_MAX, self.settings.link.request(request));
        match self.look(answer).await {
            Ok(Ok(Done::Checked(checked))) => Ok(checked),
            Ok(Ok(_)) => Err(io::Error::other("the agent answered another request")),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(elapsed) => Err(elapsed.into()),
        }
    }

    /// Returns true if the agent knows the request. One of an earlier release would close the connection.
    fn is_known(&self) -> bool {
        let welcome = self.settings.link.welcome();
        let welcome = welcome.borrow();
        let version = welcome
            .as_ref()
            .and_then(|welcome| Version::parse(&welcome.version));
        version.is_some_and(|version| version >= CHECK_SINCE)
    }

    /// The ports on which something else than a workload listens. Those of workloads are known from the state, and a
    /// workload that gives up a port may still use it for a moment.
    async fn taken(&self, all: &[Wanted], listeners: &[Listener]) -> Vec<Doubt> {
        let written = on_disk::ports(&self.settings.units).await;
        let written: Vec<Port> = written
            .unwrap_or_default()
            .into_values()
            .flatten()
            .collect();
        let own = match listeners.iter().any(|one| !one.container.is_empty()) {
            true => self.containers().await,
            false => BTreeSet::new(),
        };
        let strange: Vec<&Listener> = listeners
            .iter()
            .filter(|one| !own.contains(&one.container))
            .collect();
        let mut doubts = Vec::new();
        for wanted in all {
            for asked in &wanted.ports {
                let port = port_of(asked);
                let mut strange = strange.iter().filter(|one| listens(one, &port));
                let Some(listener) = strange.next() else {
                    continue;
                };
                if written.iter().any(|one| one.meets(&port)) {
                    continue;
                }
                doubts.push(Doubt {
                    workload: wanted.workload.clone(),
                    cause: Cause::Port {
                        port: port.to_string(),
                        holder: short(holder(listener)),
                    },
                });
            }
        }
        doubts
    }

    /// The names of the containers of all workloads on this host.
    async fn containers(&self) -> BTreeSet<String> {
        match self.settings.podman.pods(&[LABEL_WORKLOAD]).await {
            Ok(pods) => {
                let containers = pods.into_iter().flat_map(|pod| pod.containers);
                containers.map(|container| container.name).collect()
            }
            Err(error) => {
                tracing::warn!(%error, "the containers of workloads are not known");
                BTreeSet::new()
            }
        }
    }
}

/// The same doubt about each of these workloads.
fn about(names: impl IntoIterator<Item = String>, cause: &Cause) -> impl Iterator<Item = Doubt> {
    names.into_iter().map(|workload| Doubt {
        workload,
        cause: cause.clone(),
    })
}

/// Of two policies for one image, that which needs more.
fn stricter(one: PullPolicy, other: PullPolicy) -> PullPolicy {
    let rank = |policy| match policy {
        PullPolicy::Always => 2,
        PullPolicy::Never => 1,
        PullPolicy::IfNotPresent => 0,
    };
    if rank(other) > rank(one) { other } else { one }
}

fn asked_of(wanted: &WantedPort) -> Option<PortAsked> {
    let transport = match wanted.protocol {
        PortProtocol::Tcp => Transport::Tcp,
        PortProtocol::Udp => Transport::Udp,
        // Nobody looks for listeners of SCTP.
        PortProtocol::Sctp => return None,
    };
    Some(PortAsked {
        transport,
        port: wanted.port,
    })
}

fn port_of(wanted: &WantedPort) -> Port {
    Port {
        address: wanted.address,
        protocol: match wanted.protocol {
            PortProtocol::Tcp => Protocol::Tcp,
            PortProtocol::Udp => Protocol::Udp,
            PortProtocol::Sctp => Protocol::Sctp,
        },
        port: wanted.port,
    }
}

/// Returns true if a process listens where a pod would.
fn listens(listener: &Listener, port: &Port) -> bool {
    let protocol = match listener.transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
    };
    if (protocol, listener.port) != (port.protocol, port.port) {
        return false;
    }
    let Some(wanted) = port.address else {
        return true;
    };
    listener.addresses.iter().any(|address| {
        let address = address.parse::<IpAddr>();
        address.is_ok_and(|address| address.is_unspecified() || address == wanted)
    })
}

fn holder(listener: &Listener) -> String {
    match (listener.container.as_str(), listener.process.as_str()) {
        ("", "") => "another process".to_owned(),
        ("", process) => process.to_owned(),
        (container, _) => format!("container {container}"),
    }
}

fn short(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(REASON_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str, transport: Transport) -> Listener {
        Listener {
            transport,
            port: 80,
            addresses: vec![address.to_owned()],
            process: "nginx (process 812)".to_owned(),
            container: String::new(),
        }
    }

    #[test]
    fn a_listener_is_in_the_way_at_its_address_alone() {
        let at = |address: Option<&str>, protocol| Port {
            address: address.map(|address| address.parse().unwrap()),
            protocol,
            port: 80,
        };
        for (address, wanted, expected) in [
            ("0.0.0.0", None, true),
            ("127.0.0.1", None, true),
            ("::", Some("192.0.2.7"), true),
            ("127.0.0.1", Some("192.0.2.7"), false),
            ("192.0.2.7", Some("192.0.2.7"), true),
            ("no address", Some("192.0.2.7"), false),
        ] {
            let tcp = listener(address, Transport::Tcp);
            let found = listens(&tcp, &at(wanted, Protocol::Tcp));
            assert_eq!(found, expected, "{address} {wanted:?}");
            assert!(!listens(&tcp, &at(wanted, Protocol::Udp)));
        }
        let other = Port {
            port: 81,
            ..at(None, Protocol::Tcp)
        };
        assert!(!listens(&listener("0.0.0.0", Transport::Tcp), &other));
    }

    #[test]
    fn a_holder_is_named_by_its_container_first() {
        let mut listener = listener("0.0.0.0", Transport::Tcp);
        assert_eq!(holder(&listener), "nginx (process 812)");
        listener.container = "old-web".to_owned();
        assert_eq!(holder(&listener), "container old-web");
        (listener.container, listener.process) = Default::default();
        assert_eq!(holder(&listener), "another process");
    }

    #[test]
    fn of_two_pull_policies_the_stricter_one_counts() {
        use PullPolicy::{Always, IfNotPresent, Never};
        assert_eq!(stricter(IfNotPresent, Always), Always);
        assert_eq!(stricter(Never, IfNotPresent), Never);
        assert_eq!(stricter(Always, Never), Always);
    }
}
