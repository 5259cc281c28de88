//! Attacks of a member and of strangers on a cluster that keeps working.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

#[path = "hostile/floods.rs"]
mod floods;
#[path = "hostile/strangers.rs"]
mod strangers;
#[path = "hostile/wire.rs"]
mod wire;

use std::{
    fs::{self, File},
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use beemesh_protocol::{HostId, mesh::PORT};
use floods::Done;
use harness::{Cluster, Host, secs, wait_for};
use libp2p::identity::{Keypair, ed25519};
use nix::sched::{CloneFlags, setns};

/// The least duration of the flood.
const FLOOD: Duration = Duration::from_secs(20);
/// The longest duration of the flood, until every attack was tried often enough. The limits of the member decide how
/// soon that is.
const FLOOD_MAX: Duration = Duration::from_secs(90);
/// The longest commit, including the start of the command, on a machine that also runs the flood.
const COMMIT_MAX: Duration = Duration::from_secs(5);
/// The longest life of a silent connection: the time limit for a handshake, and some time for a busy machine.
const SILENT_MAX: Duration = Duration::from_secs(9);
/// The largest number of entries that a cluster may write by itself meanwhile: for elections and for changes of voters.
const ENTRIES_MAX: usize = 8;
/// The most memory of each program, in KiB.
const AGENT_KIB: u64 = 128 << 10;
const GATEWAY_KIB: u64 = 256 << 10;
/// The duration of each attack of strangers.
const STRANGE: Duration = Duration::from_secs(6);
/// The most CPU time that strangers may make a program use, in cores: a tenth, and some for a busy machine.
const SHARE_MAX: f64 = 0.15;
/// The port of the remote API.
const DOOR: u16 = 7443;

#[test]
fn others_keep_committing_while_a_member_and_strangers_flood_them() {
    let cluster = Cluster::booted("hostile", 4);
    cluster.form_of(3);
    let leader = cluster.leader(cluster.host(1));
    let mut members = cluster.hosts[..3].iter();
    let hostile = members.rfind(|host| host.name != leader.name).unwrap();
    let others: Vec<&Host> = cluster.hosts[..3]
        .iter()
        .filter(|host| host.name != hostile.name)
        .collect();
    let stranger = cluster.host(4);
    let leader_id = leader.status()["id"].as_str().unwrap().parse::<HostId>();
    let leader_id = leader_id.unwrap();
    let key = taken_over(hostile);
    cluster.agree_on(&others, 2, 3);
    let before = others.iter().map(|host| programs(host));
    let before: Vec<_> = before.collect();
    let targets: Vec<SocketAddr> = others.iter().map(|host| mesh_of(host)).collect();

    let entries = entries_of(others[0]);
    let done = Done::default();
    let (commits, slowest) = thread::scope(|scope| {
        for to in &targets {
            let (key, done) = (&key, &done);
            scope.spawn(move || {
                inside(hostile, || floods::member(*to, key, leader_id, done));
            });
            scope.spawn(move || inside(stranger, || floods::stranger(*to, done)));
        }
        let _stops = Stop(&done);
        commit_during(&others, &done)
    });
    eprintln!("{commits} commits, the slowest in {slowest:?}; {done:?}");
    let lacking = lacking(&done);
    assert!(lacking.is_empty(), "{lacking:?}, {done:?}");
    let kept = Duration::from_millis(done.silent_ms.load(Ordering::Relaxed));
    assert!(kept < SILENT_MAX, "a silent connection was kept {kept:?}");
    let written = usize::try_from(entries_of(others[0]) - entries).unwrap();
    assert!(
        written <= commits + ENTRIES_MAX,
        "{written} entries for {commits} commits"
    );
    let after: Vec<_> = others.iter().map(|host| programs(host)).collect();
    assert_eq!(after, before, "no program started anew");

    // The host that was taken over is repaired, and the cluster is healthy again.
    let _ = hostile
        .sh("systemctl start beemesh-agent.socket beemesh-agent")
        .ok();
    let members: Vec<&Host> = cluster.hosts[..3].iter().collect();
    cluster.agree_on(&members, 3, 3);
    commit(hostile, "after");
}

#[test]
fn a_host_at_a_members_address_with_another_key_is_told_nothing() {
    let cluster = Cluster::formed("forged", 3);
    let (forger, others) = (cluster.host(3), [cluster.host(1), cluster.host(2)]);
    let _ = taken_over(forger);
    cluster.agree_on(&others, 2, 3);
    let address: IpAddr = forger.address().parse().unwrap();
    let heard = inside(forger, async || {
        let key = Keypair::generate_ed25519();
        let listener = tokio::net::TcpListener::bind((address, PORT))
            .await
            .unwrap();
        let mut heard = Vec::new();
        // Both hosts dial it repeatedly.
        while heard.len() < 4 {
            let accepted = tokio::time::timeout(secs(30), listener.accept()).await;
            let (stream, _) = accepted.expect("members dial the address").unwrap();
            heard.extend(wire::overheard(stream, &key).await);
        }
        heard
    });
    for (_, said) in heard {
        // The sharing of the connection and Yamux's farewell; no data of Beemesh.
        let farewell = [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let most = [&wire::proposal(wire::YAMUX)[..], &farewell].concat();
        assert!(most.starts_with(&said), "{said:?}");
    }
    for host in others {
        assert_eq!(host.status()["hosts"]["reachable"], 2);
        commit(host, "meanwhile");
    }
}

#[test]
fn whatever_strangers_send_costs_a_member_little_and_no_connection_of_members() {
    let cluster = Cluster::booted("strangers", 3);
    cluster.form_of(2);
    let (h1, h2, stranger) = (cluster.host(1), cluster.host(2), cluster.host(3));
    open_door(h1);
    let (near, far) = (more_addresses(h1, stranger), own_address(h2));
    let to = mesh_of(h1);
    let before = (programs(h1), programs(h2));
    // A join ends a connection, too.
    let since = h1.sh("date +%s.%N").ok();

    let mut wrong = Vec::new();
    let mut expect = |right: bool, what: String| {
        eprintln!("{what}");
        if !right {
            wrong.push(what);
        }
    };
    let ended = inside(stranger, || strangers::second_stream_ends_it(to)).unwrap();
    expect(
        ended == [true; 2],
        format!("a second stream ends it by TCP and by QUIC: {ended:?}"),
    );
    inside(stranger, || strangers::hoard(&near.v4[..4], to, STRANGE));
    let most = memory_of(h1, "beemesh-agent", "VmHWM:");
    expect(
        most < AGENT_KIB,
        format!("after streams that hold all they may: {most} KiB"),
    );

    let initials = inside(stranger, || strangers::initials(2_000)).unwrap();
    let share = Shares::of(h1);
    let sent = inside(stranger, || {
        strangers::send(&initials, &near.v4, to, 8_000, STRANGE)
    })
    .unwrap();
    let [agent, _] = share.since(h1);
    expect(
        agent < SHARE_MAX,
        format!("{sent} first packets of QUIC: {agent:.3} of a processor"),
    );

    let share = Shares::of(h1);
    let rung = inside(stranger, || strangers::ring(&near.v4, to, STRANGE));
    let [agent, _] = share.since(h1);
    expect(
        agent < SHARE_MAX,
        format!("{rung} connections over TCP: {agent:.3} of a processor"),
    );

    let door = SocketAddr::from((near.door, DOOR));
    let share = Shares::of(h1);
    let (answered, other) = thread::scope(|scope| {
        let knocking =
            scope.spawn(|| inside(stranger, || strangers::knock(&near.v6[..32], door, STRANGE)));
        thread::sleep(STRANGE / 2);
        let other = inside(h2, || strangers::hello(Some(far), door));
        (knocking.join().unwrap(), other)
    });
    let [agent, gateway] = share.since(h1);
    let costs = agent < SHARE_MAX && gateway < SHARE_MAX;
    let what = format!(
        "{answered} handshakes for one network: {agent:.3} and {gateway:.3} of a processor"
    );
    expect(answered < 100 && costs, what);
    expect(
        other.is_ok(),
        format!("another network is answered meanwhile: {other:?}"),
    );
    let (occupied, other) = thread::scope(|scope| {
        let silent =
            scope.spawn(|| inside(stranger, || strangers::occupy(&near.v6, door, STRANGE)));
        thread::sleep(STRANGE / 2);
        let other = inside(h2, || strangers::hello(Some(far), door));
        (silent.join().unwrap(), other)
    });
    expect(occupied <= 32, format!("{occupied} places for one network"));
    expect(
        other.is_ok(),
        format!("another network has a place: {other:?}"),
    );

    let share = Shares::of(h1);
    let rung = inside(stranger, || strangers::ring(&near.v6[..32], door, STRANGE));
    let [agent, _] = share.since(h1);
    expect(
        agent < SHARE_MAX,
        format!("{rung} connections to the door: {agent:.3} of a processor"),
    );
    let after = (programs(h1), programs(h2));
    expect(
        after == before,
        format!("no program starts anew: {before:?}, {after:?}"),
    );
    for host in [h1, h2] {
        let lost = host.sh(&format!(
            "journalctl -u beemesh-agent --since @{} -g connected=false -q --no-pager",
            since.trim()
        ));
        let lost = lost.out;
        expect(lost.is_empty(), format!("lost on {}: {lost:?}", host.name));
    }
    commit(h2, "after");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Addresses of a stranger, and the address of a member in whose network some of them are.
struct Near {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    door: IpAddr,
}

/// Gives a stranger many addresses near a member, and the member two IPv6 addresses, each in a network of its own.
fn more_addresses(member: &Host, stranger: &Host) -> Near {
    let own = stranger.address();
    let network = own.rsplit_once('.').unwrap().0;
    let v4: Vec<String> = (151..=200).map(|n| format!("{network}.{n}")).collect();
    let v6: Vec<String> = (1..=256).map(|n| format!("fd00:0:0:1::{n:x}")).collect();
    let line = |ip: &String, bits| format!("address add {ip}/{bits} dev eth0 nodad\n");
    let batch: String = v4
        .iter()
        .map(|ip| line(ip, 24).replace(" nodad", ""))
        .chain(v6.iter().map(|ip| line(ip, 64)))
        .collect();
    let _ = stranger
        .run_with(&["ip", "-batch", "-"], batch.as_bytes())
        .ok();
    let _ = member.sh("ip address add fd00:0:0:1:ffff::1/64 dev eth0 nodad; ip address add fd00:0:0:2::1/64 dev eth0 nodad").ok();
    let parsed = |all: Vec<String>| all.iter().map(|ip| ip.parse().unwrap()).collect();
    Near {
        v4: parsed(v4),
        v6: parsed(v6),
        door: "fd00:0:0:1:ffff::1".parse().unwrap(),
    }
}

/// An address in another network, from which the remote API of the first member can be reached.
fn own_address(host: &Host) -> IpAddr {
    let _ = host
        .sh("ip address add fd00:0:0:2::2/64 dev eth0 nodad; ip route add fd00:0:0:1:ffff::1/128 dev eth0")
        .ok();
    "fd00:0:0:2::2".parse().unwrap()
}

/// Enables the remote API.
fn open_door(host: &Host) {
    let _ = host
        .sh(&format!(
            "mkdir -p /etc/beemesh/agent.toml.d && echo 'api-port = {DOOR}' >/etc/beemesh/agent.toml.d/api.toml && \
             systemctl reload beemesh-agent"
        ))
        .ok();
    // The certificate authority is created with the first user.
    let _ = host
        .beemesh(&["user", "create", "ann", "--role", "viewer"])
        .ok();
    wait_for("the port to be open", secs(10), || {
        let seen = host.sh(&format!("ss -tlnH 'sport = :{DOOR}'")).out;
        if seen.is_empty() { Err("none") } else { Ok(()) }
    });
}

/// The CPU time of programs of a host at one moment.
struct Shares {
    at: Instant,
    computed: [Duration; 2],
}

impl Shares {
    fn of(host: &Host) -> Self {
        let computed = programs(host).into_iter().map(computed).collect::<Vec<_>>();
        Self {
            at: Instant::now(),
            computed: [computed[0], computed[1]],
        }
    }

    /// The CPU time of the agent and the gateway since then, in cores.
    fn since(&self, host: &Host) -> [f64; 2] {
        let now = Self::of(host);
        let time = now.at.duration_since(self.at).as_secs_f64();
        [0, 1].map(|one| (now.computed[one] - self.computed[one]).as_secs_f64() / time)
    }
}

fn computed(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name, in parentheses, may contain spaces. The two fields count ticks of a hundredth of a second.
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Stops Beemesh on a host and takes its key.
fn taken_over(host: &Host) -> Keypair {
    let stop = "systemctl stop beemesh-agent.socket beemesh-agent beemesh-gateway";
    let _ = host.sh(stop).ok();
    let mut secret = fs::read(host.root().join("var/lib/beemesh/agent/identity")).unwrap();
    let secret = ed25519::SecretKey::try_from_bytes(&mut secret).unwrap();
    ed25519::Keypair::from(secret).into()
}

fn mesh_of(host: &Host) -> SocketAddr {
    (host.address().parse::<IpAddr>().unwrap(), PORT).into()
}

/// Runs an action in the network namespace of a host, on a thread of its own.
fn inside<T: Send>(host: &Host, act: impl AsyncFnOnce() -> T + Send) -> T {
    let network = File::open(format!("/proc/{}/ns/net", host.init())).unwrap();
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(network, CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(act())
        });
        inside.join().unwrap()
    })
}

/// Stops the flood, even if the test fails.
struct Stop<'a>(&'a Done);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// The attacks that were not tried often enough yet. The member shuts a flooder out for most of the time, which also
/// blocks its other attacks.
fn lacking(done: &Done) -> Vec<String> {
    let wanted = [
        ("streams", &done.streams, 10_000),
        ("half frames", &done.half_frames, 20),
        // All of one class.
        ("garbage", &done.garbage, 6),
        ("applications", &done.applications, 8),
        ("a stranger's applications", &done.strange_applications, 8),
        ("refused protocols", &done.refused_protocols, 2),
        ("silent connections", &done.silent, 300),
        ("half handshakes", &done.half_handshakes, 150),
    ];
    let found = wanted.map(|(what, of, least)| (what, of.load(Ordering::Relaxed), least));
    let lacking = found.iter().filter(|(_, found, least)| found < least);
    lacking
        .map(|(what, found, least)| format!("{what}: {found} of {least}"))
        .collect()
}

