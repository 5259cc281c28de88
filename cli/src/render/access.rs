//! Users, join tokens, the policy and the audit log.
//!
//! Pure, like its parent.

use std::time::Duration;

use beemesh_protocol::api::{Audited, JoinToken, Policy, PolicySet, Revoked, User};

use super::{GAP, committed, rough, table};

pub(crate) fn users(users: &[User], now: Duration) -> String {
    if users.is_empty() {
        return "no users\n".to_owned();
    }
    let mut rows = vec![["USER", "ROLE", "EXPIRES IN"].map(str::to_owned)];
    for user in users {
        let left = Duration::from_millis(user.expires_at_ms).saturating_sub(now);
        let left = match left {
            Duration::ZERO => "expired".to_owned(),
            left => rough(left),
        };
        rows.push([user.name.clone(), user.role.name().to_owned(), left]);
    }
    table(&rows)
}

/// The audit log, with the latest change last, as in the journal.
pub(crate) fn audit(changes: &[Audited], now: Duration) -> String {
    if changes.is_empty() {
        return "no changes\n".to_owned();
    }
    let heads = [
        "INDEX", "AGE", "WHO", "FROM", "HOST", "ACTION", "TARGET", "DETAIL",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    for change in changes {
        let age = now.saturating_sub(Duration::from_millis(change.at_ms));
        rows.push([
            change.index.to_string(),
            rough(age),
            change.who.clone(),
            change.from.clone(),
            change.host.clone(),
            change.action.clone(),
            change.name.clone(),
            change.detail.clone(),
        ]);
    }
    table(&rows)
}

/// The policy in the form that `policy set` accepts, below a comment with its version.
pub(crate) fn policy(policy: &Policy) -> String {
    let head = match policy.version {
        0 => "# version 0 (the default policy)".to_owned(),
        version => format!("# version {version}, {}", committed(policy.index)),
    };
    format!("{head}\n{}", policy.document)
}

pub(crate) fn policy_set(set: &PolicySet) -> String {
    format!(
        "policy{GAP}version {}{GAP}{}\n",
        set.version,
        committed(set.index)
    )
}

/// Join tokens; `now` is the time since 1970.
pub(crate) fn tokens(tokens: &[JoinToken], now: Duration) -> String {
    if tokens.is_empty() {
        return "no tokens\n".to_owned();
    }
    let mut rows = vec![["TOKEN", "HOSTS LEFT", "EXPIRES IN"].map(str::to_owned)];
    for token in tokens {
        let left = Duration::from_millis(token.expires_at_ms).saturating_sub(now);
        rows.push([token.id.clone(), token.uses.to_string(), rough(left)]);
    }
    table(&rows)
}

pub(crate) fn revoked(what: &str, id: &str, revoked: &Revoked) -> String {
    format!("{what} {id}{GAP}revoked{GAP}{}\n", committed(revoked.index))
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::api::UserRole;

    use super::*;

    #[test]
    fn users_and_changes_are_tables() {
        let user = |name: &str, role, expires_at_ms| User {
            name: name.to_owned(),
            role,
            made_at_ms: 0,
            expires_at_ms,
        };
        let all = [
            user("alice", UserRole::Admin, 90_061_000),
            user("ci", UserRole::Deployer, 500),
        ];
        let now = Duration::from_secs(1);
        assert_eq!(
            users(&all, now),
            "USER    ROLE       EXPIRES IN\nalice   admin      1d1h\nci      deployer   expired\n"
        );
        assert_eq!(users(&[], now), "no users\n");
        let change = Audited {
            index: 9,
            at_ms: 1000,
            action: "host labelled".to_owned(),
            name: "h1".to_owned(),
            detail: "zone=a".to_owned(),
            who: "alice".to_owned(),
            from: "192.0.2.7:40112".to_owned(),
            host: "h1".to_owned(),
        };
        assert_eq!(
            audit(&[change], Duration::from_secs(61)),
            "INDEX   AGE    WHO     FROM              HOST   ACTION          TARGET   DETAIL\n\
             9       1m0s   alice   192.0.2.7:40112   h1     host labelled   h1       zone=a\n"
        );
    }
}
