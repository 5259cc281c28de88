//! Tests the router between real sockets and real meshes on loopback, in one process.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use beemesh_protocol::{
    ClusterId,
    frame::{CONTROL_MAX, FrameCodec},
    ipc::{NoStream, Opened, Opening, Welcome},
    mesh::JoinRequest,
};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream, UdpSocket, UnixStream},
    sync::mpsc,
    time::timeout,
};
use tokio_util::codec::Framed;

use super::*;
use crate::{
    mesh::{self, identity},
    ports::Ports,
    socket::ipc,
};

/// The limit of every wait in these tests.
const PATIENCE: Duration = Duration::from_secs(15);

/// An agent without systemd: mesh, socket and router.
struct Host {
    id: HostId,
    name: &'static str,
    addresses: Vec<String>,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

#[derive(Clone, Copy, PartialEq)]
enum Transport {
    Quic,
    Tcp,
}

impl Host {
    async fn start(name: &'static str, transport: Transport) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = identity::load_or_make(&folder.path().join("identity")).unwrap();
        let id = identity.host;
        let settings = mesh::Settings {
            listen: Some(Ipv4Addr::LOCALHOST.into()),
            port: 0,
            mdns: false,
            ports: Ports::new(folder.path().join("no-holder.sock")),
        };
        let (mesh, mut mesh_events) = Mesh::start(&identity, &settings).await.unwrap();
        let listening = mesh.listening().borrow().clone();
        let addresses = listening.iter().map(ToString::to_string);
        let addresses: Vec<String> = addresses
            .filter(|address| address.contains("quic") == (transport == Transport::Quic))
            .collect();
        let socket = folder.path().join("agent.sock");
        let (events, mut ipc_events) = mpsc::channel(16);
        tokio::spawn(ipc::serve(ipc::bind(&socket).unwrap(), events));
        let mut router = Router::new(mesh.clone());
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(100));
            loop {
                let asked = tokio::select! {
                    Some(event) = ipc_events.recv() => router.on_ipc(event),
                    Some(Ok(event)) = mesh_events.recv() => {
                        router.on_mesh(event, Instant::now());
                        None
                    }
                    _ = tick.tick() => {
                        router.due(Instant::now());
                        None
                    }
                };
                match asked {
                    Some(Asked::Everything) => router.tell(FromAgent::Welcome(Welcome {
                        host: id,
                        name: name.to_owned(),
                        addresses: Vec::new(),
                        version: String::new(),
                        connected: router.connected().iter().copied().collect(),
                        reserved_ports: Vec::new(),
                        name_is_set: false,
                    })),
                    Some(Asked::Request {
                        id,
                        request:
                            Request::Join {
                                host,
                                addresses,
                                request,
                            },
                    }) => {
                        let result = mesh.apply(host, &addresses, &request).await;
                        let result = result.map(beemesh_protocol::ipc::Done::Joined);
                        router.tell(FromAgent::Reply { id, result });
                    }
                    _ => {}
                }
            }
        });
        Self {
            id,
            name,
            addresses,
            socket,
            _folder: folder,
        }
    }

    fn member(&self) -> Member {
        Member {
            host: self.id,
            name: self.name.to_owned(),
            addresses: self.addresses.clone(),
        }
    }

    async fn dial(&self, opening: Opening) -> Framed<UnixStream, FrameCodec> {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let mut framed = Framed::new(stream, FrameCodec::new(CONTROL_MAX));
        framed.send(opening.encode()).await.unwrap();
        framed
    }

    async fn gateway(&self, members: &[&Host]) -> Gateway {
        let version = "1".to_owned();
        let mut gateway = Gateway(self.dial(Opening::Control { version }).await);
        let welcome = gateway.hear().await;
        let FromAgent::Welcome(welcome) = welcome else {
            panic!("{welcome:?}")
        };
        assert_eq!(welcome.host, self.id);
        gateway.members(members).await;
        gateway
    }

    /// Opens a stream; `Err` has the agent's reason.
    async fn open(&self, host: &Host, class: Class) -> Result<UnixStream, NoStream> {
        let host = host.id;
        opened(self.dial(Opening::Open { host, class }).await).await
    }

    async fn accept(&self, stream: u64) -> Result<UnixStream, NoStream> {
        opened(self.dial(Opening::Accept { stream }).await).await
    }
}

async fn opened(mut framed: Framed<UnixStream, FrameCodec>) -> Result<UnixStream, NoStream> {
    let frame = timeout(PATIENCE, framed.next()).await.unwrap().unwrap();
    match Opened::decode(&frame.unwrap()).unwrap() {
        Opened::Ready => {
            assert_eq!(framed.read_buffer().len(), 0);
            Ok(framed.into_inner())
        }
        Opened::Refused(why) => Err(why),
    }
}

