//! What a custom kind's schema says of a value beside its form, as data: what is pruned, defaulted and checked by.

use std::fmt;
use std::sync::{Arc, OnceLock};

use regex::Regex;
use serde_json::{Number, Value};

use super::custom::Rules;
use super::{Name, Schema};

/// Every node of a custom kind has them, no node of a built-in type.
#[derive(Debug, Default)]
pub struct Constraints {
    pub types: Option<Type>,
    /// `null` is a value.
    pub nullable: bool,
    /// Fields that the schema does not name stay.
    pub preserve_unknown: bool,
    /// The value is an object of some kind: `x-kubernetes-embedded-resource`, and the root.
    pub embedded: bool,
    pub default: Option<Value>,
    /// What the schema says of `metadata` where its form is ObjectMeta's: restrictions of names.
    pub metadata: Option<Schema>,
    /// `x-kubernetes-validations`.
    pub rules: Option<Rules>,
    /// It or a part of it has rules.
    pub ruled: bool,
    pub checks: Option<Box<Checks>>,
}

/// The type that a value has to be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    /// One that there is none of, which no value has: what definitions of apiextensions.k8s.io/v1beta1 may name.
    Other,
}

impl Type {
    pub fn of(word: &str) -> Option<Type> {
        Some(match word {
            "" => return None,
            "object" => Type::Object,
            "array" => Type::Array,
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            _ => Type::Other,
        })
    }

    /// As error texts name it.
    pub fn words(self) -> &'static str {
        match self {
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
            Type::IntOrString => "integer,string",
            Type::Other => "",
        }
    }

    /// Whether it is the type of that word, or one of two.
    pub fn contains(self, word: &str) -> bool {
        self.words().split(',').any(|own| own == word)
    }
}

/// Checks of the value itself, whatever its form.
#[derive(Debug, Default)]
pub struct Checks {
    /// How the schema names `Type::Other`.
    pub other_type: Option<Name>,
    /// One that upstream knows, as it was written.
    pub format: Option<Name>,
    pub pattern: Option<Pattern>,
    pub minimum: Option<Number>,
    pub exclusive_minimum: bool,
    pub maximum: Option<Number>,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<Number>,
    pub min_length: Option<i64>,
    pub max_length: Option<i64>,
    pub min_items: Option<i64>,
    pub max_items: Option<i64>,
    pub unique_items: bool,
    pub min_properties: Option<i64>,
    pub max_properties: Option<i64>,
    pub required: Box<[Name]>,
    /// `additionalProperties: false`
    pub closed: bool,
    pub enumeration: Box<[Value]>,
    pub all_of: Box<[Schema]>,
    pub any_of: Box<[Schema]>,
    pub one_of: Box<[Schema]>,
    pub not: Option<Schema>,
}

/// A regular expression, compiled when first used: of many custom kinds few have objects.
pub struct Pattern {
    pub text: Name,
    compiled: OnceLock<Result<Arc<Regex>, String>>,
}

impl Pattern {
    pub fn new(text: Name) -> Pattern {
        Pattern {
            text,
            compiled: OnceLock::new(),
        }
    }

    /// The expression, or what is wrong with it.
    pub fn compiled(&self) -> Result<&Regex, &str> {
        let compiled = self.compiled.get_or_init(|| mk8s_cel::compile_pattern(&self.text));
        compiled.as_deref().map_err(String::as_str)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}
