//! Old versions of the API of Kubernetes, and what follows them.
//!
//! Pure: constants. Kubernetes itself has removed these versions.

/// The version that follows an alpha or beta version of a kind that Beemesh does not support.
pub(super) fn successor(kind: &str, version: &str) -> Option<&'static str> {
    let (group, number) = version.rsplit_once('/')?;
    let is_old = number.contains("alpha") || number.contains("beta");
    let now = match (group, kind) {
        ("extensions" | "networking.k8s.io", "Ingress" | "NetworkPolicy")
        | ("networking.k8s.io", "IngressClass") => "networking.k8s.io/v1",
        ("extensions" | "apps", "StatefulSet" | "ControllerRevision") => "apps/v1",
        ("batch", "CronJob") => "batch/v1",
        ("policy", "PodDisruptionBudget") => "policy/v1",
        ("autoscaling", "HorizontalPodAutoscaler") => "autoscaling/v2",
        (
            "rbac.authorization.k8s.io",
            "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding",
        ) => "rbac.authorization.k8s.io/v1",
        ("storage.k8s.io", "StorageClass" | "CSIDriver" | "CSINode" | "VolumeAttachment") => {
            "storage.k8s.io/v1"
        }
        ("scheduling.k8s.io", "PriorityClass") => "scheduling.k8s.io/v1",
        ("node.k8s.io", "RuntimeClass") => "node.k8s.io/v1",
        ("coordination.k8s.io", "Lease") => "coordination.k8s.io/v1",
        ("discovery.k8s.io", "EndpointSlice") => "discovery.k8s.io/v1",
        ("apiextensions.k8s.io", "CustomResourceDefinition") => "apiextensions.k8s.io/v1",
        ("apiregistration.k8s.io", "APIService") => "apiregistration.k8s.io/v1",
        (
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration",
        ) => "admissionregistration.k8s.io/v1",
        _ => return None,
    };
    is_old.then_some(now)
}
