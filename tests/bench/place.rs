//! Where clients run and whom they reach.
//!
//! Shell. Clients are processes of their own: outside of a host's cgroup, so that their CPU time is not the system's, and
//! in the host's network.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use harness::Host;

/// One host, as its clients see it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The PID of an init in the host's network; none in this process's own.
    init: Option<u32>,
    /// The host's root folder: sockets lie below it.
    root: PathBuf,
}

impl Place {
    /// A booted host.
    pub(crate) fn of(host: &Host) -> Self {
        let init = host.init();
        Self {
            init: Some(init),
            root: PathBuf::from(format!("/proc/{init}/root")),
        }
    }

    /// A folder that stands for a host without a network of its own.
    pub(crate) fn at(root: &Path) -> Self {
        Self {
            init: None,
            root: root.to_owned(),
        }
    }

    /// A command of this program as a client of the host.
    pub(crate) fn client(&self, subcommand: &str) -> Result<Command> {
        let program = std::env::current_exe()?;
        let mut command = match self.init {
            None => Command::new(program),
            Some(init) => {
                let mut command = Command::new("nsenter");
                command.args(["-t", &init.to_string(), "-n", "--"]);
                command.arg(program);
                command
            }
        };
        command.arg(subcommand).arg("--root").arg(&self.root);
        Ok(command)
    }
}
