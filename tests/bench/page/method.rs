//! The text of the page about its methods.
//!
//! Pure.

pub(super) const INTRODUCTION: &str = "\
# Benchmarks

`make bench` measures all of this and writes this page; `make bench ONLY=commit,failover` measures parts, `make bench QUICK=1` everything with
small numbers, and `ARGS='--help'` lists what else can be chosen. Every system runs on the same kind of hosts: namespaces with a systemd, a
network and an ext4 disk each, all on one machine, as `tests/testbed` boots them. Their disks are files on the same real disk, and what is
flushed there is flushed to it. So the hosts share the machine's cores, and absolute figures say more about the machine than about the
systems; ratios compare. One system at a time is booted, in turn within each round.

Beemesh is built as it is packaged. etcd and Docker Swarm are Debian's packages with the settings they come with, except that etcd gets
addresses and a quota that holds the run, and that all hosts of the swarm are managers. Between hosts, Beemesh and Swarm encrypt; etcd speaks
plain HTTP.

";

pub(super) const COMMITS: &str = "\
A client writes one value after the other over a connection that it keeps. Beemesh: a ConfigMap, which starts nothing, by `POST /v1/apply` on the
gateway's unix socket, parsed and checked like any manifest. etcd: a put by gRPC over the host's loopback. Swarm: `configs/create` on Docker's unix
socket. The load generator is one program with one thread for all clients of all systems. It runs outside of the hosts' cgroups, in the network of
the host that it writes through. CPU is that of every process on all hosts, divided by the writes; KiB is what the block devices of all
hosts wrote for one of them.
";

pub(super) const FAILOVER: &str = "\
A client on another host starts a write every 10 ms, each by a new connection, and gives each of them one second. Then the leader's process
gets SIGKILL, or every packet to and from its host is dropped, or that is done and its init is killed, with all processes, so that nothing says
goodbye. The outage is the time from before the blow to the end of the first accepted write that began after it.
";

pub(super) const ELECTIONS: &str = "\
Three hosts, nothing wrong with any of them, and for each core of the machine a thread that does nothing else than to be busy. The
terms that pass are elections that nothing caused. Swarm does not tell its term.
";

pub(super) const RESCHEDULES: &str = "\
A workload with one replica runs on one of three hosts, which loses its power. From then until the program of the replica runs on another host.
Beemesh waits for `--reschedule-after` (30 s by default, at least 10 s for each workload), because a host that only restarts should keep its
pods; Swarm has its default settings.
";

pub(super) const STARTS: &str = "\
A follower's part is stopped and started again by systemd while the others go on. From before `systemctl start` to the end of the first write that
is accepted through this host.
";

pub(super) const REST: &str = "\
Nothing is asked of the cluster; the workloads are pods that sleep. PSS divides each shared page among those who share it, and each host has
program files of its own, as real hosts have. What is no file's page, such as the heap, is a process's own; the rest is pages of the program,
which the kernel maps sixteen at a time and drops when it needs memory. Wake-ups are voluntary context switches of all threads. The host's disk takes what all of its processes
and its file system write.
";

pub(super) const APPLIES: &str = "\
Pods of one container each. Beemesh: `beemesh apply --wait` of one manifest on one of three hosts, until every host runs all of it, healthy and durably, for the first time (`--wait` ends when that has lasted for two seconds), with a
unit for each. One play: `podman kube play`, `play --replace` and `down` of the same file on the same three hosts at once, in the same round: one
process for all pods, no unit, and nothing waits for the disk. Quadlets: what Beemesh leaves behind, done by hand: for each pod a `.kube` file and its
YAML, then `systemctl daemon-reload` and `start`, `restart`, or `stop`, likewise on three hosts at once. For an unchanged manifest they have
nothing to compare with.
";

pub(super) const CATCH_UPS: &str = "\
A follower is stopped, 64 clients write what it misses, and it is started again; its time ends when it has applied everything that was committed before
its return. Meanwhile a client starts a write through the leader every 10 ms, each by a new connection.
";

pub(super) const SPANS: &str = "\
The way of one commit is seen by `perf` in the system calls of the gateways and agents of all hosts: which process got bytes when, and how
long each `fdatasync` took. One write at a time is under way, so what happens next is what it caused; each stretch lasts until the next
process has got the message, so it holds the kernel's way and the wake-up. The programs themselves are as they are installed; `perf` adds about a microsecond to each
call. The way of an apply is told by Podman's events and systemd's times on each host.
";
