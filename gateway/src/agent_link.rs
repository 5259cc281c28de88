//! The gateway's connections to the agent of its host: one control connection, and one more for every stream to a peer.
//!
//! Shell: owns the connections and decides nothing. It sends requests, the member list, the host's report and answers
//! to applicants. It receives the units of this host, the connected peers, streams that peers open, and applications
//! for membership. When the control connection ends, the link reconnects, with growing pauses, and sends everything
//! that the agent must know once more. It never sends a request twice: the caller gets a [`LinkError`] and decides.

mod control;
pub(crate) mod inbound;
mod stream;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use beemesh_protocol::{
    DecodeError, HostId,
    frame::FrameError,
    ipc::{Class, Done, Member, NoStream, Opening, Report, Request, UnitState, Welcome},
    mesh::{JoinAnswer, JoinRequest},
};
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
};

/// Maximum number of streams and applications that wait for the gateway. If the queue is full, the gateway is stuck,
/// and the agent closes the streams itself.
const INBOUND_MAX: usize = 64;
/// Maximum number of requests and answers that wait to be sent: a few for each of some hundred workloads.
const OUTBOUND_MAX: usize = 256;

/// A handle on the connection to the agent.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    path: Arc<Path>,
    commands: mpsc::Sender<Command>,
    told: Arc<Told>,
    seen: Arc<Seen>,
}

/// A request of a peer or a stranger to this gateway.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// A member opened a stream; the next byte is the member's.
    Stream {
        /// The member, as authenticated by the mesh.
        host: HostId,
        /// What the stream is for.
        class: Class,
        stream: UnixStream,
    },
    /// A stranger applies for membership; [`Link::join_answer`] answers it.
    Join {
        /// The number of the application.
        id: u64,
        /// The stranger, as authenticated by the mesh.
        host: HostId,
        /// The application.
        request: JoinRequest,
    },
}

