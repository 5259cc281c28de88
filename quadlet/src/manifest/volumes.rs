//! Checks the volumes of a pod and the files in them.
//!
//! Pure: no I/O, no clock, no randomness. The checks refuse what Kubernetes refuses, and what no host can give.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, PodSpec, Volume, VolumeProjection,
};

use super::{
    field::{Field, cut},
    findings::Scope,
    mounts::leaves_folder,
    names::{self, KEY_RULE},
    pod::{image, refers},
    resources,
};

/// The longest path of a file in a volume, and the longest name in it, as in Kubernetes.
const PATH_MAX: usize = 4096;
const NAME_MAX: usize = 255;

/// The sources that a volume can have.
const SOURCES: [&str; 8] = [
    "configMap",
    "downwardAPI",
    "emptyDir",
    "hostPath",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// The sources of a projected volume.
const PROJECTED: [&str; 3] = ["configMap", "downwardAPI", "secret"];

/// Checks the source of a volume.
pub(super) fn source(volume: &Volume, spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    let written = serde_json::to_value(volume).unwrap_or_default();
    let entries = written.as_object().into_iter().flatten();
    let names = entries.map(|(name, _)| name.as_str());
    let (known, unknown): (Vec<_>, Vec<_>) = names
        .filter(|name| *name != "name")
        .partition(|name| SOURCES.contains(name));
    for name in &unknown {
        let message = format!(
            "no host has such a volume: use one of {}",
            SOURCES.join(", ")
        );
        scope.wrong(&at.key(name), message);
    }
    if known.len() > 1 && unknown.is_empty() {
        scope.wrong(at, "has more than one source");
    }
    let mut paths = Paths::default();
    if let Some(source) = &volume.config_map {
        let at = at.key("configMap");
        refers(&source.name, "ConfigMap", &at.key("name"), scope);
        mode(source.default_mode, "defaultMode", &at, scope);
        items(source.items.as_deref(), &mut paths, &at, scope);
    }
    if let Some(source) = &volume.secret {
        let at = at.key("secret");
        let name = source.secret_name.as_deref().unwrap_or_default();
        refers(name, "Secret", &at.key("secretName"), scope);
        mode(source.default_mode, "defaultMode", &at, scope);
        items(source.items.as_deref(), &mut paths, &at, scope);
    }
    if let Some(source) = &volume.downward_api {
        let at = at.key("downwardAPI");
        mode(source.default_mode, "defaultMode", &at, scope);
        downward(source.items.as_deref(), spec, &mut paths, &at, scope);
    }
    if let Some(source) = &volume.projected {
        let at = at.key("projected");
        mode(source.default_mode, "defaultMode", &at, scope);
        for (index, source) in source.sources.iter().flatten().enumerate() {
            projected(
                source,
                spec,
                &mut paths,
                &at.key("sources").index(index),
                scope,
            );
        }
    }
    if let Some(source) = &volume.persistent_volume_claim {
        let at = at.then("persistentVolumeClaim.claimName");
        refers(&source.claim_name, "PersistentVolumeClaim", &at, scope);
    }
    if let Some(source) = &volume.host_path {
        if !source.path.starts_with('/') {
            scope.wrong(&at.then("hostPath.path"), "is not an absolute path");
        }
        if source.type_.as_deref() == Some("File") {
            let message = "Podman does not check that the path is a file: it mounts a folder, too";
            scope.advise(&at.then("hostPath.type"), message);
        }
    }
    if let Some(source) = &volume.image {
        let reference = source.reference.as_deref().unwrap_or_default();
        let at = at.then("image.reference");
        image(
            reference,
            source.pull_policy.as_deref(),
            "pullPolicy",
            &at,
            scope,
        );
    }
}

fn projected(
    source: &VolumeProjection,
    spec: &PodSpec,
    paths: &mut Paths,
    at: &Field,
    scope: &mut Scope<'_>,
) {
    let written = serde_json::to_value(source).unwrap_or_default();
    let names: Vec<&String> = written
        .as_object()
        .into_iter()
        .flat_map(|all| all.keys())
        .collect();
    for name in names
        .iter()
        .filter(|name| !PROJECTED.contains(&name.as_str()))
    {
        let message = format!(
            "there is no API server that gives it: use one of {}",
            PROJECTED.join(", ")
        );
        scope.wrong(&at.key(name), message);
    }
    if names.len() != 1 {
        scope.wrong(at, format!("needs one of {}", PROJECTED.join(", ")));
    }
    if let Some(source) = &source.config_map {
        let at = at.key("configMap");
        refers(&source.name, "ConfigMap", &at.key("name"), scope);
        items(source.items.as_deref(), paths, &at, scope);
    }
    if let Some(source) = &source.secret {
        let at = at.key("secret");
        refers(&source.name, "Secret", &at.key("name"), scope);
        items(source.items.as_deref(), paths, &at, scope);
    }
    if let Some(source) = &source.downward_api {
        let at = at.key("downwardAPI");
        downward(source.items.as_deref(), spec, paths, &at, scope);
    }
}

/// Checks the files that are made of keys.
fn items(items: Option<&[KeyToPath]>, paths: &mut Paths, at: &Field, scope: &mut Scope<'_>) {
    for (index, item) in items.unwrap_or_default().iter().enumerate() {
        let at = at.key("items").index(index);
        if !names::is_key(&item.key) {
            let message = format!("`{}` is not a key: {KEY_RULE}", cut(&item.key));
            scope.wrong(&at.key("key"), message);
        }
        paths.file(&item.path, &at, scope);
        mode(item.mode, "mode", &at, scope);
    }
}

/// Checks the files with what a pod knows about itself.
fn downward(
    items: Option<&[DownwardAPIVolumeFile]>,
    spec: &PodSpec,
    paths: &mut Paths,
    at: &Field,
    scope: &mut Scope<'_>,
) {
    for (index, item) in items.unwrap_or_default().iter().enumerate() {
        let at = at.key("items").index(index);
        paths.file(&item.path, &at, scope);
        mode(item.mode, "mode", &at, scope);
        match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), None) => {
                if !is_field(&field.field_path) {
                    let message = format!(
                        "`{}` is not known to a volume: use metadata.name, .namespace, .uid, .labels, .annotations, \
                         .labels['KEY'] or .annotations['KEY']",
                        cut(&field.field_path)
                    );
                    scope.wrong(&at.then("fieldRef.fieldPath"), message);
                }
            }
            (None, Some(asked)) => {
                let at = at.key("resourceFieldRef");
                resources::resource_field(asked, &at, scope);
                let name = asked.container_name.as_deref().unwrap_or_default();
                let init = spec.init_containers.iter().flatten();
                let mut all = init.chain(&spec.containers);
                let Some(container) = all.find(|one| one.name == name) else {
                    let message = format!("no container of this pod is named `{}`", cut(name));
                    scope.wrong(&at.key("containerName"), message);
                    continue;
                };
                let limits = container
                    .resources
                    .as_ref()
                    .and_then(|all| all.limits.as_ref());
                let limited = asked.resource.strip_prefix("limits.");
                if limited.is_some_and(|name| limits.is_none_or(|all| !all.contains_key(name))) {
                    let message = format!(
                        "container `{}` sets no such limit, and what its host has is not known here: set the limit",
                        cut(name)
                    );
                    scope.wrong(&at.key("resource"), message);
                }
            }
            _ => scope.wrong(&at, "needs one of fieldRef, resourceFieldRef"),
        }
    }
}

