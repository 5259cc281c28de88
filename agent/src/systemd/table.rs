//! The known state of the workloads' units, and the changes that are not reported yet.
//!
//! Pure: no I/O, no clock, no randomness. Input: the files, lists and changes that [`super::watch`] reads. Output:
//! [`SystemdEvent`]s. However fast units change, at most one event per unit waits, with the latest state.

use std::collections::{BTreeMap, BTreeSet};

use beemesh_protocol::ipc::UnitState;

use super::SystemdEvent;

/// The changed properties of a unit; `None` is unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) active: Option<String>,
    pub(super) sub: Option<String>,
    pub(super) result: Option<String>,
    pub(super) status: Option<String>,
    pub(super) started: Option<bool>,
}

#[derive(Debug)]
enum Update {
    Kube(String),
    Changed(Changed),
}

/// The units of this host.
#[derive(Debug, Default)]
pub(super) struct Table {
    units: BTreeMap<String, UnitState>,
    /// The units that systemd has loaded. The others are files only.
    loaded: BTreeSet<String>,
    untold: BTreeSet<String>,
    untold_all: bool,
    /// Changes during the fetch of a list. The list may be older than they are, so they are applied on top of it. Each
    /// holds whole values, and the last value of a property wins.
    replay: Option<Vec<(String, Update)>>,
    gateway: Option<String>,
    gateway_untold: bool,
}

impl Table {
    /// The workloads whose units systemd has loaded. Their changes arrive as signals, so a new list needs only their
    /// names.
    pub(super) fn loaded(&self) -> BTreeSet<String> {
        self.loaded.clone()
    }

    /// Forgets everything, because the connection to systemd was lost.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Records that the fetch of a list begins.
    pub(super) fn begin_list(&mut self) {
        self.replay = Some(Vec::new());
    }

    /// Applies a list: every unit that systemd has loaded, with its properties if they were unknown, and every `.kube`
    /// on disk. `all` reports all units; otherwise only differences are reported.
    pub(super) fn finish_list(
        &mut self,
        units: BTreeMap<String, Changed>,
        kubes: BTreeMap<String, String>,
        all: bool,
    ) {
        self.loaded = units.keys().cloned().collect();
        let replay = self.replay.take().unwrap_or_default();
        let known: Vec<_> = self
            .units
            .keys()
            .filter(|name| !kubes.contains_key(*name))
            .cloned()
            .collect();
        known
            .iter()
            .for_each(|workload| self.kube(workload, String::new()));
        kubes
            .into_iter()
            .for_each(|(workload, kube)| self.kube(&workload, kube));
        let unloaded: Vec<_> = self
            .units
            .keys()
            .filter(|name| !self.loaded.contains(*name))
            .cloned()
            .collect();
        unloaded.iter().for_each(|workload| self.unload(workload));
        units
            .into_iter()
            .for_each(|(workload, changed)| self.listed(&workload, changed));
        for (workload, update) in replay {
            match update {
                Update::Kube(kube) => self.kube(&workload, kube),
                Update::Changed(changed) => self.change(&workload, changed),
            }
        }
        self.untold_all |= all;
    }

    /// Handles the text of the workload's `.kube`, which is empty if the file was removed.
    pub(super) fn kube(&mut self, workload: &str, kube: String) {
        if let Some(replay) = &mut self.replay {
            replay.push((workload.to_owned(), Update::Kube(kube.clone())));
        }
        if self.units.get(workload).map_or("", |unit| &unit.kube) != kube {
            self.entry(workload).kube = kube;
            self.untold.insert(workload.to_owned());
        }
    }

    /// Handles a loaded unit. One that systemd had unloaded and loaded again has lost its history, so the known history
    /// is kept.
    fn listed(&mut self, workload: &str, changed: Changed) {
        let was_started = self.units.get(workload).is_some_and(|unit| unit.started);
        if was_started && changed.started == Some(false) {
            let Changed { active, sub, .. } = changed;
            let changed = Changed {
                active,
                sub,
                ..Changed::default()
            };
            self.change(workload, changed);
        } else {
            self.change(workload, changed);
        }
    }

