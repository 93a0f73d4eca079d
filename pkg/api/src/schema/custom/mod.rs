//! Schemas of custom kinds: what a CustomResourceDefinition says, compiled to nodes, and what is done by them.
//!
//! An object that comes in is decoded with typed metadata (`codec`), then `admit`ted: unknown fields are pruned and told,
//! nulls that nothing allows go, metadata of embedded objects is read as metadata. `default` fills in what the schema says,
//! on every write and read. `check` finds what is wrong, in the words of upstream's validators and with their ratcheting:
//! what an update leaves as it was may be wrong. All of it is pure.
//!
//! Equal parts of all schemas are one node (`intern`), and patterns are compiled when first used, for a cluster has
//! hundreds of definitions and objects of few.

mod check;
mod compile;
mod correlate;
mod default_checks;
mod defaults;
mod formats;
mod intern;
mod lists;
mod metadata;
mod numbers;
mod prune;
mod rules;

pub use check::{check, check_lists, check_status};
pub use compile::{CompileError, compile};
pub(crate) use default_checks::check_defaults;
pub use defaults::{TooLarge, default, default_shown};
pub(crate) use formats::is_known as is_format;
pub use metadata::check_embedded;
pub use prune::admit;
pub(crate) use rules::{FoundField, resolve_field};
pub use rules::{Rules, Ruling, check_definition, check_rules, check_words};

use super::{Constraints, Node, What};

/// What a custom kind's node says of a value's form, and beside it; none for built-in types.
fn parts(node: &Node) -> Option<(&What, &Constraints)> {
    Some((&node.what, node.constraints.as_deref()?))
}

/// What the schema itself declares for a key of an object: neither implied metadata nor what is left open.
fn declared<'s>(node: &'s Node, key: &str) -> Option<&'s Node> {
    let (what, constraints) = parts(node)?;
    let found: &Node = match what {
        What::Object(_) if key == "metadata" && constraints.metadata.is_some() => constraints.metadata.as_ref()?,
        What::Object(object) => &object.field(key)?.schema,
        What::Map(map) => &map.values,
        _ => return None,
    };
    found.is_custom().then_some(found)
}

/// What the schema declares for the items of a list.
fn items(node: &Node) -> Option<&Node> {
    match &node.what {
        What::List(list) => Some(&*list.items).filter(|items| items.is_custom()),
        _ => None,
    }
}

/// The fields that every object has.
fn is_meta(key: &str) -> bool {
    matches!(key, "apiVersion" | "kind" | "metadata")
}
