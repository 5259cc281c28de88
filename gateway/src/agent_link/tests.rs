use std::future::Future;

use beemesh_protocol::{
    frame::{CONTROL_MAX, FrameCodec},
    ipc::{FromAgent, HostRole, NoStream, Opened, ToAgent},
};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    time::timeout,
};
use tokio_util::codec::{Encoder, Framed};

use super::*;

/// The agent's end of a connection.
type Connection = Framed<UnixStream, FrameCodec>;

struct Agent {
    dir: TempDir,
    listener: UnixListener,
}

impl Agent {
    fn listen() -> Self {
        let dir = TempDir::new().unwrap();
        let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
        Self { dir, listener }
    }

    fn link(&self) -> (Link, mpsc::Receiver<Inbound>) {
        Link::start(&self.dir.path().join("agent.sock"), "1.2.3")
    }

    async fn accept(&self) -> (Connection, Opening) {
        let (stream, _) = soon(self.listener.accept()).await.unwrap();
        let mut connection = Framed::new(stream, FrameCodec::new(CONTROL_MAX));
        let opening = Opening::decode(&soon(connection.next()).await.unwrap().unwrap()).unwrap();
        (connection, opening)
    }

    async fn control(&self) -> Connection {
        let (mut connection, opening) = self.accept().await;
        assert_eq!(
            opening,
            Opening::Control {
                version: "1.2.3".into()
            }
        );
        say(&mut connection, FromAgent::Welcome(welcome())).await;
        say(&mut connection, units(&["web"], false)).await;
        connection
    }
}

fn welcome() -> Welcome {
    Welcome {
        host: HostId([1; 32]),
        name: "h1".into(),
        addresses: Vec::new(),
        version: "1.2.4".into(),
        connected: vec![HostId([2; 32])],
        reserved_ports: Vec::new(),
        name_is_set: false,
    }
}

fn unit(workload: &str) -> UnitState {
    UnitState {
        workload: workload.into(),
        ..UnitState::default()
    }
}

fn units(workloads: &[&str], more: bool) -> FromAgent {
    FromAgent::Units {
        units: workloads.iter().copied().map(unit).collect(),
        more,
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future)
        .await
        .expect("it happens within 10 s")
}

async fn say(connection: &mut Connection, message: FromAgent) {
    soon(connection.send(message.encode())).await.unwrap();
}

async fn hear(connection: &mut Connection) -> ToAgent {
    ToAgent::decode(&soon(connection.next()).await.unwrap().unwrap()).unwrap()
}

fn framed(payload: Bytes, more: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    FrameCodec::new(CONTROL_MAX)
        .encode(payload, &mut bytes)
        .unwrap();
    bytes.extend_from_slice(more);
    bytes
}

