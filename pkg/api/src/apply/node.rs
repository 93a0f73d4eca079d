//! What apply asks of the schema about one place in an object. Nothing else here knows what a schema looks like.

use serde_json::Value;

use crate::schema::{Base, FieldInfo, ListType, Shape, TypeRef};

/// A place in an object, as its schema sees it.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    shape: Shape,
    base: Base,
    field: Option<&'static FieldInfo>,
}

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Scalar(Scalar),
    /// A struct, or a map whose keys are its own.
    Map,
    List,
    /// Anything, told by the value: maps have members, all else is a leaf.
    Deduced,
    /// Anything, and a leaf whatever it is.
    Untyped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    String,
    Number,
    Bool,
    /// Any of them.
    Any,
}

/// How a list's items are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Items {
    /// They are not: the list is one leaf.
    Atomic,
    /// By their value.
    Set,
    /// By these fields.
    Map(&'static str),
}

impl Node {
    /// The root of a type's objects.
    pub fn root(ty: TypeRef) -> Node {
        Node {
            shape: Shape::One,
            base: Base::Struct(ty),
            field: None,
        }
    }

    pub(super) fn kind(self) -> Kind {
        match self.shape {
            Shape::List => return Kind::List,
            Shape::Map => return Kind::Map,
            Shape::One => {}
        }
        match self.base {
            Base::Struct(_) => Kind::Map,
            Base::Strings => Kind::List,
            Base::String | Base::Bytes => Kind::Scalar(Scalar::String),
            Base::Bool => Kind::Scalar(Scalar::Bool),
            Base::Int32 | Base::Int64 | Base::Double => Kind::Scalar(Scalar::Number),
            Base::Time | Base::MicroTime | Base::Quantity | Base::IntOrString => Kind::Scalar(Scalar::Any),
            Base::RawExtension => Kind::Untyped,
            Base::FieldsV1
            | Base::Json
            | Base::Any
            | Base::SchemaOrBool
            | Base::SchemaOrArray
            | Base::SchemaOrStrings => Kind::Deduced,
        }
    }

    /// Whether a map or struct is one leaf.
    pub(super) fn is_atomic(self) -> bool {
        if self.kind() == Kind::Untyped {
            return true;
        }
        let by_field = self.field.is_some_and(|field| field.atomic);
        let by_type = match (self.shape, self.base) {
            (Shape::One, Base::Struct(ty)) => ty.atomic() && !self.field.is_some_and(|field| field.granular),
            _ => false,
        };
        by_field || by_type
    }

    /// What stands at a key of a map or struct; none where the schema knows no such field.
    pub(super) fn child(self, key: &str) -> Option<Node> {
        match (self.shape, self.base) {
            (Shape::Map, base) => Some(Node {
                shape: Shape::One,
                base,
                field: None,
            }),
            (Shape::One, Base::Struct(ty)) => match ty.field(key) {
                Some(field) => Some(Node {
                    shape: field.shape,
                    base: field.base,
                    field: Some(field),
                }),
                None => ty.open().then_some(Node::DEDUCED),
            },
            _ => Some(Node::DEDUCED),
        }
    }

    /// Whether a key is one that the schema names: owning what is below it does not own it.
    pub(super) fn names(self, key: &str) -> bool {
        match (self.shape, self.base) {
            (Shape::One, Base::Struct(ty)) => ty.field(key).is_some(),
            _ => false,
        }
    }

    /// What every item of a list is.
    pub(super) fn item(self) -> Node {
        let base = match (self.shape, self.base) {
            (Shape::One, Base::Strings) => Base::String,
            (_, base) => base,
        };
        Node {
            shape: Shape::One,
            base,
            field: None,
        }
    }

    pub(super) fn items(self) -> Items {
        let Some(field) = self.field.filter(|_| self.shape == Shape::List) else {
            return Items::Atomic;
        };
        match field.list_type {
            ListType::Atomic => Items::Atomic,
            ListType::Set => Items::Set,
            ListType::Map => Items::Map(field.list_keys),
            ListType::Unset if !field.patch_strategy.merge => Items::Atomic,
            ListType::Unset if field.merge_key.is_empty() => Items::Set,
            ListType::Unset => Items::Map(field.merge_key),
        }
    }

    /// The default of an item's key field.
    pub(super) fn default_of(self, key: &str) -> Option<Value> {
        let Base::Struct(ty) = self.base else { return None };
        let default = ty.field(key)?.default;
        serde_json::from_str(default).ok()
    }

    const DEDUCED: Node = Node {
        shape: Shape::One,
        base: Base::Any,
        field: None,
    };
}
