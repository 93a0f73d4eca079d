//! Types of the schema table as OpenAPI schemas.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::descriptions::{Descriptions, unescape};
use super::names::{Flavor, META, capital};
use crate::schema::{self, Any, Field, ListType, Node, Or, Scalar, Schema, What};

const APIEXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.";

/// The types without a struct of fields: name, and the schema of each flavor.
fn special(name: &str, flavor: Flavor) -> Option<Value> {
    let v2 = flavor == Flavor::V2;
    let short = name.strip_prefix(META).or(name.strip_prefix(APIEXTENSIONS));
    Some(match short.unwrap_or(name) {
        "Time" | "MicroTime" => json!({"type": "string", "format": "date-time"}),
        "FieldsV1" | "Patch" | "io.k8s.apimachinery.pkg.runtime.RawExtension" => json!({"type": "object"}),
        "io.k8s.apimachinery.pkg.api.resource.Quantity" if v2 => json!({"type": "string"}),
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" if v2 => json!({"type": "string", "format": "int-or-string"}),
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        "JSON" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray" => json!({}),
        _ => return None,
    })
}

/// The name of the definition that a value refers to, if it is more than a scalar.
fn reference(node: &Node) -> Option<String> {
    Some(match &node.what {
        What::Object(ty) => ty.name().to_string(),
        What::Scalar(Scalar::Time) => format!("{META}Time"),
        What::Scalar(Scalar::MicroTime) => format!("{META}MicroTime"),
        What::Any(Any::FieldsV1) => format!("{META}FieldsV1"),
        What::Scalar(Scalar::Quantity) => "io.k8s.apimachinery.pkg.api.resource.Quantity".into(),
        What::Scalar(Scalar::IntOrString) => "io.k8s.apimachinery.pkg.util.intstr.IntOrString".into(),
        What::Any(Any::RawExtension) => "io.k8s.apimachinery.pkg.runtime.RawExtension".into(),
        What::Any(Any::Json) => format!("{APIEXTENSIONS}JSON"),
        What::SchemaOr(Or::Bool, _) => format!("{APIEXTENSIONS}JSONSchemaPropsOrBool"),
        What::SchemaOr(Or::Array, _) => format!("{APIEXTENSIONS}JSONSchemaPropsOrArray"),
        What::SchemaOr(Or::Strings, _) => format!("{APIEXTENSIONS}JSONSchemaPropsOrStringArray"),
        _ => return None,
    })
}

/// All definitions that `roots` lead to.
pub(super) fn closure(roots: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<String> = roots.into_iter().collect();
    while let Some(name) = open.pop() {
        if let Some(ty) = schema::by_name(&name).filter(|_| !found.contains(&name)) {
            open.extend(ty.fields().iter().filter_map(|field| reference(field.schema.element())));
        }
        found.insert(name);
    }
    found
}

