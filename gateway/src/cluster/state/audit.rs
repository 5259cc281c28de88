//! The audit log. It is a part of the state, so each host has the changes that were requested on any host.
//!
//! Pure.

use std::sync::Arc;

use beemesh_protocol::{
    peer::{Action, Outcome},
    state::{AuditContext, AuditRecord, Command},
};

use super::State;
use crate::cluster::change::{about, detail};

/// Maximum length of the audit log in changes. The journal of each host has the changes requested on it for longer.
pub(crate) const AUDIT_MAX: usize = 1000;

impl State {
    /// The latest changes that users requested, the oldest first.
    pub(crate) fn audit(&self) -> impl Iterator<Item = &Arc<AuditRecord>> {
        self.audit.iter()
    }

    /// The record of a command that a user requested. Call this before the command is applied, which may rename or
    /// remove hosts.
    pub(super) fn record(&self, index: u64, command: &Command) -> Option<AuditRecord> {
        let origin = command.origin.clone()?;
        let about = about(&command.change);
        let (noun, verb) = about.verb;
        let host = self.hosts.get(&origin.host);
        Some(AuditRecord {
            index,
            at_ms: command.at_ms,
            what: format!("{noun} {verb}"),
            name: about.subject.name(&self.hosts),
            context: Some(AuditContext {
                detail: detail(&command.change, &origin, &self.hosts),
                host_name: host.map_or_else(String::new, |host| host.name.clone()),
            }),
            origin,
        })
    }

    /// Adds a record to the audit log. Call this only for a command that changed the state.
    pub(super) fn note(&mut self, record: AuditRecord) {
        self.audit.push(Arc::new(record));
        if self.audit.len() > AUDIT_MAX {
            // Gateways of releases before level 1 always forget the oldest record, and all gateways must have the same
            // state.
            match self.level {
                0 => self.audit.forget_oldest(),
                _ => self.audit.forget_fairly(),
            }
        }
    }
}

/// Whether a command changed the state.
pub(crate) fn changed(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Refused(_) => false,
        Outcome::Applied(effects) => effects
            .iter()
            .any(|effect| !matches!(effect.action, Action::Unchanged | Action::Kept)),
        Outcome::Done | Outcome::Deleted(_) | Outcome::Admitted(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use beemesh_protocol::{
        ClusterId, HostId,
        state::{Change, Host, TokenRecord, UserRole},
    };

    use super::{
        super::users::tests::{by, user},
        *,
    };

    #[test]
    fn a_record_keeps_the_label_the_rotation_and_the_name_that_the_host_had() {
        let hosts = |state: &State| state.hosts().keys().copied().collect::<Vec<_>>();
        let mut state = State::default();
        let host = |id: u8, name: &str| Host {
            id: HostId([id; 32]),
            name: name.to_owned(),
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            drained: false,
            claims_as: None,
            votes_from_ms: 0,
            lost_at_ms: 0,
            declared_lost: false,
            steady_at_ms: 0,
        };
        let found = Change::Found {
            cluster: ClusterId([7; 16]),
            host: host(1, "h1"),
        };
        state.apply(1, &Command::unasked(7, found));
        let label = Change::LabelHost {
            host: HostId([1; 32]),
            set: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            remove: vec!["disk".to_owned()],
        };
        state.apply(2, &by("uid 0", label));
        let token = TokenRecord {
            id: [8; 8],
            secret_hash: [8; 32],
            expires_ms: 99,
            uses: 1,
        };
        state.apply(3, &Command::unasked(7, Change::PutToken(token)));
        let rotate = Change::Admit {
            token: [8; 8],
            secret_hash: [8; 32],
            host: host(2, "h1"),
            replaces: Some(HostId([1; 32])),
        };
        state.apply(4, &by("uid 0", rotate));
        assert_eq!(hosts(&state), [HostId([2; 32])]);
        let contexts = |state: &State| -> Vec<_> {
            let context = |one: &Arc<AuditRecord>| one.context.clone().unwrap();
            let words = |one: AuditContext| format!("{}: {}", one.host_name, one.detail);
            state.audit().map(context).map(words).collect()
        };
        assert_eq!(contexts(&state), ["h1: zone=a disk-", "h1: new key"]);
        let again = State::from_snapshot(state.to_snapshot());
        assert_eq!(contexts(&again), contexts(&state));
    }

    fn told(state: &State) -> Vec<String> {
        let line = |one: &Arc<AuditRecord>| {
            format!("{} {} {} {}", one.index, one.origin.who, one.what, one.name)
        };
        state.audit().map(line).collect()
    }

    #[test]
    fn the_trail_has_what_was_changed_and_not_what_was_refused_or_done_by_a_host_itself() {
        let mut state = State::default();
        state.apply(4, &by("root", user("alice", UserRole::Viewer)));
        state.apply(5, &by("root", user("alice", UserRole::Admin)));
        let bob = Change::RevokeUser {
            user: "bob".to_owned(),
        };
        let refused = state.apply(6, &by("root", bob));
        assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
        let unasked = Command {
            origin: None,
            ..by("", user("carol", UserRole::Viewer))
        };
        state.apply(7, &unasked);
        let roles: Vec<_> = state.users().map(|user| user.role).collect();
        assert_eq!(roles, [UserRole::Admin, UserRole::Viewer]);
        assert_eq!(
            told(&state),
            ["4 root user created alice", "5 root user created alice"]
        );
        let again = State::from_snapshot(state.to_snapshot());
        assert_eq!(told(&again), told(&state));
        assert_eq!(again, state);
    }

    /// At level 0, which the cluster has while gateways of older releases may be members.
    #[test]
    fn the_trail_forgets_the_oldest() {
        let mut state = State::default();
        for index in 0..AUDIT_MAX as u64 + 2 {
            state.apply(index, &by("root", user("alice", UserRole::Viewer)));
        }
        let told = told(&state);
        assert_eq!((told.len(), &told[0][..2]), (AUDIT_MAX, "2 "));
    }

    #[test]
    fn a_flood_of_one_user_pushes_out_only_its_own() {
        let mut state = State {
            level: 1,
            ..State::default()
        };
        let mut index = 0;
        let mut change = |state: &mut State, who: &str| {
            index += 1;
            state.apply(index, &by(who, user("alice", UserRole::Viewer)));
        };
        for who in ["mallory", "root", "bob", "mallory", "root"] {
            change(&mut state, who);
        }
        for _ in 0..2 * AUDIT_MAX {
            change(&mut state, "mallory");
        }
        let told_now = told(&state);
        assert_eq!(told_now.len(), AUDIT_MAX);
        let first: Vec<_> = told_now.iter().map(|line| &line[..6]).take(3).collect();
        assert_eq!(first, ["2 root", "3 bob ", "5 root"]);
        assert!(told_now.last().unwrap().starts_with("2005 mallory"));
        // A gateway that installed a snapshot in between has the same log as the others.
        let mut other = State::from_snapshot(state.to_snapshot());
        assert_eq!(other, state);
        for who in ["bob", "mallory", "carol", "mallory"] {
            for state in [&mut state, &mut other] {
                state.apply(3000, &by(who, user("alice", UserRole::Admin)));
            }
        }
        assert_eq!(other, state);
        assert_eq!(told(&other), told(&state));
        assert!(told(&state).iter().any(|line| line.contains("carol")));
    }
}
