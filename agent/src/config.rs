//! The agent's configuration, read once and strictly.
//!
//! Shell: reads files, and writes the file of addresses that `beemesh join` sets. It reads the defaults in
//! `/usr/lib/beemesh/agent.toml`, then the file of the join, then `/etc/beemesh/agent.toml.d/*.toml` in the order of
//! their names. A later value overrides an earlier one. The result is a [`Config`] whose values are all valid.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use beemesh_protocol::{
    mesh::PORT,
    naming::{Said, UNNAMED},
};
use serde::Deserialize;

use crate::durable;

/// Maximum number of advertised addresses, more than a host needs.
const ADVERTISE_MAX: usize = 8;
/// The longest host name that DNS and the kernel permit, in bytes.
const NAME_MAX: usize = 63;

/// The files of the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// The defaults of the package.
    pub(crate) defaults: PathBuf,
    /// The addresses that were set when this host joined.
    pub(crate) joined: PathBuf,
    /// The administrator's drop-ins.
    pub(crate) drop_ins: PathBuf,
}

impl Sources {
    /// The default paths; with `folder`, all files except the one of the state are in that folder.
    pub(crate) fn new(state: &Path, folder: Option<&Path>) -> Self {
        let joined = state.join("joined.toml");
        match folder {
            Some(folder) => Self {
                defaults: folder.join("agent.toml"),
                joined,
                drop_ins: folder.join("agent.toml.d"),
            },
            None => Self {
                defaults: "/usr/lib/beemesh/agent.toml".into(),
                joined,
                drop_ins: "/etc/beemesh/agent.toml.d".into(),
            },
        }
    }
}

/// The merged configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// The host's display name, unique in the cluster.
    pub(crate) name: String,
    /// Whether `name` is configured; otherwise it is the host name.
    pub(crate) name_is_set: bool,
    /// UDP and TCP port of the mesh.
    pub(crate) port: u16,
    /// The addresses that other hosts dial; if empty, the addresses of the listeners.
    pub(crate) advertise: Vec<IpAddr>,
    /// TCP port of the remote API; `None` disables it.
    pub(crate) api_port: Option<u16>,
    /// Whether the hosts of the local network announce their addresses to each other.
    pub(crate) mdns: bool,
}

impl Config {
    /// The name that this host reports.
    pub(crate) fn said(&self) -> Said<'_> {
        Said {
            name: &self.name,
            is_set: self.name_is_set,
        }
    }

    /// The ports of this host that no workload may use.
    pub(crate) fn reserved_ports(&self) -> Vec<u16> {
        [self.port].into_iter().chain(self.api_port).collect()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Fragment {
    name: Option<String>,
    port: Option<u16>,
    advertise: Option<Vec<IpAddr>>,
    api_port: Option<u16>,
    mdns: Option<bool>,
}

/// Reads the configuration. `host_name` is the name if none is configured.
pub(crate) fn load(sources: &Sources, host_name: &str) -> anyhow::Result<Config> {
    let mut merged = Fragment::default();
    let mut config = configured(&merged, host_name);
    // The file that made the configuration invalid, and the error.
    let mut wrong: Option<(PathBuf, anyhow::Error)> = None;
    for path in files(sources)? {
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read.with_context(|| format!("read {}", path.display()))?,
        };
        let next: Fragment =
            toml::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
        merged = Fragment {
            name: next.name.or(merged.name),
            port: next.port.or(merged.port),
            advertise: next.advertise.or(merged.advertise),
            api_port: next.api_port.or(merged.api_port),
            mdns: next.mdns.or(merged.mdns),
        };
        config = configured(&merged, host_name);
        wrong = match (check(&config), wrong) {
            (Ok(()), _) => None,
            (Err(error), before) => Some((before.map_or(path, |(path, _)| path), error)),
        };
    }
    match wrong {
        None => Ok(config),
        Some((path, error)) => Err(error.context(path.display().to_string())),
    }
}

fn configured(merged: &Fragment, host_name: &str) -> Config {
    Config {
        name_is_set: merged.name.is_some(),
        name: match &merged.name {
            Some(name) => name.clone(),
            // A missing host name must not prevent the start: the cluster identifies this host by its key.
            None if is_name(host_name) => host_name.to_owned(),
            None => UNNAMED.to_owned(),
        },
        port: merged.port.unwrap_or(PORT),
        advertise: merged.advertise.clone().unwrap_or_default(),
        // 0 disables a port that an earlier file enabled.
        api_port: merged.api_port.filter(|port| *port > 0),
        mdns: merged.mdns.unwrap_or_default(),
    }
}

