//! The events of the cluster at one moment, and those that are new in it.
//!
//! Pure. The event of a row is written once. The changes of a page are written once for all streams that sent the page
//! before.

use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use beemesh_protocol::api::{GoneEvent, StateEvent};
use serde::Serialize;

use crate::cluster::view::{Row, View};

/// All events at one moment.
pub(super) struct Page {
    /// The number of pages with changes so far.
    number: u64,
    view: Arc<View>,
    /// The events since the page with the previous number.
    news: Bytes,
    /// All events, for new streams.
    whole: OnceLock<Bytes>,
}

impl Page {
    /// Creates the first page. It draws all rows at once, so that the next view can be computed from this one.
    pub(super) fn first(view: Arc<View>) -> Self {
        Self {
            number: 0,
            whole: OnceLock::from(whole(&view)),
            view,
            news: Bytes::new(),
        }
    }

    /// Creates the page of a later view. It has the same number if it contains no new events.
    pub(super) fn next(&self, view: Arc<View>) -> Self {
        let news = changes(&view, &self.view);
        let (number, news) = if news.is_empty() {
            (self.number, self.news.clone())
        } else {
            (self.number + 1, news)
        };
        Self {
            number,
            view,
            news,
            whole: OnceLock::new(),
        }
    }

    pub(super) fn has_news(&self, before: &Self) -> bool {
        self.number != before.number
    }

    /// The events that lead from an earlier page, or from none, to this page.
    pub(super) fn since(&self, told: Option<&Self>) -> Bytes {
        let Some(told) = told else {
            return self.whole.get_or_init(|| whole(&self.view)).clone();
        };
        match self.number - told.number {
            0 => Bytes::new(),
            1 => self.news.clone(),
            _ => changes(&self.view, &told.view),
        }
    }
}

fn whole(view: &View) -> Bytes {
    let mut all = Vec::new();
    push(&mut all, "workload", view.workload_rows().rows());
    push(&mut all, "host", view.host_rows().rows());
    all.extend(state(view));
    all.into()
}

/// The events that lead from one view to a later one.
fn changes(view: &View, told: &View) -> Bytes {
    let mut news = Vec::new();
    let (workloads, known) = (view.workload_rows(), told.workload_rows());
    push(&mut news, "workload", workloads.news(known));
    for name in workloads.gone(known) {
        news.extend(event("gone", &GoneEvent { name: name.clone() }));
    }
    push(&mut news, "host", view.host_rows().news(told.host_rows()));
    if view.scene.applied != told.scene.applied {
        news.extend(state(view));
    }
    news.into()
}

fn push<'a, T: Serialize + 'a>(
    news: &mut Vec<u8>,
    kind: &str,
    rows: impl IntoIterator<Item = &'a Arc<Row<T>>>,
) {
    for row in rows {
        news.extend_from_slice(row.text(|shown| event(kind, shown)));
    }
}

fn state(view: &View) -> Bytes {
    let index = view.scene.applied;
    event("state", &StateEvent { index })
}

fn event<T: Serialize>(kind: &str, data: &T) -> Bytes {
    match serde_json::to_string(data) {
        Ok(data) => format!("event: {kind}\ndata: {data}\n\n").into(),
        Err(error) => {
            tracing::error!(kind, %error, "an event cannot be told");
            Bytes::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use beemesh_protocol::{peer::HostReport, state::Change};

    use super::*;
    use crate::cluster::view::{
        Scene,
        tests::{changed, h, scene},
    };

    fn kinds(news: &Bytes) -> Vec<String> {
        let text = std::str::from_utf8(news).unwrap();
        let kinds = text.lines().filter_map(|line| line.strip_prefix("event: "));
        kinds.map(str::to_owned).collect()
    }

    /// The page after this one, of the present scene.
    fn next(page: &Page, scene: &Scene) -> Page {
        let view = page.view.next(scene.clone()).map(Arc::new);
        page.next(view.unwrap_or_else(|| Arc::clone(&page.view)))
    }

    #[test]
    fn a_stream_is_sent_the_changes_since_its_last_page() {
        let mut scene = scene();
        let first = Page::first(Arc::new(View::of(scene.clone())));
        let all = ["workload", "workload", "host", "host", "host", "state"];
        assert_eq!(kinds(&first.since(None)), all);
        // Nothing has changed, so the page has no events for present and for later streams.
        let same = next(&first, &scene);
        assert!(!same.has_news(&first));
        assert!(same.since(Some(&first)).is_empty());
        assert_eq!(same.since(None), first.since(None));

        let workload = "lone".to_owned();
        changed(&mut scene, 50, Change::DeleteWorkload { workload });
        let second = next(&same, &scene);
        assert_eq!(kinds(&second.since(Some(&first))), ["gone", "state"]);
        changed(
            &mut scene,
            51,
            Change::DrainHost {
                host: h(3),
                drained: true,
            },
        );
        let third = next(&second, &scene);
        let told = kinds(&third.since(Some(&second)));
        assert!(told.contains(&"host".to_owned()), "{told:?}");
        assert!(!told.contains(&"gone".to_owned()), "{told:?}");
        // This stream missed the page between.
        let told = kinds(&third.since(Some(&first)));
        assert!(
            told.contains(&"gone".to_owned()) && told.contains(&"host".to_owned()),
            "{told:?}"
        );
        // A new stream knows no rows that could be gone.
        assert_eq!(
            kinds(&third.since(None)),
            ["workload", "host", "host", "host", "state"]
        );

        // A host that only applies entries causes no event, but a new stream is told its log index.
        let report = Arc::new(HostReport {
            applied: 4711,
            ..HostReport::default()
        });
        scene.reports = Arc::new(BTreeMap::from([(h(2), report)]));
        let fourth = next(&third, &scene);
        assert!(!fourth.has_news(&third));
        let told = fourth.since(None);
        assert!(
            std::str::from_utf8(&told).unwrap().contains("4711"),
            "{told:?}"
        );
    }
}
