//! The files of manifests that a command line names: files, standard input, folders and URLs.
//!
//! Shell: reads files, folders and web servers. All files are read before a command acts on the first, so that a file that
//! cannot be read changes nothing.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use beemesh_protocol::hex::Hex;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::{
    download::{self, Url, Web},
    trouble::Trouble,
};

/// The gateway's limit for a manifest. The client does not read the rest of a longer file.
pub(crate) const FILE_MAX: u64 = 1 << 20;
/// The limit in messages.
const FILE_WORDS: &str =
    "1 MiB, the limit for a manifest: split it, and apply each part with its own `--name`";
/// The most files of one command: a cluster has at most four times as many manifests.
const FILES_MAX: usize = 1024;
/// The most bytes of all files of one command, which are in memory at the same time.
const BYTES_MAX: usize = 64 << 20;
/// The deepest folder that `--recursive` reads.
const DEPTH_MAX: usize = 32;
/// The extensions of manifests in a folder.
const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];
/// The most files that a message names.
const NAMED_MAX: usize = 20;

/// Where one manifest is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Stdin,
    File(PathBuf),
    Url(Url),
}

/// Where the manifests of a command are.
#[derive(Debug)]
pub(crate) struct Places {
    all: Vec<Place>,
    /// The command line names more than one file, or a folder, whatever the folder contains.
    pub(crate) many: bool,
}

/// A manifest and its name in messages.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) bytes: Bytes,
}

impl Places {
    /// Finds the files of `-f` options, in their order.
    pub(crate) fn find(options: &[PathBuf], recursive: bool) -> Result<Self, Trouble> {
        let mut all = Vec::new();
        let mut many = options.len() > 1;
        for option in options {
            if option == Path::new("-") {
                if all.contains(&Place::Stdin) {
                    return Err(Trouble::usage(
                        "standard input (`-f -`) can be read only once",
                    ));
                }
                all.push(Place::Stdin);
            } else if let Some(url) = option.to_str().and_then(Url::from_option) {
                all.push(Place::Url(url.map_err(Trouble::usage)?));
            } else if option.is_dir() {
                many = true;
                all.extend(in_folder(option, recursive)?.into_iter().map(Place::File));
            } else {
                all.push(Place::File(option.clone()));
            }
            if all.len() > FILES_MAX {
                return Err(Trouble::usage(format!(
                    "there are more than {FILES_MAX} files: use several commands"
                )));
            }
        }
        Ok(Self { all, many })
    }

    /// Refuses a manifest name for more than one file.
    pub(crate) fn check_name(&self, name: Option<&String>) -> Result<(), Trouble> {
        match (name, self.all.len()) {
            (None, _) | (_, ..=1) => Ok(()),
            (Some(_), count) => Err(Trouble::usage(format!(
                "`--name` names one manifest, and each of these {count} files is a manifest of its own"
            ))),
        }
    }

    /// Reads all files.
    pub(crate) async fn read(&self, timeout: Duration) -> Result<Vec<File>, Trouble> {
        let mut files = Vec::new();
        let mut web = None;
        let mut count = 0;
        for place in &self.all {
            let file = match place {
                Place::Stdin => read(Path::new("-"))?,
                Place::File(path) => read(path)?,
                Place::Url(url) => {
                    let web = match &mut web {
                        Some(web) => web,
                        none => none.insert(Web::new(download::system_roots()?)?),
                    };
                    download(web, url, timeout).await?
                }
            };
            count += file.bytes.len();
            if count > BYTES_MAX {
                return Err(Trouble::failed(format!(
                    "the files have more than {} MiB: use several commands",
                    BYTES_MAX >> 20
                )));
            }
            files.push(file);
        }
        Ok(files)
    }
}