/// Stores the advertised addresses of this host durably. The error is a message for the user.
pub(crate) fn keep_advertised(
    sources: &Sources,
    host_name: &str,
    addresses: &[String],
) -> Result<(), String> {
    let wanted = addresses.iter().map(|text| text.parse());
    let wanted: Vec<IpAddr> = wanted
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{}: {error}", addresses.join(", ")))?;
    let told = |error: anyhow::Error| format!("{error:#}");
    check_addresses(&wanted).map_err(told)?;
    let quoted: Vec<_> = wanted.iter().map(|ip| format!("\"{ip}\"")).collect();
    let text = format!(
        "# Of `beemesh join`.\nadvertise = [{}]\n",
        quoted.join(", ")
    );
    let written = durable::replace(&sources.joined, text.as_bytes(), 0o644);
    written.map_err(|error| format!("write {}: {error}", sources.joined.display()))?;
    let config = load(sources, host_name).map_err(told)?;
    if config.advertise == wanted {
        return Ok(());
    }
    let _ = fs::remove_file(&sources.joined);
    Err(format!(
        "`advertise` in {} differs: change it there",
        sources.drop_ins.display()
    ))
}

fn check(config: &Config) -> anyhow::Result<()> {
    let Config {
        name,
        name_is_set: _,
        port,
        advertise,
        api_port,
        mdns: _,
    } = config;
    ensure!(
        is_name(name),
        "`name` is {name:?}: it must be 1 to {NAME_MAX} letters, digits, dots, dashes or underscores"
    );
    ensure!(*port > 0, "`port` must be 1 to 65535");
    ensure!(
        *api_port != Some(*port),
        "`api-port` is {port}, which is the mesh's `port`"
    );
    check_addresses(advertise)
}

fn is_name(name: &str) -> bool {
    let spelled = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=NAME_MAX).contains(&name.len()) && name.chars().all(spelled)
}

fn check_addresses(advertise: &[IpAddr]) -> anyhow::Result<()> {
    ensure!(
        advertise.len() <= ADVERTISE_MAX,
        "`advertise` has {} addresses, at most {ADVERTISE_MAX} are allowed",
        advertise.len()
    );
    for ip in advertise {
        ensure!(
            !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast(),
            "`advertise` has {ip}, which other hosts cannot reach"
        );
    }
    Ok(())
}

fn files(sources: &Sources) -> anyhow::Result<Vec<PathBuf>> {
    let mut drop_ins = Vec::new();
    match fs::read_dir(&sources.drop_ins) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        listed => {
            let folder = || format!("list {}", sources.drop_ins.display());
            for entry in listed.with_context(folder)? {
                let path = entry.with_context(folder)?.path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "toml")
                {
                    drop_ins.push(path);
                }
            }
        }
    }
    drop_ins.sort();
    let mut files = vec![sources.defaults.clone(), sources.joined.clone()];
    files.append(&mut drop_ins);
    Ok(files)
}

