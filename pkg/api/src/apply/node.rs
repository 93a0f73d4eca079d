//! What apply asks of the schema about one place in an object. Nothing else here knows what a schema looks like.

use serde_json::Value;

use crate::schema::{self, Any, Field, List, ListType, Name, What};

/// A place in an object, as its schema sees it.
#[derive(Clone, Copy)]
pub struct Node<'s> {
    schema: &'s schema::Node,
    /// The field whose value it is.
    field: Option<&'s Field>,
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
pub(super) enum Items<'s> {
    /// They are not: the list is one leaf.
    Atomic,
    /// By their value.
    Set,
    /// By these fields.
    Map(Keys<'s>),
}

/// The names of a list's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keys<'s> {
    names: &'s [Name],
    /// A merge key is the only one.
    merge: Option<&'s str>,
}

impl<'s> Keys<'s> {
    pub(super) fn iter(self) -> impl Iterator<Item = &'s str> {
        self.names.iter().map(Name::as_str).chain(self.merge)
    }
}

/// What is below a place that the schema leaves open.
static DEDUCED: schema::Node = schema::Node::new(What::Any(Any::Value));

impl<'s> Node<'s> {
    /// The root of a type's objects.
    pub fn root(schema: &'s schema::Node) -> Node<'s> {
        Node { schema, field: None }
    }

    /// Whether it is one of a custom kind, whose objects may be other than their schema says.
    pub fn is_custom(self) -> bool {
        self.schema.is_custom()
    }

    pub(super) fn kind(self) -> Kind {
        use schema::Scalar as Is;
        match &self.schema.what {
            What::Object(_) | What::Map(_) => Kind::Map,
            What::List(_) => Kind::List,
            What::Scalar(scalar) => Kind::Scalar(match scalar {
                Is::String | Is::Bytes => Scalar::String,
                Is::Bool => Scalar::Bool,
                Is::Int32 | Is::Int64 | Is::Double => Scalar::Number,
                Is::Time | Is::MicroTime | Is::Quantity | Is::IntOrString => Scalar::Any,
            }),
            What::Any(Any::RawExtension) => Kind::Untyped,
            What::Any(_) | What::SchemaOr(..) => Kind::Deduced,
        }
    }

    /// Whether a map or struct is one leaf.
    pub(super) fn is_atomic(self) -> bool {
        let said = self.field.and_then(|field| field.atomic);
        match &self.schema.what {
            What::Any(Any::RawExtension) => true,
            What::Object(object) => said.unwrap_or(object.atomic),
            What::Map(map) => said.unwrap_or(map.atomic),
            _ => false,
        }
    }

    /// What stands at a key of a map or struct; none where the schema knows no such field.
    pub(super) fn child(self, key: &str) -> Option<Node<'s>> {
        match &self.schema.what {
            What::Map(map) => Some(Node::root(&map.values)),
            What::Object(object) => match object.field(key) {
                Some(field) => Some(Node {
                    schema: &field.schema,
                    field: Some(field),
                }),
                None => object.open.then_some(Node::root(&DEDUCED)),
            },
            _ => Some(Node::root(&DEDUCED)),
        }
    }

    /// Whether a key is one that the schema names: owning what is below it does not own it.
    pub(super) fn names(self, key: &str) -> bool {
        self.schema.field(key).is_some()
    }

    /// What every item of a list is.
    pub(super) fn item(self) -> Node<'s> {
        Node::root(match &self.schema.what {
            What::List(list) => &list.items,
            _ => &DEDUCED,
        })
    }

    pub(super) fn items(self) -> Items<'s> {
        let What::List(List { list_type, keys, .. }) = &self.schema.what else {
            return Items::Atomic;
        };
        match (list_type, self.field) {
            (ListType::Set, _) => Items::Set,
            (ListType::Map, _) => Items::Map(Keys {
                names: keys,
                merge: None,
            }),
            (ListType::Unset, Some(field)) if field.patch_strategy.merge => match field.merge_key() {
                "" => Items::Set,
                key => Items::Map(Keys {
                    names: &[],
                    merge: Some(key),
                }),
            },
            (ListType::Atomic | ListType::Unset, _) => Items::Atomic,
        }
    }

    /// The default of an item's key field.
    pub(super) fn default_of(self, key: &str) -> Option<Value> {
        let field = self.schema.field(key)?;
        let of_custom = || field.schema.constraints.as_ref()?.default.clone();
        field.presumed().or_else(of_custom)
    }
}
