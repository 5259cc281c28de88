//! Renders pods, and checks what Podman gets.

use beemesh_protocol::{ClusterId, state::Object};
use beemesh_quadlet::{
    manifest::{self, is_workload},
    render::{RenderError, Revision, render},
};
use serde_json::Value;

mod defaults;
mod environment;
mod identity;

const CLUSTER: ClusterId = ClusterId([0xbe; 16]);

/// The file that Podman plays.
fn file(yaml: &str, index: u64) -> Result<Vec<u8>, RenderError> {
    let objects = match manifest::parse(yaml.as_bytes(), false) {
        Ok(manifest) => manifest.objects,
        Err(problems) => panic!("{problems:?}"),
    };
    let is_used = |object: &&Object| !is_workload(object.kind);
    let uses: Vec<&Object> = objects.iter().filter(is_used).collect();
    let object = objects.iter().find(|object| is_workload(object.kind));
    let rendered = render(&Revision {
        cluster: CLUSTER,
        revision: 1,
        index,
        object: object.expect("a workload"),
        number: 0,
        uses: &uses,
    });
    Ok(rendered?.yaml)
}

fn documents_at(yaml: &str, index: u64) -> Result<Vec<Value>, RenderError> {
    let text = String::from_utf8(file(yaml, index)?).expect("text");
    let documents = text.split("\n---\n").map(serde_json::from_str);
    Ok(documents.collect::<Result<_, _>>().expect("JSON"))
}

fn documents(yaml: &str) -> Vec<Value> {
    documents_at(yaml, 9).expect("rendered")
}

/// The first container of the pod.
fn container(yaml: &str) -> Value {
    documents(yaml).last().expect("a pod")["spec"]["containers"][0].clone()
}

fn reason(yaml: &str) -> String {
    documents_at(yaml, 9).expect_err("rendered").to_string()
}

fn problems(yaml: &str) -> Vec<String> {
    let problems = manifest::parse(yaml.as_bytes(), false).expect_err("accepted");
    let show = |problem: &manifest::Problem| format!("{}: {}", problem.field, problem.message);
    problems.iter().map(show).collect()
}

fn warnings(yaml: &str) -> Vec<String> {
    let manifest = manifest::parse(yaml.as_bytes(), false).expect("accepted");
    let show = |problem: &manifest::Problem| format!("{}: {}", problem.field, problem.message);
    manifest.warnings.iter().map(show).collect()
}