/// Why the agent did not carry out a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The control connection is down.
    #[error("the agent cannot be reached: {0}")]
    Down(String),
    /// The connection ended before the answer; the agent may have carried out the request.
    #[error("the connection to the agent ended during {0}")]
    Lost(&'static str),
    /// No answer arrived in time; the agent may have carried out the request.
    #[error("the agent did not finish {what} within {seconds} s")]
    Late {
        /// The request.
        what: &'static str,
        /// The timeout in seconds.
        seconds: u64,
    },
    /// The agent failed to carry out the request, or refused it.
    #[error("{0}")]
    Refused(String),
    /// The other host is there and does not regard this one as a member.
    #[error("{}", NoStream::NotMember)]
    NotMember,
    /// A connection for a stream could not be made or broke.
    #[error("open a stream by {path}")]
    Stream {
        /// The agent's socket.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The agent's answer on a stream connection is not a frame.
    #[error("read the agent's answer on a stream")]
    Frame(#[from] FrameError),
    /// The agent's answer on a stream connection is not a message.
    #[error("decode the agent's answer on a stream")]
    Decode(#[from] DecodeError),
}

/// The latest state that the agent must know, sent on every new control connection.
#[derive(Debug, Default)]
struct Told {
    members: watch::Sender<Option<Vec<Member>>>,
    report: watch::Sender<Option<Report>>,
}

/// The latest state that the agent sent.
#[derive(Debug, Default)]
struct Seen {
    welcome: watch::Sender<Option<Welcome>>,
    units: watch::Sender<Arc<BTreeMap<String, UnitState>>>,
    /// Whether the agent has sent `units` on the current connection.
    synced: watch::Sender<bool>,
    connected: watch::Sender<Arc<BTreeSet<HostId>>>,
    /// When the mesh lost its last connection to a host, in milliseconds since 1970, while there is none.
    lost: Mutex<BTreeMap<HostId, u64>>,
    estranged: watch::Sender<BTreeSet<HostId>>,
    trouble: watch::Sender<String>,
}

/// A message to send on the control connection.
#[derive(Debug)]
enum Command {
    Request {
        body: Request,
        reply: oneshot::Sender<Result<Done, LinkError>>,
    },
    JoinAnswer {
        id: u64,
        answer: JoinAnswer,
    },
}

impl From<NoStream> for LinkError {
    fn from(why: NoStream) -> Self {
        match why {
            NoStream::NotMember => Self::NotMember,
            NoStream::Other(words) => Self::Refused(words),
        }
    }
}

impl Link {
    /// Starts to connect to the agent's socket at `path`, as a gateway of `version`. The link reconnects as long as a
    /// handle exists.
    pub(crate) fn start(path: &Path, version: &str) -> (Self, mpsc::Receiver<Inbound>) {
        let (commands, commands_from) = mpsc::channel(OUTBOUND_MAX);
        let (inbound, inbound_from) = mpsc::channel(INBOUND_MAX);
        let link = Self {
            path: path.into(),
            commands,
            told: Arc::default(),
            seen: Arc::default(),
        };
        let control = control::Control {
            path: Arc::clone(&link.path),
            version: version.to_owned(),
            commands: commands_from,
            inbound,
            told: Arc::clone(&link.told),
            seen: Arc::clone(&link.seen),
        };
        tokio::spawn(control.run());
        (link, inbound_from)
    }

    /// Sends a request to the agent, and waits for the outcome up to the limit of [`patience`].
    pub(crate) async fn request(&self, body: Request) -> Result<Done, LinkError> {
        let (what, limit) = patience(&body);
        let (reply, answer) = oneshot::channel();
        let answered = async {
            let command = Command::Request { body, reply };
            self.commands
                .send(command)
                .await
                .map_err(|_| LinkError::Lost(what))?;
            answer.await.map_err(|_| LinkError::Lost(what))?
        };
        let late = |_| LinkError::Late {
            what,
            seconds: limit.as_secs(),
        };
        tokio::time::timeout(limit, answered).await.map_err(late)?
    }

    /// Opens a stream to a member. The handshake is complete when this returns: the next byte is the peer's.
    pub(crate) async fn open(&self, host: HostId, class: Class) -> Result<UnixStream, LinkError> {
        let opened = stream::open(&self.path, &Opening::Open { host, class }).await;
        let stranger = matches!(opened, Err(LinkError::NotMember));
        self.seen.estranged.send_if_modified(|hosts| {
            if stranger {
                hosts.insert(host)
            } else {
                hosts.remove(&host)
            }
        });
        opened
    }

    /// Watches the members that refused the last stream to them because they do not know this host as a member.
    pub(crate) fn estranged(&self) -> watch::Receiver<BTreeSet<HostId>> {
        self.seen.estranged.subscribe()
    }

    /// Sends the member list to the agent, which treats every other host as a stranger.
    pub(crate) fn members(&self, members: Vec<Member>) {
        replace(&self.told.members, Some(members));
    }

    /// Tells the agent what to show of this host on D-Bus and in `systemctl status beemesh-agent`.
    pub(crate) fn report(&self, report: Report) {
        replace(&self.told.report, Some(report));
    }

    /// Answers an [`Inbound::Join`]. If the answer cannot be sent now, it is lost, and the applicant asks again.
    pub(crate) fn join_answer(&self, id: u64, answer: JoinAnswer) {
        if self
            .commands
            .try_send(Command::JoinAnswer { id, answer })
            .is_err()
        {
            tracing::warn!(
                id,
                "answer to an application for membership dropped: the agent does not keep up"
            );
        }
    }

    /// Watches the workload units of this host, by workload. They are valid only while [`Link::synced`] is true.
    pub(crate) fn units(&self) -> watch::Receiver<Arc<BTreeMap<String, UnitState>>> {
        self.seen.units.subscribe()
    }

    /// Watches whether [`Link::units`] is what the agent reports now; `false` without a connection to the agent.
    pub(crate) fn synced(&self) -> watch::Receiver<bool> {
        self.seen.synced.subscribe()
    }

    /// Watches the members that the mesh is connected to.
    pub(crate) fn connected(&self) -> watch::Receiver<Arc<BTreeSet<HostId>>> {
        self.seen.connected.subscribe()
    }

    /// Returns when the mesh lost its connection to each host that it reached before, in milliseconds since 1970.
    pub(crate) fn lost(&self) -> BTreeMap<HostId, u64> {
        let lost = self.seen.lost.lock();
        lost.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the hosts that the mesh reaches, including this `host`.
    pub(crate) fn reachable(&self, host: HostId) -> BTreeSet<HostId> {
        let mut hosts = BTreeSet::clone(&self.seen.connected.borrow());
        hosts.insert(host);
        hosts
    }

    /// Watches the identity of this host; `None` until the agent sends it for the first time.
    pub(crate) fn welcome(&self) -> watch::Receiver<Option<Welcome>> {
        self.seen.welcome.subscribe()
    }

    /// Waits until the agent has sent the identity of this host; `None` if the link has ended for good.
    pub(crate) async fn welcomed(&self) -> Option<Welcome> {
        let mut welcome = self.seen.welcome.subscribe();
        let welcome = welcome.wait_for(Option::is_some).await;
        welcome.ok().and_then(|welcome| welcome.clone())
    }

    /// Watches what the link waits for, as a message for the user; empty while it is connected.
    pub(crate) fn trouble(&self) -> watch::Receiver<String> {
        self.seen.trouble.subscribe()
    }
}

/// Returns the name of a request in messages, and its timeout.
fn patience(request: &Request) -> (&'static str, Duration) {
    let (what, seconds) = match request {
        Request::PutUnit(_) => ("writing a unit", 30),
        Request::RemoveUnit { .. } => ("removing a unit", 60),
        Request::TidyUnit { .. } => ("tidying a unit", 30),
        // systemd aborts a start that plays the pod itself after `TimeoutStartSec=` of the Quadlet, and a stop after
        // `TimeoutStopSec=`. The agent then answers, so this limit only catches an agent that is stuck.
        Request::StartUnit { .. } => ("starting a unit", 600),
        Request::StopUnit { .. } => ("stopping a unit", 600),
        Request::SyncStorage => ("writing the storage to disk", 120),
        Request::Join { .. } => ("joining", 60),
        Request::Advertise { .. } => ("keeping the addresses", 30),
        Request::MakeKey | Request::UseKey { .. } => ("changing the host's key", 30),
        Request::Check { .. } => ("checking a unit", 30),
    };
    (what, Duration::from_secs(seconds))
}

/// Sets a watched value; watchers wake only if it has changed.
fn replace<T: PartialEq>(watched: &watch::Sender<T>, value: T) {
    watched.send_if_modified(|present| {
        let changed = *present != value;
        *present = value;
        changed
    });
}

#[cfg(test)]
mod tests;
