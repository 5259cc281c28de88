//! Repairs the files of Podman that a power cut damages and that need no other copy: `beemesh-repair.service`.
//!
//! Podman does not fsync its files. A file that was written just before a power cut exists afterwards, but may be empty
//! or full of zeros. Two such files make every play fail, and `podman system check` does not find them: the description
//! of a network, which Podman creates again, and a layer's `link`, whose content is the name of the symbolic link to
//! the layer. The check that follows removes layers and images whose own files are damaged. The repair changes only
//! damaged files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// Podman's folders on a host.
const NETWORKS: &str = "/etc/containers/networks";
const OVERLAY: &str = "/var/lib/containers/storage/overlay";

/// Repairs the storage of this host.
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
        // The command also fails if it has removed all damage, but not the pods whose containers it removed.
        tracing::warn!("podman system check --repair --force: {status}");
    }
    Ok(())
}

/// Removes empty files and returns their names.
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

/// Rewrites each layer's `link` that is not the name of a link, and returns those layers.
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
