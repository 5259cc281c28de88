//! Writes the manual pages and shell completions of an installation: `describe FOLDER`.
//!
//! Shell: reads `docs/man`, writes files. The command lines come from the definitions of the programs themselves, so
//! that a manual page or a completion always agrees with the program. Only builds run this program.

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

use clap::{Arg, Command, CommandFactory};
use clap_complete::{Generator, Shell};
use clap_mangen::Man;

/// The folder of hand-written pages and of sections that no command line has: `NAME.SECTION` and `NAME.SECTION.more`.
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

/// Writes the pages of a program and of each of its subcommands.
fn made(mut command: Command, section: u8, folder: &Path) -> io::Result<()> {
    command.build();
    page(&command, None, section, folder)
}

/// Writes the page of a command. Options that apply to all commands of a program are on the page of `program` alone.
fn page(
    command: &Command,
    program: Option<&Command>,
    section: u8,
    folder: &Path,
) -> io::Result<()> {
    let subcommands = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    for subcommand in subcommands {
        page(subcommand, program.or(Some(command)), section, folder)?;
    }
    let shown = match program {
        Some(_) => command.clone().mut_args(|arg| match arg.is_global_set() {
            true => arg.hide(true),
            false => arg,
        }),
        None => command.clone(),
    };
    let man = Man::new(shown).section(section.to_string());
    let name = man.get_filename();
    let title = name.trim_end_matches(|c: char| c == '.' || c.is_ascii_digit());
    // clap_mangen leaves out an empty date, which moves the fields after it.
    let mut text =
        format!(".TH \"{title}\" {section} \"\" \"{SOURCE}\" \"Beemesh\"\n").into_bytes();
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    let mut text = String::from_utf8(text).map_err(io::Error::other)?;
    if let Some(program) = program.filter(|program| program.get_arguments().any(Arg::is_global_set))
    {
        text.push_str(&format!(
            ".PP\nThe global options and the environment variables are described in\n.BR {} ({section}).\n",
            roff(program.get_name())
        ));
    }
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        let mut list = Vec::new();
        man.render_subcommands_section(&mut list)?;
        text.push_str(
            &String::from_utf8(list)
                .map_err(io::Error::other)?
                .replace(".SH SUBCOMMANDS", ".SH COMMANDS"),
        );
    }
    let after = |command: &Command| {
        command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    let own = after(command);
    let mut status = part(&own, "Exit status:");
    if status.is_empty() {
        status = part(&program.map(after).unwrap_or_default(), "Exit status:");
    }
    text.push_str(&list("EXIT STATUS", &status));
    let mut environment = part(&own, "Environment:");
    if program.is_none() {
        environment.extend(command.get_arguments().filter_map(|arg| {
            let name = arg.get_env()?.to_string_lossy();
            Some(format!("  {name}  {}", arg.get_help()?))
        }));
    }
    text.push_str(&list("ENVIRONMENT", &environment));
    let more = PathBuf::from(PAGES).join(format!("{name}.more"));
    let more = match fs::read_to_string(&more) {
        Ok(more) => more,
        Err(error) if error.kind() == io::ErrorKind::NotFound => match program {
            Some(program) => format!(
                ".SH SEE ALSO\n.BR {} ({section})\n",
                roff(program.get_name())
            ),
            None => String::new(),
        },
        Err(error) => return Err(error),
    };
    let (before, see_also) = more.split_at(more.find(".SH SEE ALSO").unwrap_or(more.len()));
    text.push_str(before);
    text.push_str(&examples(&part(&own, "Examples:")));
    text.push_str(see_also);
    put(folder, &name, text.as_bytes())
}

/// The lines of a help text between this heading and the next.
fn part(help: &str, heading: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != heading).skip(1);
    let lines = lines.take_while(|line| line.is_empty() || line.starts_with(' '));
    lines.map(str::to_owned).collect()
}

/// A section with a list of terms: `  TERM  what it means`.
fn list(title: &str, lines: &[String]) -> String {
    let terms = lines.iter().filter_map(|line| line.trim().split_once("  "));
    let terms =
        terms.map(|(term, words)| format!(".TP\n.B {}\n{}.\n", roff(term), roff(words.trim())));
    let terms: String = terms.collect();
    match terms.as_str() {
        "" => terms,
        terms => format!(".SH {title}\n{terms}"),
    }
}

/// A section with example commands, each after a comment about its purpose.
fn examples(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines.iter().map(|line| line.trim()) {
        match line.strip_prefix("# ") {
            Some(comment) => text.push_str(&format!(".PP\n{}:\n", roff(comment))),
            None if line.is_empty() => {}
            None => text.push_str(&format!(".RS 4\n.nf\n{}\n.fi\n.RE\n", roff(line))),
        }
    }
    match text.as_str() {
        "" => text,
        text => format!(".SH EXAMPLES\n{text}"),
    }
}

/// Escapes text so that roff prints it unchanged.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

/// Writes the page of a program or file that has no command line.
fn written(name: &str, folder: &Path) -> io::Result<()> {
    let text = fs::read_to_string(PathBuf::from(PAGES).join(name))?;
    put(folder, name, text.replace("@SOURCE@", SOURCE).as_bytes())
}

fn put(folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(name), text)
}
