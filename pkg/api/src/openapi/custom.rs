//! Custom kinds in OpenAPI: what their definitions say, with what every object has put in, and, in version 2, without what
//! that version can't say or kubectl can't read in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::descriptions::Descriptions;
use super::names::{Flavor, META, model_name};
use super::served;
use crate::registry::{Resource, Served};

/// The custom kinds among some rows, and their lists, by the names of their definitions.
pub(super) struct Customs<'r>(BTreeMap<String, Custom<'r>>);

struct Custom<'r> {
    resource: &'r Resource,
    served: &'r Served,
    is_list: bool,
}

impl<'r> Customs<'r> {
    pub(super) fn of(rows: &'r [Arc<Resource>]) -> Customs<'r> {
        let custom = served(rows).filter(|(_, served)| served.custom.is_some());
        let both = custom.flat_map(|(resource, served)| {
            [false, true].map(|is_list| {
                let kind = if is_list { &resource.list_kind } else { &resource.kind };
                let custom = Custom {
                    resource,
                    served,
                    is_list,
                };
                (model_name(&served.group, &served.name, kind), custom)
            })
        });
        Customs(both.collect())
    }

    /// The definition of this name, where it is a custom kind's or its list's.
    pub(super) fn definition(&self, name: &str, flavor: Flavor, words: &Descriptions) -> Option<Value> {
        let custom = self.0.get(name)?;
        let mut out = if custom.is_list {
            custom.list(flavor, words)
        } else {
            custom.object(flavor, words)
        };
        let kind = if custom.is_list {
            &custom.resource.list_kind
        } else {
            &custom.resource.kind
        };
        let (group, version) = (&custom.served.group, &custom.served.name);
        out.insert(
            "x-kubernetes-group-version-kind".into(),
            json!([{"group": group, "version": version, "kind": kind}]),
        );
        let fields = custom.served.fields.iter();
        let fields: Vec<Value> = fields.map(|field| json!({"fieldPath": field.label})).collect();
        if !fields.is_empty() {
            out.insert("x-kubernetes-selectable-fields".into(), fields.into());
        }
        Some(Value::Object(out))
    }
}

impl Custom<'_> {
    fn object(&self, flavor: Flavor, words: &Descriptions) -> Map<String, Value> {
        let custom = self.served.custom.as_ref();
        let said = custom.and_then(|custom| custom.said());
        let preserves = custom.is_some_and(|custom| custom.preserves());
        let Some(mut schema) = said.filter(|said| flavor != Flavor::V2 || !(preserves || is_open(said))) else {
            // kubectl would take named fields for all there are.
            return Map::from_iter([("type".to_string(), json!("object"))]);
        };
        settle(&mut schema, flavor, words);
        let Value::Object(mut out) = schema else {
            return Map::new();
        };
        with_meta(&mut out, "ObjectMeta", flavor, words);
        out
    }

    fn list(&self, flavor: Flavor, words: &Descriptions) -> Map<String, Value> {
        let (group, version) = (&self.served.group, &self.served.name);
        let item = model_name(group, version, &self.resource.kind);
        let (kind, list) = (&self.resource.kind, &self.resource.list_kind);
        let plural = &self.resource.plural;
        let more = "More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
        let mut out = Map::new();
        out.insert("type".into(), "object".into());
        out.insert("description".into(), format!("{list} is a list of {kind}").into());
        out.insert("required".into(), json!(["items"]));
        let items = json!({
            "type": "array", "description": format!("List of {plural}. {more}"),
            "items": {"$ref": format!("{}{item}", flavor.prefix())},
        });
        out.insert("properties".into(), json!({"items": items}));
        with_meta(&mut out, "ListMeta", flavor, words);
        out
    }
}

