//! Paths of fields, and user text made safe for a message.
//!
//! Pure: no I/O, no clock, no randomness.

use std::fmt;

/// The longest piece of user text in messages and paths: people read them.
const SHOWN_MAX: usize = 100;

/// The path of a value in its document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Field(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Field {
    pub(super) fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    fn step(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// Appends keys written as `a.b.c`.
    pub(super) fn then(&self, keys: &str) -> Self {
        keys.split('.')
            .fold(self.clone(), |field, key| field.key(key))
    }

    /// The entry with that key in the mapping that contains this field.
    pub(super) fn beside(&self, key: &str) -> Self {
        Self(self.0[..self.0.len().saturating_sub(1)].to_vec()).key(key)
    }

    pub(super) fn join(&self, other: &Self) -> Self {
        Self(self.0.iter().chain(&other.0).cloned().collect())
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    pub(super) fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The innermost mapping entry that contains this field. It can be removed without moving its neighbours.
    pub(super) fn entry(&self) -> Self {
        let keys = self.0.iter().rposition(|step| matches!(step, Step::Key(_)));
        Self(self.0[..keys.map_or(0, |last| last + 1)].to_vec())
    }
}

impl From<&serde_path_to_error::Path> for Field {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        Self(
            path.iter()
                .filter_map(|segment| match segment {
                    Segment::Seq { index } => Some(Step::Index(*index)),
                    Segment::Map { key } => Some(Step::Key(key.clone())),
                    Segment::Enum { .. } | Segment::Unknown => None,
                })
                .collect(),
        )
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if is_plain(key) && position == 0 => f.write_str(key)?,
                Step::Key(key) if is_plain(key) => write!(f, ".{key}")?,
                Step::Key(key) => write!(f, "[{}]", cut(key))?,
            }
        }
        Ok(())
    }
}

fn is_plain(key: &str) -> bool {
    (1..=SHOWN_MAX).contains(&key.len())
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_<".contains(&b))
}

/// User text for a message: on one line, and cut to a length that people read.
pub(super) fn cut(text: &str) -> String {
    let mut shown = String::new();
    for char in text.chars().take(SHOWN_MAX) {
        match char {
            '\'' | '"' => shown.push(char),
            _ => shown.extend(char.escape_debug()),
        }
    }
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}