    /// Handles changed properties of a unit.
    pub(super) fn change(&mut self, workload: &str, changed: Changed) {
        if let Some(replay) = &mut self.replay {
            replay.push((workload.to_owned(), Update::Changed(changed.clone())));
        }
        self.loaded.insert(workload.to_owned());
        let known = self.units.contains_key(workload);
        let unit = self.entry(workload);
        let before = unit.clone();
        let Changed {
            active,
            sub,
            result,
            status,
            started,
        } = changed;
        unit.active = active.unwrap_or(std::mem::take(&mut unit.active));
        unit.sub = sub.unwrap_or(std::mem::take(&mut unit.sub));
        unit.result = result.unwrap_or(std::mem::take(&mut unit.result));
        unit.status = status.unwrap_or(std::mem::take(&mut unit.status));
        unit.started = started.unwrap_or(unit.started);
        if !known || *unit != before {
            self.untold.insert(workload.to_owned());
        }
    }

    /// Handles a unit that systemd has unloaded, as it does with one that has ended and that nothing refers to. The
    /// result of its last run still counts: a unit that an administrator stopped stays stopped.
    fn unload(&mut self, workload: &str) {
        self.loaded.remove(workload);
        let Some(unit) = self.units.get_mut(workload) else {
            return;
        };
        let before = unit.clone();
        let nothing = fresh(workload);
        (unit.active, unit.sub) = (nothing.active, nothing.sub);
        if unit.kube.is_empty() || *unit != before {
            self.untold.insert(workload.to_owned());
        }
    }

    /// Handles the `ActiveState` of the gateway's unit.
    pub(super) fn gateway(&mut self, active: String) {
        self.gateway_untold |= self.gateway.as_ref() != Some(&active);
        self.gateway = Some(active);
    }

    /// Returns true if there is an event to report.
    pub(super) fn has_news(&self) -> bool {
        self.gateway_untold || self.untold_all || !self.untold.is_empty()
    }

    /// Returns the next event to report.
    pub(super) fn tell(&mut self) -> Option<SystemdEvent> {
        if std::mem::take(&mut self.gateway_untold) {
            return Some(SystemdEvent::Gateway {
                active: self.gateway.clone().unwrap_or_default(),
            });
        }
        if std::mem::take(&mut self.untold_all) {
            let gone =
                |name: &str, unit: &UnitState| unit.kube.is_empty() && !self.loaded.contains(name);
            self.units = std::mem::take(&mut self.units)
                .into_iter()
                .filter(|(name, unit)| !gone(name, unit))
                .collect();
            self.untold.clear();
            return Some(SystemdEvent::Units(self.units.values().cloned().collect()));
        }
        let workload = self.untold.pop_first()?;
        let unit = self.units.get(&workload)?;
        if unit.kube.is_empty() && !self.loaded.contains(&workload) {
            self.units.remove(&workload);
            return Some(SystemdEvent::UnitGone(workload));
        }
        Some(SystemdEvent::Unit(unit.clone()))
    }

    fn entry(&mut self, workload: &str) -> &mut UnitState {
        self.units
            .entry(workload.to_owned())
            .or_insert_with(|| fresh(workload))
    }
}

