//! One value of every message and of every variant in it.

#[path = "access.rs"]
mod access;
#[path = "assignments.rs"]
mod assignments;
#[path = "pod.rs"]
mod pod_values;
mod policy;
#[path = "raft.rs"]
mod raft_values;
#[path = "replies.rs"]
mod replies;
mod rollouts;

use std::collections::BTreeMap;

use beemesh_protocol::{
    ClusterId, DecodeError, HostId,
    ipc::{
        Checked, Class, Done, FromAgent, HostRole, Listener, Member, NoStream, Opened, Opening,
        PortAsked, Report, Request, ToAgent, Transport, UnitFiles, UnitState, Welcome,
    },
    mesh::{Contact, JoinAnswer, JoinRequest, NO_TOKEN, Replace, StreamOpening},
    peer::{self, Action, Committed, Effect, HostReport, Outcome, Phase, Refusal, WorkloadReport},
    pod::{ContainerReport, PodReport, Told},
    raft::{
        self, Entry, LogId, Membership, Payload, SnapshotFile, SnapshotHead, SnapshotMeta,
        SnapshotReply, StoredMembership, Vote,
    },
    state::{
        Change, Command, Host, Kind, ManifestRecord, Object, Reference, Snapshot, TokenRecord,
        WorkloadRecord,
    },
    token::Token,
};

use pod_values::{containers, pod_reports};
use raft_values::{entries, log_id, meta, vote};
use replies::peer_replies;

type Read = Box<dyn Fn(&[u8]) -> Result<bool, DecodeError>>;

/// A value, its bytes, and the value that they must decode to.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Decodes bytes, and returns whether the result is the value.
    pub(crate) read: Read,
}

macro_rules! cases {
    ($( $type:ty, $name:literal: $values:expr; )*) => {{
        let mut cases = Vec::new();
        $( for (at, value) in $values.into_iter().enumerate() {
            let value: $type = value;
            cases.push(Case {
                name: format!("{}.{at:02}", $name),
                bytes: value.encode().to_vec(),
                read: Box::new(move |bytes| Ok(<$type>::decode(bytes)? == value)),
            });
        } )*
        cases
    }};
}

