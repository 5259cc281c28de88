//! The mesh of many gateways on one machine: the agent's services for each gateway, in memory.
//!
//! Shell. Each gateway connects to a socket of its own, as it would to its agent's, and uses the same protocol. The
//! mesh carries streams between those connections and counts their bytes. It refuses requests that need a real host:
//! those for units and pods.

mod seat;
mod stream;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use beemesh_protocol::{
    HostId,
    frame::{CONTROL_MAX, FrameCodec},
    ipc::{Done, FromAgent, NoStream, Opened, Opening, Request, ToAgent, Welcome},
    mesh::JoinAnswer,
};
use futures::{SinkExt as _, StreamExt as _};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::codec::Framed;

use seat::Seat;
pub(crate) use stream::Traffic;

/// The largest number of messages in the queue to a gateway, as in an agent.
const TOLD_MAX: usize = 512;
/// How long an applicant waits for the decision, as in an agent.
const DECISION_MAX: Duration = Duration::from_secs(12);

type Connection = Framed<UnixStream, FrameCodec>;

/// The agents of all hosts. Clones share the state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mesh {
    switch: Arc<Mutex<Switch>>,
}

/// The state of the mesh.
#[derive(Debug, Default)]
struct Switch {
    seats: BTreeMap<HostId, Seat>,
    offers: BTreeMap<u64, oneshot::Sender<Connection>>,
    applications: BTreeMap<u64, oneshot::Sender<JoinAnswer>>,
    traffic: BTreeMap<(HostId, HostId), Arc<Traffic>>,
    next: u64,
}

