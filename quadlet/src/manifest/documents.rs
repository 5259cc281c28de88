//! Splits a text into objects: documents, Lists, and kinds that Beemesh supports or not.
//!
//! Pure: no I/O, no clock, no randomness.

use std::collections::BTreeMap;

use beemesh_protocol::{
    state::{Kind, Object},
    workload::workload_name,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Demand, Demanded, Manifest, Place, Problem, admission, demands,
    field::{Field, cut},
    findings::{Findings, Scope},
    is_workload,
    kinds::{Written, kind_of},
    outline::{self, EXPANDED_MAX},
    policy::Rules,
    typed, versions,
};

/// The largest number of objects in one file: each workload is a unit on every host, and all objects together are one
/// log entry.
const OBJECTS_MAX: usize = 256;

/// The largest number of kinds in the message that a file has no object to keep.
const UNKEPT_SHOWN_MAX: usize = 8;

/// The objects of the manifest found so far.
#[derive(Default)]
struct Found {
    manifest: Manifest,
    /// A problem at the name of each object, to report if its name is a duplicate.
    names: Vec<Problem>,
    /// Kinds of objects that are not kept.
    unkept: Vec<String>,
    bytes: u64,
}

impl Found {
    /// Remembers the kind of an object that is not kept.
    fn drop(&mut self, kind: String) {
        if !self.unkept.contains(&kind) && self.unkept.len() < UNKEPT_SHOWN_MAX {
            self.unkept.push(kind);
        }
    }
}

pub(super) fn read(
    text: &str,
    mut findings: Findings,
    rules: Option<&Rules>,
) -> Result<Manifest, Vec<Problem>> {
    let mut found = Found::default();
    let outline = outline::read(text);
    // serde_yaml reads one document at a time, so it loads no document after a fault.
    let mut tagged = outline
        .tagged
        .then(|| serde_yaml::Deserializer::from_str(text));
    for (index, document) in outline.documents.iter().enumerate() {
        let yaml = tagged.as_mut().and_then(Iterator::next);
        let mut scope = Scope {
            findings: &mut findings,
            outline: &outline,
            document,
            number: u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1),
            object: Field::default(),
            unread: Vec::new(),
            rules,
        };
        if !document.duplicates.is_empty() {
            for (field, line) in &document.duplicates {
                scope.findings.wrong(Problem {
                    document: scope.number,
                    line: *line,
                    field: field.to_string(),
                    message: "appears twice".to_owned(),
                });
            }
            continue;
        }
        let loaded = match yaml {
            Some(yaml) => load(yaml, document),
            None => outline
                .value(document)
                .map_err(|words| (document.line, words)),
        };
        match loaded {
            Ok(value) => {
                let json = typed::to_json(value, &Field::default(), &mut scope);
                take(json, &mut found, &mut scope);
            }
            Err((line, words)) => scope.findings.wrong(Problem {
                document: scope.number,
                line,
                field: String::new(),
                message: cut(&format!("not YAML: {words}")),
            }),
        }
    }
    let is_whole = outline.fault.is_none();
    if let Some(fault) = outline.fault {
        findings.wrong(fault);
    }
    duplicates(&found, &mut findings);
    let is_empty = found.manifest.objects.is_empty() && found.unkept.is_empty();
    if is_whole && is_empty && findings.is_clean() {
        findings.wrong(Problem {
            document: 0,
            line: 0,
            field: String::new(),
            message: "contains no object".to_owned(),
        });
    }
    found.manifest.warnings = findings.finish()?;
    Ok(found.manifest)
}

/// Loads a document of a file with tags, or returns the line and the reason of a failure.
fn load(
    yaml: serde_yaml::Deserializer<'_>,
    document: &outline::Document,
) -> Result<serde_yaml::Value, (u32, String)> {
    let loaded = serde_yaml::Value::deserialize(yaml).and_then(|mut value| {
        value.apply_merge()?;
        Ok(value)
    });
    loaded.map_err(|error| {
        let line = error
            .location()
            .map(|at| u32::try_from(at.line()).unwrap_or(0));
        (line.unwrap_or(document.line), error.to_string())
    })
}

/// Takes one document: an object, a List of objects, or nothing.
fn take(mut json: Value, found: &mut Found, scope: &mut Scope<'_>) {
    if json.is_null() {
        return;
    }
    if json["kind"] != "List" {
        return one(json, found, scope);
    }
    let items = Field::default().key("items");
    let Some(Value::Array(list)) = json.get_mut("items").map(Value::take) else {
        return scope.wrong(&items, "is missing: a List has objects in it");
    };
    for (index, item) in list.into_iter().enumerate() {
        let mut inner = Scope {
            findings: &mut *scope.findings,
            object: items.index(index),
            unread: Vec::new(),
            ..*scope
        };
        one(item, found, &mut inner);
    }
}