pub(crate) fn cases() -> Vec<Case> {
    cases! {
        Opening, "opening": [
            Opening::Control { version: "0.1.0".into() },
            Opening::Open { host: host(1), class: Class::Raft },
            Opening::Accept { stream: 1 << 40 },
        ];
        Opened, "opened": [Opened::Ready, Opened::Refused(NoStream::Other("no such stream".into()))];
        Opened, "opened_not_member": [Opened::Refused(NoStream::NotMember)];
        ToAgent, "to_agent_role": [
            HostRole::Joining, HostRole::Leader, HostRole::Follower, HostRole::Candidate, HostRole::Learner, HostRole::Stopped,
            HostRole::Removed, HostRole::Other("observer".into()),
        ].map(|role| ToAgent::Report(Report { role, ..Report::default() }));
        ToAgent, "to_agent_advertise": [ToAgent::Request {
            id: 7,
            body: Request::Advertise { addresses: vec!["192.0.2.7".into()] },
        }];
        ToAgent, "to_agent": to_agent();
        FromAgent, "from_agent": from_agent();
        ToAgent, "to_agent_keys":
            [Request::MakeKey, Request::UseKey { host: host(2) }].map(|body| ToAgent::Request { id: 9, body });
        FromAgent, "from_agent_keys": [FromAgent::Reply { id: 9, result: Ok(Done::Key { host: host(2) }) }];
        ToAgent, "to_agent_check": [ToAgent::Request { id: 9, body: Request::Check {
            workload: "web".into(), kube: "[Kube]\nYaml=web.yaml\n".into(),
            ports: vec![PortAsked { transport: Transport::Tcp, port: 80 }, PortAsked { transport: Transport::Udp, port: 53 }],
        } }];
        FromAgent, "from_agent_checked": [FromAgent::Reply { id: 9, result: Ok(Done::Checked(Checked {
            unit: "exit status: 1".into(),
            listeners: vec![Listener {
                transport: Transport::Udp, port: 53, addresses: vec!["127.0.0.53".into()], process: "dnsmasq (process 812)".into(),
                container: "dns-main".into(),
            }],
        })) }];
        StreamOpening, "stream_opening":
            [Class::Raft, Class::Snapshot, Class::Peer, Class::Api].map(|class| StreamOpening { class });
        JoinRequest, "join_request": [join_request()];
        JoinRequest, "join_replacing": [JoinRequest {
            token: NO_TOKEN, replace: Some(Replace { name: "h2".into(), token: [6; 8] }), ..join_request()
        }];
        JoinAnswer, "join_answer": [admitted(), JoinAnswer::Refused { reason: "expired".into() }, JoinAnswer::Stranger];
        Command, "command": changes().map(|change| Command { at_ms: 1_800_000_000_000, change, origin: None });
        Command, "command_by": access::changes().map(|change| Command { change, origin: Some(access::origin()), ..command() });
        Snapshot, "snapshot_access": access::records().map(|access| Snapshot { access: Some(access), ..snapshot() });
        Snapshot, "snapshot_audited": [Snapshot { access: Some(access::audited()), ..snapshot() }];
        Command, "command_admit_replacing": [Change::Admit {
            token: [6; 8], secret_hash: [5; 32], host: member_host(), replaces: Some(host(2)),
        }].map(|change| Command::unasked(1_800_000_000_000, change));
        Command, "command_put_host_claiming": [Change::PutHost(Host { claims_as: Some(host(2)), ..member_host() })]
            .map(|change| Command::unasked(1_800_000_000_000, change));
        Command, "command_demote": [
            Change::DemoteHost { host: host(2) }, Change::PutHost(Host { votes_from_ms: 1_800_000_060_000, ..member_host() }),
        ].map(|change| Command::unasked(1_800_000_000_000, change));
        Snapshot, "snapshot_recovered": [Snapshot { former: vec![ClusterId([8; 16]), ClusterId([9; 16])], ..snapshot() }];
        Snapshot, "snapshot": [Snapshot::default(), snapshot()];
        Command, "policy_command": policy::changes().map(|change| Command::unasked(1, change));
        Command, "command_assign": assignments::changes().map(|change| Command::unasked(1, change));
        Snapshot, "snapshot_assigned": [Snapshot {
            level: 1, assignments: Some(assignments::assignments()), ..snapshot()
        }];
        Command, "command_roll": rollouts::changes().map(|change| Command::unasked(1, change));
        Snapshot, "snapshot_revisions": [Snapshot { level: 2, revisions: Some(rollouts::revisions()), ..snapshot() }];
        Command, "command_lost": assignments::losses().map(|change| Command::unasked(1, change));
        Snapshot, "snapshot_lost": [Snapshot {
            level: 3,
            assignments: Some(assignments::moved()), revisions: Some(rollouts::beside()),
            hosts: vec![Host { lost_at_ms: 1_800_000_000_000, declared_lost: true, steady_at_ms: 1_800_000_600_000, ..member_host() }],
            ..snapshot()
        }];
        peer::Request, "peer_request_unreached": assignments::unreached(&report());
        peer::Request, "peer_request_capacity": [assignments::capacity(report())];
        Command, "command_images": [Command::unasked(1, rollouts::ready_with_images())];
        Snapshot, "snapshot_images": [Snapshot { level: 2, revisions: Some(rollouts::revisions_with_images()), ..snapshot() }];
        peer::Request, "peer_request_images": [peer::Request { id: 3, body: peer::RequestBody::Observe(HostReport {
            workloads: vec![WorkloadReport { images: rollouts::images(), ..WorkloadReport::default() }],
            ..report()
        }) }];
        Snapshot, "snapshot_identities": [Snapshot { level: 2, identities: Some(rollouts::identities()), ..snapshot() }];
        peer::Reply, "peer_reply_kept": [rollouts::kept()];
        FromAgent, "from_agent_reserved": [assignments::welcome()];
        peer::Request, "peer_request_reserved": [peer::Request { id: 3, body: peer::RequestBody::Observe(HostReport {
            reserved_ports: vec![4701, 7443],
            workloads: vec![WorkloadReport { ended: true, phase: Phase::Failed, ..WorkloadReport::default() }],
            ..report()
        }) }];
        peer::Request, "peer_request_told": [peer::Request { id: 3, body: peer::RequestBody::Observe(HostReport {
            workloads: vec![WorkloadReport { containers: Told(containers()), ..WorkloadReport::default() }],
            ..report()
        }) }];
        PodReport, "pod_report": pod_reports();
        Snapshot, "policy_snapshot": [Snapshot { policy: Some(policy::record()), ..snapshot() }];
        peer::Request, "peer_request": [
            peer::RequestBody::Propose { commands: vec![command()], term: 0 },
            peer::RequestBody::ReadIndex,
            peer::RequestBody::Observe(report()),
            peer::RequestBody::PreVote(Some(log_id(9))),
            peer::RequestBody::PreVote(None),
            peer::RequestBody::Reports {
                term: 3,
                reports: vec![peer::Reported {
                    host: host(2),
                    report: HostReport { takes_reports: true, ..report() },
                }],
            },
            peer::RequestBody::Propose { commands: vec![command()], term: 4 },
            peer::RequestBody::Lease(vec!["db".into(), "shop_db".into()]),
        ].map(|body| peer::Request { id: 3, body });
        peer::Reply, "peer_reply": peer_replies();
        peer::Reply, "peer_reply_failed": [
            peer::Failure::NoQuorum, peer::Failure::LeadershipLost, peer::Failure::Stopped, peer::Failure::Late,
        ].map(|why| peer::Reply { id: 3, body: peer::ReplyBody::Failed(why) });
        Entry, "entry": entries();
        raft::Request, "raft_request": [
            raft::RequestBody::Append {
                vote: vote(), prev: Some(log_id(6)), committed: Some(log_id(5)), entries: entries().into(),
            },
            raft::RequestBody::Append { vote: vote(), prev: None, committed: None, entries: vec![] },
            raft::RequestBody::Vote { vote: vote(), last: None },
        ].map(|body| raft::Request { id: u64::MAX, body });
        raft::Reply, "raft_reply": [
            raft::ReplyBody::AppendSuccess,
            raft::ReplyBody::AppendPartial(Some(log_id(7))),
            raft::ReplyBody::AppendPartial(None),
            raft::ReplyBody::AppendConflict,
            raft::ReplyBody::AppendHigherVote(vote()),
            raft::ReplyBody::Voted { vote: vote(), granted: true, last: Some(log_id(7)) },
            raft::ReplyBody::Failed("starting".into()),
        ].map(|body| raft::Reply { id: 9, body });
        SnapshotHead, "snapshot_head":
            [SnapshotHead { vote: vote(), meta: meta(), size: 1 << 33, hash: [8; 32] }];
        SnapshotReply, "snapshot_reply":
            [SnapshotReply::Installed(vote()), SnapshotReply::Failed("disk full".into())];
        SnapshotFile, "snapshot_file": [SnapshotFile { meta: meta(), state: snapshot().encode().to_vec() }];
        SnapshotMeta, "snapshot_meta": [SnapshotMeta::default(), meta()];
        StoredMembership, "stored_membership": [meta().membership];
        Vote, "vote": [Vote::default(), vote()];
        LogId, "log_id": [log_id(7)];
    }
}

