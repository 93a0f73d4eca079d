//! An operation on a path, and how both versions of OpenAPI write it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::names::{Flavor, META, reference};
use super::parameters::{self, Parameter};

/// What an operation's body or answer is.
#[derive(Clone)]
pub(super) enum Content {
    Text,
    Definition(String),
}

pub(super) struct Operation {
    /// `get`, `put`, `post`, `delete`, `patch`: the key in the path.
    pub(super) method: &'static str,
    /// `x-kubernetes-action`
    pub(super) action: &'static str,
    pub(super) id: String,
    pub(super) tag: String,
    /// Of a resource's.
    pub(super) kind: Option<[String; 3]>,
    /// The media types of its body, and of its answer.
    pub(super) takes: &'static [&'static str],
    pub(super) gives: &'static [&'static str],
    /// In the order of their names; what all of a path have is told once.
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<(String, bool)>,
    pub(super) answer: Content,
    pub(super) codes: &'static [u16],
}

pub(super) struct Path {
    pub(super) path: String,
    pub(super) operations: Vec<Operation>,
}

impl Path {
    /// The definitions that the path's operations name.
    pub(super) fn definitions(&self, into: &mut BTreeSet<String>) {
        for operation in &self.operations {
            if let Content::Definition(name) = &operation.answer {
                into.insert(name.clone());
            }
            into.extend(operation.body.as_ref().map(|(name, _)| name.clone()));
        }
    }

    pub(super) fn render(&self, flavor: Flavor) -> Value {
        let (first, rest) = match &*self.operations {
            [first, rest @ ..] => (&*first.parameters, rest),
            [] => (&[][..], &[][..]),
        };
        let of_all = |one: &&Parameter| rest.iter().all(|operation| operation.parameters.contains(one));
        let common: Vec<Parameter> = first.iter().filter(of_all).copied().collect();
        let mut item = Map::new();
        for operation in &self.operations {
            item.insert(operation.method.into(), operation.render(&common, flavor));
        }
        if !common.is_empty() {
            let common = common.iter().map(|one| one.render(flavor));
            item.insert("parameters".into(), common.collect());
        }
        Value::Object(item)
    }
}

impl Operation {
    /// With more parameters.
    pub(super) fn with(mut self, more: &[Parameter]) -> Operation {
        self.parameters.extend(more);
        self.parameters.sort();
        self
    }

    fn render(&self, common: &[Parameter], flavor: Flavor) -> Value {
        let mut out = Map::new();
        if let Some([group, version, kind]) = &self.kind {
            out.insert(
                "x-kubernetes-group-version-kind".into(),
                json!({"group": group, "version": version, "kind": kind}),
            );
            out.insert("x-kubernetes-action".into(), self.action.into());
        }
        out.insert("operationId".into(), self.id.as_str().into());
        out.insert("tags".into(), json!([self.tag]));
        let own = self.parameters.iter().filter(|one| !common.contains(one));
        let mut parameters: Vec<Value> = own.map(|one| one.render(flavor)).collect();
        if flavor == Flavor::V2 {
            parameters.splice(..0, self.body());
            if !self.takes.is_empty() {
                out.insert("consumes".into(), self.takes.into());
            }
            out.insert("produces".into(), self.gives.into());
            out.insert("schemes".into(), json!(["https"]));
        } else if let Some((name, required)) = &self.body {
            let mut body = json!({"content": content(self.takes, &reference(name, flavor))});
            if *required {
                body["required"] = true.into();
            }
            out.insert("requestBody".into(), body);
        }
        if !parameters.is_empty() {
            out.insert("parameters".into(), parameters.into());
        }
        out.insert("responses".into(), self.responses(flavor));
        Value::Object(out)
    }

    /// In version 2 the body is a parameter.
    fn body(&self) -> Option<Value> {
        let (name, required) = self.body.as_ref()?;
        let shared = name.strip_prefix(META).and_then(parameters::shared_body);
        Some(shared.unwrap_or_else(|| parameters::body(reference(name, Flavor::V2), *required)))
    }

    fn responses(&self, flavor: Flavor) -> Value {
        let schema = match &self.answer {
            Content::Text => json!({"type": "string"}),
            Content::Definition(name) => reference(name, flavor),
        };
        let mut out = Map::new();
        for code in self.codes {
            let description = match code {
                201 => "Created",
                202 => "Accepted",
                _ => "OK",
            };
            let answer = match flavor {
                Flavor::V2 => json!({"description": description, "schema": schema}),
                Flavor::V3 => json!({"description": description, "content": content(self.gives, &schema)}),
            };
            out.insert(code.to_string(), answer);
        }
        out.insert("401".into(), json!({"description": "Unauthorized"}));
        Value::Object(out)
    }
}

fn content(types: &[&str], schema: &Value) -> Value {
    let types: BTreeMap<&str, Value> = types.iter().map(|name| (*name, json!({"schema": schema}))).collect();
    json!(types)
}