pub(super) fn definition(name: &str, flavor: Flavor, descriptions: &Descriptions) -> Value {
    let mut out = Map::new();
    if let Some(text) = descriptions.of_type(name) {
        out.insert("description".into(), text.into());
    }
    if let Some(Value::Object(special)) = special(name, flavor) {
        out.extend(special);
        return Value::Object(out);
    }
    out.insert("type".into(), "object".into());
    let Some(ty) = schema::by_name(name) else {
        return Value::Object(out);
    };
    let words = descriptions.of_fields(name);
    let mut properties = Map::new();
    for field in ty.fields() {
        let description = words.get(&*field.name).map(|text| unescape(text));
        let description = description.or_else(|| undescribed(name, &field.name));
        properties.insert(field.name.to_string(), property(field, flavor, description));
    }
    if !properties.is_empty() {
        out.insert("properties".into(), Value::Object(properties));
    }
    let mut required: Vec<&Field> = ty.fields().iter().filter(|field| field.required).collect();
    // As they were declared.
    required.sort_by_key(|field| field.position);
    let required: Vec<&str> = required.iter().map(|field| field.name.as_str()).collect();
    if !required.is_empty() {
        out.insert("required".into(), required.into());
    }
    if ty.atomic() {
        out.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    let union = UNIONS.iter().find(|(of, ..)| *of == name);
    out.extend(union.map(|(_, by, fields)| ("x-kubernetes-unions".into(), json!([union_of(by, fields)]))));
    let kinds = match name.strip_prefix(META) {
        Some(kind @ ("DeleteOptions" | "WatchEvent")) => everywhere(kind),
        _ => kinds(ty),
    };
    if !kinds.is_empty() {
        out.insert("x-kubernetes-group-version-kind".into(), Value::Array(kinds));
    }
    Value::Object(out)
}

/// The types of which one field decides which others may stand: type, that field, and those.
const UNIONS: [(&str, &str, &[&str]); 5] = [
    ("io.k8s.api.core.v1.AppArmorProfile", "type", &["localhostProfile"]),
    ("io.k8s.api.core.v1.SeccompProfile", "type", &["localhostProfile"]),
    ("io.k8s.api.flowcontrol.v1.LimitResponse", "type", &["queuing"]),
    (
        "io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationSpec",
        "type",
        &["exempt", "limited"],
    ),
    (
        "io.k8s.api.flowcontrol.v1.Subject",
        "kind",
        &["group", "serviceAccount", "user"],
    ),
];

fn union_of(by: &str, fields: &[&str]) -> Value {
    let fields: Map<String, Value> = fields
        .iter()
        .map(|field| ((*field).into(), capital(field).into()))
        .collect();
    json!({"discriminator": by, "fields-to-discriminateBy": fields})
}

/// The versions, of each group, that upstream knows: metav1's options and events are kinds of them all.
const VERSIONS: &str = "/v1 admission.k8s.io/v1/v1beta1 admissionregistration.k8s.io/v1/v1alpha1/v1beta1 \
    apiextensions.k8s.io/v1/v1beta1 apiregistration.k8s.io/v1/v1beta1 apps/v1/v1beta1/v1beta2 \
    authentication.k8s.io/v1/v1alpha1/v1beta1 authorization.k8s.io/v1/v1beta1 autoscaling/v1/v2/v2beta1/v2beta2 \
    batch/v1/v1beta1 certificates.k8s.io/v1/v1alpha1/v1beta1 coordination.k8s.io/v1/v1alpha2/v1beta1 \
    discovery.k8s.io/v1/v1beta1 events.k8s.io/v1/v1beta1 extensions/v1beta1 \
    flowcontrol.apiserver.k8s.io/v1/v1beta1/v1beta2/v1beta3 imagepolicy.k8s.io/v1alpha1 \
    internal.apiserver.k8s.io/v1alpha1 networking.k8s.io/v1/v1beta1 node.k8s.io/v1/v1alpha1/v1beta1 policy/v1/v1beta1 \
    rbac.authorization.k8s.io/v1/v1alpha1/v1beta1 resource.k8s.io/v1/v1alpha3/v1beta1/v1beta2 \
    scheduling.k8s.io/v1/v1alpha1/v1beta1 storage.k8s.io/v1/v1alpha1/v1beta1 storagemigration.k8s.io/v1beta1";

fn everywhere(kind: &str) -> Vec<Value> {
    let groups = VERSIONS.split(' ').filter_map(|group| group.split_once('/'));
    groups
        .flat_map(|(group, versions)| versions.split('/').map(move |version| (group, version)))
        .map(|(group, version)| json!({"group": group, "version": version, "kind": kind}))
        .collect()
}

/// What the described types lack.
fn undescribed(name: &str, field: &str) -> Option<String> {
    let event = name.strip_prefix(META) == Some("WatchEvent") && field == "object";
    event.then(|| "What has changed, as it is now or, deleted, was last; of an ERROR its Status.".into())
}

fn kinds(ty: &Schema) -> Vec<Value> {
    let one = |[group, version, kind]: &[&str; 3]| json!({"group": group, "version": version, "kind": kind});
    ty.as_object()
        .map_or(&[][..], |object| object.kinds())
        .iter()
        .map(one)
        .collect()
}

fn property(field: &Field, flavor: Flavor, description: Option<String>) -> Value {
    let mut out = match &field.schema.what {
        What::List(list) if !list.wrapped => {
            let items = value(field, &list.items, flavor, element_default(&list.items, flavor));
            collection("array", "items", items)
        }
        What::Map(map) => {
            let values = value(field, &map.values, flavor, element_default(&map.values, flavor));
            collection("object", "additionalProperties", values)
        }
        _ => value(field, &field.schema, flavor, field_default(field, flavor)),
    };
    if let Some(description) = description {
        out.insert("description".into(), description.into());
    }
    extensions(field, &mut out);
    Value::Object(wrap(out, flavor))
}

fn collection(type_: &str, key: &str, element: Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("type".into(), type_.into());
    out.insert(key.into(), Value::Object(element));
    out
}

/// A `$ref` has no neighbours in OpenAPI v3.0.
fn wrap(mut schema: Map<String, Value>, flavor: Flavor) -> Map<String, Value> {
    if flavor == Flavor::V3
        && schema.len() > 1
        && let Some(target) = schema.remove("$ref")
    {
        schema.insert("allOf".into(), json!([{"$ref": target}]));
    }
    schema
}

fn extensions(field: &Field, out: &mut Map<String, Value>) {
    let mut add = |name: &str, value: Value| out.insert(format!("x-kubernetes-{name}"), value);
    if !field.bytes_list_type().is_empty() {
        add("list-type", field.bytes_list_type().into());
    }
    if let What::List(list) = &field.schema.what {
        match list.list_type {
            ListType::Unset => {}
            ListType::Atomic => drop(add("list-type", "atomic".into())),
            ListType::Set => drop(add("list-type", "set".into())),
            ListType::Map => drop(add("list-type", "map".into())),
        }
        if !list.keys.is_empty() {
            add("list-map-keys", list.keys.iter().map(|key| key.as_str()).collect());
        }
    }
    if let Some(atomic) = field.atomic {
        add("map-type", if atomic { "atomic" } else { "granular" }.into());
    }
    if !field.merge_key().is_empty() {
        add("patch-merge-key", field.merge_key().into());
    }
    let strategy = field.patch_strategy;
    let words: Vec<&str> = [
        (strategy.merge, "merge"),
        (strategy.retain_keys, "retainKeys"),
        (strategy.replace, "replace"),
    ]
    .into_iter()
    .filter_map(|(set, word)| set.then_some(word))
    .collect();
    if !words.is_empty() {
        add("patch-strategy", words.join(",").into());
    }
}

/// One value, the item of a list or the value of a map.
fn value(field: &Field, node: &Node, flavor: Flavor, default: Option<Value>) -> Map<String, Value> {
    let mut out = Map::new();
    if let Some(name) = reference(node) {
        let target = format!("{}{name}", flavor.prefix());
        out.insert("$ref".into(), target.into());
        out.extend(default.map(|default| ("default".to_string(), default)));
        return wrap(out, flavor);
    }
    let (type_, format) = match &node.what {
        What::Scalar(Scalar::Bool) => ("boolean", ""),
        What::Scalar(Scalar::Int32) => ("integer", "int32"),
        What::Scalar(Scalar::Int64) => ("integer", "int64"),
        What::Scalar(Scalar::Double) => ("number", "double"),
        What::Scalar(Scalar::Bytes) => ("string", "byte"),
        What::List(_) => {
            out.insert("type".into(), "array".into());
            let items = match flavor {
                Flavor::V2 => json!({"type": "string"}),
                Flavor::V3 => json!({"type": "string", "default": ""}),
            };
            out.insert("items".into(), items);
            return out;
        }
        What::Any(_) => {
            out.insert("type".into(), "object".into());
            return out;
        }
        _ => ("string", ""),
    };
    out.insert("type".into(), type_.into());
    if !format.is_empty() {
        out.insert("format".into(), format.into());
    }
    if let Some(default) = default {
        out.insert("default".into(), default);
    }
    if !field.enumeration().is_empty() {
        out.insert("enum".into(), field.enumeration().split('|').collect());
    }
    out
}

/// OpenAPI v2 of upstream has no defaults.
fn field_default(field: &Field, flavor: Flavor) -> Option<Value> {
    if flavor == Flavor::V2 { None } else { field.presumed() }
}

fn element_default(element: &Node, flavor: Flavor) -> Option<Value> {
    if flavor == Flavor::V2 { None } else { element.zero() }
}