/// Long lists of the smallest items, which come closest to the verifier's limits.
pub(crate) fn lists() -> Vec<Case> {
    let workloads = vec![WorkloadReport::default(); 5_000];
    let refusal = Refusal {
        missing: false,
        object: None,
        message: String::new(),
    };
    let effect = Effect {
        kind: Kind::Pod,
        name: String::new(),
        revision: 0,
        action: Action::Created,
    };
    let labels: BTreeMap<_, _> = (0..5_000)
        .map(|n| (format!("{n}"), String::new()))
        .collect();
    let committed = |outcome| Committed { index: 0, outcome };
    let reply = |committed| peer::Reply {
        id: 0,
        body: peer::ReplyBody::Committed(committed),
    };
    let blank = Entry {
        log_id: log_id(1),
        payload: Payload::Blank,
    };
    let pod = PodReport {
        containers: vec![ContainerReport::default(); 5_000],
        ..PodReport::default()
    };
    cases! {
        PodReport, "pod": [pod];
        peer::Request, "reports":
            [peer::Request { id: 0, body: peer::RequestBody::Observe(HostReport { workloads, ..report() }) }];
        FromAgent, "units": [FromAgent::Units { units: vec![UnitState::default(); 5_000], more: true }];
        peer::Reply, "done": [reply(vec![committed(Outcome::Done); 5_000])];
        peer::Reply, "refused": [reply(vec![committed(Outcome::Refused(vec![refusal; 5_000]))])];
        peer::Reply, "effects": [reply(vec![committed(Outcome::Applied(vec![effect; 5_000]))])];
        peer::Reply, "deleted": [reply(vec![committed(Outcome::Deleted(vec![String::new(); 5_000]))])];
        Command, "labels": [Command { at_ms: 0, change: Change::PutHost(Host { labels, ..member_host() }), origin: None }];
        StoredMembership, "configs": [StoredMembership {
            log_id: None,
            membership: Membership { configs: vec![vec![]; 5_000], nodes: vec![] },
        }];
        raft::Request, "blanks": [raft::Request { id: 0, body: raft::RequestBody::Append {
            vote: vote(), prev: None, committed: None, entries: vec![blank; 5_000],
        } }];
        Entry, "large": [Entry { log_id: log_id(1), payload: Payload::Commands(vec![Command {
            at_ms: 1,
            change: Change::Apply { manifest: "big".into(), objects: vec![Object { body: vec![b'x'; 1 << 20], ..object() }; 8], policy: None, keep: false, if_index: None },
            origin: None,
        }]) }];
    }
}

