//! Reads a YAML file for the line of each value, and checks that its size stays within bounds when aliases expand.
//!
//! Pure: no I/O, no clock, no randomness. Input: the text. Output: an [`Outline`] of its documents up to the first
//! fault. It reads the parser's events and never expands an alias, so its cost is that of one pass over the bytes. A
//! text that passes can be loaded into memory ([`super::values`]).

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::{
    DOCUMENTS_MAX, Problem,
    field::{Field, Step, cut},
};

/// The deepest nesting. The deepest field of the supported kinds has a depth of about 15.
const NESTING_MAX: usize = 64;

/// The largest number of values in a file, with aliases expanded. A value takes about 100 bytes of memory.
const VALUES_MAX: u64 = 100_000;

/// The longest key, in bytes. The longest one in Kubernetes is an annotation's, with 317 bytes; YAML 1.1 allows 1,024.
pub(super) const KEY_MAX: usize = 512;

/// The largest number of listed duplicate keys of one document.
const DUPLICATES_MAX: usize = 100;

/// The largest total of bytes of all scalars in a file, with aliases expanded.
pub(super) const EXPANDED_MAX: u64 = 4 << 20;

/// The documents of a file up to the first fault.
#[derive(Debug)]
pub(super) struct Outline<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    /// Whether any value has a tag, as in `!!str 5`.
    pub(super) tagged: bool,
    pub(super) documents: Vec<Document>,
    /// The fault at which reading stopped before the end of the file.
    pub(super) fault: Option<Problem>,
}

#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: usize,
    /// The line of its first value.
    pub(super) line: u32,
    /// Keys that their mapping already has, each with its line.
    pub(super) duplicates: Vec<(Field, u32)>,
}

#[derive(Debug)]
pub(super) struct Node<'a> {
    line: u32,
    pub(super) content: Content<'a>,
}

/// The content of a value; inner values are given by their index among the nodes.
#[derive(Debug)]
pub(super) enum Content<'a> {
    Scalar {
        text: Cow<'a, str>,
        /// Neither quoted nor a block scalar: it may have another type than text.
        plain: bool,
    },
    List(Vec<usize>),
    Map(Vec<Entry<'a>>),
}

/// One entry of a mapping.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    key: Key<'a>,
    pub(super) key_node: usize,
    pub(super) value: usize,
}

/// A key as it is written; empty if it is no scalar.
#[derive(Debug, Clone)]
struct Key<'a> {
    text: Cow<'a, str>,
    line: u32,
}

/// The entry with this key.
fn entry<'e, 'a>(entries: &'e [Entry<'a>], key: &str) -> Option<&'e Entry<'a>> {
    entries.iter().find(|entry| entry.key.text == key)
}

impl Outline<'_> {
    /// The line of a field, or of the innermost written value that contains it.
    pub(super) fn line(&self, document: &Document, field: &Field) -> u32 {
        let (mut at, mut line) = (document.root, document.line);
        for step in field.steps() {
            match self.child(at, step) {
                Some((below, entry)) => (at, line) = (below, entry),
                None => break,
            }
        }
        line
    }

    fn child(&self, node: usize, step: &Step) -> Option<(usize, u32)> {
        match (&self.nodes[node].content, step) {
            (Content::List(items), Step::Index(index)) => items
                .get(*index)
                .map(|item| (*item, self.nodes[*item].line)),
            (Content::Map(entries), Step::Key(key)) => entry(entries, key)
                .map(|entry| (entry.value, entry.key.line))
                .or_else(|| self.merged(entries, step)),
            (Content::Scalar { .. } | Content::List(_) | Content::Map(_), _) => None,
        }
    }

    /// The entry that `<<: *a` or `<<: [*a, *b]` merges in, one level deep.
    fn merged(&self, entries: &[Entry<'_>], step: &Step) -> Option<(usize, u32)> {
        let source = &entry(entries, "<<")?.value;
        let sources = match &self.nodes[*source].content {
            Content::List(items) => items.as_slice(),
            Content::Scalar { .. } | Content::Map(_) => std::slice::from_ref(source),
        };
        sources
            .iter()
            .find_map(|from| match (&self.nodes[*from].content, step) {
                (Content::Map(entries), Step::Key(key)) => {
                    entry(entries, key).map(|entry| (entry.value, entry.key.line))
                }
                (Content::Scalar { .. } | Content::List(_) | Content::Map(_), _) => None,
            })
    }
}

/// Reads the outline of a text.
pub(super) fn read(text: &str) -> Outline<'_> {
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text) {
        let step = match event {
            Ok((event, span)) => reader.take(event, line_number(span.start.line())),
            Err(error) => {
                // At the end of the text the marker is on the line after it.
                let line = line_number(error.marker().line().min(text.lines().count()));
                Err(reader.fault(line, format!("not YAML: {}", error.info())))
            }
        };
        if let Err(fault) = step {
            reader.outline.fault = Some(fault);
            break;
        }
    }
    reader.outline
}

