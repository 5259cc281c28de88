//! The progress on the terminal while the user waits.
//!
//! Shell: writes to standard error, and only if that is a terminal. Dropping it erases what it drew.

use std::io::{IsTerminal, Write as _};

const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// Lines that are drawn repeatedly in the same place.
#[derive(Debug)]
pub(crate) struct Live {
    terminal: bool,
    lines: usize,
    frame: usize,
    said: bool,
}

impl Live {
    pub(crate) fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            terminal: std::io::stderr().is_terminal() && !dumb,
            lines: 0,
            frame: 0,
            said: false,
        }
    }

    /// Draws `text` behind a spinner, in place of the previous text.
    pub(crate) fn spin(&mut self, text: &str) {
        if !self.terminal {
            return;
        }
        let mark = FRAMES[self.frame % FRAMES.len()];
        self.frame += 1;
        // Without line wrapping, the terminal cuts long lines, so the number of lines stays known.
        let mut drawn = format!("{}\x1b[?7l", self.wiped());
        self.lines = 0;
        for line in text.lines() {
            let lead = if self.lines == 0 { mark } else { ' ' };
            drawn.push_str(&format!("{lead} {line}\n"));
            self.lines += 1;
        }
        drawn.push_str("\x1b[?7h");
        write(&drawn);
    }

    /// Where there is no terminal to draw on, writes this as a line, if it is the first.
    pub(crate) fn say_once(&mut self, text: &str) {
        if !self.terminal && !self.said {
            self.said = true;
            write(&format!("{text}\n"));
        }
    }

    fn wiped(&self) -> String {
        match self.lines {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        write(&self.wiped());
    }
}

fn write(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // If the terminal is closed, nothing needs to be drawn.
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}