pub(crate) fn token() -> Token {
    Token {
        cluster: ClusterId([1; 16]),
        id: [2; 8],
        secret: [3; 32],
        contacts: vec![Contact {
            host: host(4),
            addresses: addresses(),
        }],
    }
}

fn host(key: u8) -> HostId {
    HostId([key; 32])
}

fn addresses() -> Vec<String> {
    vec![
        "/ip4/10.0.0.1/udp/4701/quic-v1".into(),
        "/ip4/10.0.0.1/tcp/4701".into(),
    ]
}

fn member() -> Member {
    Member {
        host: host(1),
        name: "h1".into(),
        addresses: addresses(),
    }
}

fn member_host() -> Host {
    Host {
        id: host(1),
        name: "h1".into(),
        addresses: addresses(),
        labels: BTreeMap::from([("disk".into(), "ssd".into()), ("zone".into(), "".into())]),
        drained: false,
        claims_as: None,
        votes_from_ms: 0,
        lost_at_ms: 0,
        declared_lost: false,
        steady_at_ms: 0,
    }
}

pub(crate) fn join_request() -> JoinRequest {
    JoinRequest {
        cluster: ClusterId([7; 16]),
        token: [6; 8],
        secret: [5; 32],
        name: "h2".into(),
        addresses: addresses(),
        replace: None,
    }
}

fn admitted() -> JoinAnswer {
    JoinAnswer::Admitted {
        cluster: ClusterId([7; 16]),
        members: vec![member()],
    }
}

fn to_agent() -> Vec<ToAgent> {
    let workload = || "shop_web".to_owned();
    let files = UnitFiles {
        workload: workload(),
        index: 9,
        kube: "[Kube]\nYaml=beemesh-pod-shop_web.9.yaml\n".into(),
        yaml: b"{\"kind\":\"Pod\"}\n\0\xff".into(),
    };
    let requests = [
        Request::PutUnit(files),
        Request::RemoveUnit {
            workload: workload(),
        },
        Request::TidyUnit {
            workload: workload(),
        },
        Request::StartUnit {
            workload: workload(),
        },
        Request::StopUnit {
            workload: workload(),
        },
        Request::SyncStorage,
        Request::Join {
            host: host(2),
            addresses: addresses(),
            request: join_request(),
        },
    ];
    let report = Report {
        role: HostRole::Leader,
        leader: Some(host(1)),
        leader_name: "h1".into(),
        hosts: 3,
        workloads: 2,
        healthy: 1,
    };
    let mut all: Vec<_> = requests
        .into_iter()
        .map(|body| ToAgent::Request { id: 5, body })
        .collect();
    all.extend([
        ToAgent::Members(vec![
            member(),
            Member {
                host: host(2),
                name: "".into(),
                addresses: vec![],
            },
        ]),
        ToAgent::Members(vec![]),
        ToAgent::Report(report),
        ToAgent::Report(Report::default()),
        ToAgent::JoinAnswer {
            id: 6,
            answer: admitted(),
        },
    ]);
    all
}

