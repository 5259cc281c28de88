//! Resolves the variables, the command and the arguments of a pod's containers.
//!
//! Pure: no I/O, no clock, no randomness. Podman knows no `prefix`, expands no `$(NAME)`, and before 5.8 lets `envFrom`
//! win over `env`. So each container gets a plain list in which each variable occurs once. The values of a ConfigMap are
//! in that list. The value of a Secret is referred to, as the manifest does it, so that the list has no secret. A value
//! that is made of a Secret's value is in a Secret of its own.
//!
//! A command, an argument or a `subPathExpr` cannot refer to a Secret: Podman has no such reference. There the value is
//! written out, as in Kubernetes: it becomes a part of the command, which every user of the host sees in the list of
//! processes. The file with the YAML is readable for root alone, and has the whole Secret in it anyway.
//!
//! Kubernetes sets variables for Services, which do not exist here. Podman sets `container`, and `HOME`, `HOSTNAME`,
//! `PATH` and `TERM` as other runtimes do.

use std::{collections::BTreeMap, rc::Rc};

use beemesh_protocol::state::Kind;
use k8s_openapi::{
    ByteString,
    api::core::v1::{
        ConfigMap, Container, EnvFromSource, EnvVar, EnvVarSource, PodSpec, Probe,
        ResourceFieldSelector, Secret, SecretKeySelector,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    RenderError, Uses, containers,
    downward::{Amount, Downward},
    from_body, malformed, to_json,
    variables::{Fault, TEXT_MAX, Value, Variables},
};
use crate::{
    belongings::Content,
    manifest::{expansion, is_misread, kind_name},
};

/// The longest piece of the manifest in a message.
const SHOWN_MAX: usize = 100;

/// What distinguishes the Secret with made values from one of the manifest.
const MADE: &str = "made";

/// The most bytes in the variables and commands of one pod. References multiply what a manifest says.
const POD_MAX: usize = 4 << 20;

/// The keys of a ConfigMap or Secret with text, and their values.
type Data = BTreeMap<String, Vec<u8>>;

/// Resolves all containers of a pod. The names of Secrets in the result are private.
pub(super) fn resolve(
    uses: &mut Uses<'_>,
    downward: &Downward,
    spec: &mut PodSpec,
) -> Result<(), RenderError> {
    let mut environment = Environment {
        uses,
        downward,
        read: BTreeMap::new(),
        room: POD_MAX,
    };
    for container in containers(spec) {
        environment.container(container)?;
    }
    Ok(())
}

struct Environment<'e, 'a> {
    uses: &'e mut Uses<'a>,
    downward: &'e Downward,
    /// The ConfigMaps and Secrets that were read.
    read: BTreeMap<(Kind, String), Rc<Data>>,
    /// The bytes that the pod may still have.
    room: usize,
}

impl Environment<'_, '_> {
    fn container(&mut self, container: &mut Container) -> Result<(), RenderError> {
        let env = container.env.take().unwrap_or_default();
        self.probes(container, &env)?;
        let mut variables = Variables::default();
        for from in container.env_from.take().unwrap_or_default() {
            self.all_of(&from, &mut variables)?;
        }
        for var in env {
            if let Some(value) = self.value(&var, &container.name, &variables)? {
                self.spend(var.name.len() + value.len())?;
                variables.set(var.name, value);
            }
        }
        let words = container.command.iter_mut().chain(&mut container.args);
        for word in words.flatten() {
            // Podman expands it once more.
            *word = expansion::escape(&self.word(word, &variables)?);
            self.spend(word.len())?;
        }
        for mount in container.volume_mounts.iter_mut().flatten() {
            if let Some(path) = mount.sub_path_expr.take() {
                mount.sub_path = Some(self.path(&path, &variables)?);
            }
        }
        container.env = self.written(&container.name, variables)?;
        Ok(())
    }

    /// Expands the commands of a container's probes. Kubernetes gives them the values as they are written in `env`, so
    /// one from elsewhere is empty. It does not expand the commands of hooks.
    fn probes(&mut self, container: &mut Container, env: &[EnvVar]) -> Result<(), RenderError> {
        let written = |var: &EnvVar| {
            let value = var.value.clone().unwrap_or_default();
            (var.name.clone(), Value::Plain(value))
        };
        let variables: Variables = env.iter().map(written).collect();
        let probes = [
            &mut container.liveness_probe,
            &mut container.readiness_probe,
            &mut container.startup_probe,
        ];
        let commands = probes.into_iter().flatten().filter_map(command);
        for word in commands.flatten() {
            *word = self.word(word, &variables)?;
            self.spend(word.len())?;
        }
        Ok(())
    }

    /// The variables of a whole ConfigMap or Secret.
    fn all_of(
        &mut self,
        from: &EnvFromSource,
        variables: &mut Variables,
    ) -> Result<(), RenderError> {
        let map = from.config_map_ref.as_ref();
        let secret = from.secret_ref.as_ref();
        let map = map.map(|map| (Kind::ConfigMap, &map.name, map.optional));
        let secret = secret.map(|secret| (Kind::Secret, &secret.name, secret.optional));
        let prefix = from.prefix.as_deref().unwrap_or_default();
        for (kind, name, optional) in map.into_iter().chain(secret) {
            let Some(data) = self.data(kind, name, optional == Some(true))? else {
                continue;
            };
            for (key, bytes) in data.iter() {
                let variable = format!("{prefix}{key}");
                self.spend(variable.len() + bytes.len())?;
                if expansion::is_variable(&variable) {
                    variables.set(variable, of_key(kind, name, key, bytes));
                }
            }
        }
        Ok(())
    }

    /// The value of a variable; `None` if its optional source does not exist.
    fn value(
        &mut self,
        var: &EnvVar,
        container: &str,
        variables: &Variables,
    ) -> Result<Option<Value>, RenderError> {
        let text = var.value.as_deref().unwrap_or_default();
        match &var.value_from {
            Some(from) if text.is_empty() => self.from(from, &var.name, container),
            Some(_) | None => match variables.expand(text) {
                Ok(value) => Ok(Some(value)),
                Err(fault) => Err(self.fault(&fault, text)),
            },
        }
    }

    fn from(
        &mut self,
        from: &EnvVarSource,
        var: &str,
        container: &str,
    ) -> Result<Option<Value>, RenderError> {
        if let Some(source) = &from.config_map_key_ref {
            let optional = source.optional == Some(true);
            return self.key(Kind::ConfigMap, &source.name, &source.key, optional);
        }
        if let Some(source) = &from.secret_key_ref {
            let optional = source.optional == Some(true);
            return self.key(Kind::Secret, &source.name, &source.key, optional);
        }
        if let Some(source) = &from.field_ref {
            let path = source.field_path.as_str();
            let value = self.downward.field(path);
            let value = value.ok_or_else(|| self.unknown(var, path))?;
            return Ok(Some(Value::Plain(value)));
        }
        if let Some(source) = &from.resource_field_ref {
            let amount = self.downward.resource(container, source);
            let amount = amount.ok_or_else(|| self.unknown(var, &source.resource))?;
            return match amount {
                Amount::Known(text) => Ok(Some(Value::Plain(text))),
                // Podman looks at this container's own limit, and only then at the host.
                Amount::OfHost if self.downward.has(container, &source.resource) => {
                    Err(self.unknown(var, &source.resource))
                }
                Amount::OfHost => Ok(Some(Value::OfHost(ResourceFieldSelector {
                    container_name: None,
                    ..source.clone()
                }))),
            };
        }
        Ok(Some(Value::Plain(String::new())))
    }

    fn key(
        &mut self,
        kind: Kind,
        name: &str,
        key: &str,
        optional: bool,
    ) -> Result<Option<Value>, RenderError> {
        let Some(data) = self.data(kind, name, optional)? else {
            return Ok(None);
        };
        match data.get(key) {
            Some(bytes) => Ok(Some(of_key(kind, name, key, bytes))),
            None if optional => Ok(None),
            None => Err(RenderError::MissingKey {
                kind: kind_name(kind),
                name: name.to_owned(),
                key: key.to_owned(),
            }),
        }
    }

    /// The data of a ConfigMap or Secret; `None` if it is optional and does not exist.
    fn data(
        &mut self,
        kind: Kind,
        name: &str,
        optional: bool,
    ) -> Result<Option<Rc<Data>>, RenderError> {
        let place = (kind, name.to_owned());
        if let Some(data) = self.read.get(&place) {
            return Ok(Some(Rc::clone(data)));
        }
        let Some(used) = self.uses.find(kind, name) else {
            return match optional {
                true => Ok(None),
                false => Err(RenderError::Missing {
                    kind: kind_name(kind),
                    name: name.to_owned(),
                }),
            };
        };
        let data: Data = match kind {
            Kind::Secret => {
                let Secret {
                    data, string_data, ..
                } = from_body(used)?;
                let data = data.into_iter().flatten();
                let data = data.map(|(key, ByteString(bytes))| (key, bytes));
                let text = string_data.into_iter().flatten();
                data.chain(text.map(|(key, text)| (key, text.into_bytes())))
                    .collect()
            }
            _ => {
                let map: ConfigMap = from_body(used)?;
                let data = map.data.into_iter().flatten();
                data.map(|(key, text)| (key, text.into_bytes())).collect()
            }
        };
        let data = Rc::new(data);
        self.read.insert(place, Rc::clone(&data));
        Ok(Some(data))
    }

    /// The text of a word of a command. It must be text, because Podman keeps it as JSON.
    fn word(&self, text: &str, variables: &Variables) -> Result<String, RenderError> {
        let bytes = match variables.expand(text) {
            Ok(Value::Plain(text)) => return Ok(text),
            Ok(Value::Secret { bytes, .. } | Value::Made(bytes)) => bytes,
            Ok(Value::OfHost(_)) => Vec::new(),
            Err(fault) => return Err(self.fault(&fault, text)),
        };
        let object = self.uses.revision.object;
        String::from_utf8(bytes).map_err(|_| {
            let text = shown(text);
            let reason = format!(
                "`{text}` refers to a Secret's value that is no UTF-8 text, so it cannot be an argument: mount the Secret as a file"
            );
            malformed(object, &reason)
        })
    }

    /// The path of a mount within its volume. In contrast to other texts, each of its variables must exist.
    fn path(&self, text: &str, variables: &Variables) -> Result<String, RenderError> {
        let object = self.uses.revision.object;
        let mut names = expansion::names(text);
        if let Some(name) = names.find(|name| !variables.has(name)) {
            let (name, text) = (shown(name), shown(text));
            let reason = format!(
                "its subPathExpr `{text}` refers to the variable `{name}`, which the container does not have"
            );
            return Err(malformed(object, &reason));
        }
        let path = self.word(text, variables)?;
        let leaves = path.starts_with('/') || path.split('/').any(|part| part == "..");
        if leaves || path.contains('\0') {
            let text = shown(text);
            let reason = format!(
                "its subPathExpr `{text}` leads out of the volume: its variables must make a relative path without `..`"
            );
            return Err(malformed(object, &reason));
        }
        Ok(path)
    }

    /// The variables as Podman reads them.
    fn written(
        &mut self,
        container: &str,
        variables: Variables,
    ) -> Result<Option<Vec<EnvVar>>, RenderError> {
        let mut made = BTreeMap::new();
        let mut env = Vec::new();
        for (name, value) in variables.into_pairs() {
            let mut var = EnvVar {
                name,
                ..EnvVar::default()
            };
            match value {
                // Podman reads the text from a Secret, whose bytes are not written as a block.
                Value::Plain(text) if is_misread(&text) => {
                    let key = made.len().to_string();
                    made.insert(key.clone(), ByteString(text.into_bytes()));
                    var.value_from = Some(secret(String::new(), key));
                }
                Value::Plain(text) => var.value = Some(text),
                Value::Secret { name, key, .. } => {
                    let private = self.uses.private(Kind::Secret, &name, false, None)?;
                    var.value_from = Some(secret(private.unwrap_or_default(), key));
                }
                Value::Made(bytes) => {
                    let key = made.len().to_string();
                    made.insert(key.clone(), ByteString(bytes));
                    var.value_from = Some(secret(String::new(), key));
                }
                Value::OfHost(source) => {
                    var.value_from = Some(EnvVarSource {
                        resource_field_ref: Some(source),
                        ..EnvVarSource::default()
                    });
                }
            }
            env.push(var);
        }
        if !made.is_empty() {
            let private = self.made(container, made)?;
            for source in env.iter_mut().filter_map(|var| var.value_from.as_mut()) {
                if let Some(source) = &mut source.secret_key_ref
                    && source.name.is_empty()
                {
                    source.name.clone_from(&private);
                }
            }
        }
        Ok((!env.is_empty()).then_some(env))
    }

    /// Adds a Secret with the made values of a container, and returns its name.
    fn made(
        &mut self,
        container: &str,
        values: BTreeMap<String, ByteString>,
    ) -> Result<String, RenderError> {
        let object = self.uses.revision.object;
        let body = serde_json::to_vec(&values).unwrap_or_default();
        let content = Content {
            letter: 's',
            name: container,
            body: &body,
        };
        let name = content.private_name(self.uses.pod, &MADE);
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            data: Some(values),
            ..Secret::default()
        };
        let json = to_json(object, &secret)?;
        self.uses.made.insert(name.clone(), json);
        Ok(name)
    }

    fn unknown(&self, var: &str, what: &str) -> RenderError {
        let (var, what) = (shown(var), shown(what));
        let reason = format!(
            "its variable `{var}` asks for `{what}`, which Podman does not tell a container"
        );
        malformed(self.uses.revision.object, &reason)
    }

    fn fault(&self, fault: &Fault<'_>, text: &str) -> RenderError {
        let reason = match fault {
            Fault::OfHost(name) => format!(
                "`$({name})` is a resource of the host that runs the pod, so no other value can contain it: give the container that limit"
            ),
            Fault::TooLong => {
                let text = shown(text);
                format!(
                    "with its variables, `{text}` is longer than the {TEXT_MAX} bytes that the kernel passes to a program: use a file"
                )
            }
        };
        malformed(self.uses.revision.object, &reason)
    }

    /// Counts bytes of the pod.
    fn spend(&mut self, bytes: usize) -> Result<(), RenderError> {
        let room = self.room.checked_sub(bytes).ok_or_else(|| {
            let reason = format!(
                "its variables and commands have more than {} MiB, all containers together: use files",
                POD_MAX >> 20
            );
            malformed(self.uses.revision.object, &reason)
        })?;
        self.room = room;
        Ok(())
    }
}

/// A piece of the manifest, for a message.
fn shown(text: &str) -> String {
    let piece = text.chars().take(SHOWN_MAX);
    piece.flat_map(char::escape_debug).collect()
}

fn of_key(kind: Kind, name: &str, key: &str, bytes: &[u8]) -> Value {
    match kind {
        Kind::Secret => Value::Secret {
            name: name.to_owned(),
            key: key.to_owned(),
            bytes: bytes.to_vec(),
        },
        _ => Value::Plain(String::from_utf8_lossy(bytes).into_owned()),
    }
}

fn secret(name: String, key: String) -> EnvVarSource {
    EnvVarSource {
        secret_key_ref: Some(SecretKeySelector {
            name,
            key,
            optional: None,
        }),
        ..EnvVarSource::default()
    }
}

fn command(probe: &mut Probe) -> Option<&mut Vec<String>> {
    probe.exec.as_mut()?.command.as_mut()
}
