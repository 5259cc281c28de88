//! Mends what a power cut leaves of Podman's files where no other copy is needed: `beemesh-repair.service`.
//!
//! Podman fsyncs nothing, so a file written just before a cut is there afterwards, but empty or full of zeros. Two such
//! files make every play fail and are not found by `podman system check`: a network's description, which Podman makes
//! anew, and a layer's `link`, whose content is the name of the symbolic link that points to the layer. The check that
//! follows removes layers and images whose own files are damaged. Only what is damaged is touched.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// Podman's folders on a host.
const NETWORKS: &str = "/etc/containers/networks";
const OVERLAY: &str = "/var/lib/containers/storage/overlay";

/// Mends this host's storage.
pub fn mend() -> io::Result<()> {
    for name in remove_empty_networks(Path::new(NETWORKS))? {
        tracing::warn!("removed empty network file {}", name.display());
    }
    for layer in restore_links(Path::new(OVERLAY))? {
        tracing::warn!("restored the link of layer {layer}");
    }
    let look = Command::new("podman")
        .args(["system", "check"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if look.success() {
        tracing::info!("podman system check found no damage");
        return Ok(());
    }
    let status = Command::new("podman")
        .args(["system", "check", "--repair", "--force"])
        .status()?;
    if !status.success() {
        // It also fails when it has removed all damage but not the pods that it removed containers of.
        tracing::warn!("podman system check --repair --force: {status}");
    }
    Ok(())
}

/// Gives the names of the files that were empty.
fn remove_empty_networks(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut removed = Vec::new();
    for entry in entries(folder)? {
        let is_json = Path::new(&entry.file_name())
            .extension()
            .is_some_and(|extension| extension == "json");
        let metadata = entry.metadata()?;
        if is_json && metadata.is_file() && metadata.len() == 0 {
            fs::remove_file(entry.path())?;
            removed.push(entry.file_name());
        }
    }
    Ok(removed)
}

/// Gives the layers whose `link` was not the name of a link to them, and is now.
fn restore_links(overlay: &Path) -> io::Result<Vec<String>> {
    let mut names = BTreeMap::new();
    for entry in entries(&overlay.join("l"))? {
        let (Ok(target), Ok(name)) = (fs::read_link(entry.path()), entry.file_name().into_string())
        else {
            continue;
        };
        // `../LAYER/diff`
        let layer = target
            .parent()
            .and_then(Path::file_name)
            .and_then(|layer| layer.to_str());
        if let Some(layer) = layer {
            names.insert(layer.to_owned(), name);
        }
    }
    let mut restored = Vec::new();
    for (layer, name) in names {
        let path = overlay.join(&layer).join("link");
        let Ok(found) = fs::read(&path) else { continue };
        let is_name = found.len() == name.len() && found.iter().all(u8::is_ascii_alphanumeric);
        if !is_name {
            replace(&path, name.as_bytes())?;
            restored.push(layer);
        }
    }
    Ok(restored)
}

fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_damaged_links_are_restored() {
        let folder = tempfile::tempdir().unwrap();
        let overlay = folder.path();
        fs::create_dir(overlay.join("l")).unwrap();
        for (layer, name, link) in [
            ("zeros", Some("AAAA"), &b"\0\0\0\0"[..]),
            ("empty", Some("BBBB"), b""),
            ("fine", Some("CCCC"), b"CCCC"),
            ("lost", None, b"\0\0\0\0"),
        ] {
            fs::create_dir_all(overlay.join(layer).join("diff")).unwrap();
            fs::write(overlay.join(layer).join("link"), link).unwrap();
            if let Some(name) = name {
                symlink(format!("../{layer}/diff"), overlay.join("l").join(name)).unwrap();
            }
        }
        assert_eq!(restore_links(overlay).unwrap(), ["empty", "zeros"]);
        let link = |layer: &str| fs::read(overlay.join(layer).join("link")).unwrap();
        assert_eq!(
            [link("zeros"), link("empty"), link("fine"), link("lost")],
            [
                b"AAAA".to_vec(),
                b"BBBB".to_vec(),
                b"CCCC".to_vec(),
                b"\0\0\0\0".to_vec()
            ]
        );
        assert_eq!(restore_links(overlay).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn only_empty_networks_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("a.json", ""), ("b.json", "{}"), ("netavark.lock", "")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        assert_eq!(remove_empty_networks(folder.path()).unwrap(), ["a.json"]);
        assert!(
            folder.path().join("netavark.lock").exists() && folder.path().join("b.json").exists()
        );
        assert_eq!(
            remove_empty_networks(Path::new("/nonexistent")).unwrap(),
            Vec::<OsString>::new()
        );
    }
}
