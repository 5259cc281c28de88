//! Checks mounts: their paths, and the options that Podman reads after a path.
//!
//! Pure: no I/O, no clock, no randomness.

use k8s_openapi::api::core::v1::{PodSpec, VolumeMount};

use super::{
    field::{Field, cut},
    findings::Scope,
};

/// Checks a mount of a container at the path `at`.
pub(super) fn check(mount: &VolumeMount, spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    let volume = spec
        .volumes
        .iter()
        .flatten()
        .find(|volume| volume.name == mount.name);
    if volume.is_none() {
        let message = format!("no volume of this pod is named `{}`", cut(&mount.name));
        scope.wrong(&at.key("name"), message);
    }
    let (path, options) = match mount.mount_path.split_once(':') {
        Some((path, options)) => (path, Some(options)),
        None => (mount.mount_path.as_str(), None),
    };
    let at_path = at.key("mountPath");
    if !path.starts_with('/') {
        scope.wrong(&at_path, "is not an absolute path");
    }
    if options.is_some_and(|options| options.contains(':')) {
        let message = "has more than one `:`: use PATH, or PATH:OPTION,OPTION for Podman's options of a mount";
        scope.wrong(&at_path, message);
    }
    let shown = volume.is_some_and(|volume| volume.config_map.is_some() || volume.secret.is_some());
    for option in options.into_iter().flat_map(|options| options.split(',')) {
        if shown && matches!(option, "rw" | "copy") {
            let message = format!(
                "`{option}` is not for files of a ConfigMap or Secret: they are read-only and hide what the image has there"
            );
            scope.wrong(&at_path, message);
        }
    }
    if mount.sub_path.as_deref().is_some_and(leaves_folder) {
        scope.wrong(
            &at.key("subPath"),
            "leaves the volume: use a relative path without `..`",
        );
    }
    if mount.sub_path_expr.is_some() {
        scope.wrong(
            &at.key("subPathExpr"),
            "Podman does not expand it: use subPath",
        );
    }
}

fn leaves_folder(path: &str) -> bool {
    path.starts_with('/') || path.contains('\0') || path.split('/').any(|part| part == "..")
}
