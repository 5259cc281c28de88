//! Markdown tables and figures in them.
//!
//! Pure.

/// A table. The cells of the first column are text, all others are figures.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(head);
    let rules: Vec<&str> = (0..head.len())
        .map(|column| if column == 0 { "---" } else { "---:" })
        .collect();
    text += &line(&rules);
    for row in rows {
        text += &line(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    text + "\n"
}

/// The rows of all tables in a text whose first cell satisfies `is_wanted`.
pub(crate) fn rows(text: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Option<Vec<String>> {
        let cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        Some(cells.map(str::to_owned).collect())
    };
    let rows = text.lines().filter_map(cells);
    rows.filter(|row| is_wanted(&row[0])).collect()
}

/// A figure with three significant digits, or all digits before the decimal point if there are more.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A figure with a mark that says whether it meets an aim.
pub(crate) fn judged(value: f64, met: bool) -> String {
    format!("{} {}", figure(value), if met { "✓" } else { "✗" })
}

/// Bytes as MB.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
