//! Checks objects and brings them into the form that is kept.
//!
//! Pure: no I/O, no clock, no randomness. Input: a document as JSON. Output: the object in the form that is replicated,
//! or findings.

use std::collections::BTreeMap;

use beemesh_protocol::state::{Kind, Object};
use k8s_openapi::{
    Metadata,
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet},
        batch::v1::Job,
        core::v1::{
            ConfigMap, Namespace, PersistentVolumeClaim, Pod, PodSpec, PodTemplateSpec,
            ReplicationController, Secret, ServiceAccount,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    annotations, combined, failover,
    field::{Field, cut},
    fields,
    findings::Scope,
    identity,
    kinds::Written,
    names::{self, KEY_RULE},
    object_name, pod, policy,
    ranges::Controlled,
    references, resources, scheduling, secrets, stopped, typed,
};

/// The largest number of replicas of a Deployment; far above the number of hosts in any cluster.
const REPLICAS_MAX: i32 = 10_000;

/// The prefix of annotations that make Podman wait for a notification from the container: the play would not return.
const SDNOTIFY: &str = "io.containers.sdnotify";

/// The annotation of a Job that runs once on each host.
pub(super) const EVERY_HOST: &str = "beemesh.io/every-host";
/// The annotation of a workload that says what follows a failed rollout: `rollback`, the default, or `pause`.
pub(super) const ON_FAILURE: &str = "beemesh.io/on-failure";

/// The prefix of labels that Beemesh itself puts on pods.
const LABELS_OURS: &str = "beemesh.io/";

/// The fields of a workload outside of its pod.
struct Controller {
    spec: PodSpec,
    /// The path of `spec`.
    at: &'static str,
    template: Option<ObjectMeta>,
    replicas: Option<i32>,
}

impl Controller {
    fn of(template: PodTemplateSpec, replicas: Option<i32>) -> Option<Self> {
        Some(Self {
            spec: template.spec?,
            at: "spec.template.spec",
            template: template.metadata,
            replicas,
        })
    }
}

/// Checks an object of a kind that Beemesh accepts. `None` if it cannot be read at all, or is not kept.
pub(super) fn accept(written: Written, json: Value, scope: &mut Scope<'_>) -> Option<Object> {
    match written {
        Written::Own(kind) => own(kind, json, scope),
        Written::ReplicaSet => workload(written, json, scope, |set: &ReplicaSet| {
            let spec = set.spec.clone()?;
            Controller::of(spec.template?, spec.replicas)
        }),
        Written::ReplicationController => {
            workload(written, json, scope, |one: &ReplicationController| {
                let spec = one.spec.clone()?;
                Controller::of(spec.template?, spec.replicas)
            })
        }
        Written::Namespace => {
            let namespace: Namespace = read(written, json, scope)?;
            object_name::of_namespace(&namespace.metadata, scope);
            None
        }
        Written::ServiceAccount => {
            let account: ServiceAccount = read(written, json, scope)?;
            object_name::of_account(&account.metadata, scope);
            None
        }
    }
}

/// Checks an object that is carried as it is.
fn own(kind: Kind, json: Value, scope: &mut Scope<'_>) -> Option<Object> {
    let written = Written::Own(kind);
    match kind {
        Kind::Pod => workload(written, json, scope, |pod: &Pod| {
            Some(Controller {
                spec: pod.spec.clone()?,
                at: "spec",
                template: None,
                replicas: None,
            })
        }),
        Kind::Deployment => workload(written, json, scope, |deployment: &Deployment| {
            let spec = deployment.spec.clone()?;
            Controller::of(spec.template, spec.replicas)
        }),
        Kind::DaemonSet => workload(written, json, scope, |set: &DaemonSet| {
            Controller::of(set.spec.clone()?.template, None)
        }),
        Kind::Job => workload(written, json, scope, |job: &Job| {
            Controller::of(job.spec.clone()?.template, None)
        }),
        Kind::ConfigMap => {
            let map: ConfigMap = read(written, json, scope)?;
            let data = map
                .data
                .iter()
                .flatten()
                .map(|(key, _)| ("data", key.as_str()));
            let binary = map
                .binary_data
                .iter()
                .flatten()
                .map(|(key, _)| ("binaryData", key.as_str()));
            keys(data.chain(binary), scope);
            object(written, &map, scope)
        }
        Kind::Secret => {
            let secret: Secret = read(written, json, scope)?;
            let data = secret
                .data
                .iter()
                .flatten()
                .map(|(key, _)| ("data", key.as_str()));
            let text = secret
                .string_data
                .iter()
                .flatten()
                .map(|(key, _)| ("stringData", key.as_str()));
            keys(data.chain(text), scope);
            secrets::check(&secret, scope);
            object(written, &secret, scope)
        }
        Kind::PersistentVolumeClaim => {
            let claim: PersistentVolumeClaim = read(written, json, scope)?;
            resources::claim(&claim, scope);
            let at = Field::default().then("metadata.annotations");
            policy::annotations(claim.metadata.annotations.as_ref(), &at, scope);
            let import = "volume.podman.io/import-source";
            if claim
                .metadata
                .annotations
                .iter()
                .flatten()
                .any(|(key, _)| key == import)
            {
                let field = at.key(import);
                scope.wrong(&field, "Podman does not import a volume over its API");
            }
            for (key, _) in claim.metadata.annotations.iter().flatten() {
                if let Some(why) = annotations::without_effect_on_a_claim(key) {
                    scope.not_done(&at.key(key), why);
                }
            }
            object(written, &claim, scope)
        }
    }
}

