//! Rollouts and revisions.
//!
//! Pure, like its parent.

use std::{collections::BTreeSet, time::Duration};

use beemesh_protocol::{
    HostId,
    api::{
        Revision, RevisionOutcome, Rollout, RolloutAction, RolloutChanged, RolloutPhase, Workload,
    },
};

use super::{GAP, committed, on_hosts, rough, table};

/// The rollout of a workload, and its hosts.
pub(crate) fn rollout(workload: &Workload) -> String {
    let kind = workload.kind.to_lowercase();
    if workload.settled && workload.stopped {
        return format!("{kind} \"{}\" is stopped\n", workload.name);
    }
    if workload.settled {
        return format!("{kind} \"{}\" successfully rolled out\n", workload.name);
    }
    format!(
        "{}{GAP}revision {}{GAP}{}\n{}",
        workload.name,
        workload.revision,
        phase(workload),
        on_hosts(workload, None)
    )
}

/// The result of a change of a rollout; `did` is what the action does.
pub(crate) fn changed(
    name: &str,
    action: RolloutAction,
    did: &str,
    changed: &RolloutChanged,
) -> String {
    let revision = format!("{name}{GAP}revision {}", changed.revision);
    let committed = committed(changed.index);
    let stopped = changed.stopped;
    match (changed.changed, action) {
        (false, RolloutAction::Stop) => format!("{revision}{GAP}is stopped already\n"),
        (false, RolloutAction::Start) => format!("{revision}{GAP}is not stopped\n"),
        (false, _) => format!("{revision}{GAP}unchanged{GAP}{committed}\n"),
        (true, RolloutAction::Stop) => format!("{revision}{GAP}{did}{GAP}{committed}\n"),
        (true, _) if stopped => format!(
            "{revision}{GAP}{did}, stays stopped (`beemesh start {name}` starts it){GAP}{committed}\n"
        ),
        (true, _) => format!("{revision}{GAP}{did}{GAP}{committed}\n"),
    }
}

/// The state of the rollout in a few words.
pub(super) fn phase(workload: &Workload) -> String {
    let Some(rollout) = &workload.rollout else {
        if workload.stopped {
            return "stopping".to_owned();
        }
        return format!("{} of {} pods ready", workload.ready, workload.asked);
    };
    match rollout.phase {
        RolloutPhase::Rolling => format!(
            "{}: {} of {} updated",
            pace(workload, rollout),
            rollout.updated,
            workload.asked
        ),
        RolloutPhase::Paused => format!(
            "paused: {} of {} updated, the others run revision {}",
            rollout.updated, workload.asked, rollout.from
        ),
        RolloutPhase::RollingBack | RolloutPhase::RolledBack | RolloutPhase::Failed => {
            workload.reason.clone()
        }
    }
}

/// How many pods get the latest revision at a time. Where each host has one of them, they are called by their hosts.
pub(super) fn pace(workload: &Workload, rollout: &Rollout) -> String {
    let hosts: BTreeSet<HostId> = workload.hosts.iter().map(|one| one.id).collect();
    let noun = match hosts.len() < workload.hosts.len() {
        true => "pod",
        false => "host",
    };
    match rollout.max_unavailable {
        1 => format!("rolling out, 1 {noun} at a time"),
        many => format!("rolling out, {many} {noun}s at a time"),
    }
}

/// The kept revisions, the latest first; `now` is the time since 1970.
pub(crate) fn revisions(revisions: &[Revision], now: Duration) -> String {
    if revisions.is_empty() {
        return "no revisions\n".to_owned();
    }
    let has_causes = revisions.iter().any(|one| !one.cause.is_empty());
    let heads = ["REVISION", "AGE", "WHO", "INDEX", "RESULT", "CHANGE-CAUSE"];
    let mut rows = vec![heads.map(str::to_owned)];
    for one in revisions {
        rows.push([
            one.revision.to_string(),
            age(one, now),
            one.who.clone(),
            one.index.to_string(),
            result(one),
            one.cause.clone(),
        ]);
    }
    if !has_causes {
        rows[0][5].clear();
    }
    table(&rows)
}

