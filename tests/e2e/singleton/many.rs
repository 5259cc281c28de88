//! Many faults, which overlap, drawn from a seed: a share of them in CI, five hundred with `make singleton`.
//!
//! Faults strike in bursts. After each burst the singleton must be at work in time on the majority that is left, while the
//! faults of the burst go on; they end in their own time, some of them in a later burst.

use std::{thread, time::Duration};

use harness::{Chance, Cluster, secs};

use super::{
    AFTER, START_MAX, TERM, TERM_OF_LEADER,
    beats::{Beats, now, singleton},
    faults::{Faults, say},
    formed, goes_on, start,
};

/// A minority of two may be cut off together.
const HOSTS: usize = 5;
/// The number of faults in CI, and the seed of their draw.
const FAULTS: u64 = 8;
const SEED: u64 = 1;
/// How many faults a burst has, at least and fewer than.
const BURST: (u64, u64) = (5, 12);
/// The pause between two faults of a burst, in milliseconds.
const PAUSE: (u64, u64) = (100, 3_000);
/// How long the election of a leader may take, and until the others know that it leads. Tests run beside others.
const ELECTION_MAX: Duration = Duration::from_secs(15);
/// How long hosts that come and go get no further pods, and some more.
const STEADY_MAX: Duration = Duration::from_secs(660);

/// After the last fault of a burst, the singleton is at work after this time at the latest.
fn bound() -> Duration {
    ELECTION_MAX + AFTER + TERM_OF_LEADER + START_MAX
}

fn number(variable: &str, otherwise: u64) -> u64 {
    let value = std::env::var(variable);
    value.map_or(otherwise, |value| value.parse().expect("a number"))
}

#[test]
fn many_faults_never_start_a_second_one() {
    let (count, seed) = (
        number("BEEMESH_FAULTS", FAULTS),
        number("BEEMESH_SEED", SEED),
    );
    let cluster = formed("singleton-many", HOSTS);
    let mut beats = Beats::of(&cluster, "web");
    // SIGTERM does not end it.
    let run = start(&cluster, &mut beats, &singleton("web", "", 2));
    say(&format!("{count} faults of seed {seed} from {run}"));
    let mut chance = Chance::new(seed, 2);
    let mut faults = Faults::new(&cluster, Chance::new(seed, 1));
    let (mut left, mut excused) = (count, 0);
    while left > 0 {
        let burst = (BURST.0 + chance.below(BURST.1 - BURST.0)).min(left);
        faults.calm_down(usize::from(chance.below(2) == 0));
        for _ in 0..burst {
            let _ = faults.strike(beats.run().host);
            thread::sleep(chance.millis(PAUSE.0, PAUSE.1));
        }
        left -= burst;
        excused += usize::from(runs_again(&cluster, &mut faults, &mut beats));
        let told = beats.hold();
        say(&format!("{left} faults are left: {told}"));
    }
    faults.end();
    cluster.ready();
    let _ = beats.after(now(), bound());
    let run = beats.run();
    goes_on(&mut beats, run);
    println!(
        "singleton, seed {seed}: {}; {}; {excused} times all hosts came and went",
        faults.summary(),
        beats.hold()
    );
}

/// Waits until it is at work where no fault has struck, or after a lease of what was struck has ended. Returns whether it took
/// longer because no host could get it.
///
/// # Panics
/// If it takes longer than the bound.
fn runs_again(cluster: &Cluster, faults: &mut Faults<'_>, beats: &mut Beats) -> bool {
    let (last, mut excused) = (now(), false);
    loop {
        faults.mend_due();
        let latest = beats.look().latest().expect("it has run");
        let is_calm = !faults.struck().contains(&latest.host);
        if latest.at > last + TERM || latest.at > last + secs(1) && is_calm {
            return excused;
        }
        // As in the documentation: hosts that come and go get no further pods for ten minutes.
        excused |= now() > last + bound() && all_come_and_go(cluster, faults);
        let most = if excused { STEADY_MAX } else { Duration::ZERO } + bound();
        assert!(
            now() < last + most,
            "it does not run, {:?} after the last fault; last seen: {latest:?}; struck: {:?}; {}",
            now().saturating_sub(last),
            faults.struck(),
            beats.hold()
        );
        thread::sleep(Duration::from_millis(200));
    }
}

/// Returns true if the leader takes each host that is not struck for one that comes and goes.
fn all_come_and_go(cluster: &Cluster, faults: &Faults<'_>) -> bool {
    let (Some(calm), struck) = (faults.calm(), faults.struck()) else {
        return false;
    };
    let mut hosts = (1..).zip(&cluster.hosts);
    hosts.all(|(number, host)| {
        let (_, found) = calm.api("GET", &format!("/v1/hosts/{}", host.name), b"");
        struck.contains(&number) || found["steadyAtMs"].is_u64()
    })
}
