//! Composes the next message to one member.
//!
//! Shell over [`Pace`]: waits for changes and for the time to send them. A message that was returned counts as sent. If
//! its stream ends, the next stream gets a new source.

use std::{collections::BTreeMap, sync::Arc};

use beemesh_protocol::{
    HostId,
    peer::{HostReport, Reported, RequestBody},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{fan_out::Told, pace::Pace};
use crate::cluster::reports::Reports;

/// Maximum size of the reports in one message, in bytes: far below the limit of a frame.
const BYTES_MAX: usize = 1 << 20;

/// The messages to one member.
pub(super) enum Source {
    /// With the report of this host.
    Mine(watch::Receiver<Arc<HostReport>>),
    /// With the reports of all hosts.
    All(Gathered),
}

/// The reports that the leader has gathered, and those of them that the member has.
pub(super) struct Gathered {
    term: u64,
    to: HostId,
    all: watch::Receiver<Reports>,
    sent: BTreeMap<HostId, Arc<HostReport>>,
    pace: Pace,
}

impl Source {
    pub(super) fn new(
        told: Told,
        to: HostId,
        mut mine: watch::Receiver<Arc<HostReport>>,
        all: watch::Receiver<Reports>,
    ) -> Self {
        match told {
            Told::Mine => {
                mine.mark_changed();
                Source::Mine(mine)
            }
            Told::All { term } => Source::All(Gathered {
                term,
                to,
                all,
                sent: BTreeMap::new(),
                pace: Pace::new(),
            }),
        }
    }

    /// Waits for the next message; `None` if there will be no more.
    pub(super) async fn next(&mut self) -> Option<RequestBody> {
        match self {
            Source::Mine(mine) => {
                // There is no report before the first observation.
                mine.changed().await.ok()?;
                let seen = mine.wait_for(|report| report.sequence > 0).await.ok()?;
                Some(RequestBody::Observe(HostReport::clone(&seen)))
            }
            Source::All(gathered) => gathered.next().await,
        }
    }
}

impl Gathered {
    async fn next(&mut self) -> Option<RequestBody> {
        loop {
            let all = self.all.borrow_and_update().clone();
            let news = news(&all, &self.sent, self.to);
            if news.is_empty() {
                self.all.changed().await.ok()?;
                continue;
            }
            let only_applied = news
                .iter()
                .all(|(host, report)| is_only_applied(self.sent.get(host), report));
            let now = Instant::now();
            if let Some(due) = self.pace.due(only_applied).filter(|due| *due > now) {
                tokio::select! {
                    () = sleep_until(due) => {}
                    changed = self.all.changed() => changed.ok()?,
                }
                continue;
            }
            let (message, whole) = self.message(news);
            // If reports did not fit into this message, the next one is sent at once.
            if whole {
                self.pace.sent(only_applied, now);
            }
            return Some(message);
        }
    }

    /// Puts as many of the new reports into a message as fit. Also returns whether all of them fit.
    fn message(&mut self, news: Vec<(HostId, Arc<HostReport>)>) -> (RequestBody, bool) {
        let (mut reports, mut bytes, mut whole) = (Vec::new(), 0, true);
        for (host, report) in news {
            let size = size(&report);
            if bytes + size > BYTES_MAX && !reports.is_empty() {
                whole = false;
                break;
            }
            bytes += size;
            reports.push(Reported {
                host,
                report: HostReport::clone(&report),
            });
            self.sent.insert(host, report);
        }
        let term = self.term;
        (RequestBody::Reports { term, reports }, whole)
    }
}

/// The reports that `to` does not have yet.
fn news(
    all: &BTreeMap<HostId, Arc<HostReport>>,
    sent: &BTreeMap<HostId, Arc<HostReport>>,
    to: HostId,
) -> Vec<(HostId, Arc<HostReport>)> {
    let new = |(host, report): &(&HostId, &Arc<HostReport>)| {
        **host != to
            && sent
                .get(host)
                .is_none_or(|before| !Arc::ptr_eq(before, report))
    };
    all.iter()
        .filter(new)
        .map(|(host, report)| (*host, Arc::clone(report)))
        .collect()
}

/// Whether the report differs from the one before only in the applied log index.
pub(super) fn is_only_applied(before: Option<&Arc<HostReport>>, report: &HostReport) -> bool {
    let Some(before) = before else { return false };
    let HostReport {
        sequence: _,
        applied: _,
        version,
        podman,
        trouble,
        workloads,
        takes_reports,
        reserved_ports,
        unreached,
        cpu_millis,
        memory_bytes,
    } = report;
    *version == before.version
        && *podman == before.podman
        && *trouble == before.trouble
        && *workloads == before.workloads
        && *takes_reports == before.takes_reports
        && *reserved_ports == before.reserved_ports
        && *unreached == before.unreached
        && (*cpu_millis, *memory_bytes) == (before.cpu_millis, before.memory_bytes)
}

/// The size of a report in a message, in bytes: an estimate that is hardly ever too low.
fn size(report: &HostReport) -> usize {
    const REST: usize = 128;
    let texts = [&report.version, &report.podman, &report.trouble];
    let workloads = report.workloads.iter();
    let workloads = workloads.map(|one| {
        let containers = one.containers.0.iter();
        let containers = containers.map(|one| REST + one.text_bytes());
        let images = one.images.0.iter();
        let images = images.map(|one| REST + one.reference.len());
        REST + one.workload.len()
            + one.message.len()
            + containers.sum::<usize>()
            + images.sum::<usize>()
    });
    let unreached = report.unreached.as_ref();
    let unreached = unreached.map_or(0, |hosts| size_of_val(&hosts[..]));
    REST + unreached + texts.map(String::len).iter().sum::<usize>() + workloads.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use beemesh_protocol::peer::WorkloadReport;
    use tokio::time::timeout;

    use super::*;

    fn h(number: u8) -> HostId {
        HostId([number; 32])
    }

    fn report(applied: u64, message: usize) -> Arc<HostReport> {
        Arc::new(HostReport {
            sequence: applied,
            applied,
            workloads: vec![WorkloadReport {
                message: "m".repeat(message),
                ..WorkloadReport::default()
            }],
            ..HostReport::default()
        })
    }

    fn hosts(message: Option<RequestBody>) -> Vec<HostId> {
        let Some(RequestBody::Reports { term: 7, reports }) = message else {
            panic!("{message:?}");
        };
        reports.into_iter().map(|one| one.host).collect()
    }

    fn source(all: &watch::Sender<Reports>) -> Source {
        let (_, mine) = watch::channel(Arc::default());
        Source::new(Told::All { term: 7 }, h(2), mine, all.subscribe())
    }

    #[tokio::test]
    async fn a_member_gets_what_it_does_not_have_and_nothing_of_itself() {
        let (all, _) = watch::channel(Reports::default());
        let put = |host: u8, report| {
            all.send_modify(|all| drop(Arc::make_mut(all).insert(h(host), report)));
        };
        for host in [1, 2, 3] {
            put(host, report(1, 0));
        }
        let mut source = source(&all);
        assert_eq!(hosts(source.next().await), [h(1), h(3)]);
        put(2, report(2, 0));
        let quiet = timeout(Duration::from_millis(100), source.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        put(3, report(2, 5));
        assert_eq!(hosts(source.next().await), [h(3)]);
    }

    #[tokio::test]
    async fn what_does_not_fit_into_a_message_follows_at_once() {
        let large = [1, 3, 4, 5].map(|host| (h(host), report(1, 400 << 10)));
        let (all, _) = watch::channel(Arc::new(BTreeMap::from(large)));
        let mut source = source(&all);
        assert_eq!(hosts(source.next().await), [h(1), h(3)]);
        assert_eq!(hosts(source.next().await), [h(4), h(5)]);
    }
}
