//! Judges the answers of the hosts that would run a manifest.
//!
//! Pure: no I/O, no clock, no randomness. Input: what each host said. Output: the reasons to refuse the manifest, what
//! it waits for, and warnings.

use std::collections::BTreeMap;

use beemesh_protocol::prepare::{Answer, Cause, Doubt, Pulling};
use beemesh_quadlet::manifest::{Place, Problem};

use crate::cluster::view::sentence;

/// What a host said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Answer(Answer),
    /// It is reachable, and gave no answer.
    Nothing,
    /// The mesh does not reach it.
    Away,
    /// It runs a release that has no answer.
    Older,
}

/// How the answers are judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    /// Doubts about images and silent hosts refuse nothing.
    pub(super) force: bool,
    /// Nothing was pulled, so that an image that is missing refuses nothing.
    pub(super) dry_run: bool,
    /// The user may know what else runs on a host.
    pub(super) is_admin: bool,
}

/// The judgement.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Why the manifest is not applied.
    pub(super) refused: Vec<Problem>,
    /// True if `--force` overrides all of these.
    pub(super) can_force: bool,
    /// The names of the hosts that gave no answer, as words; empty if there are none.
    pub(super) silent: String,
    /// Which hosts pull which images, as a message; empty if there are none.
    pub(super) pulling: String,
    pub(super) warnings: Vec<Problem>,
}

/// Judges what the hosts said, by their names. `places` has the place of each workload in the file.
pub(super) fn verdict(
    said: &BTreeMap<String, Said>,
    places: &BTreeMap<String, Place>,
    mode: Mode,
) -> Verdict {
    let mut verdict = Verdict {
        can_force: true,
        ..Verdict::default()
    };
    let mut doubts: BTreeMap<&Doubt, Vec<String>> = BTreeMap::new();
    let mut pulling: BTreeMap<&str, (u64, Vec<String>)> = BTreeMap::new();
    let (mut silent, mut away) = (Vec::new(), Vec::new());
    for (host, said) in said {
        match said {
            Said::Older => {}
            Said::Away => away.push(host.clone()),
            Said::Nothing => silent.push(host.clone()),
            Said::Answer(answer) => {
                for doubt in &answer.doubts {
                    doubts.entry(doubt).or_default().push(host.clone());
                }
                for Pulling { image, seconds } in &answer.pulling {
                    let (longest, hosts) = pulling.entry(image).or_default();
                    *longest = (*longest).max(*seconds);
                    hosts.push(host.clone());
                }
            }
        }
    }
    for (doubt, hosts) in doubts {
        let Some(place) = places.get(&doubt.workload) else {
            // The host was not asked about it.
            continue;
        };
        let words = words(&doubt.cause, &sentence(&hosts), mode);
        let problem = |message: String| Problem {
            document: place.document,
            line: place.line,
            field: String::new(),
            message,
        };
        match weight(&doubt.cause, mode) {
            Weight::Refuses { can_force } => {
                verdict.can_force &= can_force;
                verdict.refused.push(problem(words));
            }
            Weight::Warns => verdict.warnings.push(problem(words)),
            Weight::Nothing => {}
        }
    }
    let general = |message: String| Problem {
        document: 0,
        line: 0,
        field: String::new(),
        message,
    };
    if !away.is_empty() {
        let (is, it) = match away.len() {
            1 => ("is", "it follows when it returns"),
            _ => ("are", "they follow when they return"),
        };
        let words = format!("{} {is} not reachable: {it}", sentence(&away));
        verdict.warnings.push(general(words));
    }
    if mode.force && !silent.is_empty() {
        let words = format!("{} did not answer", sentence(&silent));
        verdict.warnings.push(general(words));
    } else {
        verdict.silent = sentence(&silent);
    }
    let pulls = pulling.into_iter().map(|(image, (seconds, hosts))| {
        let pulls = if hosts.len() == 1 { "pulls" } else { "pull" };
        format!("{} {pulls} image {image} ({seconds} s)", sentence(&hosts))
    });
    verdict.pulling = pulls.collect::<Vec<_>>().join("; ");
    verdict
}

/// What a doubt does to the apply.
enum Weight {
    Refuses {
        /// True if `--force` overrides it.
        can_force: bool,
    },
    Warns,
    Nothing,
}

/// The end of the reason for an image that a pull might bring.
const NEVER: &str = "Never";

fn weight(cause: &Cause, mode: Mode) -> Weight {
    match cause {
        Cause::Image { .. } if mode.force => Weight::Warns,
        Cause::Image { reason, .. } if mode.dry_run && !reason.ends_with(NEVER) => Weight::Warns,
        Cause::Image { .. } => Weight::Refuses { can_force: true },
        Cause::Port { .. } | Cause::Unit { .. } => Weight::Refuses { can_force: false },
        Cause::Podman { .. } => Weight::Warns,
        Cause::Other => Weight::Nothing,
    }
}

