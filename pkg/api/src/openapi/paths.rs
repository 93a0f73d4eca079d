//! The paths of the registry's rows: which verbs, kinds and parameters each has. kubectl reads from them whether a kind
//! takes `dryRun` and `fieldValidation`.

use super::names::{META, capital, model_name};
use super::operation::{Content, Operation, Path};
use super::parameters::{self, NAME, NAMESPACE, PRETTY, Parameter, REST};
use crate::registry::{Resource, Served, Subresource, Verbs};
use crate::schema;

const ANY: &[&str] = &["*/*"];
pub(super) const OBJECTS: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
const WATCHED: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
/// Custom kinds have no protobuf, and no merge keys.
const CUSTOM: &[&str] = &["application/json", "application/yaml"];
const CUSTOM_PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
];
const LOGS: &[&str] = &[
    "text/plain",
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];

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

/// Of `/api/v1` and `/apis/apps/v1`: how its operations' ids begin, and their tag.
pub(super) fn titles(group: &str, version: &str) -> (String, String) {
    let group = camel(group);
    let mut tag = group.clone();
    if let Some(first) = tag.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    if !version.is_empty() {
        tag = format!("{tag}_{version}");
    }
    (format!("{group}{}", capital(version)), tag)
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
    let (id, tag) = titles(own, version);
    let row = Row {
        id,
        tag,
        list: name(&row.list_kind).unwrap_or_else(|| definition.clone()),
        definition,
        row,
        served,
    };
    let mut paths = Vec::new();
    let base = prefix(own, version);
    let plural = &row.row.plural;
    let collection = match row.row.is_namespaced() {
        true => format!("namespaces/{{namespace}}/{plural}"),
        false => plural.to_string(),
    };
    if row.row.is_namespaced() && row.row.verbs.contains(Verbs::LIST) {
        paths.push(Path {
            path: format!("{base}/{plural}"),
            operations: vec![row.list("ForAllNamespaces")],
        });
    }
    row.push_all(&mut paths, &format!("{base}/{collection}"));
    if row.row.verbs.contains(Verbs::WATCH) && served.custom.is_none() {
        row.push_watches(&mut paths, &base, &collection);
    }
    paths.retain(|path| !path.operations.is_empty());
    paths
}

