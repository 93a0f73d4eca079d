//! Rules of custom kinds (`x-kubernetes-validations`): expressions that objects have to satisfy, on create and against what
//! they were before. `definition` checks them when a definition is written, with what they can cost; here they are compiled
//! when the first object comes, and run by `run`.

mod compile;
mod definition;
mod field_path;
mod run;
mod source;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, OnceLock};

use mk8s_cel::{Decl, Source};
use serde_json::Value;

pub use definition::{check_definition, check_words};
pub(crate) use field_path::{Found as FoundField, resolve as resolve_field};
pub(super) use run::{BUDGET, check_default_rules};
pub use run::{Ruling, check_rules};

use super::super::Node;

/// One rule, as it was written.
#[derive(Debug, Default)]
pub(super) struct Rule {
    rule: String,
    message: String,
    message_expression: String,
    reason: Option<String>,
    field_path: String,
    optional_old: Option<bool>,
}

impl Rule {
    fn new(said: &Value) -> Rule {
        let text = |key: &str| said[key].as_str().unwrap_or_default().to_string();
        Rule {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: said["reason"].as_str().map(String::from),
            field_path: text("fieldPath"),
            optional_old: said["optionalOldSelf"].as_bool(),
        }
    }

    /// What errors call it.
    fn called(&self) -> &str {
        let of = if self.message.is_empty() {
            &self.rule
        } else {
            &self.message
        };
        of.trim()
    }
}

/// The rules of a node.
pub struct Rules {
    said: Box<[Rule]>,
    compiled: OnceLock<Compiled>,
}

/// Rules that can be run, with how their values are read.
struct Compiled {
    decl: Arc<Decl>,
    rules: Vec<compile::Compiled>,
    /// What `fieldPath`s lead to.
    paths: Vec<String>,
}

impl Rules {
    /// The rules that a schema has; none where it has no list of them.
    pub(super) fn new(said: Option<&Value>) -> Option<Rules> {
        let said = said?.as_array().filter(|said| !said.is_empty())?;
        Some(Rules {
            said: said.iter().map(Rule::new).collect(),
            compiled: OnceLock::new(),
        })
    }

    /// The rules, for values of the node that has them.
    fn compiled(&self, node: &Node) -> &Compiled {
        self.compiled.get_or_init(|| {
            let path = |rule: &Rule| {
                let found = field_path::resolve(&rule.field_path, node, true);
                found.map_or_else(|_| String::new(), |found| found.shown)
            };
            let decl = Decl::new(node, node.is_embedded());
            Compiled {
                rules: compile::all(&self.said, &decl),
                paths: self.said.iter().map(path).collect(),
                decl,
            }
        })
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.said, f)
    }
}