/// A unit that systemd has not loaded is inactive.
fn fresh(workload: &str) -> UnitState {
    UnitState {
        workload: workload.to_owned(),
        active: "inactive".to_owned(),
        sub: "dead".to_owned(),
        result: "success".to_owned(),
        ..UnitState::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(status: &str) -> Changed {
        Changed {
            active: Some("active".to_owned()),
            sub: Some("running".to_owned()),
            status: Some(status.to_owned()),
            started: Some(true),
            ..Changed::default()
        }
    }

    fn status(status: &str) -> Changed {
        Changed {
            status: Some(status.to_owned()),
            ..Changed::default()
        }
    }

    fn state(workload: &str, kube: &str, status: Option<&str>) -> UnitState {
        let mut unit = UnitState {
            kube: kube.to_owned(),
            ..fresh(workload)
        };
        if let Some(status) = status {
            unit.active = "active".to_owned();
            unit.sub = "running".to_owned();
            unit.status = status.to_owned();
            unit.started = true;
        }
        unit
    }

    fn map<T>(entries: impl IntoIterator<Item = (&'static str, T)>) -> BTreeMap<String, T> {
        entries
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    fn news(table: &mut Table) -> Vec<SystemdEvent> {
        let news = std::iter::from_fn(|| table.tell()).collect();
        assert!(!table.has_news());
        news
    }

    fn listed() -> Table {
        let mut table = Table::default();
        table.begin_list();
        table.finish_list(
            map([("web", running("ok"))]),
            map([("web", "k1".to_owned()), ("new", "k2".to_owned())]),
            true,
        );
        table
    }

    #[test]
    fn a_list_is_told_as_a_whole_with_files_that_systemd_does_not_know() {
        let units = vec![state("new", "k2", None), state("web", "k1", Some("ok"))];
        assert_eq!(news(&mut listed()), [SystemdEvent::Units(units)]);
    }

    #[test]
    fn many_changes_of_one_unit_are_one_event_with_the_last_state() {
        let mut table = listed();
        news(&mut table);
        table.change("web", status("1/2 healthy"));
        table.change("web", status("2/2 healthy"));
        table.change("web", status("2/2 healthy"));
        assert_eq!(
            news(&mut table),
            [SystemdEvent::Unit(state("web", "k1", Some("2/2 healthy")))]
        );
        table.change("web", status("2/2 healthy"));
        assert_eq!(news(&mut table), []);
    }

    #[test]
    fn a_change_that_overtakes_a_list_is_not_undone_by_it() {
        let mut table = Table::default();
        table.begin_list();
        table.change("web", status("newer"));
        table.kube("web", "k2".to_owned());
        table.finish_list(
            map([("web", running("older"))]),
            map([("web", "k1".to_owned())]),
            true,
        );
        assert_eq!(
            news(&mut table),
            [SystemdEvent::Units(vec![state("web", "k2", Some("newer"))])]
        );
    }

    #[test]
    fn a_second_list_tells_only_what_is_different() {
        let mut table = listed();
        news(&mut table);
        table.begin_list();
        table.finish_list(
            map([("web", Changed::default()), ("new", running("up"))]),
            map([("new", "k3".to_owned()), ("web", "k1".to_owned())]),
            false,
        );
        assert_eq!(
            news(&mut table),
            [SystemdEvent::Unit(state("new", "k3", Some("up")))]
        );
    }

    #[test]
    fn a_unit_is_gone_when_both_its_file_and_systemds_memory_of_it_are() {
        let mut table = listed();
        news(&mut table);
        table.kube("web", String::new());
        assert_eq!(
            news(&mut table),
            [SystemdEvent::Unit(state("web", "", Some("ok")))]
        );
        table.unload("web");
        assert_eq!(news(&mut table), [SystemdEvent::UnitGone("web".to_owned())]);
        table.unload("web");
        table.kube("new", String::new());
        assert_eq!(news(&mut table), [SystemdEvent::UnitGone("new".to_owned())]);
    }

    #[test]
    fn a_unit_that_systemd_forgets_but_whose_file_stays_is_inactive_and_was_started() {
        let mut table = listed();
        news(&mut table);
        table.unload("web");
        table.unload("web");
        let stopped = UnitState {
            status: "ok".to_owned(),
            started: true,
            ..state("web", "k1", None)
        };
        assert_eq!(news(&mut table), [SystemdEvent::Unit(stopped)]);
        table.unload("new");
        assert_eq!(news(&mut table), [], "it was never started");
        let anew = Changed {
            active: Some("inactive".to_owned()),
            sub: Some("dead".to_owned()),
            result: Some("success".to_owned()),
            status: Some(String::new()),
            started: Some(false),
        };
        table.begin_list();
        table.finish_list(
            map([("web", anew)]),
            map([("web", "k1".to_owned()), ("new", "k2".to_owned())]),
            false,
        );
        assert_eq!(news(&mut table), [], "loaded again by a reload");
    }

    #[test]
    fn the_gateway_is_told_when_it_changes() {
        let mut table = Table::default();
        table.gateway("active".to_owned());
        table.gateway("active".to_owned());
        assert_eq!(
            news(&mut table),
            [SystemdEvent::Gateway {
                active: "active".to_owned()
            }]
        );
        table.gateway("active".to_owned());
        assert_eq!(news(&mut table), []);
    }
}
