//! Users of the remote API, and the certificate authority.
//!
//! Pure.

use std::sync::Arc;

use beemesh_protocol::{
    peer::Outcome,
    state::{Authority, UserRecord},
};

use super::{State, missing, refused};

/// Maximum number of users of the remote API: persons and pipelines, not hosts.
pub(crate) const USERS_MAX: usize = 256;
type Result<T = Outcome> = std::result::Result<T, Vec<beemesh_protocol::peer::Refusal>>;

impl State {
    /// The certificate authority; `None` until it is first needed.
    pub(crate) fn authority(&self) -> Option<&Arc<Authority>> {
        self.authority.as_ref()
    }

    /// All users, sorted by name, including those with an expired certificate.
    pub(crate) fn users(&self) -> impl ExactSizeIterator<Item = &UserRecord> {
        self.users.values()
    }

    pub(super) fn put_authority(
        &mut self,
        authority: &Authority,
        replaced: Option<[u8; 32]>,
    ) -> Result {
        if self.authority.as_ref().map(|present| present.key) != replaced {
            return Err(refused(
                "another host created the certificate authority first",
            ));
        }
        self.authority = Some(Arc::new(authority.clone()));
        self.users = Arc::default();
        Ok(Outcome::Done)
    }

    pub(super) fn put_user(&mut self, user: &UserRecord) -> Result {
        if self.users.len() >= USERS_MAX && !self.users.contains_key(&user.name) {
            return Err(refused(format!(
                "the cluster has {USERS_MAX} users, which is the maximum: revoke one first"
            )));
        }
        Arc::make_mut(&mut self.users).insert(user.name.clone(), user.clone());
        Ok(Outcome::Done)
    }

    pub(super) fn revoke_user(&mut self, name: &str) -> Result {
        match Arc::make_mut(&mut self.users).remove(name) {
            Some(_) => Ok(Outcome::Done),
            None => Err(missing(format!("user `{name}` not found"))),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use beemesh_protocol::{
        HostId,
        state::{Change, Command, Origin, UserRole},
    };

    use super::*;

    pub(in super::super) fn by(who: &str, change: Change) -> Command {
        Command {
            at_ms: 7,
            change,
            origin: Some(Origin {
                host: HostId([1; 32]),
                who: who.to_owned(),
                from: "pid 1".to_owned(),
            }),
        }
    }

    fn authority(key: u8) -> Authority {
        Authority {
            certificate: vec![key],
            key: [key; 32],
            sealed: vec![key],
        }
    }

    pub(in super::super) fn user(name: &str, role: UserRole) -> Change {
        Change::PutUser(UserRecord {
            name: name.to_owned(),
            role,
            certificate: [1; 32],
            made_ms: 7,
            expires_ms: 9,
        })
    }

    #[test]
    fn of_two_authorities_one_wins_and_the_next_voids_all_users() {
        let mut state = State::default();
        let put = |key, replaced: Option<u8>| Change::PutAuthority {
            authority: authority(key),
            replaced: replaced.map(|key| [key; 32]),
        };
        assert_eq!(state.apply(1, &by("a", put(1, None))), Outcome::Done);
        let late = state.apply(2, &by("b", put(2, None)));
        assert!(matches!(late, Outcome::Refused(_)), "{late:?}");
        assert_eq!(state.authority().map(|one| one.key), Some([1; 32]));
        state.apply(3, &by("a", user("alice", UserRole::Admin)));
        assert_eq!(state.apply(4, &by("a", put(2, Some(1)))), Outcome::Done);
        assert_eq!(state.users().len(), 0);
        assert_eq!(state.authority().map(|one| one.key), Some([2; 32]));
    }
}
