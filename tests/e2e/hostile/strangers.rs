//! Attacks of strangers on the memory and CPU time of a member. Each returns its result.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use futures::{AsyncReadExt, AsyncWriteExt, future::join_all};
use libp2p::{identity::Keypair, quic};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use crate::wire::{self, ANSWER_MAX, Quic};

/// The time limit for a connection that must end at once.
const AT_ONCE: Duration = Duration::from_secs(3);
/// The number of connections that one address attempts.
const CONNECTIONS: usize = 8;
/// The number of simultaneous dials whose first datagram is recorded: no more than a socket's buffer holds.
const RECORDED: usize = 48;

/// Whether a connection ends at its second stream, opened after the first, over TCP and over QUIC.
pub(crate) async fn second_stream_ends_it(to: SocketAddr) -> io::Result<[bool; 2]> {
    let key = Keypair::generate_ed25519();
    let mut connection = wire::secured(to, &key).await?;
    let mut answer = [0; 64];
    for first in [1, 3] {
        connection
            .write_all(&wire::yamux_streams(first, 1, "/nothing"))
            .await?;
        connection.flush().await?;
        sleep(Duration::from_millis(300)).await;
    }
    let ended = async { while !matches!(connection.read(&mut answer).await, Ok(0) | Err(_)) {} };
    let tcp = timeout(AT_ONCE, ended).await.is_ok();

    let mut connection = Quic::connect(to, &Keypair::generate_ed25519()).await?;
    let refused = |answer: io::Result<_>| answer.is_err_and(|error| error.to_string() == "na");
    let first = connection.agreed("/nothing").await;
    assert!(refused(first), "it is a stranger's");
    let ended = async {
        while refused(connection.agreed("/nothing").await) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let quic = timeout(AT_ONCE, ended).await.is_ok();
    Ok([tcp, quic])
}

/// Opens streams on connections from some addresses, each with all the data that may be sent before it is read.
pub(crate) async fn hoard(from: &[IpAddr], to: SocketAddr, time: Duration) {
    let begun = Instant::now();
    let by_tcp = from
        .iter()
        .flat_map(|from| [*from; CONNECTIONS])
        .map(async |from| {
            while begun.elapsed() < time {
                let _ = hoard_once(from, to).await;
                sleep(Duration::from_millis(100)).await;
            }
        });
    let by_quic = from
        .iter()
        .flat_map(|from| [*from; CONNECTIONS])
        .map(async |from| {
            while begun.elapsed() < time {
                let _ = hoard_by_quic(from, to).await;
                sleep(Duration::from_millis(100)).await;
            }
        });
    tokio::join!(join_all(by_tcp), join_all(by_quic));
}

async fn hoard_once(from: IpAddr, to: SocketAddr) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let stream = timeout(ANSWER_MAX, socket.connect(to)).await??;
    let mut connection = wire::secured_over(stream, &Keypair::generate_ed25519()).await?;
    let sent = async {
        for number in 0..128_u32 {
            let (first, more): (&[u8], usize) = if number < 32 {
                (b"\x80", 0)
            } else {
                (&[7; 16 << 10], 15)
            };
            for at in 0..=more {
                connection
                    .write_all(&wire::yamux_data(2 * number + 1, at == 0, first))
                    .await?;
            }
            connection.flush().await?;
        }
        // The streams stay open until the member ends them.
        connection.read(&mut [0; 1]).await
    };
    timeout(2 * ANSWER_MAX, sent).await?.map(drop)
}

/// Opens streams with endless names and streams with all the data that may be sent, as fast as possible.
async fn hoard_by_quic(from: IpAddr, to: SocketAddr) -> io::Result<()> {
    let mut connection = Quic::connect_from(from, to, &Keypair::generate_ed25519()).await?;
    let mut streams = Vec::new();
    for number in 0..64 {
        let mut stream = connection.stream().await?;
        if number < 32 {
            stream.write_all(b"\x80").await?;
        }
        streams.push(stream);
    }
    let piece = vec![7; 2 << 20];
    let sent = streams[32..]
        .iter_mut()
        .map(|stream| stream.write_all(&piece));
    timeout(ANSWER_MAX, join_all(sent)).await?;
    Ok(())
}

