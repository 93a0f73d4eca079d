//! Defaults have to be values that their own schema takes as they are, rules included; those of metadata, such that the
//! object they are in still is one.

use serde_json::{Map, Value, json};

use super::rules::{BUDGET, check_default_rules};
use super::{check, is_meta, items, metadata, parts, prune};
use crate::schema::{Node, What};
use crate::status::{FieldError, told};
use crate::validation::Errors;
use crate::validation::path::Path;

/// What is wrong with the defaults of a schema; those below free keys are none. `pruned`: they have no unknown fields.
pub(crate) fn check_defaults(schema: &Node, path: &Path<'_>, pruned: bool, errors: &mut Errors) {
    let mut walk = Walk {
        pruned,
        budget: Some(BUDGET),
        errors,
    };
    walk.at(schema, path, false, &Around::Root(schema));
}

/// Where a part of a schema lies in the object that has metadata of its own.
enum Around<'a> {
    Root(&'a Node),
    Field(&'a Around<'a>, &'a str),
    Item(&'a Around<'a>),
}

impl<'a> Around<'a> {
    /// The object with nothing in it but a value at this place, and the object's schema.
    fn object(&self, value: Value) -> (Value, &'a Node) {
        match self {
            Around::Root(schema) => (value, schema),
            Around::Field(around, name) => {
                let map = Map::from_iter([(name.to_string(), value)]);
                around.object(Value::Object(map))
            }
            Around::Item(around) => around.object(json!([value])),
        }
    }
}

struct Walk<'e> {
    pruned: bool,
    /// What rules may still cost; None: it was not enough, and nothing more is checked.
    budget: Option<u64>,
    errors: &'e mut Errors,
}

impl Walk<'_> {
    fn at(&mut self, schema: &Node, path: &Path<'_>, in_meta: bool, around: &Around<'_>) {
        let Some((what, constraints)) = parts(schema) else {
            return;
        };
        let own = Around::Root(schema);
        let (in_meta, around) = match constraints.embedded {
            true => (false, &own),
            false => (in_meta, around),
        };
        if let Some(default) = &constraints.default {
            self.check(default, schema, &path.child("default"), in_meta.then_some(around));
        }
        if self.budget.is_none() {
            return;
        }
        if let Some(child) = items(schema) {
            self.at(child, &path.child("items"), in_meta, &Around::Item(around));
        }
        if let What::Object(object) = what {
            let at = path.child("properties");
            let fields = object.fields().iter().map(|field| (&*field.name, &*field.schema));
            let metadata = constraints.metadata.iter().map(|schema| ("metadata", &**schema));
            for (name, field) in fields.chain(metadata) {
                let in_meta = in_meta || (constraints.embedded && is_meta(name));
                self.at(field, &at.key(name), in_meta, &Around::Field(around, name));
            }
        }
    }

    fn check(&mut self, default: &Value, schema: &Node, path: &Path<'_>, in_meta: Option<&Around<'_>>) {
        let wrong = match in_meta {
            Some(around) => self.check_meta(default, path, around),
            None => self.check_value(default, schema, path),
        };
        if wrong {
            return;
        }
        let mut found = check::check_part(default, schema, &path.to_string());
        if let (true, Some(budget)) = (found.is_empty(), self.budget) {
            (found, self.budget) = check_default_rules(default, schema, path, budget);
        }
        self.errors.append(&mut found);
    }

    /// Whether the object in which a default of metadata lies is none.
    fn check_meta(&mut self, default: &Value, path: &Path<'_>, around: &Around<'_>) -> bool {
        let (mut object, schema) = around.object(default.clone());
        if let Value::Object(object) = &mut object {
            object.entry("kind").or_insert_with(|| "Validation".into());
            object.entry("apiVersion").or_insert_with(|| "validation/v1".into());
        }
        let mut wrong = Errors::new();
        match metadata::coerce(&mut object, schema, false, &Path::ROOT, &mut Vec::new()) {
            Err(error) => wrong.push(error),
            Ok(()) => metadata::check(&object, schema, &Path::ROOT, false, &mut wrong),
        }
        if wrong.is_empty() {
            return false;
        }
        let why = format!("must result in valid metadata: {}", told(&wrong));
        self.errors.push(FieldError::invalid(path, default.clone(), why));
        true
    }

    /// Whether objects in a default are none.
    fn check_value(&mut self, default: &Value, schema: &Node, path: &Path<'_>) -> bool {
        let mut unknown = Vec::new();
        if self.pruned {
            prune::prune(&mut default.clone(), schema, &Path::ROOT, &mut unknown);
        }
        if !unknown.is_empty() {
            let why = "must not have unknown fields";
            self.errors.push(FieldError::invalid(path, default.clone(), why));
        }
        if let Err(error) = metadata::coerce(&mut default.clone(), schema, false, path, &mut Vec::new()) {
            self.errors.push(error);
            return true;
        }
        let before = self.errors.len();
        metadata::check(default, schema, path, false, self.errors);
        self.errors.len() > before
    }
}
