//! The history of clients' requests and answers, and the check that one register for each manifest explains it.
//!
//! Pure. The checker is that of `todc-utils`: the algorithm of Wing and Gong with Lowe's cache, as in Porcupine.

use std::collections::{BTreeMap, BTreeSet};

use todc_utils::{
    linearizability::{
        WGLChecker,
        history::{Action, History as Checked},
    },
    specifications::Specification,
};

/// An operation on a manifest, which is a register with a content. Content 0 means no manifest; any other content is
/// written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A read returned this content.
    Read(u64),
    /// A write of this content.
    Write(u64),
}

#[derive(Debug)]
struct Register;

impl Specification for Register {
    type State = u64;
    type Operation = Op;

    fn init() -> u64 {
        0
    }

    fn apply(op: &Op, state: &u64) -> (bool, u64) {
        match op {
            Op::Read(value) => (value == state, *state),
            Op::Write(value) => (true, *value),
        }
    }
}

/// One call. It is answered, fails without effect, or stays open without end.
#[derive(Debug, Clone, Copy)]
struct Call {
    manifest: usize,
    op: Op,
    called: u64,
    answered: Option<u64>,
    refused: bool,
}

/// All calls of clients, ordered by a common clock that ticks with each event.
#[derive(Debug, Default)]
pub struct History {
    calls: Vec<Call>,
    clock: u64,
}

impl History {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Records a call and returns its number. The content of a read is not known yet.
    pub fn call(&mut self, manifest: usize, op: Op) -> usize {
        let called = self.tick();
        self.calls.push(Call {
            manifest,
            op,
            called,
            answered: None,
            refused: false,
        });
        self.calls.len() - 1
    }

    /// Records the answer of a call.
    pub fn answer(&mut self, call: usize, op: Op) {
        let answered = self.tick();
        self.calls[call].op = op;
        self.calls[call].answered = Some(answered);
    }

    /// Records that a call had no effect and never will.
    pub fn refuse(&mut self, call: usize) {
        self.calls[call].refused = true;
    }

    /// The content of a manifest that the last answered read saw.
    #[must_use]
    pub fn last_read(&self, manifest: usize) -> Option<u64> {
        let reads = self
            .calls
            .iter()
            .filter_map(|call| match (call.op, call.answered) {
                (Op::Read(content), Some(answered)) if call.manifest == manifest => {
                    Some((answered, content))
                }
                _ => None,
            });
        reads.max().map(|(_, content)| content)
    }

    /// The number of answered calls.
    #[must_use]
    pub fn answered(&self) -> usize {
        let answered = self.calls.iter().filter(|call| call.answered.is_some());
        answered.count()
    }

    /// The number of writes without effect.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.calls.iter().filter(|call| call.refused).count()
    }

    /// The number of writes with an unknown effect.
    #[must_use]
    pub fn open(&self) -> usize {
        let open = |call: &&Call| call.answered.is_none() && !call.refused;
        let writes = self.calls.iter().filter(open);
        writes
            .filter(|call| matches!(call.op, Op::Write(_)))
            .count()
    }

    /// Whether a manifest can ever have had this content.
    #[must_use]
    pub fn may_have_had(&self, manifest: usize, content: u64) -> bool {
        let wrote = |call: &Call| call.op == Op::Write(content) && !call.refused;
        let mut calls = self.calls.iter();
        content == 0 || calls.any(|call| call.manifest == manifest && wrote(call))
    }

    /// The manifests whose history no register explains.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut manifests: BTreeMap<usize, Vec<Call>> = BTreeMap::new();
        for call in &self.calls {
            let asked = call.answered.is_some() || matches!(call.op, Op::Write(_));
            if asked && !call.refused {
                manifests.entry(call.manifest).or_default().push(*call);
            }
        }
        let wrong = manifests.iter().filter(|(_, calls)| !is_explained(calls));
        wrong
            .map(|(manifest, calls)| format!("manifest {manifest} is no register: {calls:?}"))
            .collect()
    }
}

/// A call without an answer may have taken effect at any later time. If it never did, that is the same as an effect
/// after all other calls.
fn is_explained(calls: &[Call]) -> bool {
    let mut events = Vec::new();
    for (process, call) in settled(calls).iter().enumerate() {
        events.push((call.called, process, Action::Call(call.op)));
        let answered = call.answered.unwrap_or(u64::MAX);
        events.push((answered, process, Action::Response(call.op)));
    }
    events.sort_by_key(|(at, process, _)| (*at, *process));
    let actions = events
        .into_iter()
        .map(|(_, process, action)| (process, action));
    WGLChecker::<Register>::is_linearizable(Checked::from_actions(actions.collect()))
}

/// The calls, with fewer open ones, because each open call doubles the work of the checker. A content is written once.
/// So an open write whose content no client has read explains nothing and is left out. An open write whose content was
/// read took effect before the first such answer.
fn settled(calls: &[Call]) -> Vec<Call> {
    let mut read: BTreeMap<u64, u64> = BTreeMap::new();
    for call in calls {
        if let (Op::Read(content), Some(answered)) = (call.op, call.answered) {
            let first = read.entry(content).or_insert(answered);
            *first = answered.min(*first);
        }
    }
    let seen: BTreeSet<u64> = read.keys().copied().collect();
    let settle = |call: &Call| {
        let mut call = *call;
        if let (Op::Write(content), None) = (call.op, call.answered)
            && content != 0
        {
            call.answered = read.get(&content).copied();
        }
        call
    };
    let explains = |call: &&Call| match call.op {
        Op::Write(content) => call.answered.is_some() || seen.contains(&content),
        Op::Read(_) => true,
    };
    calls.iter().filter(explains).map(settle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answered reads after answered writes of 1 and 2 and an open write of 3.
    fn after_three(reads: &[u64]) -> History {
        let mut history = History::default();
        for value in [1, 2] {
            let call = history.call(0, Op::Write(value));
            history.answer(call, Op::Write(value));
        }
        let _ = history.call(0, Op::Write(3));
        for value in reads {
            let call = history.call(0, Op::Read(0));
            history.answer(call, Op::Read(*value));
        }
        history
    }

    #[test]
    fn a_write_without_an_answer_takes_effect_once_or_never() {
        for (reads, explained) in [
            (&[2, 3][..], true),
            (&[2, 2], true),
            (&[1], false),
            (&[3, 2], false),
            (&[3, 0], false),
        ] {
            let history = after_three(reads);
            assert_eq!(history.violations().is_empty(), explained, "{reads:?}");
            assert_eq!((history.answered(), history.open()), (2 + reads.len(), 1));
        }
    }

    #[test]
    fn a_refused_write_is_never_read() {
        let mut history = after_three(&[]);
        let call = history.call(0, Op::Write(4));
        history.refuse(call);
        assert!(history.may_have_had(0, 3) && !history.may_have_had(0, 4));
        let call = history.call(0, Op::Read(0));
        history.answer(call, Op::Read(4));
        assert_eq!(history.violations().len(), 1);
    }

    #[test]
    fn many_open_writes_are_checked_at_once() {
        let mut history = History::default();
        for value in 1..500 {
            let _ = history.call(0, Op::Write(value));
            if value % 3 == 0 {
                let call = history.call(0, Op::Read(0));
                history.answer(call, Op::Read(value));
            }
        }
        assert_eq!(history.violations(), [""; 0]);
    }
}
