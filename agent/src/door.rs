//! The door for users elsewhere: a TCP port whose connections the gateway takes.
//!
//! Shell: reads nothing, decides nothing but how many. Each connection goes to the gateway's socket as it is, after one line of the
//! PROXY protocol, version 1, that says where it comes from; TLS and users are the gateway's.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream, UnixStream},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::relay::relay;

/// Connections at once, as many as the gateway takes.
const CONNECTIONS_MAX: usize = 256;
/// Connections from one address.
const ONE_ADDRESS_MAX: usize = 32;
/// The gateway's socket answers at once, or the gateway is not there.
const GATEWAY_TIME_MAX: Duration = Duration::from_secs(2);
/// Before another attempt to listen, and after a connection that was not accepted.
const LISTEN_PAUSE: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the door opens on and to.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Only this address; all when none is given.
    pub(crate) listen: Option<IpAddr>,
    /// The gateway's socket.
    pub(crate) socket: PathBuf,
}

/// Open or closed.
#[derive(Debug)]
pub(crate) struct Door {
    settings: Settings,
    open: Option<(u16, JoinHandle<()>)>,
}

impl Door {
    /// Closed as yet.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            open: None,
        }
    }

    /// Opens on this port, or closes: then every connection ends.
    pub(crate) fn keep(&mut self, port: Option<u16>) {
        if self.open.as_ref().map(|(port, _)| *port) == port {
            return;
        }
        if let Some((port, task)) = self.open.take() {
            task.abort();
            tracing::info!(port, "the remote API is closed");
        }
        let settings = self.settings.clone();
        self.open = port.map(|port| (port, tokio::spawn(serve(settings, port))));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.keep(None);
    }
}

async fn serve(settings: Settings, port: u16) {
    let mut said = false;
    let listener = loop {
        match bind(settings.listen, port).await {
            Ok(listener) => break listener,
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::error!(port, %error, "the remote API cannot listen; trying again");
                }
                sleep(LISTEN_PAUSE).await;
            }
        }
    };
    tracing::info!(port, "the remote API is open");
    let guests = Guests::default();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection to the remote API was not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(guest) = guests.enter(from.ip().to_canonical()) else {
            continue;
        };
        let socket = settings.socket.clone();
        connections.spawn(async move {
            if let Err(error) = carry(stream, from, socket).await {
                tracing::debug!(%from, %error, "a connection to the remote API ended");
            }
            drop(guest);
        });
    }
}

async fn bind(listen: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    match listen {
        Some(ip) => TcpListener::bind((ip, port)).await,
        // Takes IPv4 too; a host without IPv6 has only that.
        None => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
            bound => bound,
        },
    }
}

async fn carry(stream: TcpStream, from: SocketAddr, socket: PathBuf) -> io::Result<()> {
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

/// `PROXY TCP4 192.0.2.7 192.0.2.1 40112 7443`.
fn preamble(from: SocketAddr, to: SocketAddr) -> String {
    let (from_ip, to_ip) = (from.ip().to_canonical(), to.ip().to_canonical());
    let family = if from_ip.is_ipv4() { "TCP4" } else { "TCP6" };
    format!(
        "PROXY {family} {from_ip} {to_ip} {} {}\r\n",
        from.port(),
        to.port()
    )
}

/// Who is connected. A stranger that opens many connections keeps nobody else out for long.
#[derive(Debug, Clone, Default)]
struct Guests {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection; its place is free again when this is dropped.
#[derive(Debug)]
struct Guest {
    guests: Guests,
    ip: IpAddr,
}

impl Guests {
    fn enter(&self, ip: IpAddr) -> Option<Guest> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let own = counts.get(&ip).copied().unwrap_or(0);
        if all >= CONNECTIONS_MAX || own >= ONE_ADDRESS_MAX {
            return None;
        }
        counts.insert(ip, own + 1);
        Some(Guest {
            guests: self.clone(),
            ip,
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let counts = &self.guests.counts;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.ip) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.ip)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_its_share_and_all_have_theirs() {
        let guests = Guests::default();
        let ip = |n: u32| IpAddr::V4(Ipv4Addr::from(n));
        let first: Vec<_> = (0..ONE_ADDRESS_MAX)
            .filter_map(|_| guests.enter(ip(1)))
            .collect();
        assert_eq!(first.len(), ONE_ADDRESS_MAX);
        assert!(guests.enter(ip(1)).is_none());
        let others: Vec<_> = (2..1000).filter_map(|n| guests.enter(ip(n))).collect();
        assert_eq!(first.len() + others.len(), CONNECTIONS_MAX);
        drop(first);
        assert!(guests.enter(ip(1)).is_some());
        drop(others);
        assert!(guests.counts.lock().unwrap().is_empty());
    }

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