fn line_number(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

/// The cost of a value with aliases expanded.
#[derive(Clone, Copy, Default)]
struct Weight {
    values: u64,
    bytes: u64,
}

impl Weight {
    fn plus(self, other: Self) -> Self {
        Self {
            values: self.values.saturating_add(other.values),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// A collection whose end has not been read.
struct Open<'a> {
    node: usize,
    anchor: usize,
    weight: Weight,
    /// The key whose value is next, and its node.
    key: Option<(Key<'a>, usize)>,
    keys: HashSet<Cow<'a, str>>,
}

struct Reader<'a> {
    outline: Outline<'a>,
    open: Vec<Open<'a>>,
    /// The anchored values of this document; `None` until their end is read.
    anchors: HashMap<usize, Option<(usize, Weight)>>,
    duplicates: Vec<(Field, u32)>,
    /// The cost of the earlier documents.
    spent: Weight,
}

impl Default for Reader<'_> {
    fn default() -> Self {
        Self {
            outline: Outline {
                nodes: Vec::new(),
                tagged: false,
                documents: Vec::new(),
                fault: None,
            },
            open: Vec::new(),
            anchors: HashMap::new(),
            duplicates: Vec::new(),
            spent: Weight::default(),
        }
    }
}

impl<'a> Reader<'a> {
    fn take(&mut self, event: Event<'a>, line: u32) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(_) if self.outline.documents.len() == DOCUMENTS_MAX => Err(self
                .fault(
                    line,
                    format!("more than {DOCUMENTS_MAX} documents: split the file"),
                )),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.outline.tagged |= tag.is_some();
                let weight = Weight {
                    values: 1,
                    bytes: text.len() as u64,
                };
                let plain = style == ScalarStyle::Plain;
                let node = self.node(line, Content::Scalar { text, plain });
                self.anchors.insert(anchor, Some((node, weight)));
                self.place(node, weight, line)
            }
            Event::SequenceStart(anchor, tag) => {
                self.outline.tagged |= tag.is_some();
                self.begin(anchor, line, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.outline.tagged |= tag.is_some();
                self.begin(anchor, line, Content::Map(Vec::new()))
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Ok(());
                };
                self.anchors
                    .insert(open.anchor, Some((open.node, open.weight)));
                let line = self.outline.nodes[open.node].line;
                self.place(open.node, open.weight, line)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(Some((node, weight))) => self.place(*node, *weight, line),
                Some(None) => {
                    Err(self.fault(line, "an alias is inside of what it refers to".to_owned()))
                }
                None => Err(self.fault(line, "an alias refers to another document".to_owned())),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn node(&mut self, line: u32, content: Content<'a>) -> usize {
        self.outline.nodes.push(Node { line, content });
        self.outline.nodes.len() - 1
    }

    fn begin(&mut self, anchor: usize, line: u32, content: Content<'a>) -> Result<(), Problem> {
        if self.open.len() == NESTING_MAX {
            return Err(self.fault(line, format!("nested more than {NESTING_MAX} deep")));
        }
        let node = self.node(line, content);
        self.anchors.insert(anchor, None);
        self.open.push(Open {
            node,
            anchor,
            weight: Weight {
                values: 1,
                bytes: 0,
            },
            key: None,
            keys: HashSet::new(),
        });
        Ok(())
    }

    /// Puts a finished value in its place: as a key, as a value, or as the document itself.
    fn place(&mut self, node: usize, weight: Weight, line: u32) -> Result<(), Problem> {
        let Some(open) = self.open.last_mut() else {
            self.spent = self.spent.plus(weight);
            self.outline.documents.push(Document {
                root: node,
                line: self.outline.nodes[node].line,
                duplicates: std::mem::take(&mut self.duplicates),
            });
            return self.check(Weight::default(), line);
        };
        open.weight = open.weight.plus(weight);
        match (&mut self.outline.nodes[open.node].content, open.key.take()) {
            (Content::List(items), _) => items.push(node),
            (Content::Map(entries), Some((key, key_node))) => entries.push(Entry {
                key,
                key_node,
                value: node,
            }),
            (Content::Map(_), None) => self.place_key(node, line)?,
            (Content::Scalar { .. }, _) => {}
        }
        let weight = self
            .open
            .iter()
            .fold(Weight::default(), |sum, open| sum.plus(open.weight));
        self.check(weight, line)
    }

    fn place_key(&mut self, node: usize, line: u32) -> Result<(), Problem> {
        let text = match &self.outline.nodes[node].content {
            Content::Scalar { text, .. } if text.len() > KEY_MAX => {
                return Err(self.fault(line, format!("a key is longer than {KEY_MAX} bytes")));
            }
            Content::Scalar { text, .. } => Some(text.clone()),
            Content::List(_) | Content::Map(_) => None,
        };
        let Some(open) = self.open.last_mut() else {
            return Ok(());
        };
        let is_new = text
            .as_ref()
            .is_none_or(|text| open.keys.insert(text.clone()));
        let text = text.unwrap_or_default();
        let key = Key { text, line };
        open.key = Some((key.clone(), node));
        if !is_new && self.duplicates.len() < DUPLICATES_MAX {
            let field = self.field().key(&key.text);
            self.duplicates.push((field, line));
        }
        Ok(())
    }

    fn check(&self, unfinished: Weight, line: u32) -> Result<(), Problem> {
        let total = self.spent.plus(unfinished);
        if total.values > VALUES_MAX {
            return Err(self.fault(
                line,
                format!("more than {VALUES_MAX} values, aliases expanded"),
            ));
        }
        if total.bytes > EXPANDED_MAX {
            let mebibytes = EXPANDED_MAX >> 20;
            return Err(self.fault(
                line,
                format!("more than {mebibytes} MiB of text, aliases expanded"),
            ));
        }
        Ok(())
    }

    /// The path of the collection that is being read.
    fn field(&self) -> Field {
        let mut field = Field::default();
        for open in &self.open[..self.open.len().saturating_sub(1)] {
            field = match (&open.key, &self.outline.nodes[open.node].content) {
                (Some((key, _)), _) => field.key(&key.text),
                (None, Content::List(items)) => field.index(items.len()),
                (None, Content::Scalar { .. } | Content::Map(_)) => field,
            };
        }
        field
    }

    fn fault(&self, line: u32, message: String) -> Problem {
        Problem {
            document: line_number(self.outline.documents.len()) + 1,
            line,
            field: self.field().to_string(),
            message: cut(&message),
        }
    }
}
