//! A case: a manifest, and in the comments above it what Kubernetes makes of it.
//!
//! Pure: text in, values and messages out.
//!
//! ```text
//! # row: AREA | ID          a row of `list.tsv`, or `beyond | WORDS`; several may be there
//! # kubernetes: WORDS       what Kubernetes does
//! # check: SHELL            runs on the host after the apply; several lines are one script
//! # expect: EXPRESSION      what the check prints, as a regular expression for all of it
//! # wait: SECONDS           how long the apply waits at most
//! # rejected: EXPRESSION    Kubernetes refuses the manifest, and so do we, with these words on standard error
//! # refused: EXPRESSION     Kubernetes runs it; we refuse it with these words
//! # warned: EXPRESSION      a warning of ours has these words, and the rest is as in Kubernetes
//! # alone: WORDS            why no other case runs at the same time
//! ```

use std::fmt;

use regex_lite::Regex;

use super::manifest::Manifest;

/// The area of rows that `list.tsv` does not have.
pub const BEYOND: &str = "beyond";
/// The longest wait of an apply: a suite of hundreds of cases ends within minutes.
const WAIT_MAX: u64 = 120;

/// A case.
#[derive(Debug, Clone)]
pub struct Case {
    /// The name of its file without the extension.
    pub slug: String,
    /// The rows that it shows.
    pub rows: Vec<Row>,
    /// What Kubernetes does.
    pub kubernetes: String,
    /// The check, if there is one.
    pub check: Option<Check>,
    /// Seconds that the apply waits at most.
    pub wait: u64,
    /// What Kubernetes, too, refuses.
    pub rejected: Option<Regex>,
    /// What only Beemesh refuses.
    pub refused: Option<Regex>,
    /// What Beemesh warns about.
    pub warned: Option<Regex>,
    /// Whether it runs while no other case does.
    pub alone: bool,
    /// The cgroup controller that the host must have, such as `memory`.
    pub needs: Option<String>,
    /// The manifest that is applied first.
    pub first: Manifest,
    /// The manifest that the check applies by `again`.
    pub second: Option<Manifest>,
}

/// A row of `list.tsv`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The first column.
    pub area: String,
    /// The second column.
    pub id: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {}", self.area, self.id)
    }
}

/// What runs on the host, and what it prints in Kubernetes.
#[derive(Debug, Clone)]
pub struct Check {
    /// A script for bash.
    pub script: String,
    /// What it prints, on one line.
    pub expect: Regex,
}

impl Check {
    /// Whether this is what Kubernetes would print: lines joined by one space, runs of blanks squeezed.
    #[must_use]
    pub fn matches(&self, printed: &str) -> bool {
        self.expect.is_match(&on_one_line(printed))
    }
}

/// Text on one line, with one space for each run of white space.
#[must_use]
pub fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Case {
    /// Reads a case from `file`, `SLUG.yaml`, and the text of `SLUG.2.yaml` if there is one.
    ///
    /// # Errors
    /// What is wrong, with file and line.
    pub fn read(file: &str, text: &str, second: Option<&str>) -> Result<Self, String> {
        let head = Head::read(file, text)?;
        let at_end = |what: &str| format!("{file}:{}: {what}", head.lines);
        if head.rows.is_empty() {
            return Err(at_end("no `# row:` above the manifest"));
        }
        let check = match (head.check.is_empty(), head.expect) {
            (false, Some(expect)) => Some(Check {
                script: head.check.join("\n"),
                expect,
            }),
            (true, None) => None,
            (false, None) => return Err(at_end("a `# check:` without `# expect:`")),
            (true, Some(_)) => return Err(at_end("an `# expect:` without `# check:`")),
        };
        if check.is_none() && head.rejected.is_none() && head.refused.is_none() {
            return Err(at_end(
                "neither `# check:` nor `# refused:`: nothing is shown",
            ));
        }
        let slug = file.strip_suffix(".yaml").unwrap_or(file).to_owned();
        let second_file = format!("{slug}.2.yaml");
        let second = second.map(|text| Manifest::read(&second_file, text));
        Ok(Self {
            kubernetes: head
                .kubernetes
                .ok_or_else(|| at_end("no `# kubernetes:` above the manifest"))?,
            rows: head.rows,
            check,
            wait: head.wait.ok_or_else(|| at_end("no `# wait:`"))?,
            rejected: head.rejected,
            refused: head.refused,
            warned: head.warned,
            alone: head.alone,
            needs: head.needs,
            first: Manifest::read(file, text)?,
            second: second.transpose()?,
            slug,
        })
    }
}

#[derive(Debug, Default)]
struct Head {
    lines: usize,
    rows: Vec<Row>,
    kubernetes: Option<String>,
    check: Vec<String>,
    expect: Option<Regex>,
    wait: Option<u64>,
    rejected: Option<Regex>,
    refused: Option<Regex>,
    warned: Option<Regex>,
    alone: bool,
    needs: Option<String>,
}

impl Head {
    fn read(file: &str, text: &str) -> Result<Self, String> {
        let mut head = Self::default();
        for (number, line) in text.lines().enumerate() {
            let Some(comment) = line.strip_prefix('#') else {
                break;
            };
            head.lines = number + 1;
            let add = head.add(comment.trim_start());
            add.map_err(|wrong| format!("{file}:{}: {wrong}", number + 1))?;
        }
        Ok(head)
    }

