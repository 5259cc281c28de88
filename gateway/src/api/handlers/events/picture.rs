//! Everything that events tell of, as it is at one moment, and what is new in it.
//!
//! Pure. Pictures share what did not change, and its text is made once.

use std::{collections::BTreeMap, sync::Arc};

use axum::body::Bytes;
use beemesh_protocol::api::{GoneEvent, Host, StateEvent, Workload};
use serde::Serialize;

use crate::cluster::view::Scene;

/// Everything at one moment.
#[derive(Debug, Default)]
pub(super) struct Picture {
    /// Counts the pictures with news; the one before all of them, in which there is nothing, is 0.
    number: u64,
    index: Option<u64>,
    workloads: Items<Workload>,
    hosts: Items<Host>,
    /// What is new since the picture of the number before.
    news: Bytes,
}

type Items<T> = BTreeMap<String, Arc<Item<T>>>;

#[derive(Debug)]
struct Item<T> {
    shown: T,
    /// In the picture of this number it became what it is, as far as that is news.
    since: u64,
    /// Its event.
    event: String,
}

impl Picture {
    /// What the scene looks like after this picture. It has the same number when nothing in it is news.
    pub(super) fn next(&self, scene: &Scene) -> Self {
        let number = self.number + 1;
        let name = |workload: &Workload| workload.name.clone();
        let workloads = next(
            "workload",
            &self.workloads,
            number,
            scene.workloads(),
            name,
            |a, b| a == b,
        );
        // That a host keeps up is no news.
        let alike = |a: &Host, b: &Host| {
            let a = Host {
                applied: b.applied,
                ..a.clone()
            };
            a == *b
        };
        let name = |host: &Host| host.name.clone();
        let hosts = next("host", &self.hosts, number, scene.hosts(), name, alike);
        let mut now = Self {
            number,
            index: Some(scene.applied),
            workloads,
            hosts,
            news: Bytes::new(),
        };
        now.news = now.changes(self).into();
        if now.news.is_empty() {
            now.number = self.number;
            now.news.clone_from(&self.news);
        }
        now
    }

    pub(super) fn has_news(&self, before: &Self) -> bool {
        self.number != before.number
    }

    /// The events that lead from an earlier picture to this one.
    pub(super) fn since(&self, told: &Self) -> Bytes {
        match self.number - told.number {
            0 => Bytes::new(),
            1 => self.news.clone(),
            _ => self.changes(told).into(),
        }
    }

    fn changes(&self, told: &Self) -> String {
        let mut news = String::new();
        push_new(&mut news, &self.workloads, told.number);
        for name in told.workloads.keys() {
            if !self.workloads.contains_key(name) {
                news.push_str(&event("gone", &GoneEvent { name: name.clone() }));
            }
        }
        push_new(&mut news, &self.hosts, told.number);
        if let Some(index) = self.index.filter(|_| self.index != told.index) {
            news.push_str(&event("state", &StateEvent { index }));
        }
        news
    }
}

fn next<T: Serialize + PartialEq>(
    kind: &str,
    before: &Items<T>,
    number: u64,
    all: Vec<T>,
    name: impl Fn(&T) -> String,
    alike: impl Fn(&T, &T) -> bool,
) -> Items<T> {
    let item = |shown: T| {
        let name = name(&shown);
        let item = match before.get(&name) {
            Some(item) if item.shown == shown => Arc::clone(item),
            before => Arc::new(Item {
                since: before
                    .filter(|before| alike(&before.shown, &shown))
                    .map_or(number, |before| before.since),
                event: event(kind, &shown),
                shown,
            }),
        };
        (name, item)
    };
    all.into_iter().map(item).collect()
}

fn push_new<T>(news: &mut String, items: &Items<T>, told: u64) {
    for item in items.values().filter(|item| item.since > told) {
        news.push_str(&item.event);
    }
}

fn event<T: Serialize>(kind: &str, data: &T) -> String {
    match serde_json::to_string(data) {
        Ok(data) => format!("event: {kind}\ndata: {data}\n\n"),
        Err(error) => {
            tracing::error!(kind, %error, "an event cannot be told");
            String::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::{peer::HostReport, state::Change};

    use super::*;
    use crate::cluster::view::tests::{changed, h, scene};

    fn kinds(news: &Bytes) -> Vec<String> {
        let text = std::str::from_utf8(news).unwrap();
        let kinds = text.lines().filter_map(|line| line.strip_prefix("event: "));
        kinds.map(str::to_owned).collect()
    }

    #[test]
    fn whoever_was_told_of_any_picture_learns_what_is_new_since() {
        let mut scene = scene();
        let none = Picture::default();
        let first = none.next(&scene);
        let all = ["workload", "workload", "host", "host", "host", "state"];
        assert_eq!(kinds(&first.since(&none)), all);
        // Nothing new: what it tells is nothing, also to those who come later.
        let same = first.next(&scene);
        assert!(!same.has_news(&first));
        assert!(same.since(&first).is_empty());
        assert_eq!(same.since(&none), first.since(&none));

        let workload = "lone".to_owned();
        changed(&mut scene, 50, Change::DeleteWorkload { workload });
        let second = same.next(&scene);
        assert_eq!(kinds(&second.since(&first)), ["gone", "state"]);
        changed(
            &mut scene,
            51,
            Change::DrainHost {
                host: h(3),
                drained: true,
            },
        );
        let third = second.next(&scene);
        let told = kinds(&third.since(&second));
        assert!(told.contains(&"host".to_owned()), "{told:?}");
        assert!(!told.contains(&"gone".to_owned()), "{told:?}");
        // One that missed the picture between.
        let told = kinds(&third.since(&first));
        assert!(
            told.contains(&"gone".to_owned()) && told.contains(&"host".to_owned()),
            "{told:?}"
        );
        // One that has just come knows of nothing that is gone.
        assert_eq!(
            kinds(&third.since(&none)),
            ["workload", "host", "host", "host", "state"]
        );

        // A host that keeps up is no news, but whoever comes now is told how far it is.
        let report = Arc::new(HostReport {
            applied: 4711,
            ..HostReport::default()
        });
        scene.reports = Arc::new(BTreeMap::from([(h(2), report)]));
        let fourth = third.next(&scene);
        assert!(!fourth.has_news(&third));
        let told = fourth.since(&none);
        assert!(
            std::str::from_utf8(&told).unwrap().contains("4711"),
            "{told:?}"
        );
    }
}