fn words(cause: &Cause, hosts: &str, mode: Mode) -> String {
    match cause {
        Cause::Image { image, reason } => {
            let then = match weight(cause, mode) {
                Weight::Warns if mode.dry_run => ": the apply pulls it",
                _ => "",
            };
            format!("on {hosts}: image {image} {reason}{then}")
        }
        Cause::Port { port, holder } => {
            let holder = match mode.is_admin {
                true => holder.as_str(),
                false => "another process",
            };
            format!("on {hosts}: port {port} is in use by {holder}")
        }
        Cause::Unit { reason } => {
            format!("on {hosts}: Podman makes no unit of the workload: {reason}")
        }
        Cause::Podman { reason } => {
            format!("on {hosts}: it is not known whether the images are there: {reason}")
        }
        Cause::Other => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODE: Mode = Mode {
        force: false,
        dry_run: false,
        is_admin: true,
    };

    fn doubt(cause: Cause) -> Said {
        let doubt = Doubt {
            workload: "web".to_owned(),
            cause,
        };
        Said::Answer(Answer {
            doubts: vec![doubt],
            pulling: Vec::new(),
        })
    }

    fn image(reason: &str) -> Cause {
        Cause::Image {
            image: "quay.io/a:1".to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn port() -> Cause {
        Cause::Port {
            port: "80/tcp".to_owned(),
            holder: "nginx (process 812)".to_owned(),
        }
    }

    fn judge(said: &[(&str, Said)], mode: Mode) -> (Vec<String>, bool, Vec<String>) {
        let said = said.iter();
        let said = said.map(|(host, said)| ((*host).to_owned(), said.clone()));
        let place = Place {
            document: 1,
            line: 4,
        };
        let places = BTreeMap::from([("web".to_owned(), place)]);
        let verdict = verdict(&said.collect(), &places, mode);
        let words = |all: Vec<Problem>| all.into_iter().map(|one| one.message).collect();
        (
            words(verdict.refused),
            verdict.can_force,
            words(verdict.warnings),
        )
    }

    #[test]
    fn a_doubt_of_several_hosts_is_one_reason() {
        let cannot = doubt(image("cannot be pulled: no such host"));
        let said = [("h1", cannot.clone()), ("h2", cannot)];
        let words = "on h1 and h2: image quay.io/a:1 cannot be pulled: no such host";
        let refused = (vec![words.to_owned()], true, vec![]);
        assert_eq!(judge(&said, MODE), refused);
        let force = Mode {
            force: true,
            ..MODE
        };
        assert_eq!(judge(&said, force), (vec![], true, vec![words.to_owned()]));
    }

    #[test]
    fn force_overrides_no_port_and_only_administrators_learn_who_has_it() {
        let said = [("h2", doubt(port()))];
        let words = |holder: &str| vec![format!("on h2: port 80/tcp is in use by {holder}")];
        for (force, is_admin, holder) in [
            (false, true, "nginx (process 812)"),
            (true, false, "another process"),
        ] {
            let mode = Mode {
                force,
                is_admin,
                ..MODE
            };
            assert_eq!(judge(&said, mode), (words(holder), false, vec![]));
        }
    }

    #[test]
    fn a_dry_run_pulls_nothing_and_says_so() {
        let dry_run = Mode {
            dry_run: true,
            ..MODE
        };
        let said = [("h1", doubt(image("is not there")))];
        let words = "on h1: image quay.io/a:1 is not there: the apply pulls it".to_owned();
        assert_eq!(judge(&said, dry_run), (vec![], true, vec![words]));
        let never = "is not there, and its pull policy is Never";
        let said = [("h1", doubt(image(never)))];
        let words = format!("on h1: image quay.io/a:1 {never}");
        assert_eq!(judge(&said, dry_run), (vec![words], true, vec![]));
    }

    #[test]
    fn a_host_that_is_away_is_named_and_one_that_is_silent_is_waited_for() {
        let said = [("h1", Said::Older), ("h2", Said::Away), ("h3", Said::Away)];
        let words = "h2 and h3 are not reachable: they follow when they return";
        assert_eq!(judge(&said, MODE), (vec![], true, vec![words.to_owned()]));
        let said = BTreeMap::from([("h2".to_owned(), Said::Nothing)]);
        let none = BTreeMap::new();
        assert_eq!(verdict(&said, &none, MODE).silent, "h2");
        let force = Mode {
            force: true,
            ..MODE
        };
        let forced = verdict(&said, &none, force);
        assert_eq!(
            (forced.silent.as_str(), forced.warnings[0].message.as_str()),
            ("", "h2 did not answer")
        );
    }

    #[test]
    fn pulls_are_told_by_image() {
        let pulls = |seconds| {
            let pulling = Pulling {
                image: "quay.io/a:1".to_owned(),
                seconds,
            };
            Said::Answer(Answer {
                doubts: Vec::new(),
                pulling: vec![pulling],
            })
        };
        let said = BTreeMap::from([("h1".to_owned(), pulls(2)), ("h2".to_owned(), pulls(7))]);
        let verdict = verdict(&said, &BTreeMap::new(), MODE);
        assert_eq!(verdict.pulling, "h1 and h2 pull image quay.io/a:1 (7 s)");
    }

    #[test]
    fn a_host_without_podman_or_with_a_later_release_refuses_nothing() {
        let reason = "connection refused".to_owned();
        let said = [
            ("h1", doubt(Cause::Podman { reason })),
            ("h2", doubt(Cause::Other)),
        ];
        let (refused, _, warnings) = judge(&said, MODE);
        assert_eq!((refused.len(), warnings.len()), (0, 1), "{warnings:?}");
    }
}
