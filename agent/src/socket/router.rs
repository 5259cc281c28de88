//! Routes messages and streams between the gateway of this host and the mesh.
//!
//! Shell: owns the control connection, the streams that the gateway has not taken yet and the applications without an
//! answer. Input: [`IpcEvent`]s and [`MeshEvent`]s. It returns what the agent's loop must handle as [`Asked`]. It never
//! blocks: slow operations run in tasks.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use beemesh_protocol::{
    HostId,
    frame::FrameError,
    ipc::{ACCEPT_SECONDS_MAX, Class, FromAgent, Member, NoStream, Report, Request, ToAgent},
    mesh::JoinAnswer,
    naming::{self, Said},
};
use tokio::{
    io::AsyncWriteExt,
    sync::{Semaphore, oneshot},
};
use tokio_util::task::TaskTracker;

use super::{
    ipc::{Caller, Control, IpcEvent},
    relay::relay,
};
use crate::mesh::{Mesh, MeshEvent, Offer, Open};

/// Concurrent streams that this host's gateway opened, and as many that it took. Each holds two buffers of 64 KiB.
const STREAMS_MAX: usize = 512;
/// Streams taken from one member, so that some are left for the others: its gateway's own, and those of users who
/// follow logs.
const STREAMS_PER_MEMBER_MAX: usize = 64;
/// Streams of one member that wait for the gateway.
const OFFERS_PER_MEMBER_MAX: usize = 32;

/// A request of the gateway to the agent's loop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The gateway has just connected and needs the whole state.
    Everything,
    /// A request that needs an answer.
    Request { id: u64, request: Request },
    /// A report to publish.
    Show(Report),
}

#[derive(Debug)]
pub(crate) struct Router {
    mesh: Mesh,
    control: Option<Control>,
    offers: BTreeMap<u64, Waiting>,
    applications: BTreeMap<u64, oneshot::Sender<JoinAnswer>>,
    /// The next number of an offer or application.
    next: u64,
    members: BTreeMap<HostId, String>,
    connected: BTreeSet<HostId>,
    opened: Arc<Semaphore>,
    taken: Arc<Semaphore>,
    /// Streams taken from each member that has opened any.
    taken_from: BTreeMap<HostId, Arc<Semaphore>>,
    finishing: TaskTracker,
}

#[derive(Debug)]
struct Waiting {
    host: HostId,
    offer: Offer,
    until: Instant,
}

impl Router {
    pub(crate) fn new(mesh: Mesh) -> Self {
        Self {
            mesh,
            control: None,
            offers: BTreeMap::new(),
            applications: BTreeMap::new(),
            next: 1,
            members: BTreeMap::new(),
            connected: BTreeSet::new(),
            opened: Arc::new(Semaphore::new(STREAMS_MAX)),
            taken: Arc::new(Semaphore::new(STREAMS_MAX)),
            taken_from: BTreeMap::new(),
            finishing: TaskTracker::new(),
        }
    }

    /// The number of the control connection, while a gateway is connected.
    pub(crate) fn control(&self) -> Option<u64> {
        self.control.as_ref().map(|control| control.number)
    }

    /// The connected members.
    pub(crate) fn connected(&self) -> &BTreeSet<HostId> {
        &self.connected
    }

    /// The name of a member, or its key if the name is unknown.
    pub(crate) fn name(&self, host: HostId) -> String {
        let name = self.members.get(&host);
        name.map_or_else(|| host.to_string(), Clone::clone)
    }

    /// The reason why the cluster does not use this host's configured name; empty if it does.
    pub(crate) fn name_trouble(&self, host: HostId, said: Said<'_>) -> String {
        let members = self.members.iter();
        let members = members.map(|(host, name)| (*host, name.as_str()));
        naming::decide(host, said, members).map_or_else(String::new, |(_, trouble)| trouble)
    }

