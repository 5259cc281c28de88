//! The gateway's way to the agent of its host: one control connection, and one more connection for every stream to a
//! peer.
//!
//! Shell: owns the connections and decides nothing. Out go requests, the member list, the host's report and answers to
//! applicants; in come the units of this host, the peers that are connected, streams that peers open and applications
//! for membership. The control connection is made again, with growing pauses, whenever it ends; what the agent must
//! know is then sent again. A request is never sent twice: its caller gets a [`LinkError`] and decides.

mod control;
pub(crate) mod inbound;
mod stream;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use beemesh_protocol::{
    DecodeError, HostId,
    frame::FrameError,
    ipc::{Class, Done, Member, Opening, Report, Request, UnitState, Welcome},
    mesh::{JoinAnswer, JoinRequest, NOT_A_MEMBER},
};
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
};

/// Streams and applications that wait for the gateway to take them. A full queue means that the gateway is stuck; the
/// agent then closes the streams by itself.
const INBOUND_MAX: usize = 64;
/// Requests and answers that wait to be written: a few for each of some hundred workloads.
const OUTBOUND_MAX: usize = 256;

/// A handle on the connection to the agent.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    path: Arc<Path>,
    commands: mpsc::Sender<Command>,
    told: Arc<Told>,
    seen: Arc<Seen>,
}

/// Something a peer or a stranger wants of this gateway.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// A member opened a stream; the next byte is the member's.
    Stream {
        /// The member, as authenticated by the mesh.
        host: HostId,
        /// What the stream is for.
        class: Class,
        /// The stream.
        stream: UnixStream,
    },
    /// A stranger applies for membership: answer with [`Link::join_answer`].
    Join {
        /// The application's number.
        id: u64,
        /// The stranger, as authenticated by the mesh.
        host: HostId,
        /// What it sent.
        request: JoinRequest,
    },
}