/// Commits on one host after the other and checks their memory; returns the number of commits and the slowest one.
fn commit_during(hosts: &[&Host], done: &Done) -> (usize, Duration) {
    let begun = Instant::now();
    let (mut commits, mut slowest) = (0, Duration::ZERO);
    let goes_on = |time| time < FLOOD || (time < FLOOD_MAX && !lacking(done).is_empty());
    while goes_on(begun.elapsed()) {
        let host = hosts[commits % hosts.len()];
        let took = commit(host, &format!("flooded-{}", commits % 8));
        slowest = slowest.max(took);
        assert!(took < COMMIT_MAX, "a commit on {} took {took:?}", host.name);
        commits += 1;
        for (program, most) in [
            ("beemesh-agent", AGENT_KIB),
            ("beemesh-gateway", GATEWAY_KIB),
        ] {
            let held = memory(host, program);
            assert!(held < most, "{program} on {} holds {held} KiB", host.name);
        }
    }
    (commits, slowest)
}

fn commit(host: &Host, name: &str) -> Duration {
    let begun = Instant::now();
    let at = begun.elapsed().as_nanos();
    let yaml = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{at: \"{at}\"}}\n"
    );
    let _ = host.try_apply(&yaml, &[]).ok();
    begun.elapsed()
}

fn entries_of(host: &Host) -> u64 {
    host.status()["applied"].as_u64().unwrap()
}

/// The PIDs of the programs that must keep running.
fn programs(host: &Host) -> Vec<u32> {
    let all = host.processes();
    ["beemesh-agent", "beemesh-gateway"]
        .map(|name| all[name][0])
        .to_vec()
}

/// The memory of a program of a host, in KiB.
fn memory(host: &Host, program: &str) -> u64 {
    memory_of(host, program, "VmRSS:")
}

fn memory_of(host: &Host, program: &str, kind: &str) -> u64 {
    let pid = host.processes()[program][0];
    let status = wait_for("the program's status", secs(1), || {
        fs::read_to_string(format!("/proc/{pid}/status"))
    });
    let line = status.lines().find_map(|line| line.strip_prefix(kind));
    let kib = line
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .unwrap();
    kib.trim().parse().unwrap()
}
