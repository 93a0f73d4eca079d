//! What an expression can speak of: its variables. The libraries are the same for all.

use std::sync::Arc;

use crate::decl::Decl;
use crate::types::Type;

/// The variables of expressions, as a value that callers build.
#[derive(Clone, Debug, Default)]
pub struct Env {
    pub(crate) variables: Vec<Variable>,
    /// What sizes are looked up in: the declaration that paths begin at.
    pub(crate) root: Option<Arc<Decl>>,
    pub(crate) binds: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub name: Arc<str>,
    pub of: Type,
}

impl Env {
    /// Adds a variable of a type without a schema.
    #[must_use]
    pub fn with(mut self, name: &str, of: Type) -> Env {
        self.variables.push(Variable { name: name.into(), of });
        self
    }

    /// Lets expressions name what they need more than once: `cel.bind(name, value, expression)`.
    #[must_use]
    pub fn with_bindings(mut self) -> Env {
        self.binds = true;
        self
    }

    /// Adds a variable whose value a schema describes; its type is called `type_name` where it is an object. `optional`
    /// wraps it. The first one is what unnamed paths begin at.
    #[must_use]
    pub fn with_declared(mut self, name: &str, type_name: &str, decl: &Arc<Decl>, optional: bool) -> Env {
        let of = decl.type_named(type_name).unwrap_or(Type::Dyn);
        let of = if optional { Type::optional(of) } else { of };
        self.variables.push(Variable { name: name.into(), of });
        self.root.get_or_insert_with(|| decl.clone());
        self
    }

    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        let name = name.strip_prefix('.').unwrap_or(name);
        self.variables.iter().position(|variable| &*variable.name == name)
    }
}

/// Types that expressions can name, with the name that values of them have at run time.
pub(crate) fn named_type(name: &str) -> Option<Type> {
    Some(match name.strip_prefix('.').unwrap_or(name) {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "int" => Type::Int,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "null_type" => Type::Null,
        "string" => Type::String,
        "type" => Type::Type(None),
        "uint" => Type::Uint,
        "optional_type" => Type::Opaque("optional_type".into(), Arc::from([])),
        name @ ("net.IP" | "net.CIDR") => Type::Opaque(name.into(), Arc::from([])),
        _ => return None,
    })
}