/// Reads an object, and reports its fields that are refused or have no effect.
fn read<T>(written: Written, json: Value, scope: &mut Scope<'_>) -> Option<T>
where
    T: DeserializeOwned + Serialize + Metadata<Ty = ObjectMeta>,
{
    let input = json.clone();
    let typed = typed::read(json, scope)?;
    fields::check(written, &input, scope);
    Some(typed)
}

/// The path of the first mapping around a pod, or of the pod itself, that is not there.
fn missing(kind: Kind, json: &Value) -> Option<&'static str> {
    let paths: &[_] = match kind {
        Kind::Pod => &["spec"],
        _ => &["spec", "spec.template", "spec.template.spec"],
    };
    let is_missing = |path: &&&str| {
        let found = path.split('.').fold(json, |value, key| &value[key]);
        !found.is_object()
    };
    paths.iter().find(is_missing).copied()
}

/// Reads and checks a workload. `controller` is `None` where the pod is missing.
fn workload<T>(
    written: Written,
    json: Value,
    scope: &mut Scope<'_>,
    controller: impl Fn(&T) -> Option<Controller>,
) -> Option<Object>
where
    T: DeserializeOwned + Serialize + Metadata<Ty = ObjectMeta> + Controlled,
{
    let kind = written.carried()?;
    let missing = missing(kind, &json);
    let typed: T = read(written, json, scope)?;
    typed.check(&Field::default().key("spec"), scope);
    let Some(controller) = controller(&typed).filter(|_| missing.is_none()) else {
        scope.wrong(
            &Field::default().then(missing.unwrap_or("spec")),
            "is missing: it says which containers run",
        );
        return object(written, &typed, scope);
    };
    let at = Field::default().then(controller.at);
    pod::check(&controller.spec, &at, scope);
    combined::pod(&controller.spec, &at, scope);
    let is_counted = controller.replicas.is_some() || kind == Kind::Job;
    scheduling::check(&controller.spec, is_counted, &at, scope);
    policy::pod(&controller.spec, &at, scope);
    restart_policy(kind, controller.spec.restart_policy.as_deref(), &at, scope);
    metadata(typed.metadata(), &Field::default().key("metadata"), scope);
    if kind == Kind::Job {
        every_host(typed.metadata(), controller.template.as_ref(), scope);
    }
    on_failure(kind, typed.metadata(), scope);
    let of = (kind, controller.replicas.is_some());
    let claims = has_claims(&controller.spec);
    failover::check(
        of,
        typed.metadata(),
        controller.template.as_ref(),
        claims,
        scope,
    );
    failover::check_singleton(
        kind,
        controller.replicas,
        typed.metadata(),
        controller.template.as_ref(),
        scope,
    );
    let is_stopped = stopped::read(kind, typed.metadata(), controller.template.as_ref(), scope);
    if let Some(template) = &controller.template {
        metadata(
            template,
            &Field::default().then("spec.template.metadata"),
            scope,
        );
    }
    if let Some(replicas) = controller
        .replicas
        .filter(|count| !(0..=REPLICAS_MAX).contains(count))
    {
        let message = format!("{replicas} is not a number of replicas: use 0 to {REPLICAS_MAX}");
        scope.wrong(&Field::default().then("spec.replicas"), message);
    }
    let mut selector = controller.spec.node_selector.clone().unwrap_or_default();
    // Every host decides for itself whether it runs a pod, and knows the selector alone.
    selector.extend(
        scheduling::fixed(&controller.spec)
            .filter(|_| !is_counted)
            .unwrap_or_default(),
    );
    let object = object(written, &typed, scope)?;
    identity::full_name(&object, &controller.spec, &at, scope);
    Some(Object {
        references: references::of(&controller.spec),
        replicas: match is_stopped {
            true => Some(0),
            false => controller
                .replicas
                .and_then(|count| u32::try_from(count).ok()),
        },
        selector,
        ..object
    })
}

fn has_claims(spec: &PodSpec) -> bool {
    let mut volumes = spec.volumes.iter().flatten();
    volumes.any(|volume| volume.persistent_volume_claim.is_some())
}