#[tokio::test]
async fn units_in_parts_are_believed_when_all_are_there() {
    let agent = Agent::listen();
    let (link, _inbound) = agent.link();
    let (mut synced, mut seen) = (link.synced(), link.units());
    let (mut connection, _) = agent.accept().await;
    say(&mut connection, FromAgent::Welcome(welcome())).await;
    say(&mut connection, units(&["api", "db"], true)).await;
    // Messages arrive in order, so the partial list has arrived too.
    say(
        &mut connection,
        FromAgent::Welcome(Welcome {
            name: "h9".into(),
            ..welcome()
        }),
    )
    .await;
    let mut named = link.welcome();
    soon(named.wait_for(|welcome| welcome.as_ref().is_some_and(|it| it.name == "h9")))
        .await
        .unwrap();
    assert!(!*synced.borrow() && seen.borrow().is_empty());
    say(&mut connection, units(&["web"], false)).await;
    soon(synced.wait_for(|synced| *synced)).await.unwrap();
    assert!(seen.borrow().keys().eq(["api", "db", "web"]));
    // The next parts replace them, also after a connection that ended in the middle of a list.
    say(&mut connection, units(&["lost"], true)).await;
    drop(connection);
    let _connection = agent.control().await;
    soon(synced.wait_for(|synced| *synced)).await.unwrap();
    soon(seen.wait_for(|units| units.keys().eq(["web"])))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_the_agent_says_is_seen_and_what_it_must_know_is_said_again() {
    let agent = Agent::listen();
    let (link, _inbound) = agent.link();
    let members = vec![Member {
        host: HostId([2; 32]),
        name: "h2".into(),
        addresses: Vec::new(),
    }];
    let report = Report {
        role: HostRole::Leader,
        hosts: 2,
        ..Report::default()
    };
    link.members(members.clone());
    link.report(Report::default());
    link.report(report.clone());
    let (mut synced, mut units, mut connected) = (link.synced(), link.units(), link.connected());

    // A frame that is too long, a frame that is not a message, and a connection that ends.
    for garbage in [&b"\xff\xff\xff\xff\x01"[..], b"\x05\0\0\0\x01junk", b""] {
        let mut connection = agent.control().await;
        let mut heard = [hear(&mut connection).await, hear(&mut connection).await];
        heard.sort_by_key(|message| matches!(message, ToAgent::Report(_)));
        assert_eq!(
            heard,
            [
                ToAgent::Members(members.clone()),
                ToAgent::Report(report.clone())
            ]
        );
        soon(synced.wait_for(|synced| *synced)).await.unwrap();
        assert_eq!(link.welcome().borrow().as_ref(), Some(&welcome()));
        assert_eq!(*link.trouble().borrow(), "");
        assert!(units.borrow_and_update().keys().eq(["web"]));

        say(&mut connection, FromAgent::Unit(unit("api"))).await;
        say(
            &mut connection,
            FromAgent::UnitGone {
                workload: "web".into(),
            },
        )
        .await;
        soon(units.wait_for(|units| units.keys().eq(["api"])))
            .await
            .unwrap();
        say(
            &mut connection,
            FromAgent::Peer {
                host: HostId([3; 32]),
                connected: true,
            },
        )
        .await;
        say(
            &mut connection,
            FromAgent::Peer {
                host: HostId([2; 32]),
                connected: false,
            },
        )
        .await;
        soon(connected.wait_for(|peers| **peers == BTreeSet::from([HostId([3; 32])])))
            .await
            .unwrap();
        let lost: Vec<_> = link.lost().into_keys().collect();
        assert_eq!(lost, [HostId([2; 32])], "since when it is unreachable");

        connection.get_mut().write_all(garbage).await.unwrap();
        drop(connection);
        soon(synced.wait_for(|synced| !*synced)).await.unwrap();
        soon(connected.wait_for(|peers| peers.is_empty()))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_request_is_answered_refused_or_lost_but_never_repeated() {
    let agent = Agent::listen();
    let (link, _inbound) = agent.link();
    let ask = || {
        let link = link.clone();
        tokio::spawn(async move { link.request(Request::SyncStorage).await })
    };
    let mut connection = agent.control().await;
    let (first, second) = (ask(), ask());
    let mut ids = Vec::new();
    for _ in 0..2 {
        let ToAgent::Request {
            id,
            body: Request::SyncStorage,
        } = hear(&mut connection).await
        else {
            panic!("not what was asked");
        };
        ids.push(id);
    }
    // The replies may arrive in any order.
    say(
        &mut connection,
        FromAgent::Reply {
            id: ids[1],
            result: Err("disk full".into()),
        },
    )
    .await;
    say(
        &mut connection,
        FromAgent::Reply {
            id: 999,
            result: Ok(Done::Done),
        },
    )
    .await;
    say(
        &mut connection,
        FromAgent::Reply {
            id: ids[0],
            result: Ok(Done::Done),
        },
    )
    .await;
    let answers = [soon(first).await.unwrap(), soon(second).await.unwrap()];
    let mut words: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.map_err(|error| error.to_string()))
        .collect();
    words.sort_by_key(Result::is_err);
    assert_eq!(words, [Ok(Done::Done), Err("disk full".to_owned())]);

    let lost = ask();
    hear(&mut connection).await;
    drop(connection);
    let error = soon(lost).await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the connection to the agent ended during writing the storage to disk"
    );
    let mut connection = agent.control().await;
    assert!(
        timeout(Duration::from_millis(200), connection.next())
            .await
            .is_err(),
        "the lost request is not sent again"
    );
}

#[tokio::test]
async fn a_missing_agent_is_waited_for_in_words() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("agent.sock");
    let (link, _inbound) = Link::start(&path, "1.2.3");
    let mut trouble = link.trouble();
    let waiting = format!(
        "waiting for {}: No such file or directory (os error 2) (attempt 3)",
        path.display()
    );
    soon(trouble.wait_for(|trouble| *trouble == waiting))
        .await
        .unwrap();
    let error = soon(link.request(Request::SyncStorage)).await.unwrap_err();
    assert!(matches!(error, LinkError::Down(_)), "{error}");
    let agent = Agent {
        listener: UnixListener::bind(&path).unwrap(),
        dir,
    };
    let _connection = agent.control().await;
    soon(trouble.wait_for(String::is_empty)).await.unwrap();
}

