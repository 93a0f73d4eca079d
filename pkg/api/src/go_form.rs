//! How upstream shows an object in an error: as Go prints its own form of the type, whose fields have no names of JSON,
//! all of them, in the order in which they are declared.

use serde_json::{Map, Value};

use crate::codec::json;
use crate::schema::{self, Field, Node, Object, Scalar, What};

/// What is longer is shown as it was sent: types that say nothing are long.
const LONGEST: usize = 16 << 10;

/// The value of a field of a built-in kind, where it is an object or holds some.
pub(crate) fn shown(group: &str, kind: &str, field: &str, value: &Value) -> Option<String> {
    // Some are made up in that form, where no field has what is shown.
    let is_made_up = |map: &Map<String, Value>| map.keys().any(|key| key.starts_with(|c: char| c.is_ascii_uppercase()));
    let is_struct = |value: &Value| matches!(value, Value::Object(map) if !map.is_empty() && !is_made_up(map));
    if !is_struct(value) && !value.as_array().is_some_and(|items| items.iter().any(is_struct)) {
        return None;
    }
    let mut node: &Node = schema::by_kind(group, kind)?;
    for name in names(field) {
        node = match &node.what {
            What::Object(object) => &object.fields().iter().find(|own| &*own.name == name)?.schema,
            What::Map(map) => &map.values,
            _ => return None,
        };
        // An item is shown where its list is named with an index, which says no more.
        node = match &node.what {
            What::List(list) if value.is_object() => &list.items,
            _ => node,
        };
    }
    let mut out = Vec::new();
    print(node, value, &mut out)?;
    // One text may be longer than all.
    String::from_utf8(out).ok().filter(|shown| shown.len() <= LONGEST)
}

/// `spec.ports[0].name` → spec, ports, name
fn names(field: &str) -> impl Iterator<Item = &str> {
    field
        .split('.')
        .map(|name| name.split('[').next().unwrap_or_default())
        .filter(|name| !name.is_empty())
}

/// None where it becomes too long.
fn print(node: &Node, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    if out.len() > LONGEST {
        return None;
    }
    match (&node.what, value) {
        (What::Object(object), Value::Object(map)) if !is_jsons_own(object) => {
            out.push(b'{');
            fields(object, map, out)?;
            end(out, b'}');
        }
        (What::List(list), Value::Array(items)) => {
            out.push(b'[');
            for item in items {
                print(&list.items, item, out)?;
                out.push(b',');
            }
            end(out, b']');
        }
        (What::Map(values), Value::Object(map)) => {
            out.push(b'{');
            for (key, value) in map {
                json::print_key(key, out);
                print(&values.values, value, out)?;
                out.push(b',');
            }
            end(out, b'}');
        }
        _ => json::print(value, out),
    }
    Some(())
}

/// The types that all versions share have the names of JSON in Go, too.
fn is_jsons_own(object: &Object) -> bool {
    object.name().starts_with("io.k8s.apimachinery.")
}

/// Puts it in the place of the last comma.
fn end(out: &mut Vec<u8>, bracket: u8) {
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.push(bracket);
}

fn fields(object: &Object, map: &Map<String, Value>, out: &mut Vec<u8>) -> Option<()> {
    let mut declared: Vec<&Field> = object.fields().iter().collect();
    declared.sort_by_key(|field| field.position);
    for field in declared {
        let value = map.get(&*field.name).filter(|value| !value.is_null());
        match (&field.schema.what, value) {
            // It is embedded.
            (What::Object(meta), value) if meta.name().ends_with(".ObjectMeta") => {
                let own = value.and_then(Value::as_object);
                for (key, value) in own.into_iter().flatten() {
                    json::print_key(key, out);
                    json::print(value, out);
                    out.push(b',');
                }
                continue;
            }
            (_, value) => {
                json::print_key(&go_name(&field.name), out);
                match value {
                    Some(value) => print(&field.schema, value, out)?,
                    None => zero(field, out)?,
                }
            }
        }
        out.push(b',');
    }
    Some(())
}

fn zero(field: &Field, out: &mut Vec<u8>) -> Option<()> {
    let text: &[u8] = match &field.schema.what {
        _ if field.pointer => b"null",
        What::Object(_) => return print(&field.schema, &Value::Object(Map::new()), out),
        What::Scalar(Scalar::String) => b"\"\"",
        What::Scalar(Scalar::Bool) => b"false",
        What::Scalar(Scalar::Quantity) => b"\"0\"",
        What::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString) => b"0",
        _ => b"null",
    };
    out.extend_from_slice(text);
    Some(())
}

/// Words that Go writes in capitals.
const CAPITALS: [&str; 15] = [
    "api", "cel", "cidr", "csi", "dns", "fs", "http", "id", "ip", "nfs", "os", "rbd", "tcp", "tty", "uid",
];

/// `apiGroup` → `APIGroup`, `cidrs` → `CIDRs`, `nodePort` → `NodePort`
fn go_name(name: &str) -> String {
    match name {
        "seLinuxOptions" => return "SELinuxOptions".into(),
        // A device's attribute.
        "int" | "bool" | "string" | "version" => return capital(name) + "Value",
        _ => {}
    }
    let word = CAPITALS.iter().find(|word| {
        let rest = name.strip_prefix(**word);
        rest.is_some_and(|rest| rest.is_empty() || rest == "s" || rest.starts_with(|c: char| c.is_ascii_uppercase()))
    });
    match word {
        Some(word) => word.to_ascii_uppercase() + &name[word.len()..],
        None => capital(name),
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn all_fields_of_upstreams_form_are_shown_as_they_are_declared() {
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        assert_eq!(
            shown("", "Node", "spec.taints[1]", &taint).unwrap(),
            r#"{"Key":"a","Value":"","Effect":"NoSchedule","TimeAdded":null}"#
        );
        let role = json!({"apiGroup": "g", "kind": "Role", "name": "r"});
        assert_eq!(
            shown("rbac.authorization.k8s.io", "RoleBinding", "roleRef", &role).unwrap(),
            r#"{"APIGroup":"g","Kind":"Role","Name":"r"}"#
        );
        let selector = json!({"matchLabels": {"a": "b"}});
        let shared = shown("apps", "Deployment", "spec.selector", &selector).unwrap();
        assert_eq!(shared, r#"{"matchLabels":{"a":"b"}}"#);
    }

    #[test]
    fn what_would_be_long_and_what_is_no_kind_of_ours_is_shown_as_it_is() {
        let containers: Value = (0..1000).map(|_| json!({"name": "a"})).collect();
        assert_eq!(shown("", "Pod", "spec.containers", &containers), None);
        let text = json!({"name": "a", "image": "x".repeat(LONGEST)});
        assert_eq!(shown("", "Pod", "spec.containers[0]", &text), None);
        assert_eq!(shown("example.org", "Car", "spec", &json!({"a": 1})), None);
    }
}
