//! What callers do with an expression: compile it, learn its type and cost, and evaluate it.

use serde_json::Value as Json;

use crate::ast::{Expr, Kind};
use crate::decl::Decl;
use crate::env::Env;
use crate::estimate::{self, Range};
use crate::eval::Plan;
use crate::types::Type;
use crate::value::{Failure, Outcome, Value};
use crate::{check, digest, json, parse, source};

/// An expression that cannot be: everything that is wrong with it, with the places.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// An expression that is well-typed.
#[derive(Debug)]
pub struct Compiled {
    expr: Expr,
    env: Env,
    /// What it can cost.
    pub cost: Range,
}

/// An expression that can be evaluated, by many at a time.
#[derive(Debug)]
pub struct Program {
    plan: Plan,
    env: Env,
}

impl Env {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with its syntax or its types, as users of the language know it.
    pub fn compile(&self, expression: &str) -> Result<Compiled, Invalid> {
        let invalid = |issues| Invalid(source::display(expression, issues));
        let mut expr = parse::parse(expression, self.binds).map_err(invalid)?;
        check::check(&mut expr, self).map_err(invalid)?;
        let cost = estimate::cost(&expr, self);
        Ok(Compiled {
            expr,
            env: self.clone(),
            cost,
        })
    }
}

impl Compiled {
    /// The type of its value.
    pub fn result(&self) -> &Type {
        &self.expr.of
    }

    /// Whether it speaks of a variable.
    pub fn mentions(&self, variable: &str) -> bool {
        mentions(&self.expr, variable)
    }

    /// Makes it a program; what is constant in it is worked out.
    ///
    /// # Errors
    /// What a constant part of it fails with.
    pub fn program(&self) -> Result<Program, Failure> {
        Ok(Program {
            plan: Plan::new(&self.expr, &self.env)?,
            env: self.env.clone(),
        })
    }
}

fn mentions(expr: &Expr, variable: &str) -> bool {
    let mut found = matches!(&expr.kind, Kind::Ident(name) if &**name == variable);
    expr.for_each_part(&mut |part| found = found || mentions(part, variable));
    found
}

/// The value of a variable.
#[derive(Clone, Copy, Debug)]
pub enum Binding<'a> {
    /// It has none: using it is an error.
    Unset,
    /// JSON and its declaration.
    Declared(&'a Json, &'a Decl),
    /// An optional: JSON, or nothing.
    Optional(Option<(&'a Json, &'a Decl)>),
}

/// What an expression came to.
#[derive(Debug)]
pub struct Evaluation {
    /// What it cost, in the units of [`Compiled::cost`].
    pub cost: u64,
    /// How many items it compared one by one, [`crate::MOST_COMPARED`] at most but for one.
    pub compared: u32,
    pub outcome: Result<Answer, Failure>,
}

/// A value, as far as callers ask for one.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Bool(bool),
    String(String),
    /// Anything else, as it would be written in an expression.
    Other(String),
}

impl Program {
    /// Evaluates with one binding for each variable of the environment, at a cost of `limit` at most.
    pub fn evaluate(&self, bindings: &[Binding<'_>], limit: u64) -> Evaluation {
        let variables: Vec<Option<Outcome<'_>>> = bindings.iter().map(bind).collect();
        let (outcome, cost) = self.plan.evaluate(&variables, &self.env, limit);
        let outcome = outcome.map(|value| match value {
            Value::Bool(value) => Answer::Bool(value),
            Value::String(text) => Answer::String(text.to_string()),
            other => Answer::Other(other.literal()),
        });
        Evaluation {
            cost,
            compared: digest::end(),
            outcome,
        }
    }
}

fn bind<'a>(binding: &Binding<'a>) -> Option<Outcome<'a>> {
    match binding {
        Binding::Unset => None,
        Binding::Declared(value, decl) => Some(json::read(value, decl)),
        Binding::Optional(None) => Some(Ok(Value::Optional(None))),
        Binding::Optional(Some((value, decl))) => {
            Some(json::read(value, decl).map(|value| Value::Optional(Some(std::sync::Arc::new(value)))))
        }
    }
}