fn is_open(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

/// Puts in the fields that every object, or list, has.
fn with_meta(out: &mut Map<String, Value>, of: &str, flavor: Flavor, words: &Descriptions) {
    // Built-in kinds have them in the same words.
    let like = if of == "ObjectMeta" { "Pod" } else { "PodList" };
    let said = words.of_fields(&format!("io.k8s.api.core.v1.{like}"));
    let described = |key: &str| said.get(key).map(|text| super::descriptions::unescape(text));
    let mut properties = match out.remove("properties") {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    };
    for key in ["apiVersion", "kind"] {
        let mut text = json!({"type": "string"});
        if let Some(description) = described(key) {
            text["description"] = description.into();
        }
        properties.insert(key.into(), text);
    }
    let reference = format!("{}{META}{of}", flavor.prefix());
    let mut metadata = match flavor {
        Flavor::V2 => json!({"$ref": reference}),
        Flavor::V3 => json!({"allOf": [{"$ref": reference}]}),
    };
    if let Some(description) = described("metadata") {
        metadata["description"] = description.into();
    }
    properties.insert("metadata".into(), metadata);
    out.insert("properties".into(), Value::Object(properties));
}

/// What upstream's structural form of a schema has no place for.
const DROPPED: [&str; 4] = ["example", "externalDocs", "id", "$schema"];
/// What version 2 has no word for.
const NOT_IN_V2: [&str; 5] = ["allOf", "anyOf", "oneOf", "not", "default"];

/// Makes of what a definition says what is published, from a node down.
fn settle(schema: &mut Value, flavor: Flavor, words: &Descriptions) {
    let Value::Object(node) = schema else { return };
    DROPPED.iter().for_each(|key| drop(node.remove(*key)));
    match flavor {
        Flavor::V2 => settle_v2(node),
        Flavor::V3 => settle_v3(node),
    }
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        properties.values_mut().for_each(|child| settle(child, flavor, words));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = node.get_mut(key) {
            settle(child, flavor, words);
        }
    }
    let embedded = node.get("x-kubernetes-embedded-resource") == Some(&json!(true));
    let open = node.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
    if embedded && !(open && flavor == Flavor::V2) {
        with_meta(node, "ObjectMeta", flavor, words);
        let mut required = node
            .get("required")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        for key in ["kind", "apiVersion"] {
            if !required.iter().any(|own| own == key) {
                required.push(key.into());
            }
        }
        node.insert("required".into(), required.into());
    }
}

fn settle_v2(node: &mut Map<String, Value>) {
    node.remove("default");
    NOT_IN_V2.iter().for_each(|key| drop(node.remove(*key)));
    let is = |node: &Map<String, Value>, key: &str| node.get(key) == Some(&json!(true));
    let open = is(node, "x-kubernetes-preserve-unknown-fields");
    if is(node, "nullable") {
        node.remove("type");
        node.remove("nullable");
        node.remove("items");
        node.remove("properties");
    }
    if open {
        node.remove("items");
        node.remove("properties");
    }
    let type_ = node.get("type").and_then(Value::as_str).unwrap_or_default();
    if (type_ == "array" && !node.contains_key("items")) || (type_ == "object" && open) {
        node.remove("type");
    }
    let nullable = |child: &Value| child["nullable"] == true;
    let named = node.get("properties").and_then(Value::as_object);
    let named = named.into_iter().flatten().filter(|(_, child)| nullable(child));
    let named: Vec<String> = named.map(|(key, _)| key.clone()).collect();
    if let Some(Value::Array(required)) = node.get_mut("required") {
        required.retain(|own| !named.iter().any(|key| own == key));
        if required.is_empty() {
            node.remove("required");
        }
    }
    if node.get("additionalProperties").is_some_and(nullable) {
        node.remove("required");
    }
}

/// A number or a text says so in words that every client knows.
fn settle_v3(node: &mut Map<String, Value>) {
    let either = node.get("x-kubernetes-int-or-string") == Some(&json!(true));
    if either && !node.contains_key("anyOf") && !node.contains_key("allOf") {
        node.insert("anyOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
    }
}
