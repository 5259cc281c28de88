//! What a singleton did, from outside: the stamps that its containers wrote on all hosts.
//!
//! Shell.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use harness::{Cluster, IMAGE, Run, Stamp, Stamps, uptime, wait_for};

/// The folder of a host that is outside of it: [`harness::Host::outside`].
pub(crate) const OUTSIDE: &str = "/run/outside";

/// A singleton that writes a stamp every 20 ms. `on_term` is what SIGTERM makes it do: nothing if it is empty.
pub(crate) fn singleton(name: &str, on_term: &str, grace: u32) -> String {
    let line = format!(
        "trap \"{on_term}\" TERM; read -r begun rest </proc/uptime; exec 3>>/outside/{name}; \
         while :; do read -r now rest </proc/uptime; echo $begun $now >&3; sleep 0.02; done"
    );
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  \
         annotations: {{beemesh.io/singleton: \"true\", beemesh.io/reschedule-after: 10s}}\nspec:\n  replicas: 1\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: {grace}\n      containers:\n      - name: main\n        image: {IMAGE}\n        \
         command: [sh, -c, '{line}']\n        volumeMounts: [{{name: outside, mountPath: /outside}}]\n      \
         volumes:\n      - name: outside\n        hostPath: {{path: {OUTSIDE}}}\n"
    )
}

/// The time since the boot of this machine, which is that of every host.
pub(crate) fn now() -> Duration {
    let text = fs::read_to_string("/proc/uptime").expect("a kernel with /proc/uptime");
    let first = text.split_whitespace().next().and_then(uptime);
    first.expect("an uptime")
}

/// How much is left of a time that begins at `since`.
pub(crate) fn left(since: Duration, time: Duration) -> Duration {
    (since + time).saturating_sub(now())
}

/// The stamps of one singleton so far.
#[derive(Debug)]
pub(crate) struct Beats {
    files: Vec<Tail>,
    stamps: Stamps,
}

/// A file that grows, and how much of it was read.
#[derive(Debug)]
struct Tail {
    path: PathBuf,
    read: u64,
    /// A line without its end.
    rest: String,
}

impl Beats {
    /// The stamps of this singleton on all hosts.
    pub(crate) fn of(cluster: &Cluster, name: &str) -> Self {
        let tail = |host: &harness::Host| Tail {
            path: host.outside().join(name),
            read: 0,
            rest: String::new(),
        };
        Self {
            files: cluster.hosts.iter().map(tail).collect(),
            stamps: Stamps::default(),
        }
    }

    /// Reads what is new, and returns everything.
    ///
    /// # Panics
    /// If a file has something else than stamps.
    pub(crate) fn look(&mut self) -> &Stamps {
        for (host, file) in (1..).zip(&mut self.files) {
            let lines = file.lines();
            let read = self.stamps.read(host, &lines);
            read.unwrap_or_else(|error| panic!("{}: {error}", file.path.display()));
        }
        &self.stamps
    }

    /// The run that was at work last.
    #[track_caller]
    pub(crate) fn run(&mut self) -> Run {
        let latest = self.look().latest().expect("it has run");
        let runs = self.stamps.runs();
        let run = runs
            .into_iter()
            .find(|run| (run.host, run.begun) == (latest.host, latest.begun));
        run.expect("the run of the stamp")
    }

    /// The last stamp of a host.
    pub(crate) fn last_on(&mut self, host: usize) -> Option<Duration> {
        let runs = self.look().runs().into_iter();
        runs.filter(|run| run.host == host)
            .map(|run| run.last)
            .max()
    }

    /// Waits for a stamp that `is_it` accepts as the latest one, and returns it.
    #[track_caller]
    pub(crate) fn wait(
        &mut self,
        what: &str,
        bound: Duration,
        is_it: impl Fn(Stamp) -> bool,
    ) -> Stamp {
        wait_for(what, bound, || {
            let latest = self.look().latest();
            latest
                .filter(|stamp| is_it(*stamp))
                .ok_or_else(|| format!("{latest:?} at {:?}", now()))
        })
    }

    /// Waits until it is at work after this time.
    #[track_caller]
    pub(crate) fn after(&mut self, since: Duration, bound: Duration) -> Stamp {
        self.wait("it to be at work", bound, |stamp| stamp.at > since)
    }

    /// Checks that no two runs were at work at a time, and says the longest time in which none was.
    ///
    /// # Panics
    /// If two were.
    #[track_caller]
    pub(crate) fn hold(&mut self) -> String {
        let stamps = self.look();
        if let Some((one, other)) = stamps.together() {
            panic!("two runs at a time: {one}, and {other}");
        }
        let gap = stamps.longest_gap(now());
        format!(
            "{} stamps of {} runs, never two at a time; none for {:.1} s at most, from {:.2} to {:.2}",
            stamps.count(),
            stamps.runs().len(),
            gap.length().as_secs_f64(),
            gap.from.as_secs_f64(),
            gap.to.as_secs_f64()
        )
    }
}

impl Tail {
    /// The new whole lines.
    fn lines(&mut self) -> String {
        let mut text = std::mem::take(&mut self.rest);
        match self.read_on(&mut text) {
            Ok(()) => {}
            // Nothing ran on the host yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => panic!("{}: {error}", self.path.display()),
        }
        let end = text.rfind('\n').map_or(0, |at| at + 1);
        self.rest = text.split_off(end);
        text
    }

    fn read_on(&mut self, text: &mut String) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        let _ = file.seek(SeekFrom::Start(self.read))?;
        let read = file.read_to_string(text)?;
        self.read += u64::try_from(read).unwrap_or_default();
        Ok(())
    }
}