/// Downloads a manifest and prints its digest, by which a user can tell what was applied.
async fn download(web: &Web, url: &Url, timeout: Duration) -> Result<File, Trouble> {
    let name = url.to_string();
    let bytes = web.get(url, FILE_MAX, timeout).await;
    let bytes = bytes.map_err(|trouble| trouble.during(&format!("cannot read {name}")))?;
    let digest = Sha256::digest(&bytes);
    eprintln!("{name}: {} bytes, sha256:{}", bytes.len(), Hex(&digest));
    Ok(File { name, bytes })
}

/// The manifests of a folder, sorted by name.
fn in_folder(folder: &Path, recursive: bool) -> Result<Vec<PathBuf>, Trouble> {
    let mut found = Vec::new();
    let mut has_folders = false;
    walk(folder, recursive, 1, &mut found, &mut has_folders)?;
    if !found.is_empty() {
        return Ok(found);
    }
    let trouble = Trouble::failed(format!(
        "folder {} contains no *.yaml, *.yml or *.json file",
        folder.display()
    ));
    Err(match has_folders && !recursive {
        true => trouble.hint("`--recursive` also reads the folders in it"),
        false => trouble,
    })
}

/// A folder in a folder is at the place of its name. Links to folders are not followed, because they can form a loop.
fn walk(
    folder: &Path,
    recursive: bool,
    depth: usize,
    found: &mut Vec<PathBuf>,
    has_folders: &mut bool,
) -> Result<(), Trouble> {
    let failed = |error: &io::Error| {
        Trouble::failed(format!("cannot read folder {}: {error}", folder.display()))
    };
    let entries = fs::read_dir(folder).map_err(|error| failed(&error))?;
    let entries: io::Result<Vec<_>> = entries.collect();
    let mut entries = entries.map_err(|error| failed(&error))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().map_err(|error| failed(&error))?;
        if kind.is_dir() {
            *has_folders = true;
            if recursive && depth == DEPTH_MAX {
                return Err(Trouble::failed(format!(
                    "folder {} is more than {DEPTH_MAX} folders deep",
                    path.display()
                )));
            }
            if recursive {
                walk(&path, recursive, depth + 1, found, has_folders)?;
            }
        } else if is_manifest(&path) && !path.is_dir() {
            found.push(path);
        }
        if found.len() > FILES_MAX {
            return Err(Trouble::failed(format!(
                "folder {} has more than {FILES_MAX} files",
                folder.display()
            )));
        }
    }
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

/// Reads a manifest from a file, or from standard input if the path is `-`.
fn read(path: &Path) -> Result<File, Trouble> {
    read_up_to(path, FILE_MAX, FILE_WORDS)
}

/// Reads a file of at most `max` bytes. `words` describe the limit in the error.
pub(crate) fn read_up_to(path: &Path, max: u64, words: &str) -> Result<File, Trouble> {
    let stdin = path == Path::new("-");
    let name = if stdin {
        "<stdin>".to_owned()
    } else {
        path.display().to_string()
    };
    let mut bytes = Vec::new();
    let read = if stdin {
        io::stdin().lock().take(max + 1).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(max + 1).read_to_end(&mut bytes))
    };
    let count = read.map_err(|error| Trouble::failed(format!("cannot read {name}: {error}")))?;
    if count as u64 > max {
        return Err(Trouble::failed(format!("{name} is larger than {words}")));
    }
    let bytes = bytes.into();
    Ok(File { name, bytes })
}