/// The kernel's host name without its domain. The unit's sandbox hides `/proc/sys`, so this calls `gethostname`.
pub(crate) fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("ask for the host name")?;
    let name = name.to_string_lossy();
    Ok(name.split('.').next().unwrap_or(&name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(defaults: &str, drop_ins: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources {
            defaults: folder.path().join("agent.toml"),
            joined: folder.path().join("joined.toml"),
            drop_ins: folder.path().join("agent.toml.d"),
        };
        fs::write(&sources.defaults, defaults).unwrap();
        fs::create_dir(&sources.drop_ins).unwrap();
        for (name, text) in drop_ins {
            fs::write(sources.drop_ins.join(name), text).unwrap();
        }
        load(&sources, "h1").map_err(|error| {
            let text = format!("{error:#}");
            text.replace(&folder.path().display().to_string(), "")
        })
    }

    #[test]
    fn later_files_win_and_wrong_ones_are_refused_by_name() {
        let config = |name: &str, port, advertise: &[&str]| Config {
            name: name.to_owned(),
            name_is_set: name != "h1",
            port,
            advertise: advertise.iter().map(|ip| ip.parse().unwrap()).collect(),
            api_port: None,
            mdns: false,
        };
        assert_eq!(loaded("", &[]), Ok(config("h1", 4701, &[])));
        assert_eq!(
            loaded(
                "port = 5000",
                &[
                    (
                        "20.toml",
                        "name = \"b\"\nadvertise = [\"10.0.0.1\", \"fd00::1\"]"
                    ),
                    ("10.toml", "name = \"a\"\nport = 6000"),
                    ("README", "not read"),
                ],
            ),
            Ok(config("b", 6000, &["10.0.0.1", "fd00::1"]))
        );
        let api_port = |files: &[(&str, &str)]| loaded("", files).map(|config| config.api_port);
        let on = ("10.toml", "api-port = 7443");
        assert_eq!(api_port(&[on]), Ok(Some(7443)));
        assert_eq!(api_port(&[on, ("20.toml", "api-port = 0")]), Ok(None));
        assert!(loaded("", &[("x.toml", "mdns = true")]).unwrap().mdns);
        for (text, words) in [
            ("api-port = 4701", "`api-port` is 4701, which is the mesh's"),
            ("ports = 1", "parse /agent.toml.d/x.toml: "),
            ("port = 0", "`port` must be 1 to 65535"),
            ("name = \"a b\"", "`name` is \"a b\""),
            ("advertise = [\"127.0.0.1\"]", "has 127.0.0.1, which"),
            ("advertise = [\"h2\"]", "invalid IP address"),
        ] {
            let error = loaded("", &[("x.toml", text)]).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
            assert!(error.contains("/agent.toml.d/x.toml"), "{text}: {error}");
        }
        let taken = ("10.toml", "api-port = 4701");
        let error = loaded("", &[taken, ("20.toml", "mdns = true")]).unwrap_err();
        assert!(
            error.contains("/10.toml: "),
            "the file that is wrong: {error}"
        );
        let config = loaded("", &[taken, ("20.toml", "port = 5000")]).unwrap();
        assert_eq!(config.api_port, Some(4701), "the last value counts");
    }

    #[test]
    fn a_host_name_that_is_none_is_no_reason_not_to_start() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources::new(&folder.path().join("state"), Some(folder.path()));
        for (host_name, expected) in [
            ("h1", "h1"),
            ("localhost", "localhost"),
            ("(none)", "localhost"),
            ("", "localhost"),
            (&"x".repeat(64), "localhost"),
        ] {
            let config = load(&sources, host_name).unwrap();
            assert_eq!(
                (config.name.as_str(), config.name_is_set),
                (expected, false)
            );
        }
    }

    #[test]
    fn what_was_said_at_the_join_is_kept_and_the_administrators_file_wins() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources::new(&folder.path().join("state"), Some(folder.path()));
        let keep = |addresses: &[&str]| {
            let addresses: Vec<_> = addresses.iter().map(|ip| (*ip).to_owned()).collect();
            keep_advertised(&sources, "h1", &addresses)
        };
        let advertised = || load(&sources, "h1").unwrap().advertise;
        for (wrong, words) in [
            (
                &["127.0.0.1"][..],
                "has 127.0.0.1, which other hosts cannot reach",
            ),
            (&["h2"], "h2: invalid IP address syntax"),
            (&["10.0.0.1"; 9], "has 9 addresses"),
        ] {
            let error = keep(wrong).unwrap_err();
            assert!(error.contains(words), "{error}");
            assert!(!sources.joined.exists());
        }
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        assert_eq!(keep(&["10.0.0.1", "fd00::1"]), Ok(()));
        assert_eq!(advertised(), [ip("10.0.0.1"), ip("fd00::1")]);
        assert_eq!(keep(&["10.0.0.2"]), Ok(()));
        assert_eq!(advertised(), [ip("10.0.0.2")]);

        fs::create_dir(&sources.drop_ins).unwrap();
        fs::write(
            sources.drop_ins.join("x.toml"),
            "advertise = [\"10.0.0.9\"]",
        )
        .unwrap();
        let error = keep(&["10.0.0.3"]).unwrap_err();
        assert!(error.contains("differs: change it there"), "{error}");
        assert_eq!(keep(&["10.0.0.9"]), Ok(()));
        assert_eq!(advertised(), [ip("10.0.0.9")]);
    }

    #[test]
    fn shipped_defaults_are_the_built_in_ones() {
        let shipped = include_str!("../../systemd/beemesh/agent.toml");
        assert_eq!(loaded(shipped, &[]), loaded("", &[]));
        // Each commented-out line is a setting with its default.
        let enabled = shipped.replace("\n#", "\n").replace("\n ", "\n# ");
        let enabled = loaded(&enabled, &[]).unwrap();
        assert_eq!(enabled.port, PORT);
    }

    #[test]
    fn the_manual_page_has_every_key_and_no_other() {
        // The parser's error lists all valid keys.
        let refusal = toml::from_str::<Fragment>("no-such-key = 1").unwrap_err();
        let message = refusal.message().to_owned();
        let keys = message.split('`').skip(3).step_by(2);
        let page = include_str!("../../docs/man/beemesh-agent.toml.5");
        let described = page
            .lines()
            .skip_while(|line| *line != ".SH KEYS")
            .skip(1)
            .take_while(|line| !line.starts_with(".SH"))
            .filter_map(|line| line.strip_prefix(".BR "))
            .filter_map(|line| line.split_whitespace().next())
            .map(|key| key.replace("\\-", "-"));
        assert_eq!(
            described.collect::<Vec<_>>(),
            keys.collect::<Vec<_>>(),
            "{message}"
        );
    }
}
