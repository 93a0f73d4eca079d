//! The paths of the registry's rows: which verbs, kinds and parameters each has. kubectl reads from them whether a kind
//! takes `dryRun` and `fieldValidation`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Flavor;
use super::custom::model_name;
use super::definitions::META;
use crate::registry::{Resource, Served, Subresource, Verbs};
use crate::schema;

/// What an operation's body or answer is.
#[derive(Clone)]
enum Content {
    Text,
    Definition(String),
}

pub(super) struct Operation {
    /// `get`, `put`, `post`, `delete`, `patch`: the key in the path.
    method: &'static str,
    /// `x-kubernetes-action`
    action: &'static str,
    id: String,
    tag: String,
    kind: [String; 3],
    /// Of a custom kind, which has no merge keys.
    custom: bool,
    parameters: Vec<Parameter>,
    body: Option<(String, bool)>,
    answer: Content,
    codes: &'static [u16],
}

pub(super) struct Path {
    pub(super) path: String,
    parameters: Vec<Parameter>,
    operations: Vec<Operation>,
}

type Parameter = (&'static str, &'static str);

const DRY_RUN: Parameter = ("dryRun", "string");
const FIELD_MANAGER: Parameter = ("fieldManager", "string");
const FIELD_VALIDATION: Parameter = ("fieldValidation", "string");
const WRITE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, ("force", "boolean")];
const DELETE: &[Parameter] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const DELETE_COLLECTION: &[Parameter] = &[
    ("continue", "string"),
    DRY_RUN,
    ("fieldSelector", "string"),
    ("gracePeriodSeconds", "integer"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
];
const LOG: &[Parameter] = &[
    ("container", "string"),
    ("follow", "boolean"),
    ("insecureSkipTLSVerifyBackend", "boolean"),
    ("limitBytes", "integer"),
    ("previous", "boolean"),
    ("sinceSeconds", "integer"),
    ("stream", "string"),
    ("tailLines", "integer"),
    ("timestamps", "boolean"),
];
const EXEC: &[Parameter] = &[
    ("command", "string"),
    ("container", "string"),
    ("stderr", "boolean"),
    ("stdin", "boolean"),
    ("stdout", "boolean"),
    ("tty", "boolean"),
];
const ATTACH: &[Parameter] = &[
    ("container", "string"),
    ("stderr", "boolean"),
    ("stdin", "boolean"),
    ("stdout", "boolean"),
    ("tty", "boolean"),
];
const PRETTY: Parameter = ("pretty", "string");

/// `/api/v1`, `/apis/apps/v1`
pub(super) fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    }
}

/// `rbac.authorization.k8s.io` → `RbacAuthorization`
fn camel(group: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    let group = group.strip_suffix(".k8s.io").unwrap_or(group);
    group.split('.').map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + chars.as_str())
        .unwrap_or_default()
}

/// What is the same for all paths of a row in one version.
struct Row<'r> {
    row: &'r Resource,
    served: &'r Served,
    /// `AppsV1`
    id: String,
    tag: String,
    /// The definition of the kind, and of its list.
    definition: String,
    list: String,
}

/// The paths of a row in one version; none for kinds whose type is not in the schema table.
pub(super) fn of_row(row: &Resource, served: &Served) -> Vec<Path> {
    let (own, version) = (&*served.group, &*served.name);
    let name = |kind: &str| match served.custom {
        Some(_) => Some(model_name(own, version, kind)),
        None => schema::by_gvk(own, version, kind).map(|ty| ty.name().to_string()),
    };
    let Some(definition) = name(&row.kind) else {
        return Vec::new();
    };
    let group = camel(own);
    let mut tag = group.clone();
    if let Some(first) = tag.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    let row = Row {
        id: format!("{group}{}", capital(version)),
        tag: format!("{tag}_{version}"),
        list: name(&row.list_kind).unwrap_or_else(|| definition.clone()),
        definition,
        row,
        served,
    };
    let mut paths = Vec::new();
    let base = prefix(own, version);
    let plural = &row.row.plural;
    if row.row.is_namespaced() {
        if row.row.verbs.contains(Verbs::LIST) {
            let operations = vec![row.list("ForAllNamespaces")];
            paths.push(Path {
                path: format!("{base}/{plural}"),
                parameters: vec![PRETTY],
                operations,
            });
        }
        row.push_all(&mut paths, &format!("{base}/namespaces/{{namespace}}/{plural}"));
    } else {
        row.push_all(&mut paths, &format!("{base}/{plural}"));
    }
    paths.retain(|path| !path.operations.is_empty());
    paths
}