impl Switch {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Mesh {
    /// Listens as the agent of a new host. Call it on a runtime.
    pub(crate) fn add(&self, host: HostId, name: &str, socket: &Path) -> Result<()> {
        let listener = UnixListener::bind(socket)?;
        self.switch().seats.insert(host, Seat::new(name));
        let mesh = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mesh = mesh.clone();
                tokio::spawn(async move {
                    // A gateway that is killed may break the connection at any point.
                    let _ = mesh.serve(host, stream).await;
                });
            }
        });
        Ok(())
    }

    /// The traffic from one host to another.
    pub(crate) fn traffic(&self, from: HostId, to: HostId) -> Arc<Traffic> {
        Arc::clone(self.switch().traffic.entry((from, to)).or_default())
    }

    /// Holds every byte from and to a host. After some time the host's streams end, as they do when an agent receives
    /// nothing.
    pub(crate) fn cut(&self, host: HostId) {
        self.set_cut(host, true);
        let mesh = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(stream::SILENCE_MAX).await;
            mesh.switch().reconnect(host);
        });
    }

    /// Undoes [`Mesh::cut`].
    pub(crate) fn mend(&self, host: HostId) {
        self.set_cut(host, false);
        self.switch().reconnect(host);
    }

    fn set_cut(&self, host: HostId, cut: bool) {
        if let Some(seat) = self.switch().seats.get(&host) {
            seat.cut.send_replace(cut);
        }
    }

    fn switch(&self) -> MutexGuard<'_, Switch> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, host: HostId, stream: UnixStream) -> Result<()> {
        let mut connection = Framed::new(stream, FrameCodec::new(CONTROL_MAX));
        let first = connection.next().await.context("no opening")??;
        match Opening::decode(&first)? {
            Opening::Control { .. } => self.control(host, connection).await,
            Opening::Open { host: to, class } => {
                let opened = self.offer(host, to, class).await;
                let Some(callee) = answer(&mut connection, opened).await? else {
                    return Ok(());
                };
                let cuts = [host, to].map(|end| self.switch().seats.get(&end).map(Seat::cuts));
                let [Some(near), Some(far)] = cuts else {
                    return Ok(());
                };
                let counts = [self.traffic(host, to), self.traffic(to, host)];
                stream::carry(connection, callee, &counts, [near, far]).await
            }
            Opening::Accept { stream } => {
                let offer = self.switch().offers.remove(&stream);
                let offer = offer.context("no such stream")?;
                connection.send(Opened::Ready.encode()).await?;
                // The caller may have given up.
                let _ = offer.send(connection);
                Ok(())
            }
        }
    }

    /// Announces a stream to its other end and waits until that accepts it.
    async fn offer(
        &self,
        from: HostId,
        to: HostId,
        class: beemesh_protocol::ipc::Class,
    ) -> Result<Connection, String> {
        let cuts = {
            let switch = self.switch();
            [from, to].map(|end| switch.seats.get(&end).map(Seat::cuts))
        };
        stream::whole(cuts).await?;
        let (number, taken) = {
            let mut switch = self.switch();
            let number = switch.number();
            let (offer, taken) = oneshot::channel();
            let announced = FromAgent::Incoming {
                stream: number,
                host: from,
                class,
            };
            if !switch.connected(from, to) || !switch.tell(to, announced) {
                return Err("its gateway is not running".to_owned());
            }
            switch.offers.insert(number, offer);
            (number, taken)
        };
        let taken = timeout(stream::ACCEPT_MAX, taken).await;
        self.switch().offers.remove(&number);
        match taken {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(_)) | Err(_) => Err("its gateway did not take the stream".to_owned()),
        }
    }

    async fn control(&self, host: HostId, mut connection: Connection) -> Result<()> {
        let (tell, mut told) = mpsc::channel(TOLD_MAX);
        let (number, welcome) = {
            let mut switch = self.switch();
            let number = switch.number();
            let seat = switch.seats.get_mut(&host).context("no such host")?;
            seat.control = Some((number, tell));
            (number, seat.welcome(host))
        };
        let done = self
            .converse(host, &mut connection, welcome, &mut told)
            .await;
        let mut switch = self.switch();
        if let Some(seat) = switch.seats.get_mut(&host)
            && seat.control.as_ref().map(|(of, _)| *of) == Some(number)
        {
            seat.control = None;
        }
        done
    }

    async fn converse(
        &self,
        host: HostId,
        connection: &mut Connection,
        welcome: Welcome,
        told: &mut mpsc::Receiver<FromAgent>,
    ) -> Result<()> {
        connection
            .send(FromAgent::Welcome(welcome).encode())
            .await?;
        for units in FromAgent::units(Vec::new()) {
            connection.send(units.encode()).await?;
        }
        loop {
            tokio::select! {
                frame = connection.next() => {
                    let frame = frame.context("the gateway has disconnected")??;
                    self.on_message(host, ToAgent::decode(&frame)?);
                }
                message = told.recv() => {
                    let Some(message) = message else { bail!("a newer connection took over") };
                    connection.send(message.encode()).await?;
                }
            }
        }
    }

    fn on_message(&self, host: HostId, message: ToAgent) {
        match message {
            ToAgent::Members(members) => {
                let mut switch = self.switch();
                if let Some(seat) = switch.seats.get_mut(&host) {
                    seat.members = members.into_iter().map(|member| member.host).collect();
                }
                switch.reconnect(host);
            }
            ToAgent::Report(_) => {}
            ToAgent::JoinAnswer { id, answer } => {
                let applicant = self.switch().applications.remove(&id);
                // An applicant that gave up asks again.
                let _ = applicant.map(|applicant| applicant.send(answer));
            }
            ToAgent::Request { id, body } => {
                let mesh = self.clone();
                tokio::spawn(async move {
                    let result = mesh.request(host, body).await;
                    mesh.switch().tell(host, FromAgent::Reply { id, result });
                });
            }
        }
    }

    async fn request(&self, host: HostId, body: Request) -> Result<Done, String> {
        let Request::Join {
            host: member,
            request,
            ..
        } = body
        else {
            return Err("there is no host behind this gateway".to_owned());
        };
        let decided = {
            let mut switch = self.switch();
            let id = switch.number();
            let (answer, decided) = oneshot::channel();
            switch.applications.insert(id, answer);
            let asked = FromAgent::JoinRequest { id, host, request };
            if !switch.tell(member, asked) {
                return Err("its gateway is not running".to_owned());
            }
            decided
        };
        let decided = timeout(DECISION_MAX, decided).await;
        let decided = decided.map_err(|_| "no decision in time".to_owned())?;
        decided
            .map(Done::Joined)
            .map_err(|_| "no decision".to_owned())
    }
}

/// Answers the gateway that requested a stream.
async fn answer(
    caller: &mut Connection,
    opened: Result<Connection, String>,
) -> Result<Option<Connection>> {
    let (answer, callee) = match opened {
        Ok(callee) => (Opened::Ready, Some(callee)),
        Err(reason) => (Opened::Refused(NoStream::Other(reason)), None),
    };
    caller.send(answer.encode()).await?;
    Ok(callee)
}