/// One revision, with the objects that it runs with.
pub(crate) fn revision(one: &Revision, now: Duration) -> String {
    let mut text = format!(
        "revision {}{GAP}{} ago{GAP}{}{GAP}log index {}{GAP}{}\n",
        one.revision,
        age(one, now),
        one.who,
        one.index,
        result(one)
    );
    if !one.cause.is_empty() {
        text.push_str(&format!("change cause: {}\n", one.cause));
    }
    let mut rows = vec![["KIND", "NAME", "SHA-256"].map(str::to_owned)];
    for object in &one.objects {
        let (kind, name) = match object.kind.as_str() {
            "" => ("Secret".to_owned(), "(deleted)".to_owned()),
            kind => (kind.to_owned(), object.name.clone()),
        };
        rows.push([kind, name, object.hash.chars().take(12).collect()]);
    }
    text.push_str(&table(&rows));
    if one.images.is_empty() {
        return text;
    }
    let heading = if one.pinned { "IMAGE (KEPT)" } else { "IMAGE" };
    let mut rows = vec![[heading, "ID", "DIGEST"].map(str::to_owned)];
    for image in &one.images {
        let id = image.id.as_deref().map(|id| id.chars().take(12).collect());
        let digest = image.digest.as_deref();
        let digest = digest.map(|digest| digest.chars().take(19).collect());
        let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        rows.push([image.reference.clone(), known(id), known(digest)]);
    }
    text + &table(&rows)
}

fn age(one: &Revision, now: Duration) -> String {
    rough(now.saturating_sub(Duration::from_millis(one.made_at_ms)))
}

fn result(one: &Revision) -> String {
    let result = match one.outcome {
        Some(RevisionOutcome::Ready) if one.stopped => "stopped",
        None => "rolling out",
        Some(RevisionOutcome::Ready) => "rolled out",
        Some(RevisionOutcome::RolledBack) => "rolled back",
        Some(RevisionOutcome::Failed) => "failed",
        Some(RevisionOutcome::Superseded) => "superseded",
    };
    match one.reason.as_str() {
        "" => result.to_owned(),
        reason => format!("{result}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(revision: u64, outcome: Option<RevisionOutcome>, reason: &str) -> Revision {
        Revision {
            revision,
            index: 20 + revision,
            made_at_ms: 1000,
            who: "uid 0".into(),
            cause: String::new(),
            outcome,
            reason: reason.into(),
            stopped: false,
            objects: Vec::new(),
            images: Vec::new(),
            pinned: false,
        }
    }

    #[test]
    fn the_history_says_who_made_a_revision_and_how_it_ended() {
        let all = [
            one(8, None, ""),
            one(7, Some(RevisionOutcome::RolledBack), "h1: app: exit 127"),
            one(6, Some(RevisionOutcome::Ready), ""),
        ];
        let expected = "\
REVISION   AGE    WHO     INDEX   RESULT
8          2m0s   uid 0   28      rolling out
7          2m0s   uid 0   27      rolled back: h1: app: exit 127
6          2m0s   uid 0   26      rolled out
";
        assert_eq!(revisions(&all, Duration::from_secs(121)), expected);
        assert_eq!(revisions(&[], Duration::ZERO), "no revisions\n");
        let caused = Revision {
            cause: "new image".into(),
            ..one(9, None, "")
        };
        let table = revisions(&[caused], Duration::from_secs(121));
        assert!(
            table.contains("CHANGE-CAUSE") && table.contains("new image"),
            "{table}"
        );
    }
    #[test]
    fn a_change_says_what_it_did_and_that_a_stopped_workload_stays_so() {
        let answer = |changed, stopped| RolloutChanged {
            index: 41,
            revision: 8,
            changed,
            stopped,
        };
        use RolloutAction::{Scale, Start, Stop, Undo};
        for (action, did, answer, expected) in [
            (
                Stop,
                "stopped",
                answer(true, true),
                "stopped   committed at log index 41",
            ),
            (Stop, "stopped", answer(false, true), "is stopped already"),
            (Start, "started", answer(false, false), "is not stopped"),
            (
                Scale,
                "scaled",
                answer(true, true),
                "scaled, stays stopped (`beemesh start web` starts it)   committed at log index 41",
            ),
            (
                Undo,
                "rolled back",
                answer(false, false),
                "unchanged   committed at log index 41",
            ),
        ] {
            let line = super::changed("web", action, did, &answer);
            assert_eq!(line, format!("web   revision 8   {expected}\n"));
        }
    }
}
