//! The network namespace and root folder of clients.
//!
//! Shell. Clients are processes of their own, in the host's network namespace and outside of the host's cgroup, so that
//! their CPU time does not count as the system's.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use harness::Host;

/// One host from the view of its clients.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The PID of an init in the host's network namespace; `None` for this process's own namespace.
    init: Option<u32>,
    /// The host's root folder, which contains its sockets.
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

    /// A folder that serves as a host without a network namespace.
    pub(crate) fn at(root: &Path) -> Self {
        Self {
            init: None,
            root: root.to_owned(),
        }
    }

    /// A command that runs this program as a client of the host.
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
