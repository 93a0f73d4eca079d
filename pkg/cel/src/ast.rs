//! An expression as a tree: what the parser makes (macros are expanded already), and what the checker writes its types into.

use std::sync::Arc;

use crate::types::Type;

/// A name in an expression.
pub(crate) type Name = Arc<str>;

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    /// The place in code points from the start.
    pub at: u32,
    pub kind: Kind,
    /// What the checker found; `Dyn` before.
    pub of: Type,
    /// The overloads that fit a call, as indexes into the table of functions; set by the checker.
    pub overloads: Vec<u16>,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Literal(Literal),
    Ident(Name),
    /// `operand.field`, or `has(operand.field)`.
    Select {
        operand: Box<Expr>,
        field: Name,
        test: bool,
    },
    Call(Call),
    List(Vec<Element>),
    Map(Vec<Entry>),
    /// `Name{…}`: no environment of ours has such types, and the checker says so.
    Struct {
        name: Name,
        fields: Vec<Expr>,
    },
    Fold(Box<Fold>),
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub target: Option<Box<Expr>>,
    pub function: Name,
    pub args: Vec<Expr>,
}

#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub value: Expr,
    /// `?value`: left out where the optional is empty.
    pub optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

/// A comprehension: what `all`, `map`, `sortBy` and the others are made of.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub range: Expr,
    pub iter: Name,
    /// The second variable: the value beside an index or a key.
    pub iter2: Option<Name>,
    pub accu: Name,
    pub init: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

impl Expr {
    pub(crate) fn new(at: u32, kind: Kind) -> Expr {
        Expr {
            at,
            kind,
            of: Type::Dyn,
            overloads: Vec::new(),
        }
    }

    pub(crate) fn literal(at: u32, literal: Literal) -> Expr {
        Expr::new(at, Kind::Literal(literal))
    }

    pub(crate) fn ident(at: u32, name: &str) -> Expr {
        Expr::new(at, Kind::Ident(name.into()))
    }

    pub(crate) fn call(at: u32, function: &str, args: Vec<Expr>) -> Expr {
        Expr::new(
            at,
            Kind::Call(Call {
                target: None,
                function: function.into(),
                args,
            }),
        )
    }

    pub(crate) fn member(at: u32, target: Expr, function: &str, args: Vec<Expr>) -> Expr {
        Expr::new(
            at,
            Kind::Call(Call {
                target: Some(Box::new(target)),
                function: function.into(),
                args,
            }),
        )
    }

    pub(crate) fn list(at: u32, values: Vec<Expr>) -> Expr {
        Expr::new(
            at,
            Kind::List(
                values
                    .into_iter()
                    .map(|value| Element { value, optional: false })
                    .collect(),
            ),
        )
    }

    /// `a.b.c` as one name, where it can be one.
    pub(crate) fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select {
                operand,
                field,
                test: false,
            } => Some(format!("{}.{field}", operand.qualified_name()?)),
            _ => None,
        }
    }

    /// Calls `visit` with each part of this node.
    pub(crate) fn for_each_part<'e>(&'e self, visit: &mut dyn FnMut(&'e Expr)) {
        match &self.kind {
            Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => visit(operand),
            Kind::Call(call) => call.target.as_deref().into_iter().chain(&call.args).for_each(visit),
            Kind::List(elements) => elements.iter().for_each(|element| visit(&element.value)),
            Kind::Map(entries) => entries.iter().for_each(|entry| {
                visit(&entry.key);
                visit(&entry.value);
            }),
            Kind::Struct { fields, .. } => fields.iter().for_each(visit),
            Kind::Fold(fold) => {
                [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result]
                    .into_iter()
                    .for_each(visit);
            }
        }
    }

    /// The same, to change them.
    pub(crate) fn for_each_part_mut(&mut self, visit: &mut dyn FnMut(&mut Expr)) {
        match &mut self.kind {
            Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => visit(operand),
            Kind::Call(call) => call
                .target
                .as_deref_mut()
                .into_iter()
                .chain(&mut call.args)
                .for_each(visit),
            Kind::List(elements) => elements.iter_mut().for_each(|element| visit(&mut element.value)),
            Kind::Map(entries) => entries.iter_mut().for_each(|entry| {
                visit(&mut entry.key);
                visit(&mut entry.value);
            }),
            Kind::Struct { fields, .. } => fields.iter_mut().for_each(visit),
            Kind::Fold(fold) => {
                let Fold {
                    range,
                    init,
                    condition,
                    step,
                    result,
                    ..
                } = &mut **fold;
                [range, init, condition, step, result].into_iter().for_each(visit);
            }
        }
    }
}
