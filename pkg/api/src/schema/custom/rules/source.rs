//! A custom kind's node as expressions see it.

use mk8s_cel::Source;

use super::super::{items, parts};
use crate::schema::{Checks, ListType, Node, Type, What};

fn checks(node: &Node) -> Option<&Checks> {
    node.constraints.as_deref()?.checks.as_deref()
}

fn flag(node: &Node, of: impl Fn(&crate::schema::Constraints) -> bool) -> bool {
    node.constraints.as_deref().is_some_and(of)
}

impl Source for Node {
    fn word(&self) -> &str {
        match parts(self).and_then(|(_, constraints)| constraints.types) {
            None | Some(Type::IntOrString) => "",
            Some(types) => types.words(),
        }
    }

    fn format(&self) -> &str {
        checks(self)
            .and_then(|checks| checks.format.as_deref())
            .unwrap_or_default()
    }

    fn is_int_or_string(&self) -> bool {
        flag(self, |constraints| constraints.types == Some(Type::IntOrString))
    }

    fn is_nullable(&self) -> bool {
        flag(self, |constraints| constraints.nullable)
    }

    fn preserves_unknown(&self) -> bool {
        flag(self, |constraints| constraints.preserve_unknown)
    }

    fn is_embedded(&self) -> bool {
        flag(self, |constraints| constraints.embedded)
    }

    fn has_default(&self) -> bool {
        flag(self, |constraints| constraints.default.is_some())
    }

    fn max(&self) -> Option<i64> {
        let checks = checks(self)?;
        match parts(self)?.1.types {
            Some(Type::Array) => checks.max_items,
            Some(Type::Object) => checks.max_properties,
            _ => checks.max_length,
        }
    }

    fn longest_choice(&self) -> Option<usize> {
        let choices = &checks(self)?.enumeration;
        let texts = choices.iter().filter_map(serde_json::Value::as_str).map(str::len);
        (!choices.is_empty()).then(|| texts.max().unwrap_or(0))
    }

    fn requires(&self, property: &str) -> bool {
        checks(self).is_some_and(|checks| checks.required.iter().any(|name| **name == *property))
    }

    fn items(&self) -> Option<&dyn Source> {
        items(self).map(|items| items as &dyn Source)
    }

    fn values(&self) -> Option<&dyn Source> {
        match &self.what {
            What::Map(map) if map.values.is_custom() => Some(&*map.values as &dyn Source),
            _ => None,
        }
    }

    /// What the schema itself has, not what is implied.
    fn properties(&self) -> Option<Vec<(&str, &dyn Source)>> {
        let object = self.as_object()?;
        let metadata = parts(self).and_then(|(_, constraints)| constraints.metadata.as_ref());
        let own = object.fields().iter().filter(|field| field.schema.is_custom());
        let own = own.map(|field| (field.name.as_str(), &*field.schema as &dyn Source));
        let all: Vec<_> = own
            .chain(metadata.map(|metadata| ("metadata", &**metadata as &dyn Source)))
            .collect();
        (!all.is_empty()).then_some(all)
    }

    fn list_type(&self) -> &str {
        match &self.what {
            What::List(list) => match list.list_type {
                ListType::Set => "set",
                ListType::Map => "map",
                _ => "",
            },
            _ => "",
        }
    }

    fn list_keys(&self) -> Vec<&str> {
        match &self.what {
            What::List(list) => list.keys.iter().map(|key| key.as_str()).collect(),
            _ => Vec::new(),
        }
    }
}
