//! Checks the manual pages and completions that the build writes.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::{collections::BTreeSet, env, fs, path::Path, process::Command};

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn every_program_and_subcommand_has_a_page_and_every_shell_completes_them() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    let _ = fs::remove_dir_all(&folder);
    let describe = Command::new(env!("CARGO_BIN_EXE_describe"))
        .arg(&folder)
        .output()
        .unwrap();
    assert!(describe.status.success(), "{describe:?}");

    let page = |section: u8, name: &str| {
        fs::read_to_string(folder.join(format!("man{section}/{name}.{section}"))).unwrap()
    };
    assert_eq!(
        names(&folder.join("man8")),
        [
            "beemesh-agent-check-config.8",
            "beemesh-agent-purge.8",
            "beemesh-agent-recover.8",
            "beemesh-agent.8",
            "beemesh-gateway.8",
            "beemesh-pod.8"
        ]
        .map(str::to_owned)
        .into()
    );
    assert_eq!(
        names(&folder.join("man5")),
        ["beemesh-agent.toml.5".to_owned()].into()
    );
    // The page of `beemesh` names the pages of its subcommands.
    let subcommands: Vec<String> = names(&folder.join("man1"))
        .iter()
        .filter_map(|name| {
            Some(
                name.strip_prefix("beemesh-")?
                    .strip_suffix(".1")?
                    .to_owned(),
            )
        })
        .collect();
    assert!(subcommands.contains(&"token-create".to_owned()));
    let main = page(1, "beemesh");
    for name in subcommands.iter().filter(|name| !name.contains('-')) {
        assert!(main.contains(&format!("beemesh\\-{name}(1)")), "{name}");
        for completion in ["bash/beemesh", "zsh/_beemesh", "fish/beemesh.fish"] {
            let text = fs::read_to_string(folder.join(completion)).unwrap();
            assert!(text.contains(name), "{completion} lacks {name}");
        }
    }
    // Every command has an example, and global options are on the page of the program alone.
    for name in &subcommands {
        let text = page(1, &format!("beemesh-{name}"));
        assert!(text.contains("\n.SH EXIT STATUS\n"), "{name}");
        assert!(!text.contains("\\-\\-socket"), "{name}");
        let group = ["host", "policy", "rollout", "token", "user"].contains(&name.as_str());
        assert_eq!(text.contains("\n.SH EXAMPLES\n"), !group, "{name}");
    }
    assert!(main.contains("\\-\\-socket"));
    // Sections that no command line has exist once, and the version is filled in.
    for (section, name, words) in [
        (1, "beemesh", "gateway.sock"),
        (1, "beemesh-apply", "\\-\\-strict"),
        (1, "beemesh-diff", ".B 4\nThe comparison failed."),
        (5, "beemesh-agent.toml", "advertise"),
        (8, "beemesh-agent", "/var/lib/beemesh/agent/identity"),
        (8, "beemesh-gateway", "gateway.oci.tar"),
        (8, "beemesh-pod", "\\-\\-stop\\-post"),
    ] {
        let text = page(section, name);
        assert!(text.contains(words), "{name} lacks {words}");
        for heading in ["EXAMPLES", "EXIT STATUS", "ENVIRONMENT", "FILES"] {
            let has = text.contains(&format!("\n.SH {heading}\n"));
            let is_file = section == 5 && ["EXIT STATUS", "ENVIRONMENT"].contains(&heading);
            let is_sub = name.starts_with("beemesh-")
                && section == 1
                && ["ENVIRONMENT", "FILES"].contains(&heading);
            assert_eq!(has, !(is_file || is_sub), "{name}: {heading}");
        }
        assert!(!text.contains(".SH EXTRA"), "{name}");
        let title = text.lines().find(|line| line.starts_with(".TH"));
        let end = concat!(
            " \"\" \"Beemesh ",
            env!("CARGO_PKG_VERSION"),
            "\" \"Beemesh\""
        );
        assert!(title.is_some_and(|title| title.ends_with(end)), "{title:?}");
    }
}