/// The gateway's end of a control connection.
struct Gateway(Framed<UnixStream, FrameCodec>);

impl Gateway {
    async fn say(&mut self, message: ToAgent) {
        self.0.send(message.encode()).await.unwrap();
    }

    async fn members(&mut self, hosts: &[&Host]) {
        let list = hosts.iter().map(|host| host.member()).collect();
        self.say(ToAgent::Members(list)).await;
    }

    async fn hear(&mut self) -> FromAgent {
        let frame = timeout(PATIENCE, self.0.next()).await;
        let frame = frame.expect("the agent says something").unwrap().unwrap();
        FromAgent::decode(&frame).unwrap()
    }

    async fn hear_peer(&mut self, host: &Host, connected: bool) {
        let host = host.id;
        while self.hear().await != (FromAgent::Peer { host, connected }) {}
    }

    async fn hear_incoming(&mut self, from: &Host, class: Class) -> u64 {
        loop {
            if let FromAgent::Incoming {
                stream,
                host,
                class: found,
            } = self.hear().await
            {
                assert_eq!((host, found), (from.id, class));
                return stream;
            }
        }
    }
}

/// Two connected members with their gateways.
async fn pair(transport: Transport) -> (Host, Gateway, Host, Gateway) {
    let a = Host::start("a", transport).await;
    let b = Host::start("b", transport).await;
    let mut at_a = a.gateway(&[&a, &b]).await;
    let mut at_b = b.gateway(&[&a, &b]).await;
    at_a.hear_peer(&b, true).await;
    at_b.hear_peer(&a, true).await;
    (a, at_a, b, at_b)
}