/// Whether a volume can show this field.
fn is_field(path: &str) -> bool {
    let is_entry = ["metadata.labels['", "metadata.annotations['"]
        .iter()
        .any(|start| path.starts_with(start) && path.ends_with("']"));
    is_entry
        || matches!(
            path,
            "metadata.name"
                | "metadata.namespace"
                | "metadata.uid"
                | "metadata.labels"
                | "metadata.annotations"
        )
}

fn mode(mode: Option<i32>, key: &str, at: &Field, scope: &mut Scope<'_>) {
    if mode.is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        scope.wrong(&at.key(key), "is not a file mode: use 0 to 0777");
    }
}

/// The files of a volume that are named one by one.
#[derive(Default)]
struct Paths(BTreeSet<String>);

impl Paths {
    fn file(&mut self, written: &str, at: &Field, scope: &mut Scope<'_>) {
        let at = at.key("path");
        let path = clean_path(written);
        let is_long = path.len() > PATH_MAX || path.split('/').any(|name| name.len() > NAME_MAX);
        if written.contains(':') {
            let message = format!("`{}` has a `:`, at which Podman ends a path", cut(written));
            scope.wrong(&at, message);
            return;
        }
        if path.is_empty() || written.starts_with("..") || leaves_folder(written) || is_long {
            let message = format!(
                "`{}` is not a file of the volume: use a relative path that has no `..` and does not begin with it",
                cut(written)
            );
            scope.wrong(&at, message);
            return;
        }
        if self.0.contains(&path) {
            let message = format!("another item of this volume is the file `{}`", cut(written));
            scope.wrong(&at, message);
        } else if let Some(other) = self.related(&path) {
            let message = format!(
                "`{}` and `{}` cannot be both: one is a folder of the other",
                cut(written),
                cut(other)
            );
            scope.wrong(&at, message);
        }
        self.0.insert(path);
    }

    /// A file that is below this path or a folder above it.
    fn related(&self, path: &str) -> Option<&String> {
        let mut ends = path.match_indices('/');
        let above = ends.find_map(|(end, _)| self.0.get(&path[..end]));
        above.or_else(|| below(path, &self.0))
    }
}

/// The first of some paths, in their order, that is below a folder.
pub(crate) fn below<'a>(folder: &str, paths: &'a BTreeSet<String>) -> Option<&'a String> {
    let begin = format!("{folder}/");
    let next = paths.range(begin.clone()..).next();
    next.filter(|path| path.starts_with(&begin))
}

/// A path without parts that mean nothing, such as `//`, `.` and a `/` at the end, and without Podman's options of a
/// mount.
pub(crate) fn clean_path(path: &str) -> String {
    let path = path.split(':').next().unwrap_or_default();
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<&str> = parts.collect();
    match path.starts_with('/') {
        true => format!("/{}", parts.join("/")),
        false => parts.join("/"),
    }
}