impl Row<'_> {
    fn push_all(&self, paths: &mut Vec<Path>, collection: &str) {
        let verbs = self.row.verbs;
        let place: &[Parameter] = if self.row.is_namespaced() {
            &[("{namespace}", "string"), PRETTY]
        } else {
            &[PRETTY]
        };
        let mut operations = Vec::new();
        if verbs.contains(Verbs::LIST) {
            operations.push(self.list(""));
        }
        if verbs.contains(Verbs::CREATE) {
            operations.push(self.create(&self.definition, ""));
        }
        if verbs.contains(Verbs::DELETECOLLECTION) {
            operations.push(Operation {
                parameters: DELETE_COLLECTION.to_vec(),
                body: Some((format!("{META}DeleteOptions"), false)),
                answer: Content::Definition(format!("{META}Status")),
                ..self.operation("delete", "deletecollection", "delete", "Collection", "")
            });
        }
        paths.push(Path {
            path: collection.to_string(),
            parameters: place.to_vec(),
            operations,
        });
        let mut place = place.to_vec();
        place.insert(0, ("{name}", "string"));
        let mut operations = self.read_and_write(verbs, &self.definition, "");
        if verbs.contains(Verbs::DELETE) {
            operations.push(Operation {
                parameters: DELETE.to_vec(),
                body: Some((format!("{META}DeleteOptions"), false)),
                answer: Content::Definition(format!("{META}Status")),
                codes: &[200, 202],
                ..self.operation("delete", "delete", "delete", "", "")
            });
        }
        paths.push(Path {
            path: format!("{collection}/{{name}}"),
            parameters: place.clone(),
            operations,
        });
        for sub in &self.served.subresources {
            paths.push(Path {
                path: format!("{collection}/{{name}}/{}", sub.name),
                parameters: place.clone(),
                operations: self.subresource(sub),
            });
        }
    }

    /// `deleteAppsV1CollectionNamespacedDeployment`
    fn operation(
        &self,
        method: &'static str,
        action: &'static str,
        word: &str,
        before: &str,
        after: &str,
    ) -> Operation {
        let namespaced = if self.row.is_namespaced() && after != "ForAllNamespaces" {
            "Namespaced"
        } else {
            ""
        };
        let kind = &self.row.kind;
        Operation {
            method,
            action,
            id: format!("{word}{}{before}{namespaced}{kind}{after}", self.id),
            tag: self.tag.clone(),
            kind: [
                self.served.group.to_string(),
                self.served.name.to_string(),
                kind.to_string(),
            ],
            custom: self.served.custom.is_some(),
            parameters: Vec::new(),
            body: None,
            answer: Content::Definition(self.definition.clone()),
            codes: &[200],
        }
    }

    fn list(&self, after: &str) -> Operation {
        Operation {
            parameters: LIST.to_vec(),
            answer: Content::Definition(self.list.clone()),
            ..self.operation("get", "list", "list", "", after)
        }
    }

    fn create(&self, definition: &str, after: &str) -> Operation {
        Operation {
            parameters: WRITE.to_vec(),
            body: Some((definition.to_string(), true)),
            answer: Content::Definition(definition.to_string()),
            codes: &[200, 201, 202],
            ..self.operation("post", "post", "create", "", after)
        }
    }

    fn read_and_write(&self, verbs: Verbs, definition: &str, after: &str) -> Vec<Operation> {
        let answer = Content::Definition(definition.to_string());
        let mut operations = Vec::new();
        if verbs.contains(Verbs::GET) {
            operations.push(Operation {
                answer: answer.clone(),
                ..self.operation("get", "get", "read", "", after)
            });
        }
        if verbs.contains(Verbs::UPDATE) {
            operations.push(Operation {
                parameters: WRITE.to_vec(),
                body: Some((definition.to_string(), true)),
                answer: answer.clone(),
                codes: &[200, 201],
                ..self.operation("put", "put", "replace", "", after)
            });
        }
        if verbs.contains(Verbs::PATCH) {
            operations.push(Operation {
                parameters: PATCH.to_vec(),
                body: Some((format!("{META}Patch"), true)),
                answer,
                codes: &[200, 201],
                ..self.operation("patch", "patch", "patch", "", after)
            });
        }
        operations
    }

    fn subresource(&self, sub: &Subresource) -> Vec<Operation> {
        let after = capital(&sub.name);
        let parameters = match &*sub.name {
            "exec" => EXEC,
            "attach" => ATTACH,
            "portforward" => &[("ports", "integer")],
            "proxy" => &[("path", "string")],
            "log" => {
                return vec![Operation {
                    parameters: LOG.to_vec(),
                    answer: Content::Text,
                    ..self.operation("get", "get", "read", "", &after)
                }];
            }
            _ => {
                let name = sub
                    .kind
                    .and_then(|(group, version, kind)| schema::by_gvk(group, version, kind))
                    .map_or(self.definition.clone(), |ty| ty.name().to_string());
                let mut operations = self.read_and_write(sub.verbs, &name, &after);
                if sub.verbs.contains(Verbs::CREATE) {
                    operations.push(self.create(&name, &after));
                }
                self.name_kind(sub, &mut operations);
                return operations;
            }
        };
        let methods = [
            (Verbs::GET, "get"),
            (Verbs::CREATE, "post"),
            (Verbs::UPDATE, "put"),
            (Verbs::PATCH, "patch"),
            (Verbs::DELETE, "delete"),
        ];
        let mut operations: Vec<Operation> = methods
            .into_iter()
            .filter(|(verb, _)| sub.verbs.contains(*verb))
            .map(|(_, method)| Operation {
                parameters: parameters.to_vec(),
                answer: Content::Text,
                ..self.operation(method, "connect", "connect", &capital(method), &after)
            })
            .collect();
        self.name_kind(sub, &mut operations);
        operations
    }

    fn name_kind(&self, sub: &Subresource, operations: &mut [Operation]) {
        if let Some((group, version, kind)) = sub.kind {
            for operation in operations {
                operation.kind = [group.into(), version.into(), kind.into()];
            }
        }
    }
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
        let mut item = Map::new();
        for operation in &self.operations {
            item.insert(operation.method.into(), operation.render(flavor));
        }
        let parameters: Vec<Value> = self.parameters.iter().map(|it| parameter(it, flavor)).collect();
        item.insert("parameters".into(), parameters.into());
        Value::Object(item)
    }
}

