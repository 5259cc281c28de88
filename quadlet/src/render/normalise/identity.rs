//! Writes in Podman's way what a pod's containers run as and what the pod is called: users, the seccomp profile, kernel
//! parameters and the host name.
//!
//! Pure: no I/O, no clock, no randomness. Podman ignores `runAsNonRoot`: an annotation tells which images the supervisor
//! has to look at, because only a host knows the user of an image. Podman reads the seccomp profile from the annotations
//! that Kubernetes had before 1.19, and takes its own profile where Kubernetes has none by default: that stays, because
//! it is the safer one. Podman gives the capabilities that a manifest adds to users other than root, too.

use std::collections::BTreeMap;

use beemesh_protocol::state::Object;
use k8s_openapi::{
    api::core::v1::{PodSpec, SeccompProfile},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{RenderError, Uses, containers, dns};
use crate::{
    manifest::{RunAs, fully_qualified, sysctl_name},
    render::{NON_ROOT, ROOT_IMAGE},
};

/// The annotations that select a seccomp profile: of the pod, and of a container, whose name follows.
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const UNCONFINED: &str = "unconfined";
const DEFAULT: &str = "runtime/default";

/// Writes the identity of a pod.
pub(super) fn settle(
    uses: &mut Uses<'_>,
    metadata: &mut ObjectMeta,
    spec: &mut PodSpec,
) -> Result<(), RenderError> {
    let annotations = metadata.annotations.get_or_insert_default();
    users(annotations, spec);
    seccomp(annotations, spec);
    let context = spec.security_context.as_mut();
    let sysctls = context.and_then(|context| context.sysctls.as_mut());
    for sysctl in sysctls.into_iter().flatten() {
        sysctl.name = sysctl_name(&sysctl.name);
    }
    hostname(uses.revision.object, spec);
    dns::settle(uses, spec)
}

/// Lists the containers whose image must name another user than root, and those whose image must not: Podman runs a
/// container with a `runAsGroup` alone as root.
fn users(annotations: &mut BTreeMap<String, String>, spec: &PodSpec) {
    let pod = spec.security_context.as_ref();
    let (mut non_root, mut root_image) = (Vec::new(), Vec::new());
    let init = spec.init_containers.iter().flatten();
    for container in init.chain(&spec.containers) {
        let run = RunAs::of(container, pod);
        match (run.user, run.group) {
            (None, Some(_)) => root_image.push(container.name.as_str()),
            (None, None) if run.non_root => non_root.push(container.name.as_str()),
            (Some(_), _) | (None, None) => {}
        }
    }
    for (key, names) in [(NON_ROOT, non_root), (ROOT_IMAGE, root_image)] {
        match names.is_empty() {
            true => annotations.remove(key),
            false => annotations.insert(key.to_owned(), names.join(",")),
        };
    }
}

fn seccomp(annotations: &mut BTreeMap<String, String>, spec: &mut PodSpec) {
    let context = spec.security_context.as_ref();
    let profile = context.and_then(|context| context.seccomp_profile.as_ref());
    match profile.map(is_unconfined) {
        Some(true) => annotations.insert(SECCOMP_POD.to_owned(), UNCONFINED.to_owned()),
        Some(false) => annotations.remove(SECCOMP_POD),
        None => None,
    };
    let by_default = !annotations.contains_key(SECCOMP_POD);
    for container in containers(spec) {
        let context = container.security_context.as_ref();
        let profile = context.and_then(|context| context.seccomp_profile.as_ref());
        let key = format!("{SECCOMP_CONTAINER}{}", container.name);
        match profile.map(is_unconfined) {
            Some(true) => annotations.insert(key, UNCONFINED.to_owned()),
            Some(false) if by_default => annotations.remove(&key),
            Some(false) => annotations.insert(key, DEFAULT.to_owned()),
            None => None,
        };
    }
}

fn is_unconfined(profile: &SeccompProfile) -> bool {
    profile.type_ == "Unconfined"
}

/// With `setHostnameAsFQDN` the kernel has the full name.
fn hostname(object: &Object, spec: &mut PodSpec) {
    if let Some(name) = fully_qualified(&object.name, &object.namespace, spec) {
        spec.hostname = Some(name);
    }
}
