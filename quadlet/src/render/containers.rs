//! The containers in a YAML of [`render`](super::render).
//!
//! Pure: no I/O, no clock, no randomness.

use std::collections::BTreeMap;

use super::{Named, Spec, pods};

/// The containers of a YAML of [`render`](super::render), init containers included, as the manifest names them, each with its image.
#[must_use]
pub fn container_images(yaml: &[u8]) -> Vec<(String, String)> {
    let all = pods(yaml).flat_map(|(_, spec)| spec.init.into_iter().chain(spec.containers));
    all.map(|container| (container.name, container.image))
        .collect()
}

/// The containers of a YAML of [`render`](super::render) without init containers, as Podman names them, each with its image.
#[cfg(feature = "host")]
pub(crate) fn member_images(yaml: &[u8]) -> Vec<(String, String)> {
    let named = pods(yaml).flat_map(|(pod, spec)| {
        let of = move |one: Named| (format!("{}-{}", pod.name, one.name), one.image);
        spec.containers.into_iter().map(of)
    });
    named.collect()
}

/// The names of the init containers in a YAML of [`render`](super::render), as in the manifest.
#[must_use]
pub fn init_containers(yaml: &[u8]) -> Vec<String> {
    let init = pods(yaml).flat_map(|(_, spec)| spec.init);
    init.map(|init| init.name).collect()
}

/// The names of all containers in a YAML of [`render`](super::render), as Podman composes them from the name of the pod and of the
/// container.
#[must_use]
pub fn container_names(yaml: &[u8]) -> Vec<String> {
    names(yaml, |spec| spec.init.into_iter().chain(spec.containers))
}

/// The same without the init containers, which Podman removes after they have ended.
#[must_use]
pub fn member_names(yaml: &[u8]) -> Vec<String> {
    names(yaml, |spec| spec.containers.into_iter())
}

/// The containers with a stop signal of their own, and that signal.
#[must_use]
pub fn stop_signals(yaml: &[u8]) -> BTreeMap<String, String> {
    let signals = pods(yaml).flat_map(|(pod, spec)| {
        spec.containers.into_iter().filter_map(move |container| {
            let signal = container.lifecycle?.stop_signal?;
            Some((format!("{}-{}", pod.name, container.name), signal))
        })
    });
    signals.collect()
}

fn names<I: Iterator<Item = Named>>(yaml: &[u8], of: impl Fn(Spec) -> I) -> Vec<String> {
    let named = pods(yaml).flat_map(|(pod, spec)| {
        of(spec).map(move |container| format!("{}-{}", pod.name, container.name))
    });
    named.collect()
}