    /// Sends a message to the gateway, if one is connected.
    pub(crate) fn tell(&mut self, message: FromAgent) {
        if let Some(control) = &self.control
            && !control.tell(message)
        {
            tracing::warn!("the gateway does not keep up, its connection is closed");
            self.control = None;
        }
    }

    /// Handles an event of the socket.
    pub(crate) fn on_ipc(&mut self, event: IpcEvent) -> Option<Asked> {
        match event {
            IpcEvent::Control(control) => {
                tracing::info!(version = control.version, "a gateway connected");
                self.control = Some(control);
                return Some(Asked::Everything);
            }
            IpcEvent::Ended { control } => {
                if self.control() == Some(control) {
                    tracing::warn!("the gateway has disconnected");
                    self.control = None;
                }
            }
            IpcEvent::Message { control, message } => {
                if self.control() == Some(control) {
                    return self.on_message(message);
                }
            }
            IpcEvent::Open {
                host,
                class,
                caller,
            } => self.open(host, class, caller),
            IpcEvent::Accept { stream, caller } => self.accept(stream, caller),
        }
        None
    }

    fn on_message(&mut self, message: ToAgent) -> Option<Asked> {
        match message {
            ToAgent::Request { id, body } => return Some(Asked::Request { id, request: body }),
            ToAgent::Report(report) => return Some(Asked::Show(report)),
            ToAgent::Members(list) => self.set_members(list),
            ToAgent::JoinAnswer { id, answer } => match self.applications.remove(&id) {
                // If the applicant has given up, it applies again.
                Some(applicant) => drop(applicant.send(answer)),
                None => tracing::debug!(id, "an answer without a request"),
            },
        }
        None
    }

    fn set_members(&mut self, list: Vec<Member>) {
        let names = list.iter();
        self.members = names
            .map(|member| (member.host, member.name.clone()))
            .collect();
        let gone = |host: &HostId| !self.members.contains_key(host);
        let offers = self.offers.extract_if(.., |_, waiting| gone(&waiting.host));
        // Dropping an offer closes its stream.
        offers.for_each(drop);
        self.taken_from
            .retain(|host, _| self.members.contains_key(host));
        self.mesh.set_members(list);
    }

    /// Handles an event of the mesh.
    pub(crate) fn on_mesh(&mut self, event: MeshEvent, now: Instant) {
        match event {
            MeshEvent::Peer { host, connected } => {
                if connected {
                    self.connected.insert(host);
                } else {
                    self.connected.remove(&host);
                }
                self.tell(FromAgent::Peer { host, connected });
            }
            MeshEvent::Offer { host, offer } => self.announce(host, offer, now),
            MeshEvent::Application {
                host,
                request,
                answer,
            } => {
                if self.control.is_none() {
                    let reason = "the gateway of this member is not running, ask another one";
                    let reason = reason.to_owned();
                    drop(answer.send(JoinAnswer::Refused { reason }));
                    return;
                }
                // The number of abandoned applications is at most that of strangers.
                self.applications.retain(|_, waiting| !waiting.is_closed());
                let id = self.number();
                self.applications.insert(id, answer);
                self.tell(FromAgent::JoinRequest { id, host, request });
            }
        }
    }

    fn announce(&mut self, host: HostId, offer: Offer, now: Instant) {
        let same = self.offers.values().filter(|waiting| waiting.host == host);
        let reason = if self.control.is_none() {
            "its gateway is not running"
        } else if same.count() >= OFFERS_PER_MEMBER_MAX {
            "its gateway takes no more streams"
        } else {
            let stream = self.number();
            let class = offer.class;
            let until = now + Duration::from_secs(ACCEPT_SECONDS_MAX);
            self.offers.insert(stream, Waiting { host, offer, until });
            self.tell(FromAgent::Incoming {
                stream,
                host,
                class,
            });
            return;
        };
        tokio::spawn(offer.refuse(reason));
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Closes the streams that the gateway did not take in time.
    pub(crate) fn due(&mut self, now: Instant) {
        let late = self
            .offers
            .extract_if(.., |_, waiting| waiting.until <= now);
        for (stream, waiting) in late {
            tracing::warn!(stream, host = %waiting.host, class = ?waiting.offer.class, "stream not taken");
            tokio::spawn(
                waiting
                    .offer
                    .refuse("its gateway did not take the stream in time"),
            );
        }
    }

    /// Returns the time at which [`Router::due`] must be called next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        // All offers have the same time limit, so the first one expires first.
        self.offers.values().next().map(|waiting| waiting.until)
    }

