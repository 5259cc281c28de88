//! What the runner must know of a case's manifest: its objects, their names in Podman and in Beemesh, and its fields.
//!
//! Pure: text in, values and messages out.

use std::collections::BTreeSet;

use regex_lite::Regex;
use serde::Deserialize as _;
use serde_yaml::Value;

/// A manifest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its text, as it is applied.
    pub text: String,
    objects: Vec<Object>,
    fields: BTreeSet<String>,
    volumes: BTreeSet<String>,
    ports: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Object {
    kind: String,
    namespace: String,
    name: String,
}

impl Object {
    fn is_workload(&self) -> bool {
        let is_data = matches!(
            self.kind.as_str(),
            "ConfigMap" | "Secret" | "PersistentVolumeClaim"
        );
        self.is_kept() && !is_data
    }

    /// Whether Beemesh keeps it.
    fn is_kept(&self) -> bool {
        !matches!(
            self.kind.as_str(),
            "Service" | "Namespace" | "ServiceAccount"
        )
    }
}

impl Manifest {
    /// Reads the documents of a file.
    ///
    /// # Errors
    /// If one is not YAML, with file and line.
    pub fn read(file: &str, text: &str) -> Result<Self, String> {
        let mut manifest = Self {
            text: text.to_owned(),
            objects: Vec::new(),
            fields: BTreeSet::new(),
            volumes: BTreeSet::new(),
            ports: BTreeSet::new(),
        };
        for document in serde_yaml::Deserializer::from_str(text) {
            let document = Value::deserialize(document).map_err(|error| {
                let line = error.location().map_or(0, |location| location.line());
                format!("{file}:{line}: not YAML: {error}")
            })?;
            manifest.look(&document, "");
            let items = document.get("items").and_then(Value::as_sequence);
            let is_list = text_of(&document, "kind") == "List";
            match items.filter(|_| is_list) {
                Some(items) => manifest.objects.extend(items.iter().filter_map(object)),
                None => manifest.objects.extend(object(&document)),
            }
        }
        match manifest.objects.is_empty() {
            true => Err(format!("{file}:1: no object with kind and name")),
            false => Ok(manifest),
        }
    }

    /// Collects the keys of a value and what it asks of the host.
    fn look(&mut self, value: &Value, within: &str) {
        match value {
            Value::Mapping(mapping) => {
                for (key, inner) in mapping {
                    let key = key.as_str().unwrap_or_default();
                    self.fields.insert(key.to_owned());
                    if key == "hostPort" || key == "nodePort" {
                        self.ports
                            .insert(format!("{key} {}", inner.as_u64().unwrap_or_default()));
                    }
                    self.look(inner, key);
                }
            }
            Value::Sequence(all) => {
                for one in all {
                    if within == "volumes" {
                        self.volumes.insert(text_of(one, "name").to_owned());
                    }
                    self.look(one, within);
                }
            }
            _ => {}
        }
    }

    /// The names that no other case may use at the same time. With bare Podman, these include volumes: two pods share an
    /// `emptyDir` of one name.
    #[must_use]
    pub fn holds(&self, bare: bool) -> BTreeSet<String> {
        let names = self.objects.iter().map(|object| object.name.clone());
        let names: BTreeSet<String> = names.chain(self.ports.iter().cloned()).collect();
        let volumes = self.volumes.iter().filter(|_| bare);
        names.into_iter().chain(volumes.cloned()).collect()
    }

    /// The names of its workloads in Beemesh.
    #[must_use]
    pub fn workloads(&self) -> Vec<String> {
        let workloads = self.objects.iter().filter(|object| object.is_workload());
        let name = |object: &Object| match object.namespace.as_str() {
            "" | "default" => object.name.clone(),
            namespace => format!("{namespace}_{}", object.name),
        };
        workloads.map(name).collect()
    }

