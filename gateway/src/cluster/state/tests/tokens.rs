//! Tests of join tokens.

use super::*;

#[test]
fn a_token_admits_as_often_as_it_says_and_members_need_none() {
    let mut state = State::default();
    state.apply(
        1,
        &at(
            0,
            Change::Found {
                cluster: ClusterId([1; 16]),
                host: host(1, "h1"),
            },
        ),
    );
    let token = TokenRecord {
        id: [7; 8],
        secret_hash: [8; 32],
        expires_ms: 100,
        uses: 1,
    };
    state.apply(2, &at(0, Change::PutToken(token)));
    let mut ask = |at_ms, hash, host| {
        state.apply(
            3,
            &at(
                at_ms,
                Change::Admit {
                    token: [7; 8],
                    secret_hash: [hash; 32],
                    host,
                    replaces: None,
                },
            ),
        )
    };
    let unknown = Outcome::Refused(refused(
        "the join token is unknown, used up, revoked or expired: create a new token with `beemesh token create`",
    ));
    assert_eq!(ask(50, 9, host(2, "h2")), unknown, "wrong secret");
    assert_eq!(ask(100, 8, host(2, "h2")), unknown, "expired");
    assert!(
        matches!(ask(50, 8, host(2, "h1")), Outcome::Refused(_)),
        "name is taken"
    );
    assert!(matches!(ask(50, 8, host(2, "h2")), Outcome::Admitted(members) if members.len() == 2));
    assert_eq!(ask(50, 8, host(3, "h3")), unknown, "used up");
    assert!(
        matches!(ask(500, 8, host(2, "h2")), Outcome::Admitted(_)),
        "a member asks again"
    );
}

#[test]
fn a_revoked_token_admits_no_host() {
    let mut state = State::default();
    let token = TokenRecord {
        id: [7; 8],
        secret_hash: [8; 32],
        expires_ms: 100,
        uses: 3,
    };
    state.apply(1, &at(0, Change::PutToken(token.clone())));
    assert_eq!(state.tokens(99).collect::<Vec<_>>(), [&token]);
    assert_eq!(state.tokens(100).count(), 0, "expired");
    let mut revoke = |id| state.apply(2, &at(0, Change::RevokeToken { token: [id; 8] }));
    assert!(
        matches!(revoke(6), Outcome::Refused(_)),
        "there is no such token"
    );
    assert_eq!(revoke(7), Outcome::Done);
    assert!(matches!(revoke(7), Outcome::Refused(_)), "it is gone");
    let admit = Change::Admit {
        token: [7; 8],
        secret_hash: [8; 32],
        host: host(2, "h2"),
        replaces: None,
    };
    assert!(matches!(state.apply(3, &at(0, admit)), Outcome::Refused(_)));
    assert_eq!(state, State::default());
}
