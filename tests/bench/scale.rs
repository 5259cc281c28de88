//! Consensus by the number of hosts: many real gateways on one machine, without hosts behind them.
//!
//! One cluster grows from size to size and is measured at each. All gateways share the machine's cores, so times are
//! longer than on real hosts. The CPU time and the traffic of one gateway are those of a real host.

mod gateways;
mod mesh;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    attempt::attempt,
    data::{Blow, Outage, Scale, ScaleLoad, ScaleRest, Sized, System, Through, Times},
    load::Load,
    meter::Process,
    options::Options,
    probe::{Probe, now},
};
use gateways::Gateways;

/// The numbers of concurrent clients.
const CLIENTS: [usize; 2] = [1, 64];
/// The size of the values in bytes.
const VALUE: usize = 1 << 10;
/// The largest total of values that all clients of one load write, in bytes.
const BYTES_MAX: usize = 64 << 20;
/// The pause between the members' agreement and the measurement.
const CALM: Duration = Duration::from_secs(3);
/// The longest outage; a longer one is reported as a failure.
const OUTAGE_MAX: Duration = Duration::from_secs(60);

/// The pause between the starts of two writes while a leader fails, in milliseconds per gateway.
const PROBE_MS_PER_HOST: u64 = 2;

/// Measures each size on the way to the largest.
pub(crate) fn measure(options: &Options, failures: &mut Vec<String>) -> Result<Scale> {
    let mut scale = Scale::default();
    attempt(failures, System::Beemesh, "scale", || {
        let mut gateways = Gateways::new()?;
        for &hosts in options.scale() {
            let sized = one_size(&mut gateways, hosts, options);
            scale
                .sizes
                .push(sized.with_context(|| format!("{hosts} gateways"))?);
        }
        Ok(())
    });
    Ok(scale)
}

fn one_size(gateways: &mut Gateways, hosts: usize, options: &Options) -> Result<Sized> {
    eprintln!("scale: {hosts} gateways");
    let mut joins = Vec::new();
    while gateways.all.len() < hosts {
        let took = gateways.add()?;
        joins.push(micros(took));
    }
    let (_, settled) = gateways.agree()?;
    let joins = Times::of(joins);
    eprintln!(
        "  join p50 {:.0} ms, max {:.0} ms, then {settled:.1?} until all agreed",
        joins.p50, joins.max
    );
    let mut sized = Sized {
        hosts,
        joins,
        settled: settled.as_secs_f64(),
        rest: rest(gateways, options.scale_seconds())?,
        loads: Vec::new(),
        outages: Vec::new(),
    };
    for through in [Through::Leader, Through::Follower] {
        for clients in CLIENTS {
            let load = load(gateways, through, clients, options.load_seconds())?;
            sized.loads.push(load);
        }
    }
    for blow in [Blow::Killed, Blow::Cut] {
        let mut took = Vec::new();
        for n in 1..=options.scale_failures() {
            took.push(strike(gateways, blow).with_context(|| format!("{blow:?}, blow {n}"))?);
        }
        let times = Times::of(took);
        eprintln!(
            "  leader {blow:?}: p50 {:.0} ms, max {:.0} ms",
            times.p50, times.max
        );
        sized.outages.push(Outage {
            system: System::Beemesh,
            blow,
            times,
        });
    }
    Ok(sized)
}

/// The resources that gateways have used, and the traffic from one of them to another.
struct Taken {
    leader: Process,
    all: Vec<Process>,
    bytes: u64,
    bursts: u64,
}

impl Taken {
    fn now(gateways: &Gateways, leader: usize, follower: usize) -> Self {
        let all: Vec<_> = gateways
            .all
            .iter()
            .map(|gateway| Process::of(gateway.pid()))
            .collect();
        let [from, to] = [leader, follower].map(|at| gateways.all[at].id);
        let traffic = gateways.mesh.traffic(from, to);
        Self {
            leader: all[leader],
            bytes: traffic.bytes(),
            bursts: traffic.bursts(),
            all,
        }
    }

    fn cpu_micros(&self) -> u64 {
        self.all.iter().map(|one| one.cpu_micros).sum()
    }
}

