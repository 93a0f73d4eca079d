//! Types of the schema table as OpenAPI schemas.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Flavor;
use super::descriptions::{Descriptions, unescape};
use crate::schema::{self, Base, FieldInfo, ListType, Shape, TypeRef};

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
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
fn reference(base: Base) -> Option<String> {
    Some(match base {
        Base::Struct(ty) => ty.name().to_string(),
        Base::Time => format!("{META}Time"),
        Base::MicroTime => format!("{META}MicroTime"),
        Base::FieldsV1 => format!("{META}FieldsV1"),
        Base::Quantity => "io.k8s.apimachinery.pkg.api.resource.Quantity".into(),
        Base::IntOrString => "io.k8s.apimachinery.pkg.util.intstr.IntOrString".into(),
        Base::RawExtension => "io.k8s.apimachinery.pkg.runtime.RawExtension".into(),
        Base::Json => format!("{APIEXTENSIONS}JSON"),
        Base::SchemaOrBool => format!("{APIEXTENSIONS}JSONSchemaPropsOrBool"),
        Base::SchemaOrArray => format!("{APIEXTENSIONS}JSONSchemaPropsOrArray"),
        Base::SchemaOrStrings => format!("{APIEXTENSIONS}JSONSchemaPropsOrStringArray"),
        _ => return None,
    })
}

/// All definitions that `roots` lead to.
pub(super) fn closure(roots: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<String> = roots.into_iter().collect();
    while let Some(name) = open.pop() {
        if let Some(ty) = schema::by_name(&name).filter(|_| !found.contains(&name)) {
            open.extend(ty.fields().iter().filter_map(|field| reference(field.base)));
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
        let description = words.get(field.name).map(|text| unescape(text));
        properties.insert(field.name.to_string(), property(field, flavor, description));
    }
    if !properties.is_empty() {
        out.insert("properties".into(), Value::Object(properties));
    }
    let required: Vec<&str> = ty
        .fields()
        .iter()
        .filter(|field| field.required)
        .map(|field| field.name)
        .collect();
    if !required.is_empty() {
        out.insert("required".into(), required.into());
    }
    if ty.atomic() {
        out.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    let kinds = kinds(ty);
    if !kinds.is_empty() {
        out.insert("x-kubernetes-group-version-kind".into(), Value::Array(kinds));
    }
    Value::Object(out)
}

fn kinds(ty: TypeRef) -> Vec<Value> {
    let one = |[group, version, kind]: &[&str; 3]| json!({"group": group, "version": version, "kind": kind});
    ty.kinds().iter().map(one).collect()
}

fn property(field: &FieldInfo, flavor: Flavor, description: Option<String>) -> Value {
    let mut out = match field.shape {
        Shape::One => value(field, flavor, field_default(field, flavor)),
        Shape::List => {
            let mut out = Map::new();
            out.insert("type".into(), "array".into());
            out.insert(
                "items".into(),
                Value::Object(value(field, flavor, element_default(field, flavor))),
            );
            out
        }
        Shape::Map => {
            let mut out = Map::new();
            out.insert("type".into(), "object".into());
            let element = value(field, flavor, element_default(field, flavor));
            out.insert("additionalProperties".into(), Value::Object(element));
            out
        }
    };
    if let Some(description) = description {
        out.insert("description".into(), description.into());
    }
    extensions(field, &mut out);
    Value::Object(wrap(out, flavor))
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

fn extensions(field: &FieldInfo, out: &mut Map<String, Value>) {
    let mut add = |name: &str, value: Value| out.insert(format!("x-kubernetes-{name}"), value);
    match field.list_type {
        ListType::Unset => {}
        ListType::Atomic => drop(add("list-type", "atomic".into())),
        ListType::Set => drop(add("list-type", "set".into())),
        ListType::Map => drop(add("list-type", "map".into())),
    }
    if !field.list_keys.is_empty() {
        add("list-map-keys", field.list_keys.split(' ').collect());
    }
    if field.atomic {
        add("map-type", "atomic".into());
    }
    if field.granular {
        add("map-type", "granular".into());
    }
    if !field.merge_key.is_empty() {
        add("patch-merge-key", field.merge_key.into());
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
fn value(field: &FieldInfo, flavor: Flavor, default: Option<Value>) -> Map<String, Value> {
    let mut out = Map::new();
    if let Some(name) = reference(field.base) {
        let target = format!("{}{name}", flavor.prefix());
        out.insert("$ref".into(), target.into());
        out.extend(default.map(|default| ("default".to_string(), default)));
        return wrap(out, flavor);
    }
    let (type_, format) = match field.base {
        Base::Bool => ("boolean", ""),
        Base::Int32 => ("integer", "int32"),
        Base::Int64 => ("integer", "int64"),
        Base::Double => ("number", "double"),
        Base::Bytes => ("string", "byte"),
        Base::Strings => {
            out.insert("type".into(), "array".into());
            out.insert("items".into(), json!({"type": "string"}));
            return out;
        }
        Base::Any => {
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
    if !field.enumeration.is_empty() {
        out.insert("enum".into(), field.enumeration.split(' ').collect());
    }
    out
}

/// OpenAPI v2 of upstream has no defaults; v3 has those of the table, and the zero values of what is no pointer.
fn field_default(field: &FieldInfo, flavor: Flavor) -> Option<Value> {
    if flavor == Flavor::V2 {
        return None;
    }
    if !field.default.is_empty() {
        return serde_json::from_str(field.default).ok();
    }
    if field.pointer {
        return None;
    }
    match field.base {
        Base::Struct(_) | Base::RawExtension | Base::Quantity | Base::IntOrString | Base::Time | Base::MicroTime => {
            zero(field.base)
        }
        _ if !field.omitempty => zero(field.base),
        _ => None,
    }
}

fn element_default(field: &FieldInfo, flavor: Flavor) -> Option<Value> {
    if flavor == Flavor::V2 { None } else { zero(field.base) }
}

fn zero(base: Base) -> Option<Value> {
    Some(match base {
        Base::Struct(_) => json!({}),
        Base::String => "".into(),
        Base::Bool => false.into(),
        Base::Int32 | Base::Int64 | Base::Double => 0.into(),
        _ => return None,
    })
}
