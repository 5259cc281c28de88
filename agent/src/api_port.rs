//! The API port for remote users: a TCP port whose connections the agent passes to the gateway.
//!
//! Shell: it does not read the data, and limits the number and the rate of connections. The agent passes each
//! connection to the gateway's socket after one line of the PROXY protocol, version 1, which names the source. The
//! gateway does TLS and authenticates users.

mod connections;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use self::connections::{Connection, Connections};
use crate::{
    ports::{Ports, Protocol},
    sieve::{Gauge, Kind, Sieve, WINDOW, Window, busy, processor_time},
    socket::relay::relay,
};

/// Connections that the agent accepts in a window. A refused connection costs 0.05 ms of processor time.
const ARRIVALS_MAX: u32 = 125;
/// A running gateway accepts a connection on its socket at once.
const GATEWAY_TIME_MAX: Duration = Duration::from_secs(2);
/// Connections that wait in the kernel.
const BACKLOG: i32 = 1024;
/// Pauses before the next attempt to listen, and after a failed accept.
const LISTEN_PAUSE: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Settings of the API port.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The only address to listen on; `None` for all.
    pub(crate) listen: Option<IpAddr>,
    /// The gateway's socket.
    pub(crate) socket: PathBuf,
    /// The holder, which keeps the port bound while no agent runs.
    pub(crate) ports: Ports,
}

/// The API port, open or closed.
#[derive(Debug)]
pub(crate) struct ApiPort {
    settings: Settings,
    open: Option<(u16, JoinHandle<()>)>,
    trouble: watch::Sender<String>,
}

impl ApiPort {
    /// Creates a closed port.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            open: None,
            trouble: watch::Sender::default(),
        }
    }

    /// The reason why the agent cannot listen on the port; empty if it can.
    pub(crate) fn trouble(&self) -> watch::Receiver<String> {
        self.trouble.subscribe()
    }

    /// Listens on this port; `None` closes it and ends every connection.
    pub(crate) fn keep(&mut self, port: Option<u16>) {
        if self.open.as_ref().map(|(port, _)| *port) == port {
            return;
        }
        if let Some((port, task)) = self.open.take() {
            task.abort();
            self.trouble.send_replace(String::new());
            tracing::info!(port, "the remote API is closed");
            let ports = self.settings.ports.clone();
            tokio::spawn(async move {
                // The listener is closed when its task has ended. Other programs can bind the port when the holder's
                // copy is closed, too.
                let _ = task.await;
                ports.keep();
            });
        }
        let settings = self.settings.clone();
        let trouble = self.trouble.clone();
        self.open = port.map(|port| (port, tokio::spawn(serve(settings, port, trouble))));
    }
}

impl Drop for ApiPort {
    fn drop(&mut self) {
        if let Some((_, task)) = self.open.take() {
            task.abort();
        }
    }
}

