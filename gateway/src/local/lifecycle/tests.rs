use super::*;

const OLD: ClusterId = ClusterId([1; 16]);
const NEW: ClusterId = ClusterId([2; 16]);
const KEY: HostId = HostId([9; 32]);

fn join(cluster: ClusterId, cleared: bool) -> Joining {
    Joining {
        cluster,
        cleared,
        members: Vec::new(),
    }
}

/// Returns every state, with all values that a transition depends on.
fn lives() -> Vec<(&'static str, Life)> {
    let removed = |at| Life::Removed { cluster: OLD, at };
    vec![
        ("alone", Life::Alone),
        ("member", Life::Member),
        ("admitted", Life::Joining(join(OLD, false))),
        ("joining", Life::Joining(join(OLD, true))),
        ("removed", removed(Some(7))),
        ("told", removed(None)),
        ("making", Life::RotatingKey(Rotation::Making)),
        (
            "proposed",
            Life::RotatingKey(Rotation::Proposed { host: KEY }),
        ),
        (
            "taken",
            Life::RotatingKey(Rotation::Admitted {
                host: KEY,
                joining: join(OLD, false),
            }),
        ),
        ("recovering", Life::Recovering { cluster: NEW }),
    ]
}

fn events() -> Vec<(&'static str, Event)> {
    let removed = |at| Event::Removed { cluster: OLD, at };
    vec![
        ("Admitted", Event::Admitted(join(OLD, false))),
        ("Cleared", Event::Cleared),
        ("Joined", Event::Joined),
        ("Grown", Event::Grown),
        ("Removed at", removed(Some(7))),
        ("Removed told", removed(None)),
        ("Readmitted early", Event::Readmitted { at: 7 }),
        ("Readmitted", Event::Readmitted { at: 8 }),
        ("KeyAsked", Event::KeyAsked),
        ("KeyProposed", Event::KeyProposed { host: KEY }),
        ("KeyAdmitted", Event::KeyAdmitted(join(OLD, false))),
        ("KeyKept", Event::KeyKept),
        ("KeyTaken", Event::KeyTaken),
        ("RecoveryAsked", Event::RecoveryAsked { cluster: NEW }),
        ("Recovered", Event::Recovered),
    ]
}

/// The allowed transitions of each event; all other pairs are forbidden.
const TABLE: &[(&str, &[(&str, &str)])] = &[
    (
        "Admitted",
        &[
            ("alone", "admitted"),
            ("member", "admitted"),
            ("admitted", "admitted"),
            ("joining", "admitted"),
            ("removed", "admitted"),
            ("told", "admitted"),
        ],
    ),
    (
        "Cleared",
        &[("admitted", "joining"), ("joining", "joining")],
    ),
    ("Joined", &[("joining", "member")]),
    ("Grown", &[("alone", "member")]),
    (
        "Removed at",
        &[
            ("alone", "removed"),
            ("member", "removed"),
            ("removed", "removed"),
            ("told", "told"),
        ],
    ),
    (
        "Removed told",
        &[
            ("alone", "told"),
            ("member", "told"),
            ("removed", "told"),
            ("told", "told"),
        ],
    ),
    ("Readmitted early", &[]),
    ("Readmitted", &[("removed", "member")]),
    ("KeyAsked", &[("alone", "making"), ("member", "making")]),
    ("KeyProposed", &[("making", "proposed")]),
    ("KeyAdmitted", &[("proposed", "taken")]),
    ("KeyKept", &[("making", "member"), ("proposed", "member")]),
    ("KeyTaken", &[("taken", "admitted")]),
    (
        "RecoveryAsked",
        &[
            ("alone", "recovering"),
            ("member", "recovering"),
            ("joining", "recovering"),
            ("making", "recovering"),
            ("proposed", "recovering"),
        ],
    ),
    ("Recovered", &[("recovering", "alone")]),
];

#[test]
fn every_pair_of_state_and_event_has_one_outcome() {
    let lives = lives();
    let find = |name: &str| {
        let found = lives.iter().find(|(other, _)| *other == name);
        found.map(|(_, life)| life.clone()).unwrap()
    };
    let events = events();
    assert_eq!(
        events.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        TABLE.iter().map(|(name, _)| *name).collect::<Vec<_>>()
    );
    for ((event_name, event), (_, allowed)) in events.iter().zip(TABLE) {
        for (life_name, life) in &lives {
            let after = life.after(event.clone());
            let wanted = allowed.iter().find(|(from, _)| from == life_name);
            match wanted {
                Some((_, to)) => assert_eq!(after, Ok(find(to)), "{life_name} {event_name}"),
                None => {
                    let words = after.expect_err(&format!("{life_name} {event_name}"));
                    assert_eq!(words.life, life.words());
                }
            }
        }
    }
}

#[test]
fn a_gateway_begins_again_only_where_its_log_or_key_is_another() {
    let again: Vec<_> = lives()
        .into_iter()
        .filter(|(_, life)| life.begins_again())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(again, ["admitted", "taken", "recovering"]);
    let error = Life::Recovering { cluster: NEW }.after(Event::KeyAsked);
    assert_eq!(
        error.unwrap_err().to_string(),
        "this host is recovering as a cluster of one, so it cannot change its key now"
    );
}

#[test]
fn every_state_comes_back_from_what_is_written_of_it() {
    for (name, life) in lives() {
        let text = serde_json::to_string(&life).unwrap();
        assert_eq!(serde_json::from_str::<Life>(&text).unwrap(), life, "{name}");
    }
    for text in [
        "",
        "\"alone",
        "\"unknown\"",
        "{\"joining\":{}}",
        "{\"removed\":{\"cluster\":1}}",
    ] {
        assert!(serde_json::from_str::<Life>(text).is_err(), "{text}");
    }
}