/// The load without requests, per second.
fn rest(gateways: &Gateways, seconds: u64) -> Result<ScaleRest> {
    let (leader, _) = gateways.agree()?;
    let follower = last_but(gateways, leader);
    thread::sleep(CALM);
    let before = Taken::now(gateways, leader, follower);
    let begun = Instant::now();
    thread::sleep(Duration::from_secs(seconds));
    let after = Taken::now(gateways, leader, follower);
    let elapsed = begun.elapsed().as_secs_f64();
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / elapsed;
    let rest = ScaleRest {
        leader_cpu: each(before.leader.cpu_micros, after.leader.cpu_micros),
        follower_cpu: each(
            before.all[follower].cpu_micros,
            after.all[follower].cpu_micros,
        ),
        sent: each(before.bytes, after.bytes),
        bursts: each(before.bursts, after.bursts),
        leader_pss: after.leader.pss,
        follower_pss: after.all[follower].pss,
    };
    eprintln!(
        "  at rest: leader {:.2} % of a core, a follower {:.2} %, {:.0} bytes/s to each",
        rest.leader_cpu / 1e4,
        rest.follower_cpu / 1e4,
        rest.sent
    );
    Ok(rest)
}

fn load(gateways: &Gateways, through: Through, clients: usize, seconds: f64) -> Result<ScaleLoad> {
    let (leader, _) = gateways.agree()?;
    let follower = last_but(gateways, leader);
    let at = match through {
        Through::Leader => leader,
        Through::Follower => follower,
    };
    let load = Load {
        system: System::Beemesh,
        value: VALUE,
        clients,
        seconds,
        bytes_max: BYTES_MAX,
        prefix: format!("{through:?}-{clients}").to_lowercase(),
    };
    let before = Taken::now(gateways, leader, follower);
    let loaded = load.on(&gateways.all[at].place())?;
    // The followers' later work is part of the same writes.
    let (_, behind) = gateways.agree()?;
    let after = Taken::now(gateways, leader, follower);
    let writes = loaded.writes.max(1) as f64;
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / writes;
    let load = ScaleLoad {
        through,
        clients,
        throughput: loaded.micros.len() as f64 / loaded.seconds.max(f64::MIN_POSITIVE),
        times: Times::of(loaded.micros),
        errors: loaded.errors,
        leader_cpu: each(before.leader.cpu_micros, after.leader.cpu_micros),
        all_cpu: each(before.cpu_micros(), after.cpu_micros()),
        sent: each(before.bytes, after.bytes),
        bursts: each(before.bursts, after.bursts),
        behind: behind.as_secs_f64(),
    };
    eprintln!(
        "  {clients:>2} clients through the {through:?}: p50 {:.2} ms, p99 {:.2} ms, {:.0}/s, leader {:.0} µs, all {:.0} µs, {:.0} \
         bytes to a follower in {:.2} bursts per write; all had it after {behind:.2?}; {} errors {}",
        load.times.p50,
        load.times.p99,
        load.throughput,
        load.leader_cpu,
        load.all_cpu,
        load.sent,
        load.bursts,
        load.errors,
        loaded.error.unwrap_or_default()
    );
    Ok(load)
}

/// Strikes the leader and returns the length of the outage through another host, in microseconds.
fn strike(gateways: &mut Gateways, blow: Blow) -> Result<u64> {
    let (leader, _) = gateways.agree()?;
    let other = &gateways.all[last_but(gateways, leader)];
    // Each write costs every gateway CPU time. With this pause the machine's cores are far from busy.
    let pause_ms = PROBE_MS_PER_HOST * gateways.all.len() as u64;
    let probe = Probe::every(System::Beemesh, &other.place(), pause_ms)?;
    let _ = probe.accepted_after(now(), OUTAGE_MAX)?;
    thread::sleep(CALM);
    let id = gateways.all[leader].id;
    let begun = now();
    if blow == Blow::Killed {
        gateways.kill(leader);
    } else {
        gateways.on_mesh(|mesh| mesh.cut(id));
    }
    let (_, accepted) = probe.accepted_after(now(), OUTAGE_MAX)?;
    drop(probe);
    if blow == Blow::Killed {
        gateways.start(leader)?;
    } else {
        gateways.on_mesh(|mesh| mesh.mend(id));
    }
    Ok(accepted - begun)
}

/// The last host that joined, which does not vote in a large cluster; the one before it if the last one is the leader.
fn last_but(gateways: &Gateways, leader: usize) -> usize {
    let last = gateways.all.len() - 1;
    if last == leader { last - 1 } else { last }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