    fn add(&mut self, comment: &str) -> Result<(), String> {
        // A key is one word: a sentence with a colon is a comment like any other.
        let Some((key, value)) = comment.split_once(':').filter(|(key, _)| is_word(key)) else {
            return Ok(());
        };
        let value = value.strip_prefix(' ').unwrap_or(value);
        let trimmed = value.trim();
        if trimmed.is_empty() && key != "check" {
            return Err(format!("`# {key}:` has no value"));
        }
        match key {
            "row" => {
                let row = trimmed.split_once(" | ").map(|(area, id)| Row {
                    area: area.trim().to_owned(),
                    id: id.trim().to_owned(),
                });
                self.rows
                    .push(row.ok_or("a row is `AREA | ID`, as in list.tsv")?);
                Ok(())
            }
            "kubernetes" => once(&mut self.kubernetes, key, trimmed.to_owned()),
            "check" => {
                self.check.push(value.trim_end().to_owned());
                Ok(())
            }
            "expect" => once(&mut self.expect, key, compile(&format!("^(?:{trimmed})$"))?),
            "wait" => match trimmed.parse() {
                Ok(wait @ 1..=WAIT_MAX) => once(&mut self.wait, key, wait),
                _ => Err(format!("a wait is 1 to {WAIT_MAX} whole seconds")),
            },
            "rejected" => once(&mut self.rejected, key, compile(trimmed)?),
            "refused" => once(&mut self.refused, key, compile(trimmed)?),
            "warned" => once(&mut self.warned, key, compile(trimmed)?),
            "needs" => once(&mut self.needs, key, trimmed.to_owned()),
            "alone" => {
                self.alone = true;
                Ok(())
            }
            _ => Err(format!("`# {key}:` is not a key of a case")),
        }
    }
}

fn is_word(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn once<T>(place: &mut Option<T>, key: &str, value: T) -> Result<(), String> {
    match place.replace(value) {
        Some(_) => Err(format!("a second `# {key}:`")),
        None => Ok(()),
    }
}

fn compile(expression: &str) -> Result<Regex, String> {
    Regex::new(expression).map_err(|error| format!("not a regular expression: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n";

    fn read(head: &str) -> Result<Case, String> {
        Case::read("env-a.yaml", &format!("{head}{POD}"), None)
    }

    #[test]
    fn a_head_is_read() {
        let case = read(
            "# row: env | Environment variables, expansion\n# row: beyond | more\n# kubernetes: expands: always\n\
             # A comment: of no key.\n# check: if true; then\n# check:   log c\n# check: fi\n# expect: a|b \\d+\n# wait: 6\n",
        )
        .unwrap();
        assert_eq!(case.slug, "env-a");
        let rows: Vec<String> = case.rows.iter().map(Row::to_string).collect();
        assert_eq!(
            rows,
            ["env | Environment variables, expansion", "beyond | more"]
        );
        assert_eq!(
            (case.kubernetes.as_str(), case.wait),
            ("expands: always", 6)
        );
        let check = case.check.unwrap();
        assert_eq!(check.script, "if true; then\n  log c\nfi");
        assert!(check.matches("a") && check.matches(" b\n\n 12 "));
        assert!(!check.matches("a 1"), "both ends are anchored");
        assert!(!case.alone && case.refused.is_none() && case.second.is_none());
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let whole = "# row: env | x\n# kubernetes: y\n# check: log c\n# expect: z\n# wait: 6\n";
        assert!(read(whole).is_ok());
        for (from, to, expected) in [
            (
                "env | x",
                "env",
                "env-a.yaml:1: a row is `AREA | ID`, as in list.tsv",
            ),
            (
                "# row: env | x\n",
                "",
                "env-a.yaml:4: no `# row:` above the manifest",
            ),
            (
                "kubernetes: y",
                "kubernetes:",
                "env-a.yaml:2: `# kubernetes:` has no value",
            ),
            (
                "# check",
                "# chek",
                "env-a.yaml:3: `# chek:` is not a key of a case",
            ),
            (
                "# check: log c\n",
                "",
                "env-a.yaml:4: an `# expect:` without `# check:`",
            ),
            (
                "# expect: z\n",
                "",
                "env-a.yaml:4: a `# check:` without `# expect:`",
            ),
            (
                "# expect: z\n",
                "# expect: z\n# expect: z\n",
                "env-a.yaml:5: a second `# expect:`",
            ),
            (
                "wait: 6",
                "wait: 6s",
                "env-a.yaml:5: a wait is 1 to 120 whole seconds",
            ),
            (
                "# check: log c\n# expect: z\n",
                "",
                "env-a.yaml:3: neither `# check:` nor `# refused:`: nothing is shown",
            ),
        ] {
            assert_eq!(read(&whole.replace(from, to)).unwrap_err(), expected);
        }
        let wrong = read(&whole.replace("expect: z", "expect: (")).unwrap_err();
        assert!(
            wrong.starts_with("env-a.yaml:4: not a regular expression: "),
            "{wrong}"
        );
    }
}