/// Why the agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// There is no control connection now.
    #[error("the agent cannot be reached: {0}")]
    Down(String),
    /// The connection ended before the answer; the request may or may not have been carried out.
    #[error("the connection to the agent ended during {0}")]
    Lost(&'static str),
    /// No answer came in time; the request may or may not have been carried out.
    #[error("the agent did not finish {what} within {seconds} s")]
    Late {
        /// The request.
        what: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The agent tried and failed, or would not.
    #[error("{0}")]
    Refused(String),
    /// A connection for a stream could not be made or broke.
    #[error("open a stream by {path}")]
    Stream {
        /// The agent's socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The agent's answer on a stream connection is no frame.
    #[error("read the agent's answer on a stream")]
    Frame(#[from] FrameError),
    /// The agent's answer on a stream connection is no message.
    #[error("decode the agent's answer on a stream")]
    Decode(#[from] DecodeError),
}

/// The latest of what the agent must know, sent on every new control connection.
#[derive(Debug, Default)]
struct Told {
    members: watch::Sender<Option<Vec<Member>>>,
    report: watch::Sender<Option<Report>>,
}

/// What the agent said last.
#[derive(Debug, Default)]
struct Seen {
    welcome: watch::Sender<Option<Welcome>>,
    units: watch::Sender<Arc<BTreeMap<String, UnitState>>>,
    /// Whether `units` is what the agent says on the present connection.
    synced: watch::Sender<bool>,
    connected: watch::Sender<Arc<BTreeSet<HostId>>>,
    estranged: watch::Sender<BTreeSet<HostId>>,
    trouble: watch::Sender<String>,
}

/// What the control connection is asked to send.
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

impl LinkError {
    /// Whether the other host is there and knows this one as no member.
    pub(crate) fn is_stranger(&self) -> bool {
        matches!(self, Self::Refused(reason) if reason == NOT_A_MEMBER)
    }
}

impl Link {
    /// Begins to connect to the agent's socket at `path`, as a gateway of `version`, for as long as a handle exists.
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

    /// Asks the agent for something only it may do, and waits for the outcome no longer than such a thing can take.
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

    /// Opens a stream to a member. The agent's handshake is over when this returns: the next byte is the peer's.
    pub(crate) async fn open(&self, host: HostId, class: Class) -> Result<UnixStream, LinkError> {
        let opened = stream::open(&self.path, &Opening::Open { host, class }).await;
        let stranger = opened.as_ref().is_err_and(LinkError::is_stranger);
        self.seen.estranged.send_if_modified(|hosts| {
            if stranger {
                hosts.insert(host)
            } else {
                hosts.remove(&host)
            }
        });
        opened
    }

    /// The members that refused a stream when one was last opened, because they know this host as no member.
    pub(crate) fn estranged(&self) -> watch::Receiver<BTreeSet<HostId>> {
        self.seen.estranged.subscribe()
    }

    /// Tells the agent who is a member. Everybody else is a stranger to it.
    pub(crate) fn members(&self, members: Vec<Member>) {
        replace(&self.told.members, Some(members));
    }

    /// Tells the agent what this host shows on D-Bus and in `systemctl status beemesh-agent`.
    pub(crate) fn report(&self, report: Report) {
        replace(&self.told.report, Some(report));
    }

    /// Answers an [`Inbound::Join`]. An answer that cannot be sent now is lost: the applicant asks again.
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

    /// The workload units of this host, by workload. Believe it only while [`Link::synced`].
    pub(crate) fn units(&self) -> watch::Receiver<Arc<BTreeMap<String, UnitState>>> {
        self.seen.units.subscribe()
    }

    /// Whether [`Link::units`] is what the agent says now; `false` while there is no connection to it.
    pub(crate) fn synced(&self) -> watch::Receiver<bool> {
        self.seen.synced.subscribe()
    }

    /// The members that the mesh is connected to now.
    pub(crate) fn connected(&self) -> watch::Receiver<Arc<BTreeSet<HostId>>> {
        self.seen.connected.subscribe()
    }

    /// The hosts that the mesh reaches now, this `host` included.
    pub(crate) fn reachable(&self, host: HostId) -> BTreeSet<HostId> {
        let mut hosts = BTreeSet::clone(&self.seen.connected.borrow());
        hosts.insert(host);
        hosts
    }

    /// Who this host is; `None` until the agent said so for the first time.
    pub(crate) fn welcome(&self) -> watch::Receiver<Option<Welcome>> {
        self.seen.welcome.subscribe()
    }

    /// Waits until the agent has said who this host is; `None` when the connection has ended for good.
    pub(crate) async fn welcomed(&self) -> Option<Welcome> {
        let mut welcome = self.seen.welcome.subscribe();
        let welcome = welcome.wait_for(Option::is_some).await;
        welcome.ok().and_then(|welcome| welcome.clone())
    }

    /// What the link waits for, in words for a person; empty when it is connected.
    pub(crate) fn trouble(&self) -> watch::Receiver<String> {
        self.seen.trouble.subscribe()
    }
}

/// What a request is called in a message, and how long it may take at most.
fn patience(request: &Request) -> (&'static str, Duration) {
    let (what, seconds) = match request {
        Request::PutUnit(_) => ("writing a unit", 30),
        Request::RemoveUnit { .. } => ("removing a unit", 60),
        Request::TidyUnit { .. } => ("tidying a unit", 30),
        // A start that plays the pod itself is given up by systemd after `TimeoutStartSec=` of the Quadlet, a stop
        // after its `TimeoutStopSec=`; the agent then answers, so this limit only catches an agent that is stuck.
        Request::StartUnit { .. } => ("starting a unit", 600),
        Request::StopUnit { .. } => ("stopping a unit", 600),
        Request::SyncStorage => ("writing the storage to disk", 120),
        Request::Join { .. } => ("joining", 60),
        Request::Advertise { .. } => ("keeping the addresses", 30),
        Request::MakeKey | Request::UseKey { .. } => ("changing the host's key", 30),
    };
    (what, Duration::from_secs(seconds))
}

/// Sets a watched value, without waking anybody when it is the same.
fn replace<T: PartialEq>(watched: &watch::Sender<T>, value: T) {
    watched.send_if_modified(|present| {
        let changed = *present != value;
        *present = value;
        changed
    });
}

#[cfg(test)]
mod tests;
