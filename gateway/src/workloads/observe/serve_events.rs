//! Serves Podman's events to the supervisors of this host, so that Podman reads its journal once for all of them.
//!
//! Shell. Input: Podman's event stream. Output: a socket below `/run/beemesh`, in the form of
//! [`beemesh_quadlet::podman::served_events`]. A client that does not keep up loses its connection: it then looks at its
//! pod anew. While Podman is away, nobody is served.

use std::{
    collections::BTreeMap,
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use beemesh_protocol::workload::is_pod_name;
use beemesh_quadlet::podman::{Change, Event, LABEL_WORKLOAD, Podman, served_events::line};
use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::clock::backoff::Backoff;

/// Maximum number of events that wait for a client.
const QUEUE_MAX: usize = 64;
/// Maximum number of clients; a host has a supervisor for each pod.
const CLIENTS_MAX: usize = 4096;
/// The longest request in bytes: the name of a pod.
const REQUEST_MAX: u64 = 256;
/// How long a client may take to say which events it wants, or to take one.
const CLIENT_MAX: Duration = Duration::from_secs(5);
/// The pause before the socket is opened again after an error; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The clients by the names of their pods; `None` while Podman is away.
type Clients = Arc<Mutex<Option<BTreeMap<String, Vec<mpsc::Sender<Bytes>>>>>>;

/// Serves events on this socket as long as the runtime runs.
pub(crate) fn start(podman: &Podman, socket: PathBuf) {
    let clients = Clients::default();
    tokio::spawn(follow(podman.clone(), Arc::clone(&clients)));
    tokio::spawn(async move {
        let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        loop {
            let error = match open(&socket) {
                Ok(listener) => accept(&listener, &clients).await,
                Err(error) => error,
            };
            let path = socket.display();
            tracing::warn!(%error, %path, "supervisors cannot follow Podman here, will retry");
            sleep(backoff.tried(Instant::now())).await;
        }
    });
}

fn open(socket: &PathBuf) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves every client that connects, until that fails.
async fn accept(listener: &UnixListener, clients: &Clients) -> io::Error {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let clients = Arc::clone(clients);
                tokio::spawn(async move {
                    // A client that has gone needs no answer.
                    let _ = serve(stream, &clients).await;
                });
            }
            Err(error) => return error,
        }
    }
}

/// Serves one client until it or Podman goes away.
async fn serve(mut stream: UnixStream, clients: &Clients) -> io::Result<()> {
    let mut request = String::new();
    let (from, mut to) = stream.split();
    let mut from = BufReader::new(from.take(REQUEST_MAX));
    timeout(CLIENT_MAX, from.read_line(&mut request)).await??;
    let pod = request.trim_end();
    let Some(mut events) = is_pod_name(pod).then(|| subscribe(clients, pod)).flatten() else {
        return Ok(());
    };
    let mut more = [0; 1];
    from.get_mut().set_limit(1);
    timeout(CLIENT_MAX, to.write_all(b"\n")).await??;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => timeout(CLIENT_MAX, to.write_all(&event)).await??,
                None => return Ok(()),
            },
            // A client says nothing more; this is the end of its connection.
            _ = from.read(&mut more) => return Ok(()),
        }
    }
}

/// Adds a client; `None` if it cannot be served.
fn subscribe(clients: &Clients, pod: &str) -> Option<mpsc::Receiver<Bytes>> {
    let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
    let clients = clients.as_mut()?;
    clients.retain(|_, of| {
        of.retain(|client| !client.is_closed());
        !of.is_empty()
    });
    if clients.values().map(Vec::len).sum::<usize>() >= CLIENTS_MAX {
        return None;
    }
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    clients.entry(pod.to_owned()).or_default().push(sender);
    Some(receiver)
}

async fn follow(podman: Podman, clients: Clients) {
    let mut events = podman.events(LABEL_WORKLOAD);
    loop {
        let change = events.next().await;
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Connected => *clients = Some(BTreeMap::new()),
            Change::Lost(_) => *clients = None,
            Change::Event(event) => {
                if let Some(clients) = clients.as_mut() {
                    pass_on(&event, clients);
                }
            }
        }
    }
}

/// Sends an event to the clients of its pod. A client that does not keep up is dropped.
fn pass_on(event: &Event, clients: &mut BTreeMap<String, Vec<mpsc::Sender<Bytes>>>) {
    let pod = event.attributes.get(LABEL_WORKLOAD);
    let Some(of) = pod.and_then(|pod| clients.get_mut(pod)) else {
        return;
    };
    let line = Bytes::from(line(event));
    of.retain(|client| client.try_send(line.clone()).is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(pod: &str, action: &str) -> Event {
        Event {
            action: action.into(),
            container: "id".into(),
            attributes: BTreeMap::from([(LABEL_WORKLOAD.to_owned(), pod.to_owned())]),
            health: String::new(),
            at: None,
        }
    }

    /// A client that has asked for this pod's events, and the task that serves it.
    async fn client(
        clients: &Clients,
        pod: &str,
    ) -> (UnixStream, tokio::task::JoinHandle<io::Result<()>>) {
        let (mut client, server) = UnixStream::pair().expect("two sockets");
        let clients = Arc::clone(clients);
        let served = tokio::spawn(async move { serve(server, &clients).await });
        client
            .write_all(format!("{pod}\n").as_bytes())
            .await
            .expect("written");
        (client, served)
    }

    async fn read(client: &mut UnixStream) -> String {
        let mut bytes = [0; 4096];
        let count = timeout(CLIENT_MAX, client.read(&mut bytes)).await;
        let count = count.expect("in time").expect("read");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    fn tell(clients: &Clients, event: &Event) {
        let mut clients = clients.lock().expect("a lock");
        pass_on(event, clients.as_mut().expect("Podman is there"));
    }

    #[tokio::test]
    async fn each_client_gets_the_events_of_its_pod_and_none_without_podman() {
        let clients = Clients::default();
        let (mut early, _) = client(&clients, "web").await;
        assert_eq!(read(&mut early).await, "", "Podman is away");
        *clients.lock().expect("a lock") = Some(BTreeMap::new());
        let (mut wrong, _) = client(&clients, "../web").await;
        assert_eq!(read(&mut wrong).await, "", "no pod has this name");
        let (mut web, served) = client(&clients, "web").await;
        let (mut beside, _) = client(&clients, "web__1").await;
        assert_eq!(
            (read(&mut web).await, read(&mut beside).await),
            ("\n".into(), "\n".into())
        );
        tell(&clients, &event("web__1", "start"));
        tell(&clients, &event("web", "died"));
        assert!(read(&mut web).await.contains("died"));
        assert!(read(&mut beside).await.contains("start"));
        *clients.lock().expect("a lock") = None;
        assert_eq!(read(&mut web).await, "", "Podman is lost");
        assert!(served.await.expect("no panic").is_ok());
    }

    #[tokio::test]
    async fn a_client_that_does_not_keep_up_is_dropped() {
        let clients = Clients::default();
        *clients.lock().expect("a lock") = Some(BTreeMap::new());
        let mut events = subscribe(&clients, "web").expect("served");
        for _ in 0..=QUEUE_MAX {
            tell(&clients, &event("web", "start"));
        }
        for _ in 0..QUEUE_MAX {
            assert!(events.recv().await.is_some());
        }
        assert_eq!(events.recv().await, None);
    }
}