async fn serve(settings: Settings, port: u16, trouble: watch::Sender<String>) {
    let listener = loop {
        match bind(&settings, port) {
            Ok(listener) => break listener,
            Err(error) => {
                let missing = BTreeMap::from([((Protocol::Tcp, port), error.to_string())]);
                let ports = settings.ports.clone();
                let words = tokio::task::spawn_blocking(move || ports.explain(&missing)).await;
                let words = words.unwrap_or_else(|error| error.to_string());
                let words = format!("the remote API: {words}");
                trouble.send_if_modified(|before| {
                    let changed = *before != words;
                    *before = words;
                    changed
                });
                sleep(LISTEN_PAUSE).await;
            }
        }
    };
    trouble.send_replace(String::new());
    tracing::info!(port, "the remote API is open");
    let connections = Connections::default();
    let mut carried = JoinSet::new();
    let mut filter = Filter::on(&listener);
    let mut windows = interval(WINDOW);
    windows.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut arrived = 0;
    loop {
        while carried.try_join_next().is_some() {}
        let accepted = tokio::select! {
            // Connections beyond this limit wait in the kernel's backlog. When that is full, the kernel drops further
            // ones.
            accepted = listener.accept(), if arrived < 2 * ARRIVALS_MAX => accepted,
            _ = windows.tick() => {
                arrived = 0;
                filter.turn(&connections);
                continue;
            }
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection to the remote API was not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        arrived += 1;
        let connection = connections.enter(from.ip(), Instant::now());
        filter.arrived(&connections, from.ip(), connection.is_none());
        let Some(connection) = connection else {
            continue;
        };
        let socket = settings.socket.clone();
        carried.spawn(async move {
            if let Err(error) = carry(stream, from, socket, &connection).await {
                tracing::debug!(%from, %error, "a connection to the remote API ended");
            }
            drop(connection);
        });
    }
}

/// Lets the kernel drop connections when too many arrive.
#[derive(Debug)]
struct Filter {
    gauge: Gauge,
    sieve: Option<Sieve>,
    began: Instant,
    computed: Duration,
}

impl Filter {
    fn on(listener: &TcpListener) -> Self {
        let sieve = Sieve::on(Kind::Tcp, listener);
        let told = sieve.inspect_err(|error| {
            tracing::warn!(%error, "no filter limits a flood of strangers at the remote API");
        });
        Self {
            gauge: Gauge::new(Kind::Tcp, ARRIVALS_MAX, ARRIVALS_MAX),
            sieve: told.ok(),
            began: Instant::now(),
            computed: processor_time(),
        }
    }

    fn arrived(&mut self, connections: &Connections, from: IpAddr, refused: bool) {
        let (from, now) = (from.to_canonical(), Instant::now());
        let known = connections.served(now).contains(&from);
        if self.gauge.arrived(from, known, refused, now) {
            self.keep(connections, now);
        }
    }

    fn turn(&mut self, connections: &Connections) {
        let (now, computed) = (Instant::now(), processor_time());
        let time = now.duration_since(std::mem::replace(&mut self.began, now));
        let since = computed.saturating_sub(std::mem::replace(&mut self.computed, computed));
        let window = Window {
            dropped: 0,
            busy: busy(since, time),
        };
        self.gauge.turn(window, now);
        self.keep(connections, now);
    }

    fn keep(&mut self, connections: &Connections, now: Instant) {
        if let Some(sieve) = &mut self.sieve {
            sieve.keep_to(self.gauge.rules(connections.served(now)));
        }
    }
}

/// Binds the port beside the socket of `beemesh-ports.service`, which then closes its own.
fn bind(settings: &Settings, port: u16) -> io::Result<TcpListener> {
    let beside = settings
        .listen
        .is_none()
        .then(|| settings.ports.share())
        .flatten();
    let shared = beside.is_some();
    match settings.listen {
        Some(ip) => listen((ip, port).into(), shared),
        // An IPv6 socket that also accepts IPv4. A host without IPv6 gets an IPv4 socket.
        None => match listen((Ipv6Addr::UNSPECIFIED, port).into(), shared) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            Err(_) => listen((Ipv4Addr::UNSPECIFIED, port).into(), shared),
            bound => bound,
        },
    }
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_reuse_port(false)?;
    TcpListener::from_std(socket.into())
}

async fn carry(
    stream: TcpStream,
    from: SocketAddr,
    socket: PathBuf,
    connection: &Connection,
) -> io::Result<()> {
    // TLS runs in the gateway, and is the most expensive operation that a stranger can request of it.
    while let Some(wait) = connection.wait(Instant::now()) {
        sleep(wait).await;
    }
    let line = preamble(from, stream.local_addr()?);
    stream.set_nodelay(true)?;
    let gateway = async {
        let mut gateway = UnixStream::connect(socket).await?;
        gateway.write_all(line.as_bytes()).await?;
        io::Result::Ok(gateway)
    };
    let gateway = timeout(GATEWAY_TIME_MAX, gateway).await??;
    relay(stream, gateway).await.map(drop)
}

/// Returns a line such as `PROXY TCP4 192.0.2.7 192.0.2.1 40112 7443`.
fn preamble(from: SocketAddr, to: SocketAddr) -> String {
    let (from_ip, to_ip) = (from.ip().to_canonical(), to.ip().to_canonical());
    let family = if from_ip.is_ipv4() { "TCP4" } else { "TCP6" };
    format!(
        "PROXY {family} {from_ip} {to_ip} {} {}\r\n",
        from.port(),
        to.port()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_where_from() {
        let line = |from: &str, to: &str| preamble(from.parse().unwrap(), to.parse().unwrap());
        assert_eq!(
            line("[::ffff:192.0.2.7]:40112", "[::ffff:192.0.2.1]:7443"),
            "PROXY TCP4 192.0.2.7 192.0.2.1 40112 7443\r\n"
        );
        assert_eq!(
            line("[2001:db8::7]:40112", "[2001:db8::1]:7443"),
            "PROXY TCP6 2001:db8::7 2001:db8::1 40112 7443\r\n"
        );
    }
}
