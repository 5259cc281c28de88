//! The tables of fields for the documentation.
//!
//! Pure: the tables of fields in, Markdown out.

use super::{Area, Row, Said, State, table};
use crate::manifest::kinds::Written;

/// The beginning of a message that repeats the state.
const IGNORES: &str = "Podman ignores it: ";

/// One line of a table.
#[derive(Clone, PartialEq, Eq)]
struct Line {
    fields: Vec<String>,
    state: &'static str,
    words: String,
}

/// The tables of all fields, in Markdown.
#[must_use]
pub fn tables() -> String {
    let mut areas: Vec<&Area> = Vec::new();
    for kind in Written::ALL {
        collect(table(kind), &mut areas);
    }
    let chapters = areas.iter().filter(|area| area.title.is_some());
    chapters.map(|area| chapter(area)).collect()
}

/// All types below this one, each once, the outer ones first.
fn collect<'a>(area: &'a Area, areas: &mut Vec<&'a Area>) {
    if areas.iter().any(|known| std::ptr::eq(*known, area)) {
        return;
    }
    areas.push(area);
    for inner in area.rows.iter().filter_map(Row::inner) {
        collect(inner, areas);
    }
}

fn chapter(area: &Area) -> String {
    let mut lines = Vec::new();
    list("", area, &mut lines);
    let mut joined: Vec<Line> = Vec::new();
    for mut line in lines {
        match joined.last_mut() {
            Some(last) if (last.state, &last.words) == (line.state, &line.words) => {
                last.fields.append(&mut line.fields);
            }
            Some(_) | None => joined.push(line),
        }
    }
    let rows = joined.iter().map(|line| {
        let fields: Vec<_> = line
            .fields
            .iter()
            .map(|field| format!("`{field}`"))
            .collect();
        let words = match line.words.as_str() {
            "" => String::new(),
            words => format!(" {words}"),
        };
        format!("| {} | {} |{words} |\n", fields.join(", "), line.state)
    });
    format!(
        "\n### {}\n\nThe fields of `{}`:\n\n| field | state | |\n|---|---|---|\n{}",
        area.title.unwrap_or_default(),
        area.api,
        rows.collect::<String>()
    )
}

/// Adds the fields of a type, and those of the types below it that have no table of their own.
fn list(before: &str, area: &Area, lines: &mut Vec<Line>) {
    for row in area.rows {
        let brackets = if row.is_list { "[]" } else { "" };
        let field = format!("{before}{}{brackets}", row.field);
        match row.inner() {
            Some(inner) if inner.title.is_none() => {
                if !row.note.is_empty() {
                    lines.push(line(field.clone(), row));
                }
                list(&format!("{field}."), inner, lines);
            }
            Some(_) | None => lines.push(line(field, row)),
        }
    }
}

fn line(field: String, row: &Row) -> Line {
    let (state, said) = match row.state {
        State::Right => ("right", String::new()),
        State::Ours(None) => ("right, by Beemesh", String::new()),
        State::Ours(Some(podman)) => (
            "right, by Beemesh",
            format!("by Podman alone from {podman} on"),
        ),
        State::Refused(said) => ("refused", shown(said)),
        State::Warned(said) => ("warning", shown(said)),
        State::Advised(said) => ("warning", format!("{}; `--strict` accepts it", shown(said))),
        State::Idle => ("no effect", String::new()),
    };
    let words = [said.as_str(), row.note];
    let words: Vec<_> = words
        .into_iter()
        .filter(|words| !words.is_empty())
        .collect();
    Line {
        fields: vec![field],
        state,
        words: words.join("; "),
    }
}

/// A message, and the values that it is not about.
fn shown(said: Said) -> String {
    let words = said.words.strip_prefix(IGNORES).unwrap_or(said.words);
    let values: Vec<_> = said
        .harmless
        .iter()
        .map(|value| format!("`{value}`"))
        .collect();
    match values.is_empty() {
        true => words.to_owned(),
        false => format!("{words} (not for {})", values.join(", ")),
    }
}