/// Opens a stream from one to the other, and returns both ends.
async fn stream(
    from: &Host,
    to: &Host,
    at: &mut Gateway,
    class: Class,
) -> (UnixStream, UnixStream) {
    let accept = async {
        let stream = at.hear_incoming(from, class).await;
        to.accept(stream).await.unwrap()
    };
    let (near, far) = tokio::join!(from.open(to, class), accept);
    (near.unwrap(), far)
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_with_back_pressure_and_half_close() {
    for transport in [Transport::Quic, Transport::Tcp] {
        let (a, _at_a, b, mut at_b) = pair(transport).await;
        let (mut near, mut far) = stream(&a, &b, &mut at_b, Class::Snapshot).await;

        // Without a reader the writer must stall, with no more bytes in flight than windows and buffers hold.
        let block = vec![7; 1 << 20];
        let mut sent = 0;
        while let Ok(written) = timeout(Duration::from_secs(1), near.write(&block)).await {
            sent += written.unwrap();
            assert!(sent < 32 << 20, "no back pressure");
        }
        // The other direction is not affected.
        far.write_all(b"still here").await.unwrap();
        let mut words = [0; 10];
        near.read_exact(&mut words).await.unwrap();
        assert_eq!(&words, b"still here");

        near.shutdown().await.unwrap();
        let mut received = Vec::new();
        timeout(PATIENCE, far.read_to_end(&mut received))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(received.len(), sent);
        assert!(received.iter().all(|byte| *byte == 7));
        far.write_all(b"thank you").await.unwrap();
        drop(far);
        let mut rest = String::new();
        timeout(PATIENCE, near.read_to_string(&mut rest))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(rest, "thank you");
    }
}

#[tokio::test]
async fn a_burst_of_streams_is_taken_whole_and_one_not_taken_is_refused() {
    let (a, _at_a, b, mut at_b) = pair(Transport::Quic).await;
    let opens = (0..24).map(|_| a.open(&b, Class::Peer));
    let opens = futures::future::join_all(opens);
    let accepts = async {
        let mut taken = Vec::new();
        for _ in 0..24 {
            let stream = at_b.hear_incoming(&a, Class::Peer).await;
            taken.push(b.accept(stream).await.unwrap());
        }
        taken
    };
    let (opened, taken) = tokio::join!(opens, accepts);
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    drop((opened, taken));

    let (refused, stream) =
        tokio::join!(a.open(&b, Class::Raft), at_b.hear_incoming(&a, Class::Raft));
    let other = |words: &str| NoStream::Other(words.to_owned());
    let expected = other("its gateway did not take the stream in time");
    assert_eq!(refused.unwrap_err(), expected);
    let late = b.accept(stream).await.unwrap_err();
    assert_eq!(late, other(&format!("stream {stream} has ended")));
    drop(at_b);
    let reason = loop {
        // The agent notices the end of the control connection asynchronously.
        let reason = a.open(&b, Class::Raft).await.unwrap_err();
        if reason != expected {
            break reason;
        }
    };
    assert_eq!(reason, other("its gateway is not running"));
}

#[tokio::test]
async fn a_stranger_may_apply_and_nothing_else() {
    for transport in [Transport::Quic, Transport::Tcp] {
        let a = Host::start("a", transport).await;
        let s = Host::start("s", transport).await;
        let mut at_a = a.gateway(&[&a]).await;
        // The stranger's own list says that it is a member.
        let mut at_s = s.gateway(&[&a, &s]).await;
        at_s.hear_peer(&a, true).await;
        let refused = s.open(&a, Class::Raft).await.unwrap_err();
        assert_eq!(refused, NoStream::NotMember);

        let request = JoinRequest {
            cluster: ClusterId([1; 16]),
            token: [2; 8],
            secret: [3; 32],
            name: "s".to_owned(),
            addresses: s.addresses.clone(),
            replace: None,
        };
        let join = |id| ToAgent::Request {
            id,
            body: Request::Join {
                host: a.id,
                addresses: a.addresses.clone(),
                request: request.clone(),
            },
        };
        let answer = JoinAnswer::Admitted {
            cluster: request.cluster,
            members: vec![a.member(), s.member()],
        };
        at_s.say(join(1)).await;
        let FromAgent::JoinRequest {
            id,
            host,
            request: heard,
        } = at_a.hear().await
        else {
            panic!("no application")
        };
        assert_eq!((host, &heard), (s.id, &request));
        // The member list arrives before the answer, but the applicant must still get the answer.
        at_a.members(&[&a, &s]).await;
        at_a.say(ToAgent::JoinAnswer {
            id,
            answer: answer.clone(),
        })
        .await;
        let reply = loop {
            if let FromAgent::Reply { id: 1, result } = at_s.hear().await {
                break result;
            }
        };
        assert_eq!(reply, Ok(beemesh_protocol::ipc::Done::Joined(answer)));
        // The host is a member now, and its connection a member's.
        at_a.hear_peer(&s, true).await;
        let (mut near, mut far) = stream(&s, &a, &mut at_a, Class::Api).await;
        near.write_all(b"hello").await.unwrap();
        let mut words = [0; 5];
        far.read_exact(&mut words).await.unwrap();
        assert_eq!(&words, b"hello");

        // After the removal, open streams end at once and no new one begins.
        at_a.members(&[&a]).await;
        at_a.hear_peer(&s, false).await;
        let ended = timeout(PATIENCE, near.read(&mut words)).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        let ended = timeout(PATIENCE, far.read(&mut words)).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        assert!(s.open(&a, Class::Raft).await.is_err());
        assert_eq!(
            a.open(&s, Class::Raft).await.unwrap_err(),
            NoStream::Other(format!("{} is not connected", s.id))
        );

        drop(at_a);
        at_s.say(join(2)).await;
        let reply = loop {
            if let FromAgent::Reply { id: 2, result } = at_s.hear().await {
                break result;
            }
        };
        let reason = "the gateway of this member is not running, ask another one";
        let reason = reason.to_owned();
        assert_eq!(
            reply,
            Ok(beemesh_protocol::ipc::Done::Joined(JoinAnswer::Refused {
                reason
            }))
        );
    }
}

#[tokio::test]
async fn garbage_too_much_and_slowness_end_only_their_own_connection() {
    let (a, _at_a, b, mut at_b) = pair(Transport::Tcp).await;
    let port = a.addresses[0].rsplit('/').next().unwrap();
    let port: u16 = port.parse().unwrap();
    let control = Opening::Control {
        version: "x".to_owned(),
    };
    let mut prefixed = Vec::from(
        u32::try_from(control.encode().len() + 1)
            .unwrap()
            .to_le_bytes(),
    );
    prefixed.push(1);
    prefixed.extend(control.encode());
    let bad: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0; 64],
        &[0xff; 4096],
        b"\xff\xff\xff\x7f\x01",
        b"\x05\0\0\0\x01abcd",
        &prefixed[..9],
    ];
    let to_socket = bad.iter().map(async |bytes| {
        let mut stream = UnixStream::connect(&a.socket).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .unwrap()
            .ok();
        assert_eq!(rest, b"");
    });
    let to_mesh = bad.iter().map(async |bytes| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // The negotiation may succeed before the refusal; only the end of the stream counts.
        timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .unwrap()
            .ok();
    });
    let slow = async {
        let mut stream = UnixStream::connect(&a.socket).await.unwrap();
        for byte in &prefixed {
            if stream.write_all(std::slice::from_ref(byte)).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("nobody minded");
    };
    // Other clients are served in the meantime.
    let served = async {
        for _ in 0..5 {
            let (mut near, mut far) = stream(&a, &b, &mut at_b, Class::Api).await;
            near.write_all(b"hello").await.unwrap();
            let mut words = [0; 5];
            far.read_exact(&mut words).await.unwrap();
            assert_eq!(&words, b"hello");
        }
    };
    tokio::join!(
        futures::future::join_all(to_socket),
        futures::future::join_all(to_mesh),
        slow,
        served
    );

    // An invalid message on a control connection ends that connection; a new one is served.
    let mut gateway = a.gateway(&[&a, &b]).await;
    gateway
        .0
        .send(Bytes::from_static(b"nonsense"))
        .await
        .unwrap();
    while timeout(PATIENCE, gateway.0.next()).await.unwrap().is_some() {}
    let mut gateway = a.gateway(&[&a, &b]).await;
    // A newer control connection replaces the older one.
    let _newer = a.gateway(&[&a, &b]).await;
    while timeout(PATIENCE, gateway.0.next()).await.unwrap().is_some() {}
    stream(&a, &b, &mut at_b, Class::Api).await;
}

