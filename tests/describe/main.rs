//! Writes what an installation has to read and to complete: `describe FOLDER`.
//!
//! Shell: reads `docs/man`, writes files. The command lines are the programs' own definitions, so that a manual page
//! and a completion never say anything else than the program does; only builds run this.

#[allow(
    dead_code,
    reason = "only the command line is wanted, not what the program does with it"
)]
#[path = "../../agent/src/args.rs"]
mod agent;
#[allow(
    dead_code,
    reason = "only the command line is wanted, not what the program does with it"
)]
#[path = "../../cli/src/args.rs"]
mod cli;
#[allow(
    dead_code,
    reason = "only the command line is wanted, not what the program does with it"
)]
#[path = "../../gateway/src/config.rs"]
mod gateway;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Command, CommandFactory};
use clap_complete::{Generator, Shell};
use clap_mangen::Man;

/// Where hand-written pages lie, and sections that no command line has: `NAME.SECTION` and `NAME.SECTION.more`.
const PAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/man");
const SOURCE: &str = concat!("Beemesh ", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [folder] = arguments.as_slice() else {
        eprintln!("usage: describe FOLDER");
        return ExitCode::from(2);
    };
    match describe(Path::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("describe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn describe(folder: &Path) -> io::Result<()> {
    let pages = |section: u8| folder.join(format!("man{section}"));
    let commands = cli::Args::command().disable_help_subcommand(true);
    made(commands, 1, &pages(1))?;
    made(
        agent::Arguments::command().disable_help_subcommand(true),
        8,
        &pages(8),
    )?;
    made(gateway::Config::command(), 8, &pages(8))?;
    written("beemesh-pod.8", &pages(8))?;
    written("beemesh-agent.toml.5", &pages(5))?;
    for (shell, name) in [
        (Shell::Bash, "beemesh"),
        (Shell::Zsh, "_beemesh"),
        (Shell::Fish, "beemesh.fish"),
    ] {
        let mut command = cli::Args::command();
        command.set_bin_name("beemesh");
        command.build();
        let mut text = Vec::new();
        shell.generate(&command, &mut text);
        put(&folder.join(shell.to_string()), name, &text)?;
    }
    Ok(())
}

/// The page of a program, and of each of its subcommands.
fn made(mut command: Command, section: u8, folder: &Path) -> io::Result<()> {
    command.build();
    let subcommands = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    for subcommand in subcommands {
        made(subcommand.clone(), section, folder)?;
    }
    let man = Man::new(command).section(section.to_string());
    let name = man.get_filename();
    let mut made = Vec::new();
    man.render(&mut made)?;
    // clap_mangen leaves an empty date out, and with it moves what follows.
    let made = String::from_utf8(made).map_err(io::Error::other)?;
    let program = name.trim_end_matches(|c: char| c == '.' || c.is_ascii_digit());
    let title = format!(".TH \"{program}\" {section} \"\" \"{SOURCE}\" \"Beemesh\"");
    let lines = made.lines().map(|line| match line.strip_prefix(".TH ") {
        Some(_) => title.as_str(),
        None => line,
    });
    let mut text = lines.collect::<Vec<_>>().join("\n") + "\n";
    let more = PathBuf::from(PAGES).join(format!("{name}.more"));
    match fs::read_to_string(&more) {
        Ok(more) => text.push_str(&more),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    put(folder, &name, text.as_bytes())
}

/// A page of a program or file that has no command line to describe.
fn written(name: &str, folder: &Path) -> io::Result<()> {
    let text = fs::read_to_string(PathBuf::from(PAGES).join(name))?;
    put(folder, name, text.replace("@SOURCE@", SOURCE).as_bytes())
}

fn put(folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(name), text)
}
