//! The report of a run.
//!
//! Pure but for the versions on it.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::{Options, faults::Kind, round::Round};

/// All rounds so far.
#[derive(Debug)]
pub(crate) struct Report {
    command: String,
    rounds: Vec<Round>,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        let Options {
            seed,
            faults,
            hosts,
            ..
        } = options;
        let command = format!("--seed {seed} --faults {faults} --hosts {hosts}");
        Self {
            command,
            rounds: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, round: Round) {
        self.rounds.push(round);
    }

    pub(crate) fn page(&self) -> String {
        let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
        for (kind, times) in self.rounds.iter().flat_map(|round| &round.faults) {
            *kinds.entry(*kind).or_default() += times;
        }
        let sum = |of: fn(&Round) -> usize| self.rounds.iter().map(of).sum::<usize>();
        let longest = self.rounds.iter().map(|round| round.well).max();
        let took: Duration = self.rounds.iter().map(|round| round.took).sum();
        let mut page = INTRODUCTION.to_owned();
        let _ = write!(
            page,
            "## The last run\n\n`make torture ARGS='{} --rounds {}'`, beemesh {}: **{} faults in {} rounds, nothing that did not hold.** It took \
             {:.0} minutes.\n\n",
            self.command,
            self.rounds.len(),
            env!("CARGO_PKG_VERSION"),
            kinds.values().sum::<usize>(),
            self.rounds.len(),
            took.as_secs_f64() / 60.0,
        );
        let _ = write!(
            page,
            "{} calls were answered, {} writes were refused, and {} writes got no answer. After the last fault of a round \
             was mended, all hosts agreed and ran what was committed within {:.1} s at most.\n\n| fault | times |\n| --- | ---: |\n",
            sum(|round| round.answered),
            sum(|round| round.refused),
            sum(|round| round.open),
            longest.unwrap_or_default().as_secs_f64(),
        );
        for (kind, times) in kinds {
            let _ = writeln!(page, "| {} | {times} |", kind.words());
        }
        let _ = write!(
            page,
            "\n| seed | hosts | faults | answered | refused | unknown | well after s |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        );
        for round in &self.rounds {
            let Round {
                seed,
                hosts,
                answered,
                refused,
                open,
                well,
                ..
            } = round;
            let faults: usize = round.faults.values().sum();
            let well = well.as_secs_f64();
            let _ = writeln!(
                page,
                "| {seed} | {hosts} | {faults} | {answered} | {refused} | {open} | {well:.1} |"
            );
        }
        page
    }
}

const INTRODUCTION: &str = "# Torture

`make torture` boots hosts with a systemd, a Podman, a network and a disk each, makes them one cluster, and strikes them with faults that a seed
has chosen, while clients write, read and delete through all of them. A host that loses power keeps what its disk has: the image of the disk
is copied in that moment, and what was not flushed is gone.

After each round everything is mended. Then must hold:

- Each manifest is a linearizable register of what clients were told: checked by `todc-utils`' form of the algorithm of Wing and Gong with Lowe's
  cache, with reads of every manifest through every host at the end. So nothing that was acknowledged is lost, and nothing that was refused
  ever happened.
- Every host knows the same, and runs one pod of each workload, of the revision that was committed last, or none where it was deleted.
- No host ever ran a pod of a revision that was never committed, seen by the processes of all hosts three times a second.
- A pod that no client changes restarts only when its own host loses power.

";
