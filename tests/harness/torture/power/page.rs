//! The report of the power cuts.
//!
//! Pure.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::{Cut, Moment, Options, bare::Bare};

pub(super) fn page(options: &Options, cuts: &[Cut], bare: &[Bare]) -> String {
    let Options { seed, .. } = options;
    let mut page = INTRODUCTION.to_owned();
    let _ = write!(
        page,
        "`make power ARGS='--seed {seed} --cuts {} --bare {}'`, beemesh {}: **{} losses of power, and everything came back every time.**\n\n\
         | under way | times | of all hosts | acknowledged before | storage repaired | back after s, p50 | max |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        cuts.len(),
        bare.len(),
        env!("CARGO_PKG_VERSION"),
        cuts.len(),
    );
    let mut moments: BTreeMap<Moment, Vec<&Cut>> = BTreeMap::new();
    for cut in cuts {
        moments.entry(cut.moment).or_default().push(cut);
    }
    for (moment, cuts) in moments {
        let count = |of: fn(&Cut) -> usize| cuts.iter().map(|cut| of(cut)).sum::<usize>();
        let mut back: Vec<Duration> = cuts.iter().map(|cut| cut.back).collect();
        back.sort_unstable();
        let seconds = |at: usize| back.get(at).copied().unwrap_or_default().as_secs_f64();
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {:.1} | {:.1} |",
            words(moment),
            cuts.len(),
            count(|cut| usize::from(cut.all)),
            count(|cut| usize::from(cut.acknowledged)),
            count(|cut| cut.repaired),
            seconds(cuts.len() / 2),
            seconds(cuts.len() - 1),
        );
    }
    let lost = |acknowledged: bool| {
        let of = bare.iter().filter(|bare| bare.acknowledged == acknowledged);
        (of.clone().filter(|bare| !bare.back).count(), of.count())
    };
    let ((lost, of), (lost_too, of_others)) = (lost(true), lost(false));
    let _ = write!(
        page,
        "\nBare Podman on the same kind of hosts, a Quadlet with files that are synced: of {of} pods that `systemctl start` had called \
         started, {lost} did not run again within a minute of the boot, and of {of_others} others {lost_too}.\n"
    );
    page
}

fn words(moment: Moment) -> &'static str {
    match moment {
        Moment::Apply => "first apply of a workload",
        Moment::Update => "update of a workload",
        Moment::Delete => "delete of a workload",
        Moment::ImageLoad => "load of an image",
        Moment::Join => "join of a host",
        Moment::Snapshot => "64 MiB of writes, and snapshots",
        Moment::Upgrade => "upgrade by dnf, to the same version",
    }
}

const INTRODUCTION: &str = "# Losses of power

`make power` begins something on booted hosts, takes the power of one or of all of them at a moment that chance chooses, and gives it back. What
the disk had in that moment is all that is left. Then, without a human, what was acknowledged must be there, and every host must run it.
Podman does not flush what it writes, so its storage may be damaged; a workload's supervisor and the agent have it repaired.

";
