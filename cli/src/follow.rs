//! Follows the gateway's events.
//!
//! Pure: bytes of the stream in, known state out. Each stream begins with the whole state, so a new stream needs no
//! memory of a broken one.

use std::collections::BTreeMap;

use beemesh_protocol::api::{GoneEvent, StateEvent, Workload};

/// Bytes of the longest event; a workload on 256 hosts takes some 60 KiB.
const EVENT_MAX: usize = 4 << 20;

/// The state according to the events so far.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    partial: Vec<u8>,
    /// `workloads` holds every change up to this log index.
    index: u64,
    workloads: BTreeMap<String, Workload>,
}

/// An invalid event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid event from the gateway: {0}")]
pub(crate) struct InvalidEvent(String);

impl Followed {
    /// Adds the next bytes of the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), InvalidEvent> {
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = self.partial.drain(..end + 2).collect();
            self.take(&event)?;
        }
        if self.partial.len() > EVENT_MAX {
            return Err(InvalidEvent("it is too long".into()));
        }
        Ok(())
    }

    fn take(&mut self, event: &[u8]) -> Result<(), InvalidEvent> {
        let event = std::str::from_utf8(event).map_err(|error| InvalidEvent(error.to_string()))?;
        let field = |name: &str| {
            let find = |line: &'_ str| {
                line.strip_prefix(name)
                    .map(str::trim_start)
                    .map(str::to_owned)
            };
            event.lines().find_map(find).unwrap_or_default()
        };
        let data = field("data:");
        let read = |error: serde_json::Error| InvalidEvent(error.to_string());
        match field("event:").as_str() {
            "workload" => {
                let workload: Workload = serde_json::from_str(&data).map_err(read)?;
                self.workloads.insert(workload.name.clone(), workload);
            }
            "gone" => {
                let gone: GoneEvent = serde_json::from_str(&data).map_err(read)?;
                self.workloads.remove(&gone.name);
            }
            "state" => {
                let state: StateEvent = serde_json::from_str(&data).map_err(read)?;
                self.index = state.index;
            }
            // Hosts, comments, and events of a newer gateway.
            _ => {}
        }
        Ok(())
    }

    /// Returns the named workloads as of log index `index` or later; `None` until the stream has reached it. A workload
    /// that was deleted since is not included.
    pub(crate) fn workloads(&self, names: &[String], index: u64) -> Option<Vec<&Workload>> {
        let all = names.iter().filter_map(|name| self.workloads.get(name));
        (self.index >= index).then(|| all.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str, settled: bool) -> String {
        format!(
            "event: workload\ndata: {{\"name\":\"{name}\",\"namespace\":\"default\",\"kind\":\"Pod\",\"manifest\":\"m\",\"revision\":1,\"index\":9,\"appliedAtMs\":1,\"settled\":{settled},\"hosts\":[],\"later\":1}}\n\n"
        )
    }

    #[test]
    fn events_are_understood_however_the_bytes_arrive() {
        let stream = [
            workload("web", false),
            workload("old", true),
            ": still here\n\n".into(),
            "event: state\ndata: {\"index\":9}\n\n".into(),
            workload("web", true),
            "event: gone\ndata: {\"name\":\"old\"}\n\nevent: tomorrow\ndata: x\n\n".into(),
        ]
        .concat();
        let names = ["web", "old"].map(str::to_owned);
        let mut followed = Followed::default();
        let mut seen = Vec::new();
        for byte in stream.bytes() {
            followed.push(&[byte]).unwrap();
            let now = followed.workloads(&names, 9).map(|workloads| {
                let told = workloads.iter().map(|one| (one.name.clone(), one.settled));
                told.collect::<Vec<_>>()
            });
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        let told = |all: &[(&str, bool)]| {
            Some(
                all.iter()
                    .map(|(name, settled)| ((*name).to_owned(), *settled))
                    .collect(),
            )
        };
        let expected: Vec<Option<Vec<_>>> = vec![
            None,
            told(&[("web", false), ("old", true)]),
            told(&[("web", true), ("old", true)]),
            told(&[("web", true)]),
        ];
        assert_eq!(seen, expected);
        assert!(followed.push(b"event: state\ndata: 7\n\n").is_err());
    }
}
