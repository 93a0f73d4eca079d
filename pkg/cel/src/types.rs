//! The types that the checker reasons with, and their names as its messages show them.

use std::fmt;
use std::sync::Arc;

use crate::decl::Decl;

/// A type of the language.
#[derive(Clone, Debug)]
pub enum Type {
    /// Anything: nothing is checked.
    Dyn,
    /// What a mistake evaluates to; it fits everywhere, so that a mistake is reported once.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    /// The type of a type.
    Type(Option<Arc<Type>>),
    /// A type of a library with parameters: `optional_type(int)`, `net.IP`.
    Opaque(Arc<str>, Arc<[Type]>),
    /// A type of a library without: `kubernetes.Quantity`.
    Named(Arc<str>),
    /// An object of a schema. Its name tells it from others: two of the same shape are two types.
    Object(Arc<str>, Arc<Decl>),
    /// A parameter in the declaration of an overload.
    Param(char),
    /// A type that is not known yet.
    Var(u32),
}

/// The name of optional values' type.
pub(crate) const OPTIONAL: &str = "optional_type";

impl Type {
    pub fn list(of: Type) -> Type {
        Type::List(Arc::new(of))
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new((key, value)))
    }

    pub fn optional(of: Type) -> Type {
        Type::Opaque(OPTIONAL.into(), Arc::from([of]))
    }

    /// What an optional holds.
    pub(crate) fn unwrapped(&self) -> Option<&Type> {
        match self {
            Type::Opaque(name, params) if &**name == OPTIONAL => params.first(),
            _ => None,
        }
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    /// Whether `null` may stand for a value of this type.
    pub(crate) fn is_nullable(&self) -> bool {
        use Type::{Duration, Named, Null, Object, Opaque, Timestamp};
        matches!(self, Opaque(..) | Object(..) | Named(_) | Duration | Timestamp | Null)
    }

    /// Parses a name as the table of functions has it. Single capital letters are parameters.
    pub(crate) fn parse(text: &str) -> Type {
        let text = text.trim();
        if let Some((name, inside)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
            let params: Vec<Type> = split(inside).into_iter().map(Type::parse).collect();
            return match (name, &params[..]) {
                ("list", [of]) => Type::list(of.clone()),
                ("map", [key, value]) => Type::map(key.clone(), value.clone()),
                ("type", [of]) => Type::Type(Some(Arc::new(of.clone()))),
                _ => Type::Opaque(name.into(), params.into()),
            };
        }
        match text {
            "dyn" => Type::Dyn,
            "null" => Type::Null,
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "duration" => Type::Duration,
            "timestamp" => Type::Timestamp,
            "type" => Type::Type(None),
            "net.IP" | "net.CIDR" => Type::Opaque(text.into(), Arc::from([])),
            _ => match text.chars().next() {
                Some(c) if text.len() == 1 && c.is_ascii_uppercase() => Type::Param(c),
                _ => Type::Named(text.into()),
            },
        }
    }
}

/// Parameters of a type's name: at commas that are in no brackets.
fn split(inside: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (i, c) in inside.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inside[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&inside[from..]);
    parts
}

impl PartialEq for Type {
    fn eq(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::List(a), Type::List(b)) => a == b,
            (Type::Map(a), Type::Map(b)) => a == b,
            (Type::Type(a), Type::Type(b)) => a == b,
            (Type::Opaque(a, of_a), Type::Opaque(b, of_b)) => a == b && of_a == of_b,
            (Type::Named(a), Type::Named(b)) | (Type::Object(a, _), Type::Object(b, _)) => a == b,
            (Type::Param(a), Type::Param(b)) => a == b,
            (Type::Var(a), Type::Var(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Error => f.write_str("!error!"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Duration => f.write_str("duration"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::List(of) => write!(f, "list({of})"),
            Type::Map(of) => write!(f, "map({}, {})", of.0, of.1),
            Type::Type(None) => f.write_str("type"),
            Type::Type(Some(of)) => write!(f, "type({of})"),
            Type::Opaque(name, params) if params.is_empty() => f.write_str(name),
            Type::Opaque(name, params) => write!(f, "{name}({})", Signature(params)),
            Type::Named(name) | Type::Object(name, _) => f.write_str(name),
            Type::Param(name) => write!(f, "{name}"),
            Type::Var(number) => write!(f, "_var{number}"),
        }
    }
}

/// Types as the arguments of a call.
pub(crate) struct Signature<'t>(pub &'t [Type]);

impl fmt::Display for Signature<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, of) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            of.fmt(f)?;
        }
        Ok(())
    }
}
