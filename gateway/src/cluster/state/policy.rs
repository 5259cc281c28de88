//! The policy that manifests are checked against: the current one, and the refusal of manifests that were checked
//! against an earlier one.
//!
//! Pure. The API checks the document of a policy, and admission parses it. Here it is text, so gateways of releases
//! with other rules have the same state.

use std::sync::Arc;

use beemesh_protocol::{
    peer::{Outcome, Refusal},
    state::PolicyRecord,
};

use super::{State, refused};

impl State {
    /// The policy; `None` means the default.
    pub(crate) fn policy(&self) -> Option<&Arc<PolicyRecord>> {
        self.policy.as_ref()
    }

    /// The number of changes of the policy; 0 is the default.
    pub(crate) fn policy_version(&self) -> u64 {
        self.policy.as_ref().map_or(0, |policy| policy.version)
    }

    /// Refuses a manifest that was checked against another version of the policy than the current one. A manifest
    /// without a version was proposed by a release without a policy.
    pub(super) fn check_policy(&self, checked: Option<u64>) -> Result<(), Vec<Refusal>> {
        let version = self.policy_version();
        match checked {
            Some(checked) if checked != version => Err(refused(format!(
                "the policy of the cluster has version {version} now, and version {checked} was checked: apply the manifest again"
            ))),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn set_policy(
        &mut self,
        index: u64,
        at_ms: u64,
        document: &str,
        if_version: Option<u64>,
    ) -> Result<Outcome, Vec<Refusal>> {
        let version = self.policy_version();
        // A client that did not receive the answer repeats its request.
        let is_set = self
            .policy
            .as_ref()
            .is_some_and(|policy| policy.document == document);
        if is_set {
            return Ok(Outcome::Done);
        }
        if let Some(wanted) = if_version.filter(|wanted| *wanted != version) {
            return Err(refused(format!(
                "the policy of the cluster has version {version}, not {wanted}: it has been changed, see `beemesh policy show`"
            )));
        }
        self.policy = Some(Arc::new(PolicyRecord {
            version: version + 1,
            index,
            at_ms,
            document: document.to_owned(),
        }));
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::state::{Change, Command};

    use super::*;

    fn set(state: &mut State, index: u64, document: &str, if_version: Option<u64>) -> Outcome {
        let document = document.to_owned();
        let change = Change::SetPolicy {
            document,
            if_version,
        };
        state.apply(index, &Command::unasked(7, change))
    }

    fn apply(state: &mut State, index: u64, policy: Option<u64>) -> Outcome {
        let change = Change::Apply {
            manifest: "none".into(),
            objects: Vec::new(),
            policy,
            keep: false,
            if_index: None,
        };
        state.apply(index, &Command::unasked(7, change))
    }

    #[test]
    fn versions_count_up_and_the_same_document_is_no_change() {
        let mut state = State::default();
        assert_eq!((state.policy_version(), state.policy()), (0, None));
        for (index, document, if_version, version) in [
            (3, "a", Some(0), 1),
            (4, "a", Some(0), 1),
            (5, "b", None, 2),
            (6, "c", Some(2), 3),
        ] {
            let outcome = set(&mut state, index, document, if_version);
            assert_eq!((outcome, state.policy_version()), (Outcome::Done, version));
        }
        let refused = set(&mut state, 7, "d", Some(2));
        assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
        let record = PolicyRecord {
            version: 3,
            index: 6,
            at_ms: 7,
            document: "c".into(),
        };
        assert_eq!(state.policy().map(AsRef::as_ref), Some(&record));
        assert_eq!(State::from_snapshot(state.to_snapshot()), state);
    }

    #[test]
    fn what_another_version_has_checked_is_refused_and_what_none_has_is_not() {
        let mut state = State::default();
        let is_applied = |outcome: Outcome| matches!(outcome, Outcome::Applied(_));
        assert!(is_applied(apply(&mut state, 1, Some(0))));
        assert_eq!(set(&mut state, 2, "a", None), Outcome::Done);
        let before = state.clone();
        assert!(!is_applied(apply(&mut state, 3, Some(0))));
        assert!(!is_applied(apply(&mut state, 4, Some(2))));
        assert_eq!(state, before);
        assert!(is_applied(apply(&mut state, 5, Some(1))));
        assert!(is_applied(apply(&mut state, 6, None)));
    }
}