/// Forwards to a port of loopback until it is told to fall silent, as a network does when a host loses its power.
/// Returns its own port.
async fn proxy(to: u16, transport: Transport, silent: Arc<AtomicBool>) -> u16 {
    let any = (Ipv4Addr::LOCALHOST, 0);
    let to = (Ipv4Addr::LOCALHOST, to);
    match transport {
        Transport::Quic => {
            let (near, far) = (
                UdpSocket::bind(any).await.unwrap(),
                UdpSocket::bind(any).await.unwrap(),
            );
            far.connect(to).await.unwrap();
            let port = near.local_addr().unwrap().port();
            tokio::spawn(async move {
                let (mut up, mut down) = ([0; 2048], [0; 2048]);
                let mut client = near.local_addr().unwrap();
                while !silent.load(Ordering::Relaxed) {
                    // A socket without a reader returns an error, which must not end the proxy.
                    tokio::select! {
                        Ok((length, from)) = near.recv_from(&mut up) => {
                            client = from;
                            far.send(&up[..length]).await.ok();
                        }
                        Ok(length) = far.recv(&mut down) => {
                            near.send_to(&down[..length], client).await.ok();
                        }
                    }
                }
                std::future::pending::<()>().await;
                drop((near, far));
            });
            port
        }
        Transport::Tcp => {
            let listener = TcpListener::bind(any).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut far = TcpStream::connect(to).await.unwrap();
                let (mut up, mut down) = ([0; 2048], [0; 2048]);
                while !silent.load(Ordering::Relaxed) {
                    tokio::select! {
                        Ok(length) = near.read(&mut up) => far.write_all(&up[..length]).await.unwrap(),
                        Ok(length) = far.read(&mut down) => near.write_all(&down[..length]).await.unwrap(),
                    }
                }
                std::future::pending::<()>().await;
                drop((listener, near, far));
            });
            port
        }
    }
}

#[tokio::test]
async fn a_member_that_falls_silent_is_noticed_on_both_sides() {
    for transport in [Transport::Quic, Transport::Tcp] {
        let a = Host::start("a", transport).await;
        let b = Host::start("b", transport).await;
        let silent = Arc::new(AtomicBool::new(false));
        let direct = b.addresses[0].clone();
        let port = direct.split('/').nth(4).unwrap();
        let through = proxy(port.parse().unwrap(), transport, Arc::clone(&silent)).await;
        let member = |host: &Host, addresses| Member {
            addresses,
            ..host.member()
        };
        let mut at_a = a.gateway(&[]).await;
        let mut at_b = b.gateway(&[]).await;
        let far = vec![direct.replace(port, &through.to_string())];
        at_a.say(ToAgent::Members(vec![a.member(), member(&b, far)]))
            .await;
        at_b.say(ToAgent::Members(vec![b.member(), member(&a, Vec::new())]))
            .await;
        at_a.hear_peer(&b, true).await;
        at_b.hear_peer(&a, true).await;

        // Idle connections stay.
        let idle = timeout(Duration::from_secs(5), at_a.hear_peer(&b, false)).await;
        assert!(idle.is_err(), "an idle connection was lost");

        let (mut near, mut far) = stream(&a, &b, &mut at_b, Class::Peer).await;
        silent.store(true, Ordering::Relaxed);
        let begin = Instant::now();
        tokio::join!(at_a.hear_peer(&b, false), at_b.hear_peer(&a, false));
        // About 3 s; the limit allows for a machine that is busy with other tests.
        let noticed = begin.elapsed();
        println!("noticed after {noticed:?}");
        assert!(noticed < Duration::from_secs(8), "{noticed:?}");
        for stream in [&mut near, &mut far] {
            let ended = timeout(PATIENCE, stream.read(&mut [0])).await.unwrap();
            assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        }
    }
}