    /// The names that Beemesh may have for the manifest: by the first object that it keeps.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let first = self.objects.iter().find(|object| object.is_kept());
        let names = |object: &Object| {
            let namespaced = format!("{}_{}", object.namespace, object.name);
            vec![object.name.clone(), namespaced]
        };
        first.map(names).unwrap_or_default()
    }

    /// The names of its pods with bare Podman.
    #[must_use]
    pub fn pods(&self) -> Vec<String> {
        let workloads = self.objects.iter().filter(|object| object.is_workload());
        let name = |object: &Object| match object.kind.as_str() {
            "Pod" => object.name.clone(),
            _ => format!("{}-pod", object.name),
        };
        workloads.map(name).collect()
    }

    /// The names of volumes and secrets that it may leave behind with bare Podman.
    #[must_use]
    pub fn kept_by_podman(&self) -> Vec<String> {
        let others = self.objects.iter().filter(|object| !object.is_workload());
        let others = others.map(|object| object.name.clone());
        others.chain(self.volumes.iter().cloned()).collect()
    }

    /// The names of the volumes of its claims in Beemesh.
    #[must_use]
    pub fn claims(&self) -> Vec<String> {
        let of_claims = |object: &&Object| object.kind == "PersistentVolumeClaim";
        let claims = self.objects.iter().filter(of_claims);
        let volume = |object: &Object| match object.namespace.as_str() {
            "" => format!("beemesh__pvc__default__{}", object.name),
            namespace => format!("beemesh__pvc__{namespace}__{}", object.name),
        };
        claims.map(volume).collect()
    }

    /// A field of the manifest that a message names: by its path, or by a key that is no English word.
    #[must_use]
    pub fn field_in(&self, message: &str) -> Option<String> {
        let words =
            Regex::new(r"[A-Za-z][A-Za-z0-9]*(?:(?:\[[^\]\s]*\])?\.?[A-Za-z0-9]+)*").ok()?;
        words.find_iter(message).find_map(|word| {
            let path = word.as_str();
            let last = path.rsplit(['.', ']']).next().unwrap_or(path);
            let is_key = self.fields.contains(last);
            let is_path = ["spec.", "data.", "metadata.", "stringData."]
                .iter()
                .any(|begin| path.starts_with(begin));
            let is_no_word = last.bytes().skip(1).any(|byte| byte.is_ascii_uppercase());
            (is_key && (is_path || is_no_word)).then(|| path.to_owned())
        })
    }
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn object(document: &Value) -> Option<Object> {
    let metadata = document.get("metadata")?;
    let object = Object {
        kind: text_of(document, "kind").to_owned(),
        namespace: text_of(metadata, "namespace").to_owned(),
        name: text_of(metadata, "name").to_owned(),
    };
    (!object.kind.is_empty() && !object.name.is_empty()).then_some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "kind: ConfigMap\nmetadata: {name: conf}\ndata: {a: b}\n---\nkind: PersistentVolumeClaim\n\
                        metadata: {name: claim}\n---\nkind: Deployment\nmetadata: {name: web, namespace: n}\nspec:\n  template:\n    \
                        spec:\n      containers: [{ports: [{hostPort: 80}], readinessProbe: {}, name: c}]\n      \
                        volumes: [{name: v, emptyDir: {}}]\n";

    #[test]
    fn the_names_of_a_manifest_are_found() {
        let manifest = Manifest::read("a.yaml", TEXT).unwrap();
        let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(manifest.workloads(), ["n_web"]);
        assert_eq!(manifest.pods(), ["web-pod"]);
        assert_eq!(manifest.claims(), ["beemesh__pvc__default__claim"]);
        assert_eq!(
            manifest.holds(false),
            of(&["claim", "conf", "hostPort 80", "web"])
        );
        assert_eq!(
            manifest.holds(true),
            of(&["claim", "conf", "hostPort 80", "v", "web"])
        );
        assert_eq!(manifest.kept_by_podman(), ["conf", "claim", "v"]);
        let list = "kind: List\nitems:\n- {kind: Pod, metadata: {name: a}}\n- {kind: Pod, metadata: {name: b}}\n";
        assert_eq!(Manifest::read("a.yaml", list).unwrap().pods(), ["a", "b"]);
        let unkept = format!("kind: Namespace\nmetadata: {{name: n}}\n---\n{TEXT}");
        let unkept = Manifest::read("a.yaml", &unkept).unwrap();
        assert_eq!(unkept.workloads(), ["n_web"]);
        assert_eq!(unkept.names()[0], "conf");
    }

    #[test]
    fn a_message_names_a_field_or_not() {
        let manifest = Manifest::read("a.yaml", TEXT).unwrap();
        let field = |message: &str| manifest.field_in(message);
        let path = "spec.template.spec.containers[0].readinessProbe";
        assert_eq!(
            field(&format!("warning: -:9: {path}: is ignored")).as_deref(),
            Some(path)
        );
        assert_eq!(
            field("the readinessProbe is ignored").as_deref(),
            Some("readinessProbe")
        );
        assert_eq!(
            field("spec.template.spec.containers: is wrong").as_deref(),
            Some("spec.template.spec.containers")
        );
        for none in [
            "not rolled out after 6 s",
            "containers of web: exit code 1",
            "livenessProbe failed",
            "spec.paused",
        ] {
            assert_eq!(field(none), None, "{none}");
        }
    }

    #[test]
    fn text_that_is_no_manifest_is_named_with_its_line() {
        let wrong = Manifest::read("a.yaml", "kind: Pod\nmetadata: [\n").unwrap_err();
        assert!(wrong.starts_with("a.yaml:3: not YAML: "), "{wrong}");
        assert_eq!(
            Manifest::read("a.yaml", "a: b\n").unwrap_err(),
            "a.yaml:1: no object with kind and name"
        );
    }
}
