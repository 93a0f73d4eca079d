//! From a checked tree to what is evaluated: names are places, constants are worked out, regular expressions compiled.

use std::sync::Arc;

use regex::Regex;

use crate::ast::{Call, Expr, Fold, Kind, Literal, Name};
use crate::check::runtime_name;
use crate::decl::ListType;
use crate::env::{self, Env};
use crate::functions;
use crate::library::{self, regex as patterns};
use crate::parse::ACCUMULATOR;
use crate::types::Type;
use crate::value::{Entries, Failure, List, Map, Text, Value};

/// What is evaluated.
#[derive(Debug)]
pub(super) enum Node {
    Const(Value<'static>),
    Chain(Chain),
    If {
        condition: Box<Node>,
        truthy: Box<Node>,
        falsy: Box<Node>,
    },
    /// `&&` (true) or `||` (false): ends at the first term that decides.
    Logic {
        all: bool,
        terms: [Box<Node>; 2],
    },
    /// `==` or, negated, `!=`.
    Equal {
        terms: [Box<Node>; 2],
        negated: bool,
    },
    Call {
        function: &'static str,
        overload: &'static str,
        args: Vec<Node>,
        /// The pattern that the expression says.
        regex: Option<Box<Regex>>,
    },
    /// Whether the loop of a quantifier goes on: errors do not end it.
    NotFalse(Box<Node>),
    /// Membership in a list of constants.
    OneOf(Box<Node>, Vec<Value<'static>>),
    /// `or` and, with `held`, `orValue`.
    OrElse {
        first: Box<Node>,
        other: Box<Node>,
        held: bool,
    },
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Fold(Box<Loop>),
}

/// Something and what is selected of it, one after the other.
#[derive(Debug)]
pub(super) struct Chain {
    pub base: Base,
    pub selections: Vec<Selection>,
    /// The last one is only looked for.
    pub test: bool,
}

#[derive(Debug)]
pub(super) enum Base {
    Variable(usize),
    /// A variable of a comprehension.
    Slot(usize),
    /// The slot that a comprehension gathers its result in.
    Gathered(usize),
    Node(Box<Node>),
}

#[derive(Debug)]
pub(super) struct Selection {
    pub by: By,
    pub optional: bool,
}

#[derive(Debug)]
pub(super) enum By {
    Const(Value<'static>),
    Node(Node),
}

/// A comprehension; the variables are slots.
#[derive(Debug)]
pub(super) struct Loop {
    pub range: Node,
    pub iter: usize,
    pub iter2: Option<usize>,
    pub accu: usize,
    pub init: Node,
    pub condition: Node,
    pub step: Node,
    pub result: Node,
}

/// Plans an expression; how many slots it needs.
///
/// # Errors
/// What a constant part of it fails with.
pub(super) fn plan(expr: &Expr, env: &Env) -> Result<(Node, usize), Failure> {
    let mut planner = Planner {
        env,
        scopes: Vec::new(),
        slots: 0,
    };
    let node = planner.plan(expr)?;
    Ok((node, planner.slots))
}

struct Planner<'e> {
    env: &'e Env,
    /// The slots of the variables that are in scope, the innermost last.
    scopes: Vec<(Name, usize)>,
    slots: usize,
}

impl Planner<'_> {
    fn plan(&mut self, expr: &Expr) -> Result<Node, Failure> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(Node::Const(constant(literal))),
            Kind::Ident(name) => self.ident(name),
            Kind::Select { operand, field, test } => {
                let by = By::Const(Value::String(Text::Owned(field.clone())));
                let operand = self.plan(operand)?;
                Ok(select(operand, Selection { by, optional: false }, *test))
            }
            Kind::Call(call) => self.call(expr, call),
            Kind::List(elements) => {
                let nodes: Result<Vec<_>, Failure> = elements
                    .iter()
                    .map(|element| Ok((self.plan(&element.value)?, element.optional)))
                    .collect();
                Ok(list(nodes?))
            }
            Kind::Map(entries) => {
                let nodes: Result<Vec<_>, Failure> = entries
                    .iter()
                    .map(|entry| Ok((self.plan(&entry.key)?, self.plan(&entry.value)?, entry.optional)))
                    .collect();
                Ok(map(nodes?))
            }
            Kind::Struct { name, .. } => Err(Failure::new(format!("unknown type: {name}"))),
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn ident(&self, name: &str) -> Result<Node, Failure> {
        let plain = name.strip_prefix('.').unwrap_or(name);
        let base = match self.scopes.iter().rev().find(|(scoped, _)| &**scoped == plain) {
            Some((_, slot)) if plain == ACCUMULATOR => Base::Gathered(*slot),
            Some((_, slot)) => Base::Slot(*slot),
            None => match self.env.position(plain) {
                Some(position) => Base::Variable(position),
                None => {
                    let of = env::named_type(plain);
                    let of = of.ok_or_else(|| Failure::new(format!("no such attribute(s): {plain}")))?;
                    let named = if matches!(of, Type::List(_) | Type::Map(_)) {
                        plain.into()
                    } else {
                        runtime_name(&of)
                    };
                    return Ok(Node::Const(Value::Type(named.into())));
                }
            },
        };
        Ok(Node::Chain(Chain {
            base,
            selections: Vec::new(),
            test: false,
        }))
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Result<Node, Failure> {
        let target = call.target.as_deref();
        let args = target
            .into_iter()
            .chain(&call.args)
            .map(|arg| self.plan(arg))
            .collect::<Result<Vec<_>, _>>()?;
        let Some(first) = expr.overloads.first() else {
            return Err(Failure::new(format!("no such overload: {}", call.function)));
        };
        let first = functions::overload_at(*first);
        let overload = if expr.overloads.len() == 1 { first.id } else { "" };
        operation(first.function, overload, args)
    }

    fn slot(&mut self) -> usize {
        self.slots += 1;
        self.slots - 1
    }

    fn fold(&mut self, fold: &Fold) -> Result<Node, Failure> {
        let init = self.plan(&fold.init)?;
        let range = self.plan(&fold.range)?;
        let outer = self.scopes.len();
        let accu = self.slot();
        self.scopes.push((fold.accu.clone(), accu));
        let iter = self.slot();
        self.scopes.push((fold.iter.clone(), iter));
        let iter2 = fold.iter2.as_ref().map(|name| {
            let slot = self.slot();
            self.scopes.push((name.clone(), slot));
            slot
        });
        let condition = self.plan(&fold.condition)?;
        let step = self.plan(&fold.step)?;
        self.scopes.truncate(outer + 1);
        let result = self.plan(&fold.result)?;
        self.scopes.truncate(outer);
        Ok(Node::Fold(Box::new(Loop {
            range,
            iter,
            iter2,
            accu,
            init,
            condition,
            step,
            result,
        })))
    }
}

/// What a call becomes.
fn operation(function: &'static str, overload: &'static str, mut args: Vec<Node>) -> Result<Node, Failure> {
    let pair = |args: Vec<Node>| -> Result<[Box<Node>; 2], Failure> {
        let boxed: Vec<Box<Node>> = args.into_iter().map(Box::new).collect();
        boxed.try_into().map_err(|_| Failure::no_overload())
    };
    Ok(match (function, args.len()) {
        ("_&&_" | "_||_", 2) => Node::Logic {
            all: function == "_&&_",
            terms: pair(args)?,
        },
        ("_==_" | "_!=_", 2) => Node::Equal {
            negated: function == "_!=_",
            terms: pair(args)?,
        },
        ("_?_:_", 3) => {
            let [condition, truthy, falsy] = <[Node; 3]>::try_from(args)
                .map_err(|_| Failure::no_overload())?
                .map(Box::new);
            Node::If {
                condition,
                truthy,
                falsy,
            }
        }
        ("_[_]" | "_[?_]" | "_?._", 2) => {
            let by = match args.remove(1) {
                Node::Const(value @ (Value::Null | Value::Bytes(_) | Value::Duration(_) | Value::Timestamp(_))) => {
                    return Err(no_selection(&value));
                }
                Node::Const(value @ (Value::List(_) | Value::Map(_) | Value::Type(_))) => {
                    return Err(no_selection(&value));
                }
                Node::Const(value) => By::Const(value),
                node => By::Node(node),
            };
            select(
                args.remove(0),
                Selection {
                    by,
                    optional: function != "_[_]",
                },
                false,
            )
        }
        ("@not_strictly_false", 1) => Node::NotFalse(Box::new(args.remove(0))),
        ("or" | "orValue", 2) => {
            let [first, other] = pair(args)?;
            Node::OrElse {
                first,
                other,
                held: function == "orValue",
            }
        }
        _ => return optimized(function, overload, args),
    })
}

fn constant(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::String(Text::Owned(text.clone())),
        Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}

/// `operand` with one more selection.
fn select(operand: Node, selection: Selection, test: bool) -> Node {
    match operand {
        Node::Chain(mut chain) if !chain.test => {
            chain.selections.push(selection);
            chain.test = test;
            Node::Chain(chain)
        }
        operand => Node::Chain(Chain {
            base: Base::Node(Box::new(operand)),
            selections: vec![selection],
            test,
        }),
    }
}

fn list(nodes: Vec<(Node, bool)>) -> Node {
    if !nodes
        .iter()
        .all(|(node, optional)| matches!(node, Node::Const(_)) && !optional)
    {
        return Node::List(nodes);
    }
    let values = nodes.into_iter().filter_map(|(node, _)| {
        if let Node::Const(value) = node {
            Some(value)
        } else {
            None
        }
    });
    Node::Const(Value::List(List::new(values.collect())))
}

fn map(nodes: Vec<(Node, Node, bool)>) -> Node {
    let is_constant = |(key, value, optional): &(Node, Node, bool)| {
        matches!((key, value), (Node::Const(_), Node::Const(_))) && !optional
    };
    if !nodes.iter().all(is_constant) {
        return Node::Map(nodes);
    }
    let mut entries = Entries::default();
    for node in nodes {
        if let (Node::Const(key), Node::Const(value), _) = node {
            entries.set(key, value);
        }
    }
    Node::Const(Value::Map(Map::new(entries)))
}

/// A call, or what it comes to already.
fn optimized(function: &'static str, overload: &'static str, mut args: Vec<Node>) -> Result<Node, Failure> {
    const CONVERSIONS: [&str; 10] = [
        "bool",
        "bytes",
        "double",
        "duration",
        "dyn",
        "int",
        "string",
        "timestamp",
        "type",
        "uint",
    ];
    match &args[..] {
        [Node::Const(value)] if CONVERSIONS.contains(&function) => {
            return Ok(Node::Const(library::call(
                function,
                overload,
                std::slice::from_ref(value),
            )?));
        }
        [_, Node::Const(Value::List(list))] if overload == "in_list" => {
            let values = list.values()?;
            if values.is_empty() {
                return Ok(Node::Const(Value::Bool(false)));
            }
            use Value::{Bool, Double, Int, String, Uint};
            if values
                .iter()
                .all(|value| matches!(value, Bool(_) | Int(_) | Uint(_) | Double(_) | String(_)))
            {
                return Ok(Node::OneOf(Box::new(args.remove(0)), values));
            }
        }
        [_, Node::Const(Value::String(pattern)), ..] if matches!(function, "matches" | "find" | "findAll") => {
            let regex = patterns::compile_pattern(pattern).map_err(|error| Failure::Error(Arc::from(error)))?;
            return Ok(Node::Call {
                function,
                overload,
                args,
                regex: Some(Box::new(regex)),
            });
        }
        _ => {}
    }
    Ok(Node::Call {
        function,
        overload,
        args,
        regex: None,
    })
}

/// What the type of a value is called where a few errors come from.
pub(super) fn implementation(value: &Value<'_>) -> &'static str {
    match value {
        Value::Null => "types.Null",
        Value::Bool(_) => "types.Bool",
        Value::Int(_) => "types.Int",
        Value::Uint(_) => "types.Uint",
        Value::Double(_) => "types.Double",
        Value::String(_) => "types.String",
        Value::Bytes(_) => "types.Bytes",
        Value::Duration(_) => "types.Duration",
        Value::Timestamp(_) => "types.Timestamp",
        Value::Type(_) => "*types.Type",
        Value::Optional(_) => "*types.Optional",
        Value::Ip(_) => "cel.IP",
        Value::Cidr(..) => "cel.CIDR",
        Value::Quantity(_) => "cel.Quantity",
        Value::Url(_) => "cel.URL",
        Value::Semver(_) => "cel.Semver",
        Value::Format(_) => "cel.Format",
        Value::List(List { declared: None, .. }) => "*types.baseList",
        Value::List(list) => match list.list_type() {
            Some(ListType::Map(_)) => "*common.unstructuredMapList",
            Some(ListType::Set) => "*common.unstructuredSetList",
            _ => "*common.unstructuredList",
        },
        Value::Map(map) if map.is_declared() => "*common.unstructuredMap",
        Value::Map(_) => "*types.baseMap",
        Value::Unknown(_) => "*common.unknownPreserved",
    }
}

/// What cannot be selected by.
pub(super) fn no_selection(by: &Value<'_>) -> Failure {
    Failure::new(format!("invalid qualifier type: {}", implementation(by)))
}
