//! The progress on the terminal while the user waits.
//!
//! Shell: writes to standard error. On a terminal it draws, and dropping it erases what it drew. Anything else gets
//! lines.

use std::io::{IsTerminal, Write as _};

use terminal_size::{Height, Width, terminal_size_of};

use crate::render::Size;

/// The size of a terminal that does not say it.
const SIZE: Size = Size {
    columns: 80,
    rows: 24,
};

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

    /// The size of the terminal; `None` if there is none to draw on.
    pub(crate) fn size(&self) -> Option<Size> {
        let size = || match terminal_size_of(std::io::stderr()) {
            Some((Width(columns), Height(rows))) if columns > 0 && rows > 0 => Size {
                columns: columns.into(),
                rows: rows.into(),
            },
            _ => SIZE,
        };
        self.terminal.then(size)
    }

    /// Prints lines that stay.
    pub(crate) fn tell(&self, lines: &[String]) {
        let lines = lines.iter().map(|line| format!("{line}\n"));
        write(&lines.collect::<String>());
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
    if text.is_empty() {
        return;
    }
    let mut stderr = std::io::stderr().lock();
    // If the terminal is closed, nothing needs to be drawn.
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}
