//! The manifests that clients write and read.

use std::collections::BTreeMap;

use beemesh_protocol::state::{Change, Command, Kind, Object};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::raft::View;

/// Creates a command with this time. No guarantee depends on clocks, so any time is allowed.
pub(super) fn at(at_ms: u64, change: Change) -> Command {
    Command::unasked(at_ms, change)
}

/// The number of the manifest that is a Job.
pub(super) const JOB: usize = 2;

/// Writes this content to a manifest of one pod or one Job; 0 deletes the manifest. The content also determines the
/// number of hosts of a pod, and how often a Job may fail.
pub(super) fn change(manifest: usize, content: u64) -> Change {
    let name = format!("pod{manifest}");
    if content == 0 {
        return Change::DeleteManifest { manifest: name };
    }
    let env = json!([{"name": "N", "value": content.to_string()}]);
    let container = json!({"env": env, "image": "localhost/pod:1", "name": "main"});
    let spec = json!({"containers": [container], "restartPolicy": "Never"});
    let (kind, body) = if manifest == JOB {
        let spec = json!({"backoffLimit": content % 3, "template": {"spec": spec}});
        let body = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec});
        (Kind::Job, body)
    } else {
        let body =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        (Kind::Pod, body)
    };
    let replicas = u32::try_from(content % 4).ok().filter(|count| *count > 0);
    let body = body.to_string().into_bytes();
    Change::Apply {
        manifest: name.clone(),
        objects: vec![Object {
            kind,
            namespace: "default".into(),
            name,
            hash: Sha256::digest(&body).into(),
            body,
            references: Vec::new(),
            replicas: replicas.filter(|_| kind == Kind::Pod),
            selector: BTreeMap::new(),
        }],
        policy: None,
        keep: false,
        if_index: None,
    }
}

/// Returns the content of a manifest that [`change`] wrote; 0 if there is no such manifest.
pub(super) fn content(view: &View, manifest: usize) -> u64 {
    let wanted = format!("pod{manifest}");
    let mut manifests = view.state.manifests();
    let found = manifests.find(|manifest| manifest.name == wanted);
    found.map_or(0, |manifest| {
        let body: Value = serde_json::from_slice(&manifest.objects[0].body).expect("JSON");
        let of_job = body.pointer("/spec/template/spec/containers/0/env/0/value");
        let value = body.pointer("/spec/containers/0/env/0/value").or(of_job);
        let content = value.and_then(Value::as_str).expect("a content");
        content.parse().expect("a number")
    })
}
