//! Checks the mounts of a container: their paths, and the options that Podman reads after a path.
//!
//! Pure: no I/O, no clock, no randomness.

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume, VolumeMount};

use super::{
    clean_path,
    field::{Field, cut},
    findings::Scope,
};

/// Where Podman mounts a tmpfs in each container.
const OF_PODMAN: [&str; 3] = ["/run", "/tmp", "/var/tmp"];

/// With this many further mounts, Podman may mount its own tmpfs over a volume. It sorts the mounts of a container, and
/// equal paths get into any order if there are many.
const FURTHER_MAX: usize = 4;

/// Checks the mounts of a container at the path `at`.
pub(super) fn check(container: &Container, spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let are_many = mounts.len() > FURTHER_MAX + 1;
    for (index, mount) in mounts.iter().enumerate() {
        let at = at.key("volumeMounts").index(index);
        let mut volumes = spec.volumes.iter().flatten();
        let volume = volumes.find(|volume| volume.name == mount.name);
        if volume.is_none() {
            let message = format!("no volume of this pod is named `{}`", cut(&mount.name));
            scope.wrong(&at.key("name"), message);
        }
        path(mount, volume, &at, scope);
        sub_path(mount, volume, &at, scope);
        let path = clean_path(&mount.mount_path);
        let is_bound = volume.is_none_or(|volume| volume.host_path.is_some());
        if OF_PODMAN.contains(&path.as_str()) && !is_bound && are_many {
            let message = format!(
                "with more than {FURTHER_MAX} further mounts of the container, Podman may hide the volume behind a tmpfs \
                 of its own: mount it at a folder in `{path}`, or mount fewer volumes"
            );
            scope.not_done(&at.key("mountPath"), message);
        }
    }
    termination(container, at, scope);
}

fn path(mount: &VolumeMount, volume: Option<&Volume>, at: &Field, scope: &mut Scope<'_>) {
    let (path, options) = match mount.mount_path.split_once(':') {
        Some((path, options)) => (path, Some(options)),
        None => (mount.mount_path.as_str(), None),
    };
    let at = at.key("mountPath");
    if !path.starts_with('/') {
        scope.wrong(&at, "is not an absolute path");
    }
    if options.is_some_and(|options| options.contains(':')) {
        let message = "has more than one `:`: use PATH, or PATH:OPTION,OPTION for Podman's options of a mount";
        scope.wrong(&at, message);
    }
    let shown = volume.is_some_and(|volume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some()
    });
    for option in options.into_iter().flat_map(|options| options.split(',')) {
        if shown && matches!(option, "rw" | "copy") {
            let message = format!(
                "`{option}` is not for files of a ConfigMap or Secret: they are read-only and hide what the image has there"
            );
            scope.differs(&at, message);
        }
    }
}

fn sub_path(mount: &VolumeMount, volume: Option<&Volume>, at: &Field, scope: &mut Scope<'_>) {
    for (key, path) in [
        ("subPath", &mount.sub_path),
        ("subPathExpr", &mount.sub_path_expr),
    ] {
        let Some(path) = path else { continue };
        if leaves_folder(path) {
            let message = "leaves the volume: use a relative path without `..`";
            scope.differs(&at.key(key), message);
        }
        let is_bound = volume.is_some_and(|volume| volume.host_path.is_some());
        if is_bound && path.contains(['=', ',']) {
            let message =
                "has a `=` or a `,`, at which Podman ends the path in a folder of the host";
            scope.differs(&at.key(key), message);
        }
    }
    let is_set = |path: &Option<String>| path.as_ref().is_some_and(|path| !path.is_empty());
    if is_set(&mount.sub_path) && is_set(&mount.sub_path_expr) {
        scope.differs(
            &at.key("subPathExpr"),
            "cannot be set together with subPath",
        );
    }
}

fn termination(container: &Container, at: &Field, scope: &mut Scope<'_>) {
    let policy = container.termination_message_policy.as_deref();
    if let Some(policy) =
        policy.filter(|policy| !matches!(*policy, "File" | "FallbackToLogsOnError"))
    {
        let message = format!(
            "`{}` is not one of File, FallbackToLogsOnError",
            cut(policy)
        );
        scope.differs(&at.key("terminationMessagePolicy"), message);
    }
    let path = container.termination_message_path.as_deref();
    if path.is_some_and(|path| {
        !path.is_empty() && (!path.starts_with('/') || path.contains([':', '\0']))
    }) {
        let message = "is not an absolute path without `:`";
        scope.differs(&at.key("terminationMessagePath"), message);
    }
}

/// Whether a path leads out of the folder that it is relative to.
pub(super) fn leaves_folder(path: &str) -> bool {
    path.starts_with('/') || path.contains('\0') || path.split('/').any(|part| part == "..")
}
