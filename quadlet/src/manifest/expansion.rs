//! Splits a text with references to variables, such as `$(NAME)`, as Kubernetes reads it.
//!
//! Pure: no I/O, no clock, no randomness. `$(NAME)` refers to a variable and `$$` is one `$`. Everything else is text:
//! `$NAME`, `${NAME}` and a `$(` without an end.

/// A piece of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Text that stays as it is.
    Text(&'a str),
    /// A reference to the variable of this name.
    Variable(&'a str),
}

/// The pieces of a text, in order.
pub(crate) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    // A search for an end that found none is not made again, so that no text takes long.
    let mut ends = true;
    while let Some(at) = rest.find('$') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        let (kept, piece, next) = match after.as_bytes().first() {
            Some(b'$') => (&rest[..=at], None, &after[1..]),
            Some(b'(') => match ends.then(|| after.find(')')).flatten() {
                Some(end) => (
                    before,
                    Some(Piece::Variable(&after[1..end])),
                    &after[end + 1..],
                ),
                None => {
                    ends = false;
                    (&rest[..at + 2], None, &after[1..])
                }
            },
            Some(_) | None => (&rest[..=at], None, after),
        };
        if !kept.is_empty() {
            pieces.push(Piece::Text(kept));
        }
        pieces.extend(piece);
        rest = next;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// The text that an expansion with any variables turns into this one.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        escaped.push(char);
        if char == '$' && matches!(chars.peek(), Some('$' | '(')) {
            escaped.push('$');
        }
    }
    escaped
}

/// The names of the variables that a text refers to.
pub(crate) fn names(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).into_iter().filter_map(|piece| match piece {
        Piece::Variable(name) => Some(name),
        Piece::Text(_) => None,
    })
}

/// `true` for a text that can name a variable. Kubernetes 1.30 and later take any printable ASCII characters but `=`.
pub(crate) fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'=')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text with `<NAME>` for each reference.
    fn shown(text: &str) -> String {
        let show = |piece: &Piece<'_>| match piece {
            Piece::Text(text) => (*text).to_owned(),
            Piece::Variable(name) => format!("<{name}>"),
        };
        pieces(text).iter().map(show).collect()
    }

    /// The examples of Kubernetes' own tests of its expansion.
    #[test]
    fn texts_are_split_as_kubernetes_splits_them() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$(VAR_A)", "<VAR_A>"),
            ("___$(VAR_B)___", "___<VAR_B>___"),
            ("$(VAR_A)$(VAR_B)", "<VAR_A><VAR_B>"),
            ("f000-$$VAR_A", "f000-$VAR_A"),
            ("$$(VAR_A)", "$(VAR_A)"),
            ("$$$(VAR_A)", "$<VAR_A>"),
            ("$$$$(VAR_A)", "$$(VAR_A)"),
            ("$VAR_A", "$VAR_A"),
            ("${VAR_A}", "${VAR_A}"),
            ("$(VAR_A)$", "<VAR_A>$"),
            ("$", "$"),
            ("$$", "$"),
            ("$$$", "$$"),
            ("$(", "$("),
            ("$(VAR_A", "$(VAR_A"),
            ("$()", "<>"),
            ("$($(VAR_B))", "<$(VAR_B>)"),
            ("$(VAR_A)($(VAR_B))", "<VAR_A>(<VAR_B>)"),
            ("$é $(É)", "$é <É>"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        assert_eq!(names("a$(B)$$(C)$(D)").collect::<Vec<_>>(), ["B", "D"]);
    }

    #[test]
    fn a_text_of_nothing_but_beginnings_takes_no_time() {
        let text = "$(".repeat(500_000);
        assert_eq!(shown(&text), text);
    }

    #[test]
    fn printable_ascii_without_an_equals_sign_names_a_variable() {
        for name in ["A", "1A", "a.b-c", "my var", "~"] {
            assert!(is_variable(name), "{name}");
        }
        for name in ["", "A=B", "é", "A\tB", "A\0"] {
            assert!(!is_variable(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn an_expansion_undoes_an_escape(text in "[$()a-zé]{0,20}") {
            prop_assert_eq!(shown(&escape(&text)), text);
        }

        #[test]
        fn a_text_without_a_dollar_stays_and_no_text_stops_it(text in "[$()a-zé]{0,20}") {
            let pieces = pieces(&text);
            if !text.contains('$') && !text.is_empty() {
                prop_assert_eq!(pieces, vec![Piece::Text(&text)]);
            }
        }
    }
}
