//! Versions of Beemesh and of Podman, compared by number.
//!
//! Pure: no I/O, no clock, no randomness.

use std::fmt;

/// `MAJOR.MINOR.PATCH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Versions with the same number are compatible.
    pub major: u32,
    /// Increases with each release that adds a feature.
    pub minor: u32,
    /// Increases with each release that only fixes bugs.
    pub patch: u32,
}

impl Version {
    /// Creates a version from its numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Parses three numbers and ignores the text after them: `5.4.2-dev`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let mut next = || {
            let part = parts.next()?;
            let digits = part.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        };
        Some(Self::new(next()?, next()?, next()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (text, expected) in [
            ("0.2.0", Some("0.2.0")),
            ("1.20.3-rc1", Some("1.20.3")),
            ("1.2.3+git.4", Some("1.2.3")),
            ("", None),
            ("1.2", None),
            ("a.b.c", None),
            ("4294967296.0.0", None),
        ] {
            let read = Version::parse(text).map(|version| version.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
        assert!(Version::parse("0.10.0") > Version::parse("0.2.1"));
        assert_eq!(Version::parse("5.6.1"), Some(Version::new(5, 6, 1)));
    }
}