fn restart_policy(kind: Kind, policy: Option<&str>, at: &Field, scope: &mut Scope<'_>) {
    let allowed: &[&str] = match kind {
        Kind::Job => &["Never", "OnFailure"],
        Kind::Deployment | Kind::DaemonSet => &["Always"],
        _ => &["Always", "Never", "OnFailure"],
    };
    let is_allowed = policy.map_or(kind != Kind::Job, |policy| allowed.contains(&policy));
    if !is_allowed {
        let message = format!(
            "`{}` is not one of {}",
            cut(policy.unwrap_or_default()),
            allowed.join(", ")
        );
        let message = match policy {
            None => format!("is missing: a Job needs {}", allowed.join(" or ")),
            Some(_) => message,
        };
        scope.wrong(&at.key("restartPolicy"), message);
    }
}

/// Refuses a wrong value of the annotation that says what follows a failed rollout.
fn on_failure(kind: Kind, metadata: &ObjectMeta, scope: &mut Scope<'_>) {
    let annotations = metadata.annotations.as_ref();
    let Some(value) = annotations.and_then(|all| all.get(ON_FAILURE)) else {
        return;
    };
    let at = Field::default()
        .then("metadata.annotations")
        .key(ON_FAILURE);
    if kind == Kind::Job {
        scope.not_done(&at, "has no effect: a Job has no rollouts");
    } else if value != "rollback" && value != "pause" {
        let message = format!("`{}` is neither \"rollback\" nor \"pause\"", cut(value));
        scope.wrong(&at, message);
    }
}

/// Refuses a wrong value or place of the annotation for every host. Such a Job would otherwise run once in the cluster,
/// without a warning.
fn every_host(job: &ObjectMeta, template: Option<&ObjectMeta>, scope: &mut Scope<'_>) {
    let at = |path: &str| {
        let at = Field::default().then(path);
        at.key("annotations").key(EVERY_HOST)
    };
    let asks = |metadata: &ObjectMeta| metadata.annotations.as_ref()?.get(EVERY_HOST).cloned();
    if let Some(value) = asks(job).filter(|value| value != "true" && value != "false") {
        let message = format!("`{}` is neither \"true\" nor \"false\"", cut(&value));
        scope.wrong(&at("metadata"), message);
    }
    if template.and_then(asks).is_some() {
        let message = "belongs to the Job: move it to `metadata.annotations`";
        scope.wrong(&at("spec.template.metadata"), message);
    }
}

/// Checks the labels and annotations that reach the pod.
fn metadata(metadata: &ObjectMeta, at: &Field, scope: &mut Scope<'_>) {
    for key in metadata.labels.iter().flatten().map(|(key, _)| key) {
        if key.starts_with(LABELS_OURS) || key == "PODMAN_SYSTEMD_UNIT" {
            let message = format!("`{}` is set by Beemesh", cut(key));
            scope.wrong(&at.key("labels").key(key), message);
        }
    }
    policy::annotations(metadata.annotations.as_ref(), &at.key("annotations"), scope);
    for (key, value) in metadata.annotations.iter().flatten() {
        if let Some(why) = annotations::without_effect(key, value) {
            scope.not_done(&at.key("annotations").key(key), why);
        }
        if let Some(why) = annotations::unknown(key) {
            scope.not_done(&at.key("annotations").key(key), why);
        }
        if annotations::OURS.contains(&key.as_str()) {
            let message = format!("`{}` is set by Beemesh", cut(key));
            scope.wrong(&at.key("annotations").key(key), message);
        }
        let is_notify = key
            .strip_prefix(SDNOTIFY)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if is_notify && value != "ignore" {
            let message = "Podman would wait for the container instead of starting it: only `ignore` is accepted";
            scope.wrong(&at.key("annotations").key(key), message);
        }
    }
}

fn keys<'a>(keys: impl Iterator<Item = (&'static str, &'a str)>, scope: &mut Scope<'_>) {
    let mut known = BTreeMap::new();
    for (map, key) in keys {
        let field = Field::default().key(map).key(key);
        if !names::is_key(key) {
            scope.wrong(&field, format!("`{}` is not a key: {KEY_RULE}", cut(key)));
        } else if let Some(other) = known.insert(key, map)
            && map == "binaryData"
        {
            scope.wrong(&field, format!("`{key}` is in {other} too"));
        }
    }
}

/// Checks the name and makes the object, without the parts that only workloads have.
fn object<T>(written: Written, typed: &T, scope: &mut Scope<'_>) -> Option<Object>
where
    T: Serialize + Metadata<Ty = ObjectMeta>,
{
    let kind = written.carried()?;
    let metadata = typed.metadata();
    object_name::check(kind, metadata, scope);
    let name = metadata.name.clone().unwrap_or_default();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let mut json = serde_json::to_value(typed).ok()?;
    written.carry(&mut json);
    json.sort_all_objects();
    let body = serde_json::to_vec(&json).ok()?;
    let hash = Sha256::digest(&body).into();
    Some(Object {
        kind,
        namespace,
        name,
        body,
        hash,
        references: Vec::new(),
        replicas: None,
        selector: BTreeMap::new(),
    })
}