impl Row<'_> {
    fn push_all(&self, paths: &mut Vec<Path>, collection: &str) {
        let verbs = self.row.verbs;
        let mut operations = Vec::new();
        if verbs.contains(Verbs::LIST) {
            operations.push(self.list(""));
        }
        if verbs.contains(Verbs::CREATE) {
            operations.push(self.create(&self.definition, ""));
        }
        if verbs.contains(Verbs::DELETECOLLECTION) {
            operations.push(self.delete_collection());
        }
        paths.push(Path {
            path: collection.to_string(),
            operations,
        });
        let mut operations = self.read_and_write(verbs, &self.definition, "");
        if verbs.contains(Verbs::DELETE) {
            operations.push(self.delete());
        }
        paths.push(Path {
            path: format!("{collection}/{{name}}"),
            operations,
        });
        for sub in &self.served.subresources {
            let path = format!("{collection}/{{name}}/{}", sub.name);
            if sub.name == "proxy" {
                let operations = self.subresource(sub).into_iter().map(|mut operation| {
                    operation.id += "WithPath";
                    operation.with(&[REST])
                });
                paths.push(Path {
                    path: format!("{path}/{{path}}"),
                    operations: operations.collect(),
                });
            }
            let operations = self.subresource(sub);
            paths.push(Path { path, operations });
        }
    }

    /// The paths of old by which something is watched.
    fn push_watches(&self, paths: &mut Vec<Path>, base: &str, collection: &str) {
        let mut push = |place: &str, action: &'static str, after: &str, more: &[Parameter]| {
            let watch = Operation {
                gives: WATCHED,
                answer: Content::Definition(format!("{META}WatchEvent")),
                ..self.operation("get", action, "watch", "", after)
            };
            let watch = watch.with(parameters::LIST).with(more);
            paths.push(Path {
                path: format!("{base}/watch/{place}"),
                operations: vec![watch],
            });
        };
        push(collection, "watchlist", "List", &[PRETTY]);
        push(&format!("{collection}/{{name}}"), "watch", "", &[NAME, PRETTY]);
        if self.row.is_namespaced() {
            push(&self.row.plural, "watchlist", "ListForAllNamespaces", &[PRETTY]);
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
        let namespaced = self.row.is_namespaced() && !after.ends_with("ForAllNamespaces");
        let (kind, custom) = (&self.row.kind, self.served.custom.is_some());
        Operation {
            method,
            action,
            id: format!(
                "{word}{}{before}{}{kind}{after}",
                self.id,
                if namespaced { "Namespaced" } else { "" }
            ),
            tag: self.tag.clone(),
            kind: Some([
                self.served.group.to_string(),
                self.served.name.to_string(),
                kind.to_string(),
            ]),
            takes: if custom { CUSTOM } else { ANY },
            gives: if custom { CUSTOM } else { OBJECTS },
            parameters: if namespaced { vec![NAMESPACE] } else { Vec::new() },
            body: None,
            answer: Content::Definition(self.definition.clone()),
            codes: &[200],
        }
    }

    fn list(&self, after: &str) -> Operation {
        let list = Operation {
            gives: if self.served.custom.is_some() { CUSTOM } else { WATCHED },
            answer: Content::Definition(self.list.clone()),
            ..self.operation("get", "list", "list", "", after)
        };
        list.with(parameters::LIST).with(&[PRETTY])
    }

    fn create(&self, definition: &str, after: &str) -> Operation {
        let create = Operation {
            body: Some((definition.to_string(), true)),
            answer: Content::Definition(definition.to_string()),
            codes: &[200, 201, 202],
            ..self.operation("post", "post", "create", "", after)
        };
        let place: &[Parameter] = if after.is_empty() { &[PRETTY] } else { &[NAME, PRETTY] };
        create.with(parameters::WRITE).with(place)
    }

    fn delete_collection(&self) -> Operation {
        // Of a custom kind upstream tells nothing but how it is listed.
        let custom = self.served.custom.is_some();
        let delete = Operation {
            body: (!custom).then(|| (format!("{META}DeleteOptions"), false)),
            answer: Content::Definition(format!("{META}Status")),
            ..self.operation("delete", "deletecollection", "delete", "Collection", "")
        };
        let own = if custom {
            parameters::LIST
        } else {
            parameters::DELETE_COLLECTION
        };
        delete.with(own).with(&[PRETTY])
    }

    fn delete(&self) -> Operation {
        let status = || format!("{META}Status");
        // A namespace is answered with where it does not go at once, which upstream's document does not tell.
        let returns = self.row.semantics.returns_deleted && self.row.kind != "Namespace";
        let delete = Operation {
            body: Some((format!("{META}DeleteOptions"), false)),
            answer: Content::Definition(if returns { self.definition.clone() } else { status() }),
            codes: &[200, 202],
            ..self.operation("delete", "delete", "delete", "", "")
        };
        delete.with(parameters::DELETE).with(&[NAME, PRETTY])
    }

    fn read_and_write(&self, verbs: Verbs, definition: &str, after: &str) -> Vec<Operation> {
        let answer = Content::Definition(definition.to_string());
        let custom = self.served.custom.is_some();
        let mut operations = Vec::new();
        if verbs.contains(Verbs::GET) {
            let get = Operation {
                answer: answer.clone(),
                ..self.operation("get", "get", "read", "", after)
            };
            operations.push(get.with(if custom { parameters::GET } else { &[] }));
        }
        if verbs.contains(Verbs::UPDATE) {
            let put = Operation {
                body: Some((definition.to_string(), true)),
                answer: answer.clone(),
                codes: &[200, 201],
                ..self.operation("put", "put", "replace", "", after)
            };
            operations.push(put.with(parameters::WRITE));
        }
        if verbs.contains(Verbs::PATCH) {
            let patch = Operation {
                takes: if custom { CUSTOM_PATCHES } else { PATCHES },
                body: Some((format!("{META}Patch"), true)),
                answer,
                codes: if custom { &[200] } else { &[200, 201] },
                ..self.operation("patch", "patch", "patch", "", after)
            };
            operations.push(patch.with(parameters::PATCH));
        }
        let all = operations.into_iter();
        all.map(|operation| operation.with(&[NAME, PRETTY])).collect()
    }

    fn subresource(&self, sub: &Subresource) -> Vec<Operation> {
        let after = capital(&sub.name);
        let mut operations = match parameters::of_stream(&sub.name, &self.row.kind) {
            Some(own) => self.stream(sub, &after, own),
            None => self.object(sub, &after),
        };
        if let Some((group, version, kind)) = sub.kind.filter(|_| self.served.custom.is_none()) {
            for operation in &mut operations {
                operation.kind = Some([group.into(), version.into(), kind.into()]);
            }
        }
        operations
    }

    fn object(&self, sub: &Subresource, after: &str) -> Vec<Operation> {
        let kind = sub.kind;
        let kind = kind.and_then(|(group, version, kind)| schema::by_gvk(group, version, kind));
        let name = kind.map_or(self.definition.clone(), |ty| ty.name().to_string());
        let mut operations = self.read_and_write(sub.verbs, &name, after);
        if sub.verbs.contains(Verbs::CREATE) {
            operations.push(self.create(&name, after));
        }
        operations
    }

    fn stream(&self, sub: &Subresource, after: &str, own: &[Parameter]) -> Vec<Operation> {
        let text = |method: &'static str, action: &'static str, word: &str, before: &str| Operation {
            gives: if action == "connect" { ANY } else { LOGS },
            answer: Content::Text,
            ..self.operation(method, action, word, before, after)
        };
        if sub.name == "log" {
            return vec![text("get", "get", "read", "").with(own).with(&[NAME, PRETTY])];
        }
        let methods: &[&'static str] = match &*sub.name {
            "proxy" => &["get", "post", "put", "patch", "delete", "head", "options"],
            _ => &["get", "post"],
        };
        let one = |method: &&'static str| {
            let connect = text(method, "connect", "connect", &capital(method));
            connect.with(own).with(&[NAME])
        };
        methods.iter().map(one).collect()
    }
}
