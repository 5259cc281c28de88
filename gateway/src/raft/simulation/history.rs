//! What clients asked and were told, and whether one register for each manifest could have told them that.
//!
//! The checker is `todc-utils`': the algorithm of Wing and Gong with Lowe's cache, as in Porcupine.

use std::collections::BTreeMap;

use todc_utils::{
    linearizability::{
        WGLChecker,
        history::{Action, History as Checked},
    },
    specifications::Specification,
};

/// A manifest's content, as a register has it; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Read(u64),
    Write(u64),
}

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

/// One call. Gets an answer, fails without effect, or stays open for ever.
#[derive(Debug, Clone, Copy)]
struct Call {
    manifest: usize,
    op: Op,
    called: u64,
    answered: Option<u64>,
    refused: bool,
}

/// Everything that clients did, in the order of a common clock that ticks with each event.
#[derive(Default)]
pub(super) struct History {
    calls: Vec<Call>,
    clock: u64,
}

impl History {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A client asks; a read does not know yet what it reads.
    pub(super) fn call(&mut self, manifest: usize, op: Op) -> usize {
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

    /// It was done.
    pub(super) fn answer(&mut self, call: usize, op: Op) {
        let answered = self.tick();
        self.calls[call].op = op;
        self.calls[call].answered = Some(answered);
    }

    /// It had no effect, and never will.
    pub(super) fn refuse(&mut self, call: usize) {
        self.calls[call].refused = true;
    }

    /// How many calls were answered.
    pub(super) fn answered(&self) -> usize {
        self.calls
            .iter()
            .filter(|call| call.answered.is_some())
            .count()
    }

    /// The manifests whose history no register explains.
    pub(super) fn violations(&self) -> Vec<String> {
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

/// A call without an answer may have taken effect at any time since, or never, which is the same as after everything.
fn is_explained(calls: &[Call]) -> bool {
    let mut events = Vec::new();
    for (process, call) in calls.iter().enumerate() {
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

#[test]
fn a_read_of_what_was_overwritten_is_no_register() {
    for (second, explained) in [(2, true), (1, false)] {
        let mut history = History::default();
        for value in [1, 2] {
            let call = history.call(0, Op::Write(value));
            history.answer(call, Op::Write(value));
        }
        // Never answered: it may or may not have taken effect.
        let _ = history.call(0, Op::Write(3));
        for value in [second, 3] {
            let call = history.call(0, Op::Read(0));
            history.answer(call, Op::Read(value));
        }
        assert_eq!(history.violations().is_empty(), explained);
    }
}
