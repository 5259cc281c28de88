//! How a workload is rolled out, as its manifest says.
//!
//! Pure: no I/O, no clock, no randomness. Input: an object of the state. Output: its [`Strategy`], with the defaults of
//! Kubernetes where the manifest says nothing, except for `maxUnavailable`, whose default is 1.

use beemesh_protocol::state::{Kind, Object};
use serde::Deserialize;
use serde_json::Value;

/// The annotation that keeps a failed revision where it is.
pub(crate) const ON_FAILURE: &str = "beemesh.io/on-failure";
/// The default of `progressDeadlineSeconds`.
const DEADLINE_S: u64 = 600;
/// The default of `revisionHistoryLimit`.
const HISTORY: usize = 10;

/// The number of pods that may be unavailable during a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// All at once: the strategy is `Recreate`.
    All,
    /// A number of pods.
    Pods(usize),
    /// A share of the pods, in percent.
    Percent(usize),
}

/// The way in which a workload is rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strategy {
    /// The number of pods that may be unavailable.
    pub(crate) unavailable: Unavailable,
    /// The time for which a pod must be ready to be available, in seconds.
    pub(crate) min_ready_s: u64,
    /// The time without progress after which a rollout has failed, in seconds.
    pub(crate) deadline_s: u64,
    /// Nothing is rolled out.
    pub(crate) paused: bool,
    /// The number of earlier revisions to keep.
    pub(crate) history_limit: usize,
    /// A failed revision stays where it is.
    pub(crate) halts: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    annotations: Value,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    strategy: Option<Written>,
    update_strategy: Option<Written>,
    min_ready_seconds: Option<i64>,
    progress_deadline_seconds: Option<i64>,
    revision_history_limit: Option<i64>,
    paused: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    r#type: Option<String>,
    rolling_update: Option<Rolling>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rolling {
    max_unavailable: Option<Value>,
}

impl Strategy {
    /// The strategy of an object. A value that cannot be read counts as absent: admission refuses it.
    pub(crate) fn of(object: &Object) -> Self {
        let body: Body = match object.kind {
            Kind::Deployment | Kind::DaemonSet | Kind::Pod => {
                serde_json::from_slice(&object.body).unwrap_or_default()
            }
            _ => Body::default(),
        };
        let spec = body.spec;
        let written = match object.kind {
            Kind::DaemonSet => spec.update_strategy,
            _ => spec.strategy,
        };
        let written = written.unwrap_or_default();
        let unavailable = match written.r#type.as_deref() {
            Some("Recreate") => Unavailable::All,
            _ => unavailable(written.rolling_update.and_then(|one| one.max_unavailable)),
        };
        let seconds = |written: Option<i64>| written.and_then(|one| u64::try_from(one).ok());
        let min_ready_s = seconds(spec.min_ready_seconds).unwrap_or(0);
        // Admission refuses a Deployment that cannot be ready before its deadline. A DaemonSet has no deadline to write.
        let deadline_s = match object.kind {
            Kind::DaemonSet => DEADLINE_S.saturating_add(min_ready_s),
            _ => seconds(spec.progress_deadline_seconds).unwrap_or(DEADLINE_S),
        };
        let on_failure = body.metadata.annotations.get(ON_FAILURE);
        Self {
            unavailable,
            min_ready_s,
            deadline_s,
            paused: spec.paused.unwrap_or(false),
            history_limit: seconds(spec.revision_history_limit)
                .and_then(|limit| usize::try_from(limit).ok())
                .unwrap_or(HISTORY),
            halts: on_failure.and_then(Value::as_str) == Some("pause"),
        }
    }

    /// The number of `pods` that may be unavailable: at least 1.
    pub(crate) fn unavailable_of(&self, pods: usize) -> usize {
        match self.unavailable {
            Unavailable::All => pods,
            Unavailable::Pods(most) => most.max(1),
            // Kubernetes rounds down.
            Unavailable::Percent(share) => (pods.saturating_mul(share) / 100).max(1),
        }
    }
}

fn unavailable(written: Option<Value>) -> Unavailable {
    match written {
        Some(Value::Number(number)) => {
            let number = number
                .as_u64()
                .and_then(|number| usize::try_from(number).ok());
            Unavailable::Pods(number.unwrap_or(1))
        }
        Some(Value::String(text)) => {
            let share = text.strip_suffix('%').and_then(|text| text.parse().ok());
            share.map_or(Unavailable::Pods(1), Unavailable::Percent)
        }
        _ => Unavailable::Pods(1),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn strategy(kind: Kind, spec: &str) -> Strategy {
        Strategy::of(&Object {
            kind,
            namespace: "default".into(),
            name: "web".into(),
            body: format!(r#"{{"metadata":{{"annotations":{{"beemesh.io/on-failure":"pause"}}}},"spec":{spec}}}"#).into(),
            hash: [0; 32],
            references: Vec::new(),
            replicas: None,
            selector: BTreeMap::new(),
        })
    }

    #[test]
    fn what_is_written_is_read_and_the_rest_has_defaults() {
        let plain = strategy(Kind::Deployment, "{}");
        assert_eq!(plain.unavailable, Unavailable::Pods(1));
        assert_eq!((plain.min_ready_s, plain.deadline_s), (0, 600));
        assert_eq!(
            (plain.paused, plain.history_limit, plain.halts),
            (false, 10, true)
        );
        let written = r#"{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":"50%","maxSurge":1}},
            "minReadySeconds":5,"progressDeadlineSeconds":30,"revisionHistoryLimit":2,"paused":true}"#;
        let web = strategy(Kind::Deployment, written);
        assert_eq!(web.unavailable, Unavailable::Percent(50));
        assert_eq!((web.min_ready_s, web.deadline_s), (5, 30));
        assert_eq!((web.paused, web.history_limit), (true, 2));
        let most = |pods| web.unavailable_of(pods);
        assert_eq!([1, 2, 3, 5, 100].map(most), [1, 1, 1, 2, 50]);
        let all = strategy(Kind::Deployment, r#"{"strategy":{"type":"Recreate"}}"#);
        assert_eq!(all.unavailable_of(7), 7);
        let daemon = r#"{"updateStrategy":{"rollingUpdate":{"maxUnavailable":2}},"strategy":{"type":"Recreate"}}"#;
        assert_eq!(strategy(Kind::DaemonSet, daemon).unavailable_of(7), 2);
        let slow = strategy(Kind::DaemonSet, r#"{"minReadySeconds":700}"#);
        assert_eq!((slow.min_ready_s, slow.deadline_s), (700, 1300));
        let none = r#"{"strategy":{"rollingUpdate":{"maxUnavailable":0}}}"#;
        assert_eq!(strategy(Kind::Deployment, none).unavailable_of(3), 1);
    }
}
