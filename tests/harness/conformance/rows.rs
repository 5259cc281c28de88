//! The rows that cases show (`list.tsv`), and the cases that are known to be silent (`open.tsv`).
//!
//! Pure: text in, values and messages out.

use std::collections::{BTreeMap, BTreeSet};

use super::case::Row;

/// A line of `list.tsv`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its area and id.
    pub row: Row,
    /// The folder or file of Kubernetes' sources that has the test.
    pub file: String,
    /// `node`, `storage`, `apps` or `network`.
    pub needs: String,
    /// What to check.
    pub check: String,
    /// `yes`, `partly: …` or `no: …`: whether a manifest can say it.
    pub expressible: String,
}

impl Listed {
    /// Whether a case must show this row: it needs one host only, and a manifest can say it.
    #[must_use]
    pub fn counts(&self) -> bool {
        ["node", "storage"].contains(&self.needs.as_str()) && !self.expressible.starts_with("no")
    }
}

/// Reads `list.tsv`, the text of which begins with a line of headings.
///
/// # Errors
/// A line with another number of columns.
pub fn listed(text: &str) -> Result<Vec<Listed>, String> {
    let lines = text.lines().enumerate().skip(1);
    let read = |(number, line): (usize, &str)| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [area, id, file, needs, check, expressible] = columns[..] else {
            return Err(format!("list.tsv:{}: not six columns", number + 1));
        };
        Ok(Listed {
            row: Row {
                area: area.to_owned(),
                id: id.to_owned(),
            },
            file: file.to_owned(),
            needs: needs.to_owned(),
            check: check.to_owned(),
            expressible: expressible.to_owned(),
        })
    };
    lines.map(read).collect()
}

/// Cases that are known to be silent: by case and suite, what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Open(BTreeMap<(String, String), String>);

impl Open {
    /// Reads `open.tsv`, the text of which begins with a line of headings.
    ///
    /// # Errors
    /// A line with another number of columns, or a second one for a case and suite.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut open = BTreeMap::new();
        for (number, line) in text.lines().enumerate().skip(1) {
            let columns: Vec<&str> = line.split('\t').collect();
            let [case, suite, wrong] = columns[..] else {
                return Err(format!("open.tsv:{}: not three columns", number + 1));
            };
            if wrong.trim().is_empty() {
                return Err(format!(
                    "open.tsv:{}: what is wrong is not said",
                    number + 1
                ));
            }
            let key = (case.to_owned(), suite.to_owned());
            if open.insert(key, wrong.to_owned()).is_some() {
                return Err(format!(
                    "open.tsv:{}: {case} on {suite} is listed twice",
                    number + 1
                ));
            }
        }
        Ok(Self(open))
    }

    /// What is known to be wrong with a case.
    #[must_use]
    pub fn wrong(&self, case: &str, suite: &str) -> Option<&str> {
        let key = (case.to_owned(), suite.to_owned());
        self.0.get(&key).map(String::as_str)
    }

    /// The cases that it names.
    #[must_use]
    pub fn cases(&self) -> BTreeSet<&str> {
        self.0.keys().map(|(case, _)| case.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_those_that_one_host_can_show_count() {
        let heading = "area\tid\tfile\tneeds\tcheck\texpressible\n";
        let text = format!(
            "{heading}env\tone\tf\tnode\twhat\tyes\nvol\ttwo\tf\tstorage\twhat\tpartly: x\nvol\tthree\tf\tnode\twhat\tno: x\n\
             job\tfour\tf\tapps\twhat\tyes\n"
        );
        let rows = listed(&text).unwrap();
        let counted: Vec<bool> = rows.iter().map(Listed::counts).collect();
        assert_eq!(counted, [true, true, false, false]);
        assert_eq!(rows[0].row.to_string(), "env | one");
        let wrong = listed(&format!("{heading}env\tone\n")).unwrap_err();
        assert_eq!(wrong, "list.tsv:2: not six columns");
    }

    #[test]
    fn open_cases_are_found_by_case_and_suite() {
        let open = Open::read("case\tsuite\twrong\nenv-a\ttrixie\tprints b\n").unwrap();
        assert_eq!(open.wrong("env-a", "trixie"), Some("prints b"));
        assert_eq!(open.wrong("env-a", "forky"), None);
        assert_eq!(open.cases(), ["env-a"].into());
        for (line, wrong) in [
            ("env-a\ttrixie", "open.tsv:2: not three columns"),
            ("env-a\ttrixie\t ", "open.tsv:2: what is wrong is not said"),
            ("a\tb\tc\na\tb\td", "open.tsv:3: a on b is listed twice"),
        ] {
            assert_eq!(
                Open::read(&format!("case\tsuite\twrong\n{line}\n")).unwrap_err(),
                wrong
            );
        }
    }
}