    fn open(&self, host: HostId, class: Class, caller: Caller) {
        let Ok(permit) = Arc::clone(&self.opened).try_acquire_owned() else {
            let words = format!("{STREAMS_MAX} streams are open already");
            tokio::spawn(caller.refuse(NoStream::Other(words)));
            return;
        };
        let mesh = self.mesh.clone();
        self.spawn(class, async move {
            match mesh.open(host, class).await {
                Ok(open) => carry(caller, open, host, class).await,
                Err(why) => caller.refuse(why).await,
            }
            drop(permit);
        });
    }

    fn accept(&mut self, stream: u64, caller: Caller) {
        let Some(Waiting { host, offer, .. }) = self.offers.remove(&stream) else {
            let words = format!("stream {stream} has ended");
            tokio::spawn(caller.refuse(NoStream::Other(words)));
            return;
        };
        let from = self.taken_from.entry(host);
        let from = from.or_insert_with(|| Arc::new(Semaphore::new(STREAMS_PER_MEMBER_MAX)));
        let permits = [from, &self.taken].map(|of| Arc::clone(of).try_acquire_owned());
        let [Ok(of_member), Ok(of_all)] = permits else {
            tokio::spawn(offer.refuse("it has too many streams"));
            let words = format!("too many streams are open already, of {host} or of all");
            tokio::spawn(caller.refuse(NoStream::Other(words)));
            return;
        };
        let class = offer.class;
        self.spawn(class, async move {
            match offer.take().await {
                Ok(open) => carry(caller, open, host, class).await,
                Err(error) => {
                    let words = format!("the stream is lost: {error}");
                    caller.refuse(NoStream::Other(words)).await;
                }
            }
            drop((of_member, of_all));
        });
    }

    fn spawn(&self, class: Class, task: impl Future<Output = ()> + Send + 'static) {
        match class {
            // These streams last as long as both gateways run.
            Class::Raft | Class::Peer => drop(tokio::spawn(task)),
            Class::Snapshot | Class::Api => drop(self.finishing.spawn(task)),
        }
    }

    /// Waits up to `time` for the streams that end by themselves. No new stream begins.
    pub(crate) async fn drain(mut self, time: Duration) {
        self.control = None;
        self.offers.clear();
        self.finishing.close();
        if tokio::time::timeout(time, self.finishing.wait())
            .await
            .is_err()
        {
            tracing::warn!(streams = self.finishing.len(), "streams cut at the end");
        }
    }
}

/// Joins the gateway's connection and the mesh stream until both have ended.
async fn carry(caller: Caller, mut open: Open, host: HostId, class: Class) {
    let ended = open.ended.clone();
    let carried = async {
        let (first, mut near) = caller.ready().await?;
        near.write_all(&open.first).await?;
        open.stream.write_all(&first).await?;
        Ok::<_, FrameError>(relay(near, open.stream).await?)
    };
    let aborted = || Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
    match ended
        .run_until_cancelled(carried)
        .await
        .unwrap_or_else(aborted)
    {
        Ok((up, down)) => tracing::debug!(%host, ?class, up, down, "stream ended"),
        Err(error) => tracing::debug!(%host, ?class, %error, "stream broke"),
    }
}

#[cfg(test)]
mod tests;