fn one(json: Value, found: &mut Found, scope: &mut Scope<'_>) {
    let here = Field::default();
    if !json.is_object() {
        return scope.wrong(&here, "is not an object: it has no kind");
    }
    let (Some(kind), Some(version)) = (json["kind"].as_str(), json["apiVersion"].as_str()) else {
        for name in ["kind", "apiVersion"] {
            if !json[name].is_string() {
                scope.wrong(&here.key(name), "is missing");
            }
        }
        return;
    };
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let group_of = |known: Written| known.api_version().rsplit_once('/').map_or("", |(g, _)| g);
    let known = match Written::from_name(kind) {
        Some(known) if version == known.api_version() => known,
        Some(known) if group == "extensions" || group_of(known) == group => {
            let message = format!(
                "`{}` is not supported: write {kind} as {}",
                cut(version),
                known.api_version()
            );
            return scope.wrong(&here.key("apiVersion"), message);
        }
        Some(_) | None => return unplayed(kind, version, &json, found, scope),
    };
    if found.manifest.objects.len() == OBJECTS_MAX {
        return scope.wrong(
            &here,
            format!("the file has more than {OBJECTS_MAX} objects: split it"),
        );
    }
    if known.carried().is_none() {
        found.drop(kind.to_owned());
    }
    let Some(object) = admission::accept(known, json, scope) else {
        return;
    };
    let before = found.bytes;
    found.bytes += object.body.len() as u64;
    if before <= EXPANDED_MAX && found.bytes > EXPANDED_MAX {
        let mebibytes = EXPANDED_MAX >> 20;
        return scope.wrong(
            &here,
            format!("the objects up to here have more than {mebibytes} MiB: split the file"),
        );
    }
    found.manifest.places.push(Place {
        document: scope.number,
        line: scope.line(&here),
    });
    found.manifest.demands.push(demanded(&object, scope));
    found.manifest.objects.push(object);
    let name = here.then("metadata.name");
    found.names.push(Problem {
        document: scope.number,
        line: scope.line(&name),
        field: scope.object.join(&name).to_string(),
        message: String::new(),
    });
}

fn demanded(object: &Object, scope: &Scope<'_>) -> Vec<Demanded> {
    let place = |(field, demand): (Field, Demand)| Demanded {
        demand,
        document: scope.number,
        line: scope.line(&field),
        field: scope.object.join(&field).to_string(),
    };
    demands::with_fields(object)
        .into_iter()
        .map(place)
        .collect()
}

fn unplayed(kind: &str, version: &str, json: &Value, found: &mut Found, scope: &mut Scope<'_>) {
    let name = cut(json["metadata"]["name"].as_str().unwrap_or_default());
    let (kind, version) = (cut(kind), cut(version));
    let successor = versions::successor(&kind, &version);
    let what = match (kind.as_str(), successor.unwrap_or(&version)) {
        ("Service", "v1") => "it gives no address to the pods; give a container a hostPort",
        ("Ingress", "networking.k8s.io/v1") => "no request is routed; give a container a hostPort",
        _ => "it is ignored",
    };
    let now = successor.map_or_else(String::new, |now| format!(", now {now}"));
    let message = format!("{kind} `{name}` ({version}{now}) is not supported: {what}");
    scope.not_done(&Field::default().key("kind"), message);
    found.drop(kind);
}

/// Reports objects with the same name. Workloads of different kinds may not share a name either, because it is the name
/// of the unit.
fn duplicates(found: &Found, findings: &mut Findings) {
    let mut first: BTreeMap<(Option<Kind>, String), (&Object, &Problem)> = BTreeMap::new();
    for (object, named) in found.manifest.objects.iter().zip(&found.names) {
        if object.name.is_empty() {
            continue;
        }
        let kind = (!is_workload(object.kind)).then_some(object.kind);
        let name = workload_name(&object.namespace, &object.name);
        if let Some((other, at)) = first.get(&(kind, name.clone())) {
            let message = format!(
                "{} `{}` has the name of {} in document {}, line {}",
                kind_of(object),
                cut(&name),
                kind_of(other),
                at.document,
                at.line
            );
            findings.wrong(Problem {
                message,
                ..named.clone()
            });
        } else {
            first.insert((kind, name), (object, named));
        }
    }
}
