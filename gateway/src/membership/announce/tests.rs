use std::sync::Mutex;

use beemesh_protocol::{ClusterId, state::TokenRecord};

use super::*;
use crate::cluster::host_name::name_trouble;

const HOUR: Duration = Duration::from_secs(3600);

fn h(n: u8) -> HostId {
    HostId([n; 32])
}

fn host(n: u8) -> Host {
    Host {
        id: h(n),
        name: format!("h{n}"),
        addresses: vec![address(n)],
        labels: BTreeMap::new(),
        drained: false,
        claims_as: None,
        votes_from_ms: 0,
        lost_at_ms: 0,
        declared_lost: false,
        steady_at_ms: 0,
    }
}

fn address(n: u8) -> String {
    format!("/ip4/10.0.0.{n}/udp/4701/quic-v1")
}

fn said(n: u8, name: &str, name_is_set: bool) -> Welcome {
    Welcome {
        host: h(n),
        name: name.into(),
        addresses: vec![address(n)],
        version: "0.2.1".into(),
        connected: Vec::new(),
        reserved_ports: Vec::new(),
        name_is_set,
    }
}

/// A log that every host applies at once.
struct Cluster {
    view: watch::Sender<Arc<View>>,
    entries: Mutex<u64>,
}

impl Cluster {
    fn of(count: u8) -> Arc<Self> {
        let cluster = Self {
            view: watch::Sender::default(),
            entries: Mutex::default(),
        };
        let found = Change::Found {
            cluster: ClusterId([7; 16]),
            host: host(1),
        };
        let token = Change::PutToken(TokenRecord {
            id: [1; 8],
            secret_hash: [2; 32],
            expires_ms: 9,
            uses: count.into(),
        });
        let admit = |n| Change::Admit {
            token: [1; 8],
            secret_hash: [2; 32],
            host: host(n),
            replaces: None,
        };
        for change in [found, token].into_iter().chain((2..=count).map(admit)) {
            cluster.propose(change).unwrap();
        }
        *cluster.entries.lock().unwrap() = 0;
        Arc::new(cluster)
    }

    fn propose(&self, change: Change) -> Result<(), String> {
        *self.entries.lock().unwrap() += 1;
        let before = self.view.borrow().clone();
        let mut state = State::clone(&before.state);
        let applied = before.applied + 1;
        let outcome = state.apply(applied, &Command::unasked(5, change));
        let state = Arc::new(state);
        self.view.send_replace(Arc::new(View { applied, state }));
        match outcome {
            Outcome::Refused(refusals) => Err(refusals[0].message.clone()),
            _ => Ok(()),
        }
    }

    fn state(&self) -> Arc<State> {
        self.view.borrow().state.clone()
    }

    /// Runs the loop of a host that wants this change.
    fn keeps(
        self: &Arc<Self>,
        welcome: watch::Receiver<Welcome>,
        wanted: impl Fn(&Welcome, &State) -> Option<Change> + Send + Sync + 'static,
    ) {
        let (cluster, news) = (self.clone(), welcome.clone());
        tokio::spawn(async move {
            let wanted = |view: &View| wanted(&welcome.borrow(), &view.state);
            let view = cluster.view.subscribe();
            let propose = |change| {
                let cluster = cluster.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    cluster.propose(change)
                }
            };
            keep(view, news, wanted, propose).await;
        });
    }

    /// Waits for an hour, and returns the number of log entries.
    async fn hour(&self) -> u64 {
        tokio::time::sleep(HOUR).await;
        *self.entries.lock().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn two_hosts_of_one_name_leave_the_log_alone_for_an_idle_hour() {
    for is_set in [false, true] {
        let cluster = Cluster::of(3);
        let told: Vec<_> = [2, 3]
            .map(|n| watch::Sender::new(said(n, "h1", is_set)))
            .into();
        for (n, told) in [2, 3].into_iter().zip(&told) {
            cluster.keeps(told.subscribe(), move |welcome, state| {
                address_change(h(n), welcome, state)
            });
        }
        assert_eq!(cluster.hour().await, 0, "set: {is_set}");
        // A new address is accepted, and the name stays.
        told[1].send_modify(|welcome| welcome.addresses = vec![address(93)]);
        assert_eq!(cluster.hour().await, 1, "set: {is_set}");
        let state = cluster.state();
        assert_eq!(state.hosts()[&h(3)].addresses, [address(93)]);
        assert_eq!(state.hosts()[&h(3)].name, "h3");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_or_changes_nothing_is_proposed_seldom() {
    // Like two hosts of release 0.2.0 whose systems have the name of another member.
    let cluster = Cluster::of(3);
    let told: Vec<_> = [2, 3]
        .map(|n| watch::Sender::new(said(n, "h1", false)))
        .into();
    for (n, told) in [2, 3].into_iter().zip(&told) {
        cluster.keeps(told.subscribe(), move |_, state| {
            let host = state.hosts()[&h(n)].clone();
            let name = "h1".to_owned();
            Some(Change::PutHost(Host { name, ..host }))
        });
    }
    let refused = cluster.hour().await;
    assert!((2..=140).contains(&refused), "{refused}");

    // Like a host whose change is committed and does not have the wanted effect.
    let cluster = Cluster::of(3);
    let told = watch::Sender::new(said(2, "h2", false));
    cluster.keeps(told.subscribe(), |_, state| {
        Some(Change::PutHost(state.hosts()[&h(2)].clone()))
    });
    let made = cluster.hour().await;
    assert!((2..=70).contains(&made), "{made}");
}

#[test]
fn the_known_name_stays_and_the_address_goes_through_without_it() {
    let cluster = Cluster::of(3);
    let state = cluster.state();
    let put = |welcome: &Welcome| match address_change(h(3), welcome, &state) {
        Some(Change::PutHost(host)) => Some((host.name, host.addresses)),
        None => None,
        other => panic!("{other:?}"),
    };
    let moved = |welcome: Welcome| Welcome {
        addresses: vec![address(93)],
        ..welcome
    };
    let (old, new) = (vec![address(3)], vec![address(93)]);
    for (welcome, expected) in [
        (said(3, "h3", false), None),
        (said(3, "localhost", false), None),
        (moved(said(3, "localhost", false)), Some(("h3", &new))),
        (said(3, "db", true), Some(("db", &old))),
        (said(3, "h2", true), None),
        (moved(said(3, "h2", true)), Some(("h3", &new))),
        (
            Welcome {
                addresses: Vec::new(),
                ..said(3, "db", true)
            },
            Some(("db", &old)),
        ),
    ] {
        let expected = expected.map(|(name, addresses)| (name.to_owned(), addresses.clone()));
        assert_eq!(put(&welcome), expected, "{welcome:?}");
    }
    assert_eq!(name_trouble(h(3), &said(3, "h3", false), &state), "");
    let trouble = name_trouble(h(3), &said(3, "h2", true), &state);
    assert!(trouble.contains("`name` is set to h2"), "{trouble}");
}

#[tokio::test(start_paused = true)]
async fn a_host_is_labelled_once() {
    let cluster = Cluster::of(2);
    let told = watch::Sender::new(said(2, "h2", false));
    let machine = labels::of_machine("x86_64");
    cluster.keeps(told.subscribe(), move |_, state| {
        label_change(h(2), &machine, state)
    });
    assert_eq!(cluster.hour().await, 1);
    let state = cluster.state();
    let labels = &state.hosts()[&h(2)].labels;
    assert_eq!(labels["kubernetes.io/arch"], "amd64");
    assert_eq!(labels.len(), 4);
}
