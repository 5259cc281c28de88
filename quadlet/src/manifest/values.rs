//! Turns the outline of a document into its values.
//!
//! Pure: no I/O, no clock, no randomness. The parser of [`super::outline`] reads the text once and bounds the expansion
//! of aliases. serde_yaml decides what a plain scalar means and how `<<` merges. If the file has a tag, serde_yaml
//! reads it from the text.

use serde_yaml::{Mapping, Value};

use super::outline::{Content, Document, Outline};

/// The deepest nesting with aliases expanded, which may exceed that of the text; serde_yaml has the same limit.
const DEPTH_MAX: usize = 128;

/// The longest plain scalar that may be a number; a longer one is text.
const PLAIN_MAX: usize = 512;

impl Outline<'_> {
    /// The values of a document, or the reason why it has none, as text for a user.
    pub(super) fn value(&self, document: &Document) -> Result<Value, String> {
        let mut value = self.build(document.root, 0)?;
        value.apply_merge().map_err(|error| error.to_string())?;
        Ok(value)
    }

    fn build(&self, node: usize, depth: usize) -> Result<Value, String> {
        if depth == DEPTH_MAX {
            return Err(format!(
                "nested more than {DEPTH_MAX} deep, aliases expanded"
            ));
        }
        Ok(match &self.nodes[node].content {
            Content::Scalar { text, plain: false } => Value::String(text.to_string()),
            Content::Scalar { text, plain: true } => plain(text),
            Content::List(items) => {
                let items = items.iter().map(|item| self.build(*item, depth + 1));
                Value::Sequence(items.collect::<Result<_, _>>()?)
            }
            Content::Map(entries) => {
                let mut mapping = Mapping::with_capacity(entries.len());
                for entry in entries {
                    let key = self.build(entry.key_node, depth + 1)?;
                    let value = self.build(entry.value, depth + 1)?;
                    if mapping.insert(key, value).is_some() {
                        return Err("a mapping has two keys of one value".to_owned());
                    }
                }
                Value::Mapping(mapping)
            }
        })
    }
}

/// The value of a plain scalar: null, a truth value, a number or its text.
fn plain(text: &str) -> Value {
    let text_only = || Value::String(text.to_owned());
    let first = text.bytes().next();
    let telling = |byte: u8| byte.is_ascii_digit() || b"+-.~nNtTfF".contains(&byte);
    if !first.is_none_or(telling) || text.len() > PLAIN_MAX {
        return text_only();
    }
    // Only characters that YAML's syntax cannot take for something else, as it would take `---`.
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let is_word = text.bytes().all(word) && text.bytes().any(|byte| byte.is_ascii_alphanumeric());
    match text {
        "" | "~" => Value::Null,
        _ if !is_word => text_only(),
        _ => match serde_yaml::from_str(text) {
            Ok(value @ (Value::Null | Value::Bool(_) | Value::Number(_))) => value,
            Ok(_) | Err(_) => text_only(),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::outline;
    use super::*;

    fn both(text: &str) -> (Result<Value, String>, Result<Value, String>) {
        let outline = outline::read(text);
        let ours = match (&outline.fault, outline.documents.as_slice()) {
            (None, [document]) => outline.value(document),
            (fault, documents) => Err(format!("{fault:?}, {} documents", documents.len())),
        };
        let theirs = serde_yaml::from_str::<Value>(text).and_then(|mut value| {
            value.apply_merge()?;
            Ok(value)
        });
        (ours, theirs.map_err(|error| error.to_string()))
    }

    #[test]
    fn scalars_mean_what_serde_yaml_says() {
        let scalars = [
            "",
            "~",
            "null",
            "Null",
            "NULL",
            "nULL",
            "true",
            "True",
            "TRUE",
            "tRUE",
            "false",
            "yes",
            "no",
            "on",
            "off",
            "0",
            "-0",
            "+0",
            "1",
            "-1",
            "+1",
            "007",
            "0x1F",
            "0o17",
            "0b11",
            "-0x1F",
            "1_000",
            "1.0",
            "-1.5",
            "1e3",
            "1E-3",
            ".5",
            "5.",
            "-.5",
            ".inf",
            "-.inf",
            "+.inf",
            ".Inf",
            ".nan",
            ".NaN",
            "nan",
            "inf",
            "---",
            "...",
            "--",
            "-",
            "+",
            ".",
            "12:30",
            "1.2.3",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775808",
            "-9223372036854775809",
            "1e400",
            "t",
            "f",
            "n",
            "none",
            "truex",
            "2001-01-01",
            "'1'",
            "\"true\"",
            "'~'",
            "1 2",
            "3 # three",
            "a b",
            "-a",
            "null null",
        ];
        for scalar in scalars {
            let text = format!("a: {scalar}\nb: [{scalar}]\n");
            let (ours, theirs) = both(&text);
            if let Ok(theirs) = theirs {
                // NaN does not equal itself.
                assert_eq!(
                    format!("{ours:?}"),
                    format!("{:?}", Ok::<_, String>(theirs)),
                    "{scalar:?}"
                );
            }
        }
    }

    #[test]
    fn collections_aliases_and_merges_are_what_serde_yaml_makes_of_them() {
        for text in [
            "a: &x [1, {b: 2}]\nc: *x\nd: {e: *x}\n",
            "base: &b {x: 1, y: 2}\nall: {<<: *b, y: 3}\n",
            "one: &a {x: 1}\ntwo: &b {y: 2}\nall:\n  <<: [*a, *b]\n  z: 3\n",
            "k: &k name\nm: {*k : 1}\n",
            "1: a\ntrue: b\n~: c\n",
            "t: |\n  one\n  two\nf: >-\n  one\n  two\n\n  three\n",
            "q: \"a\\tb\\u00e9\"\ns: 'it''s'\np: plain over\n  two lines\n",
            "- a\n- - b\n  - c: d\n-\n",
            "{}\n",
            "[]\n",
            "a:\nb:\n",
            "? [x, y]\n: z\n",
        ] {
            let (ours, theirs) = both(text);
            assert_eq!(ours, theirs, "{text}");
        }
    }

    #[test]
    fn aliases_do_not_nest_without_bound_and_keys_are_once() {
        let mut text = "a0: &a0 [1]\n".to_owned();
        for depth in 1..200 {
            text += &format!("a{depth}: &a{depth} [*a{}]\n", depth - 1);
        }
        let (ours, _) = both(&text);
        assert_eq!(
            ours,
            Err("nested more than 128 deep, aliases expanded".to_owned())
        );
        let (ours, theirs) = both("k: &k x\nm: {0x1: 1, 1: 2}\n");
        assert!(ours.is_err() && theirs.is_err(), "{ours:?} {theirs:?}");
    }

    proptest! {
        #[test]
        fn any_word_means_what_serde_yaml_says(word in "[-+.~0-9a-fA-FnultrsexobiINU]{1,12}") {
            let (ours, theirs) = both(&format!("a: {word}\n"));
            if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                prop_assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
            }
        }
    }
}