fn parameter((name, type_): &Parameter, flavor: Flavor) -> Value {
    let inner = name.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
    let mut out = Map::new();
    out.insert("name".into(), inner.unwrap_or(name).into());
    out.insert("in".into(), if inner.is_some() { "path" } else { "query" }.into());
    if inner.is_some() {
        out.insert("required".into(), true.into());
    }
    match flavor {
        Flavor::V2 => {
            out.insert("type".into(), (*type_).into());
            out.insert("uniqueItems".into(), true.into());
        }
        Flavor::V3 => {
            out.insert("schema".into(), json!({"type": type_, "uniqueItems": true}));
        }
    }
    Value::Object(out)
}

const MEDIA_TYPES: &[&str] = &[
    "application/json",
    "application/vnd.kubernetes.protobuf",
    "application/yaml",
];
const PATCH_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

impl Operation {
    /// The media types of its body.
    fn takes(&self) -> Vec<&'static str> {
        match self.method {
            "patch" => {
                let all = PATCH_TYPES.iter().copied();
                all.filter(|media| !(self.custom && media.contains("strategic")))
                    .collect()
            }
            _ => vec!["*/*"],
        }
    }

    fn render(&self, flavor: Flavor) -> Value {
        let mut out = Map::new();
        let [group, version, kind] = &self.kind;
        out.insert(
            "x-kubernetes-group-version-kind".into(),
            json!({"group": group, "version": version, "kind": kind}),
        );
        out.insert("x-kubernetes-action".into(), self.action.into());
        out.insert("operationId".into(), self.id.clone().into());
        out.insert("tags".into(), vec![self.tag.clone()].into());
        let mut parameters: Vec<Value> = self.parameters.iter().map(|it| parameter(it, flavor)).collect();
        match flavor {
            Flavor::V2 => {
                if let Some((name, required)) = &self.body {
                    let mut body = json!({"name": "body", "in": "body", "schema": reference(name, flavor)});
                    if *required {
                        body["required"] = true.into();
                    }
                    parameters.insert(0, body);
                }
                let consumes = self.takes();
                out.insert("consumes".into(), consumes.into());
                let produces = if self.action == "connect" {
                    &["*/*"][..]
                } else {
                    MEDIA_TYPES
                };
                out.insert("produces".into(), produces.into());
                out.insert("schemes".into(), json!(["https"]));
            }
            Flavor::V3 => {
                if let Some((name, required)) = &self.body {
                    let types = self.takes();
                    let mut body = json!({"content": content(&types, &reference(name, flavor))});
                    if *required {
                        body["required"] = true.into();
                    }
                    out.insert("requestBody".into(), body);
                }
            }
        }
        if !parameters.is_empty() {
            out.insert("parameters".into(), parameters.into());
        }
        out.insert("responses".into(), self.responses(flavor));
        Value::Object(out)
    }

    fn responses(&self, flavor: Flavor) -> Value {
        let schema = match &self.answer {
            Content::Text => json!({"type": "string"}),
            Content::Definition(name) => reference(name, flavor),
        };
        let types: &[&str] = match (&self.answer, self.action) {
            (Content::Text, "connect") => &["*/*"],
            (Content::Text, _) => &["text/plain"],
            (_, "list") => &[
                "application/json",
                "application/json;stream=watch",
                "application/vnd.kubernetes.protobuf",
                "application/vnd.kubernetes.protobuf;stream=watch",
                "application/yaml",
            ],
            _ => MEDIA_TYPES,
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
                Flavor::V3 => json!({"description": description, "content": content(types, &schema)}),
            };
            out.insert(code.to_string(), answer);
        }
        out.insert("401".into(), json!({"description": "Unauthorized"}));
        Value::Object(out)
    }
}

fn reference(name: &str, flavor: Flavor) -> Value {
    json!({"$ref": format!("{}{name}", flavor.prefix())})
}

fn content(types: &[&str], schema: &Value) -> Value {
    let types: BTreeMap<&str, Value> = types.iter().map(|name| (*name, json!({"schema": schema}))).collect();
    json!(types)
}