#[tokio::test]
async fn a_stream_is_handed_over_with_every_byte_of_the_peer() {
    let agent = Agent::listen();
    let (link, mut inbound) = agent.link();
    let mut control = agent.control().await;
    let host = HostId([2; 32]);
    let refused = |why| framed(Opened::Refused(why).encode(), b"");
    let unconnected = NoStream::Other("h2 is not connected".into());
    let cases = [
        (
            framed(Opened::Ready.encode(), b"and the peer's first bytes"),
            Ok(()),
        ),
        (refused(unconnected), Err("h2 is not connected")),
        (
            refused(NoStream::NotMember),
            Err("it does not regard this host as a member"),
        ),
        (
            BytesMut::from(&b"\xff\xff\xff\x7f\x01"[..]),
            Err("read the agent's answer on a stream"),
        ),
        (
            framed(Bytes::from_static(b"junk"), b""),
            Err("decode the agent's answer on a stream"),
        ),
        (BytesMut::new(), Err("read the agent's answer on a stream")),
    ];
    for (answer, expected) in cases {
        let opening = link.open(host, Class::Raft);
        let serving = async {
            let (connection, opening) = agent.accept().await;
            assert_eq!(
                opening,
                Opening::Open {
                    host,
                    class: Class::Raft
                }
            );
            let mut stream = connection.into_inner();
            stream.write_all(&answer).await.unwrap();
        };
        let (opened, ()) = soon(async { tokio::join!(opening, serving) }).await;
        match (opened, expected) {
            (Ok(mut stream), Ok(())) => {
                let mut bytes = Vec::new();
                soon(stream.read_to_end(&mut bytes)).await.unwrap();
                assert_eq!(bytes, b"and the peer's first bytes");
            }
            (opened, expected) => {
                assert_eq!(
                    opened.map(drop).map_err(|error| error.to_string()),
                    expected.map_err(str::to_owned)
                );
            }
        }
    }

    say(
        &mut control,
        FromAgent::Incoming {
            stream: 5,
            host,
            class: Class::Peer,
        },
    )
    .await;
    let (connection, opening) = agent.accept().await;
    assert_eq!(opening, Opening::Accept { stream: 5 });
    connection
        .into_inner()
        .write_all(&framed(Opened::Ready.encode(), b"hello"))
        .await
        .unwrap();
    let Some(Inbound::Stream {
        host: from,
        class: Class::Peer,
        mut stream,
    }) = soon(inbound.recv()).await
    else {
        panic!("no stream of that class");
    };
    let mut bytes = Vec::new();
    soon(stream.read_to_end(&mut bytes)).await.unwrap();
    assert_eq!((from, bytes), (host, b"hello".to_vec()));
}

#[tokio::test]
async fn an_application_reaches_the_gateway_and_its_answer_the_agent() {
    let agent = Agent::listen();
    let (link, mut inbound) = agent.link();
    let mut control = agent.control().await;
    let request = JoinRequest {
        cluster: beemesh_protocol::ClusterId([7; 16]),
        token: [1; 8],
        secret: [2; 32],
        name: "h9".into(),
        addresses: vec!["/ip4/192.0.2.9/udp/4701/quic-v1".into()],
        replace: None,
    };
    say(
        &mut control,
        FromAgent::JoinRequest {
            id: 3,
            host: HostId([9; 32]),
            request: request.clone(),
        },
    )
    .await;
    let Some(Inbound::Join {
        id,
        host,
        request: heard,
    }) = soon(inbound.recv()).await
    else {
        panic!("no application");
    };
    assert_eq!((id, host, heard), (3, HostId([9; 32]), request));
    let answer = JoinAnswer::Refused {
        reason: "the token has expired".into(),
    };
    link.join_answer(3, answer.clone());
    assert_eq!(
        hear(&mut control).await,
        ToAgent::JoinAnswer { id: 3, answer }
    );
}
