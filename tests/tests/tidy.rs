//! Rules for the source tree that no compiler checks.

#![allow(
    clippy::unwrap_used,
    reason = "a source tree that cannot be read fails the test"
)]

#[path = "tidy/rooms.rs"]
mod rooms;

use std::{
    fs,
    path::{Path, PathBuf},
};

use rooms::{AGENT, GATEWAY, QUADLET};

/// A longer file covers more than one idea.
const LINES_MAX: usize = 600;

/// Names that a module with `//! Pure` must not use. An address or an exit code is a value; a socket is not.
const IMPURE: [&str; 29] = [
    "std::fs",
    "std::process::Command",
    "std::process::exit",
    "std::env::args",
    "std::env::args_os",
    "std::env::var",
    "std::env::var_os",
    "std::env::current_dir",
    "std::io::Read",
    "std::io::stdin",
    "std::os::unix::net",
    "TcpListener",
    "TcpStream",
    "ToSocketAddrs",
    "UdpSocket",
    "UnixDatagram",
    "UnixListener",
    "UnixStream",
    "SystemTime::now",
    "Instant::now",
    "tokio::fs",
    "tokio::net",
    "tokio::process",
    "tokio::time::interval",
    "tokio::time::sleep",
    "tokio::time::sleep_until",
    "tokio::time::timeout",
    "getrandom",
    "thread::sleep",
];

fn sources() -> Vec<(PathBuf, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    for part in [
        "agent",
        "beemesh-protocol",
        "cli",
        "fuzz",
        "gateway",
        "quadlet",
        "tests",
    ] {
        walk(&top.join(part), &mut found);
    }
    assert!(found.len() > 50, "the source tree was not found");
    found
}

fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // flatc and cargo-fuzz generate these files.
        if path.is_dir() && !path.ends_with("generated") && !path.ends_with("target") {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

/// A path in a file, with the modules inside of the file that contain it.
struct Named {
    within: Vec<String>,
    path: Vec<String>,
}

/// Words, `::` and single characters, without comments and without the content of strings and characters.
fn tokens(text: &str) -> Vec<String> {
    let text: Vec<char> = text.chars().collect();
    let at = |index: usize| text.get(index).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut tokens, mut i) = (Vec::new(), 0);
    while i < text.len() {
        let c = at(i);
        if c == '/' && at(i + 1) == '/' {
            while i < text.len() && at(i) != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            while i < text.len() && !(at(i) == '*' && at(i + 1) == '/') {
                i += 1;
            }
            i += 2;
        } else if c == '"' {
            i += 1;
            while i < text.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if c == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < text.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
        } else if is_word(c) {
            let begin = i;
            while is_word(at(i)) {
                i += 1;
            }
            let word: String = text[begin..i].iter().collect();
            let hashes = text[i..].iter().take_while(|c| **c == '#').count();
            if matches!(word.as_str(), "r" | "br" | "cr") && at(i + hashes) == '"' {
                // A raw string ends at a quote and as many hashes as it begins with.
                i += hashes + 1;
                let is_end = |i: usize| at(i) == '"' && (1..=hashes).all(|n| at(i + n) == '#');
                while i < text.len() && !is_end(i) {
                    i += 1;
                }
                i += hashes + 1;
            } else {
                tokens.push(word);
            }
        } else if c == ':' && at(i + 1) == ':' {
            tokens.push("::".to_owned());
            i += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            i += 1;
        }
    }
    tokens
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The index after the bracket that closes the one at `open`.
fn behind(tokens: &[String], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// The shipped part of a file: everything except its test modules.
fn shipped(tokens: &[String]) -> Vec<String> {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let rest = &tokens[at..];
        let is_test = rest.len() > TEST.len() && rest.iter().zip(TEST).all(|(a, b)| a == b);
        let item = at + TEST.len();
        let end = |token: &String| matches!(token.as_str(), "{" | ";");
        let module = tokens.iter().skip(item).take_while(|token| !end(token));
        if is_test && module.clone().any(|token| token == "mod") {
            let open = item + module.count();
            at = behind(tokens, open);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// The paths of the `use` tree at `at`, with `prefix` before each; and the index after the tree.
fn tree(
    tokens: &[String],
    mut at: usize,
    prefix: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = tree(tokens, at, &path, found);
                    if tokens.get(at).is_some_and(|token| token == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "," | "}" | ";" => break,
            "as" => at += 1,
            "::" => {}
            // `self` after a path is the path.
            "self" if !path.is_empty() => {}
            _ => path.push(token.clone()),
        }
        at += 1;
    }
    found.push(path);
    at
}

/// All paths with more than one segment, and all imports.
fn named(tokens: &[String]) -> Vec<Named> {
    let mut all = Vec::new();
    let (mut within, mut depth): (Vec<(String, usize)>, usize) = (Vec::new(), 0);
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let next = tokens.get(at + 1).map_or("", String::as_str);
        let modules = |within: &[(String, usize)]| within.iter().map(|one| one.0.clone()).collect();
        match token.as_str() {
            "mod" if tokens.get(at + 2).is_some_and(|token| token == "{") => {
                within.push((next.to_owned(), depth));
                at += 1;
            }
            "{" => {
                depth += 1;
                at += 1;
            }
            "}" => {
                depth = depth.saturating_sub(1);
                if within.last().is_some_and(|one| one.1 == depth) {
                    within.pop();
                }
                at += 1;
            }
            // Not the `use<'a>` of a bound.
            "use" if next != "<" => {
                let mut paths = Vec::new();
                at = tree(tokens, at + 1, &[], &mut paths);
                all.extend(paths.into_iter().map(|path| Named {
                    within: modules(&within),
                    path,
                }));
            }
            word if is_word(word) && next == "::" => {
                let mut path = vec![token.clone()];
                at += 1;
                while tokens.get(at).is_some_and(|token| token == "::")
                    && tokens.get(at + 1).is_some_and(|token| is_word(token))
                {
                    path.push(tokens[at + 1].clone());
                    at += 2;
                }
                all.push(Named {
                    within: modules(&within),
                    path,
                });
            }
            _ => at += 1,
        }
    }
    all
}

/// The room of its crate that a path leads to from a file of `module`; `None` if the path alone does not tell.
fn room(module: &[String], named: &Named) -> Option<String> {
    let mut here = [module, &named.within].concat();
    let mut path = named.path.iter().peekable();
    match path.peek()?.as_str() {
        "crate" => {
            path.next();
            here.clear();
        }
        "super" => {
            while path.next_if(|one| *one == "super").is_some() {
                here.pop();
            }
        }
        _ => return None,
    }
    here.extend(path.cloned());
    here.first().cloned()
}

#[test]
fn use_trees_and_paths_are_read_as_they_are_written() {
    let text = r##"
        use std::{fs, net::{IpAddr, TcpStream as Stream}}; // use a::b;
        pub(crate) use crate::cluster::{self, state::*};
        fn f() -> &'static str { let c = '{'; crate::raft::Node::open(c); "use x::y {" ; r#"crate::api "quoted" {"# }
        mod inner { use super::{super::pki, a}; }
        #[cfg(test)]
        mod tests { use super::*; fn g() { crate::api::h() } }
        fn after() { SystemTime::now() }
    "##;
    let all = tokens(text);
    let found: Vec<_> = named(&all).iter().map(|one| one.path.join("::")).collect();
    assert_eq!(
        found,
        [
            "std::fs",
            "std::net::IpAddr",
            "std::net::TcpStream",
            "crate::cluster",
            "crate::cluster::state::*",
            "crate::raft::Node::open",
            "super::super::pki",
            "super::a",
            "super::*",
            "crate::api::h",
            "SystemTime::now",
        ]
    );
    let module = ["workloads".to_owned(), "run".to_owned()];
    let rooms: Vec<_> = named(&all)
        .iter()
        .filter_map(|one| room(&module, one))
        .collect();
    let run = "workloads";
    assert_eq!(rooms, ["cluster", "cluster", "raft", run, run, run, "api"]);
    let kept: Vec<_> = named(&shipped(&all))
        .iter()
        .map(|one| one.path.join("::"))
        .collect();
    assert!(!kept.contains(&"crate::api::h".to_owned()), "{kept:?}");
    assert!(kept.contains(&"SystemTime::now".to_owned()), "{kept:?}");
}

#[test]
fn rooms_import_no_room_above_them() {
    hold("gateway/src", &GATEWAY);
    hold("agent/src", &AGENT);
    hold("quadlet/src", &QUADLET);
}

#[track_caller]
fn hold(folder: &str, rooms: &[(&str, &[&str])]) {
    let known: Vec<&str> = rooms.iter().map(|(room, _)| *room).collect();
    for (at, (room, allowed)) in rooms.iter().enumerate() {
        for one in *allowed {
            assert!(known[..at].contains(one), "{room} -> {one} goes upwards");
        }
    }
    let (mut offenders, mut arrows) = (Vec::new(), Vec::new());
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (path, text) in sources() {
        let Ok(inside) = path.strip_prefix(top.join(folder)) else {
            continue;
        };
        let inside = inside.with_extension("");
        let parts = inside
            .iter()
            .map(|part| part.to_string_lossy().into_owned());
        let mut module: Vec<String> = parts.collect();
        let own = module[0].clone();
        // A root module connects all rooms and may import any, unless the table says otherwise.
        let is_root = ["main", "lib"].contains(&own.as_str());
        if is_root {
            module.clear();
        }
        let Some((_, allowed)) = rooms.iter().find(|(room, _)| *room == own) else {
            if !is_root {
                offenders.push(format!("{}: `{own}` is no room", path.display()));
            }
            continue;
        };
        for one in named(&tokens(&text)) {
            let first = &one.path[0];
            let of_root = module.is_empty() && known.contains(&first.as_str());
            let to = if of_root {
                Some(first.clone())
            } else {
                room(&module, &one)
            };
            let Some(to) = to.filter(|to| *to != own) else {
                continue;
            };
            if !allowed.contains(&to.as_str()) {
                offenders.push(format!("{}: {}", path.display(), one.path.join("::")));
            }
            arrows.push((own.clone(), to));
        }
    }
    assert_none("imports that the table does not have", offenders);
    let unused = rooms.iter().flat_map(|(room, allowed)| {
        let drawn = |to: &&&str| !arrows.contains(&((*room).to_owned(), (**to).to_owned()));
        allowed
            .iter()
            .filter(drawn)
            .map(move |to| format!("{room} -> {to}"))
    });
    assert_none("arrows that nobody uses", unused.collect());
}

#[track_caller]
fn assert_none(rule: &str, offenders: Vec<String>) {
    assert!(offenders.is_empty(), "{rule}:\n{}", offenders.join("\n"));
}

#[test]
fn files_are_small() {
    let all = sources().into_iter();
    let long = all.filter(|(_, text)| text.lines().count() > LINES_MAX);
    assert_none(
        "files over 600 lines",
        long.map(|(path, _)| path.display().to_string()).collect(),
    );
}

#[test]
fn every_module_says_what_it_is() {
    let silent = sources()
        .into_iter()
        .filter(|(path, text)| !text.starts_with("//!") && !path.ends_with("tests.rs"));
    assert_none(
        "modules without `//!`",
        silent.map(|(path, _)| path.display().to_string()).collect(),
    );
}

#[test]
fn pure_modules_do_no_io_and_read_no_clock() {
    let pure: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| text.lines().any(|line| line.starts_with("//! Pure")))
        .collect();
    assert!(pure.len() > 8, "pure modules say so");
    let offenders = pure.iter().flat_map(|(path, text)| {
        let all = named(&shipped(&tokens(text)));
        let is_named = |impure: &&&str| {
            let impure: Vec<&str> = impure.split("::").collect();
            let names = |one: &Named| {
                let path: Vec<&str> = one.path.iter().map(String::as_str).collect();
                path.windows(impure.len()).any(|part| part == impure)
            };
            all.iter().any(names)
        };
        let found: Vec<_> = IMPURE.iter().filter(is_named).collect();
        found
            .into_iter()
            .map(move |name| format!("{}: {name}", path.display()))
    });
    assert_none("pure modules that are not", offenders.collect());
}

#[test]
fn no_comment_promises_work_instead_of_doing_it() {
    let words = ["TODO", "FIXME", "XXX", "for now", "not yet implemented"];
    let me = Path::new(file!()).file_name().unwrap().to_owned();
    let offenders = sources()
        .into_iter()
        .filter(|(path, _)| path.file_name() != Some(&me))
        .flat_map(|(path, text)| {
            let lines: Vec<String> = text
                .lines()
                .enumerate()
                .filter(|(_, line)| words.iter().any(|word| line.contains(word)))
                .map(|(at, line)| format!("{}:{}: {}", path.display(), at + 1, line.trim()))
                .collect();
            lines
        });
    assert_none("promises", offenders.collect());
}

#[test]
fn every_file_names_this_version() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for (file, line) in [
        (
            "quadlet/units/gateway.yaml",
            format!("image: localhost/beemesh-gateway:{version}\n"),
        ),
        ("rpm/beemesh.spec", format!("\nVersion:        {version}\n")),
    ] {
        let text = fs::read_to_string(top.join(file)).unwrap();
        assert!(text.contains(&line), "{file}: {line}");
    }
}
