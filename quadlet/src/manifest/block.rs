//! Texts that Podman cannot read.
//!
//! Pure: no I/O, no clock, no randomness. Podman writes each document of a play as YAML again, and reads that. It writes
//! a text of several lines as a block. Observed on Podman 5.4 and 5.8: it does not read a block that begins with a blank,
//! a tab or an empty line, or loses the line.

/// Returns true if Podman cannot read a text, wherever it stands in a document.
pub(crate) fn is_misread(text: &str) -> bool {
    text.starts_with([' ', '\t', '\n', '\r']) && text.contains('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_begins_with_space_is_not_read() {
        for text in ["\nx", " x\ny", "\tx\ny", "  x\n", "\n\n  x\n", "\n", " \n"] {
            assert!(is_misread(text), "{text:?}");
        }
        for text in ["", " x", "x\n y\n", "x\n\ty", "x\n\n"] {
            assert!(!is_misread(text), "{text:?}");
        }
    }
}