/// The names of files in a message.
pub(crate) fn names<'a>(files: impl IntoIterator<Item = &'a File>) -> String {
    let names: Vec<_> = files.into_iter().map(|file| file.name.as_str()).collect();
    match names.len() {
        0 => "none".to_owned(),
        count if count > NAMED_MAX => {
            let more = count - NAMED_MAX;
            format!("{} and {more} more", names[..NAMED_MAX].join(", "))
        }
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files, which is removed at the end.
    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        folder
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future)
    }

    fn found(options: &[&Path], recursive: bool) -> Result<Places, String> {
        let options: Vec<_> = options.iter().map(|path| path.to_path_buf()).collect();
        Places::find(&options, recursive).map_err(|trouble| trouble.to_string())
    }

    /// The contents of the files that are found, which are their names.
    fn contents(options: &[&Path], recursive: bool) -> Vec<String> {
        let places = found(options, recursive).unwrap();
        let read = places.read(Duration::from_secs(1));
        let files = block_on(read).unwrap();
        let text = |file: File| String::from_utf8(file.bytes.to_vec()).unwrap();
        files.into_iter().map(text).collect()
    }

    #[test]
    fn the_files_of_a_folder_are_read_in_the_order_of_their_names() {
        let folder = folder(&[
            "b.yml",
            "a.yaml",
            "c.json",
            "d.txt",
            "e.YAML",
            "bb/z.yaml",
            "bb/deep/y.yaml",
            "f.yaml~",
        ]);
        let path = folder.path();
        std::os::unix::fs::symlink(path, path.join("bb/loop")).unwrap();
        std::os::unix::fs::symlink("d.txt", path.join("link.yaml")).unwrap();
        assert_eq!(
            contents(&[path], false),
            ["a.yaml", "b.yml", "c.json", "d.txt"]
        );
        assert_eq!(
            contents(&[path], true),
            [
                "a.yaml",
                "b.yml",
                "bb/deep/y.yaml",
                "bb/z.yaml",
                "c.json",
                "d.txt"
            ]
        );
        let file = path.join("c.json");
        assert_eq!(
            contents(&[&file, path, &file], false),
            ["c.json", "a.yaml", "b.yml", "c.json", "d.txt", "c.json"]
        );
        // A file that is named needs no extension.
        assert_eq!(contents(&[&path.join("d.txt")], false), ["d.txt"]);
    }

    #[test]
    fn one_file_is_one_answer_and_a_folder_is_many() {
        let folder = folder(&["a.yaml"]);
        let file = folder.path().join("a.yaml");
        let name = "web".to_owned();
        for (options, many, count) in [
            (vec![file.as_path()], false, 1),
            (vec![folder.path()], true, 1),
            (vec![file.as_path(), Path::new("-")], true, 2),
        ] {
            let places = found(&options, false).unwrap();
            assert_eq!(
                (places.many, places.all.len()),
                (many, count),
                "{options:?}"
            );
            assert!(places.check_name(None).is_ok());
            assert_eq!(
                places.check_name(Some(&name)).is_ok(),
                count == 1,
                "{options:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_before_anything_is_read() {
        let folder = folder(&["only/a.yaml", "empty/a.txt"]);
        let only = folder.path().join("only").join("..");
        let empty = folder.path().join("empty");
        for (options, recursive, words) in [
            (vec![Path::new("-"), Path::new("-")], false, "only once"),
            (
                vec![empty.as_path()],
                true,
                "/empty contains no *.yaml, *.yml or *.json file\n",
            ),
            (vec![only.as_path()], false, "hint: `--recursive`"),
            (
                vec![Path::new("http://example.com/a.yaml")],
                false,
                "use https://",
            ),
            (vec![Path::new("HTTPS://")], false, "is not a URL"),
        ] {
            let refused = found(&options, recursive).unwrap_err();
            assert!(refused.contains(words), "{options:?}: {refused}");
        }
        let places = found(&[&folder.path().join("none.yaml")], false).unwrap();
        let read = places.read(Duration::from_secs(1));
        let refused = block_on(read).unwrap_err().to_string();
        assert!(refused.contains("none.yaml: No such file"), "{refused}");
    }

    #[test]
    fn a_message_names_some_files_and_counts_the_others() {
        let file = |n: usize| File {
            name: format!("{n}.yaml"),
            bytes: Bytes::new(),
        };
        assert_eq!(names(&[]), "none");
        assert_eq!(names(&[file(1), file(2)]), "1.yaml, 2.yaml");
        let all: Vec<_> = (1..=NAMED_MAX + 3).map(file).collect();
        assert!(
            names(&all).ends_with("20.yaml and 3 more"),
            "{}",
            names(&all)
        );
    }
}