fn from_agent() -> [FromAgent; 12] {
    let unit = UnitState {
        workload: "web".into(),
        kube: "[Kube]\n".into(),
        active: "active".into(),
        sub: "running".into(),
        result: "success".into(),
        status: "2/2 healthy · rev 1 · 0 restarts".into(),
        started: true,
    };
    [
        FromAgent::Welcome(Welcome {
            host: host(1),
            name: "h1".into(),
            addresses: addresses(),
            version: "0.1.0".into(),
            connected: vec![host(2), host(3)],
            reserved_ports: vec![],
            name_is_set: false,
        }),
        FromAgent::Reply {
            id: 1,
            result: Ok(Done::Done),
        },
        FromAgent::Reply {
            id: 2,
            result: Ok(Done::Joined(admitted())),
        },
        FromAgent::Reply {
            id: 3,
            result: Err("job failed".into()),
        },
        FromAgent::Units {
            units: vec![unit.clone(), UnitState::default()],
            more: false,
        },
        FromAgent::Unit(unit.clone()),
        FromAgent::UnitGone {
            workload: "web".into(),
        },
        FromAgent::Peer {
            host: host(2),
            connected: true,
        },
        FromAgent::Incoming {
            stream: 8,
            host: host(2),
            class: Class::Snapshot,
        },
        FromAgent::JoinRequest {
            id: 4,
            host: host(9),
            request: join_request(),
        },
        FromAgent::Peer {
            host: host(3),
            connected: false,
        },
        FromAgent::Units {
            units: vec![unit],
            more: true,
        },
    ]
}

fn reference(kind: Kind) -> Reference {
    Reference {
        kind,
        name: "settings".into(),
        optional: kind == Kind::Secret,
    }
}

fn object() -> Object {
    use Kind::{ConfigMap, DaemonSet, Deployment, Job, PersistentVolumeClaim, Pod, Secret};
    let kinds = [
        Pod,
        Deployment,
        DaemonSet,
        Job,
        ConfigMap,
        Secret,
        PersistentVolumeClaim,
    ];
    Object {
        kind: Deployment,
        namespace: "shop".into(),
        name: "web".into(),
        body: b"{\"kind\":\"Deployment\"}".into(),
        hash: [4; 32],
        references: kinds.map(reference).into(),
        replicas: Some(0),
        selector: BTreeMap::from([("disk".into(), "ssd".into())]),
    }
}

fn command() -> Command {
    let objects = vec![
        object(),
        Object {
            replicas: None,
            references: vec![],
            ..object()
        },
    ];
    Command {
        at_ms: 1,
        change: Change::Apply {
            manifest: "web".into(),
            objects,
            policy: None,
            keep: false,
            if_index: None,
        },
        origin: None,
    }
}

fn changes() -> [Change; 11] {
    [
        Change::Found {
            cluster: ClusterId([7; 16]),
            host: member_host(),
        },
        command().change,
        Change::DeleteWorkload {
            workload: "shop_web".into(),
        },
        Change::DeleteManifest {
            manifest: "web".into(),
        },
        Change::PutToken(token_record()),
        Change::Admit {
            token: [6; 8],
            secret_hash: [5; 32],
            host: member_host(),
            replaces: None,
        },
        Change::PutHost(member_host()),
        Change::RemoveHost { host: host(2) },
        Change::RevokeToken { token: [6; 8] },
        Change::LabelHost {
            host: host(2),
            set: BTreeMap::from([("disk".into(), "ssd".into())]),
            remove: vec!["zone".into()],
        },
        Change::DrainHost {
            host: host(2),
            drained: true,
        },
    ]
}

fn token_record() -> TokenRecord {
    TokenRecord {
        id: [6; 8],
        secret_hash: [5; 32],
        expires_ms: 1_800_000_000_000,
        uses: 1,
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        cluster: Some(ClusterId([7; 16])),
        hosts: vec![member_host()],
        manifests: vec![ManifestRecord {
            manifest: "web".into(),
            index: 9,
            at_ms: 8,
            objects: vec![object().into()],
        }],
        workloads: vec![WorkloadRecord {
            workload: "shop_web".into(),
            revision: 2,
            index: 9,
            at_ms: 8,
        }],
        tokens: vec![token_record()],
        access: None,
        policy: None,
        former: vec![],
        level: 0,
        assignments: None,
        revisions: None,
        identities: None,
    }
}

fn report() -> HostReport {
    use Phase::{Failed, Pending, Removing, Running, Starting, Stopped, Succeeded};
    let phases = [
        Pending, Starting, Running, Succeeded, Stopped, Failed, Removing,
    ];
    let workloads = phases.map(|phase| WorkloadReport {
        workload: "web".into(),
        revision: 2,
        index: 9,
        phase,
        healthy: 1,
        total: 2,
        restarts: 3,
        message: "pulling".into(),
        ..WorkloadReport::default()
    });
    HostReport {
        sequence: 12,
        applied: 9,
        version: "0.1.0".into(),
        podman: "5.4.2".into(),
        trouble: "".into(),
        workloads: workloads.into(),
        ..HostReport::default()
    }
}