/// The first datagrams of different clients over QUIC.
pub(crate) async fn initials(count: usize) -> io::Result<Vec<Vec<u8>>> {
    let sink = UdpSocket::bind("127.0.0.1:0").await?;
    let here = sink.local_addr()?;
    let mut transport =
        quic::tokio::Transport::new(quic::Config::new(&Keypair::generate_ed25519()));
    let (mut seen, mut found) = (HashSet::new(), Vec::new());
    while found.len() < count {
        let dials = (0..RECORDED).map(|_| wire::dial(&mut transport, here));
        let dials: Vec<_> = dials.collect::<io::Result<_>>()?;
        let record = async {
            let (mut datagram, wanted) = (vec![0; 2 << 10], found.len() + RECORDED);
            while found.len() < wanted {
                let length = sink.recv(&mut datagram).await?;
                let id = datagram.get(6..14).map(<[u8]>::to_vec);
                if length >= 1200 && seen.insert(id) {
                    found.push(datagram[..length].to_vec());
                }
            }
            io::Result::Ok(())
        };
        tokio::select! {
            _ = join_all(dials) => {}
            recorded = timeout(Duration::from_millis(500), record) => drop(recorded),
        }
    }
    Ok(found)
}

/// Sends those datagrams from many addresses at this rate per second; returns the number sent.
pub(crate) async fn send(
    initials: &[Vec<u8>],
    from: &[IpAddr],
    to: SocketAddr,
    rate: u32,
    time: Duration,
) -> io::Result<usize> {
    let mut sockets = Vec::new();
    for from in from {
        sockets.push(UdpSocket::bind((*from, 0)).await?);
    }
    let (begun, mut sent) = (Instant::now(), 0);
    while begun.elapsed() < time {
        let due = begun.elapsed().as_secs_f64() * f64::from(rate);
        while (sent as f64) < due {
            // A datagram lost in a full buffer is sent the next time.
            let _ = sockets[sent % sockets.len()]
                .send_to(&initials[sent % initials.len()], to)
                .await;
            sent += 1;
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(sent)
}

/// Opens silent TCP connections repeatedly, some from each address at a time; returns their number.
pub(crate) async fn ring(from: &[IpAddr], to: SocketAddr, time: Duration) -> usize {
    let begun = Instant::now();
    let all = from.iter().flat_map(|from| [*from; CONNECTIONS]);
    let all = all.map(async |from| {
        let mut connected = 0;
        while begun.elapsed() < time {
            let dialled = timeout(Duration::from_millis(500), connect(Some(from), to)).await;
            if let Ok(Ok(stream)) = dialled {
                // At once, and without a FIN that would leave the address in TIME_WAIT.
                let _ = stream.set_zero_linger();
                connected += 1;
            } else {
                sleep(Duration::from_millis(20)).await;
            }
        }
        connected
    });
    join_all(all).await.into_iter().sum()
}

/// Begins TLS at the remote API repeatedly, from one address and all addresses in the same /64; returns the number of
/// answers.
pub(crate) async fn knock(from: &[IpAddr], to: SocketAddr, time: Duration) -> usize {
    let begun = Instant::now();
    let all = from.iter().map(async |from| {
        let mut answered = 0;
        while begun.elapsed() < time {
            match hello(Some(*from), to).await {
                Ok(()) => answered += 1,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
        answered
    });
    join_all(all).await.into_iter().sum()
}

/// Opens silent connections, one from each of these addresses, for some time; returns the number that are open at the
/// end.
pub(crate) async fn occupy(from: &[IpAddr], to: SocketAddr, time: Duration) -> usize {
    let all = from.iter().map(async |from| {
        let mut stream = connect(Some(*from), to).await.ok()?;
        timeout(time, stream.read_u8()).await.err()
    });
    join_all(all).await.into_iter().flatten().count()
}

async fn connect(from: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(from) = from {
        socket.bind((from, 0).into())?;
    }
    timeout(AT_ONCE, socket.connect(to)).await?
}

/// Sends a client's first TLS record to the remote API and waits for the answer.
pub(crate) async fn hello(from: Option<IpAddr>, to: SocketAddr) -> io::Result<()> {
    let mut stream = connect(from, to).await?;
    stream.write_all(&client_hello()).await?;
    match timeout(AT_ONCE, stream.read_u8()).await?? {
        // A record of the handshake.
        0x16 => Ok(()),
        other => Err(wire::other(other)),
    }
}

/// A client hello of TLS 1.3 with X25519 and ECDSA over P-256.
fn client_hello() -> Vec<u8> {
    let extensions = [
        &b"\x00\x2b\x00\x03\x02\x03\x04"[..],
        b"\x00\x0a\x00\x04\x00\x02\x00\x1d",
        b"\x00\x0d\x00\x04\x00\x02\x04\x03",
        b"\x00\x33\x00\x26\x00\x24\x00\x1d\x00\x20",
        &[9; 32],
    ]
    .concat();
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).expect("short").to_be_bytes();
    let body = [
        &b"\x03\x03"[..],
        &[5; 32],
        b"\x20",
        &[6; 32],
        b"\x00\x02\x13\x01\x01\x00",
        &length(&extensions),
        &extensions,
    ]
    .concat();
    let message = [&b"\x01\x00"[..], &length(&body), &body].concat();
    [&b"\x16\x03\x01"[..], &length(&message), &message].concat()
}
