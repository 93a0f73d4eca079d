//! The checker: what type each part of an expression has, which overloads fit each call, and what is wrong, before anything is
//! evaluated. Its messages are those that users of the language know.

mod literals;
mod unify;

use std::sync::Arc;

pub(crate) use literals::runtime_name;
use unify::Known;

use crate::ast::{Call, Expr, Fold, Kind, Literal, Name};
use crate::env::{self, Env};
use crate::functions;
use crate::source::Issue;
use crate::types::{Signature, Type};

/// Checks an expression and writes types and overloads into it.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn check(expr: &mut Expr, env: &Env) -> Result<(), Vec<Issue>> {
    let mut checker = Checker {
        env,
        scopes: Vec::new(),
        known: Known::default(),
        issues: Vec::new(),
    };
    checker.check(expr);
    resolve(expr, &checker.known);
    if checker.known.is_exhausted() {
        return Err(vec![Issue {
            at: None,
            message: "expression is too complex to be checked".into(),
        }]);
    }
    if checker.issues.is_empty() {
        literals::check(expr, &mut checker.issues);
    }
    if checker.issues.is_empty() {
        Ok(())
    } else {
        Err(checker.issues)
    }
}

fn resolve(expr: &mut Expr, known: &Known) {
    expr.of = known.resolve(&expr.of, true);
    expr.for_each_part_mut(&mut |part| resolve(part, known));
}

struct Checker<'e> {
    env: &'e Env,
    /// Variables of comprehensions, the innermost last.
    scopes: Vec<(Name, Type)>,
    known: Known,
    issues: Vec<Issue>,
}

impl Checker<'_> {
    fn report(&mut self, at: u32, message: String) {
        self.issues.push(Issue::at(at, message));
    }

    fn undeclared(&mut self, at: u32, name: &str) {
        self.report(at, format!("undeclared reference to '{name}' (in container '')"));
    }

    fn mismatch(&mut self, at: u32, expected: &Type, found: &Type) {
        self.report(at, format!("expected type '{expected}' but found '{found}'"));
    }

    fn known_now(&self, of: &Type) -> Type {
        self.known.resolve(of, false)
    }

    fn check(&mut self, expr: &mut Expr) {
        let at = expr.at;
        expr.of = match &mut expr.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(name) => self.lookup(name).unwrap_or_else(|| {
                self.undeclared(at, name);
                Type::Error
            }),
            Kind::Select { .. } => {
                self.select(expr);
                return;
            }
            Kind::Call(call) => {
                let (of, overloads) = self.call(at, call);
                expr.overloads = overloads;
                of
            }
            Kind::List(elements) => {
                let mut joined = None;
                for element in elements {
                    self.check(&mut element.value);
                    let of = self.present(&element.value, element.optional);
                    joined = Some(self.join(joined, of));
                }
                Type::list(joined.unwrap_or_else(|| self.known.fresh()))
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for entry in entries {
                    self.check(&mut entry.key);
                    keys = Some(self.join(keys, entry.key.of.clone()));
                    self.check(&mut entry.value);
                    let of = self.present(&entry.value, entry.optional);
                    values = Some(self.join(values, of));
                }
                let key = keys.unwrap_or_else(|| self.known.fresh());
                Type::map(key, values.unwrap_or_else(|| self.known.fresh()))
            }
            Kind::Struct { name, .. } => {
                self.undeclared(at, name);
                Type::Error
            }
            Kind::Fold(fold) => self.fold(fold),
        };
    }

    /// The type of a variable, or the type of a type.
    fn lookup(&self, name: &str) -> Option<Type> {
        let plain = name.strip_prefix('.').unwrap_or(name);
        if let Some((_, of)) = self.scopes.iter().rev().find(|(scoped, _)| &**scoped == plain) {
            return Some(of.clone());
        }
        if let Some(variable) = self.env.position(plain) {
            return Some(self.env.variables[variable].of.clone());
        }
        env::named_type(plain).map(|of| Type::Type(Some(Arc::new(of))))
    }

    /// What an element is; of an optional one, what it holds.
    fn present(&mut self, value: &Expr, optional: bool) -> Type {
        if !optional {
            return value.of.clone();
        }
        let of = self.known_now(&value.of);
        match of.unwrapped() {
            Some(inner) => inner.clone(),
            None => {
                if !matches!(of, Type::Dyn) {
                    self.mismatch(value.at, &Type::optional(of.clone()), &of);
                }
                of
            }
        }
    }

    /// The type of elements of two types: anything where they do not fit.
    fn join(&mut self, before: Option<Type>, of: Type) -> Type {
        match before {
            None => of,
            Some(before) if self.known.fit(&before, &of) => unify::most_general(&before, &of),
            Some(_) => Type::Dyn,
        }
    }

    fn select(&mut self, expr: &mut Expr) {
        if let Some(name) = expr.qualified_name()
            && let Some(of) = self.lookup(&name)
        {
            expr.of = of;
            expr.kind = Kind::Ident(name.into());
            return;
        }
        let at = expr.at;
        let Kind::Select { operand, field, test } = &mut expr.kind else {
            return;
        };
        let (field, test) = (field.clone(), *test);
        self.check(operand);
        let of = self.field(at, &operand.of, &field, false);
        expr.of = if test { Type::Bool } else { of };
    }

    /// The type of a field of something; of an optional, an optional.
    fn field(&mut self, at: u32, operand: &Type, field: &str, optional: bool) -> Type {
        let operand = self.known_now(operand);
        let (target, is_optional) = match operand.unwrapped() {
            Some(inner) => (inner.clone(), true),
            None => (operand.clone(), false),
        };
        let of = match &target {
            Type::Map(entry) => entry.1.clone(),
            Type::Object(name, decl) => decl.field_type(name, field).unwrap_or_else(|| {
                self.report(at, format!("undefined field '{field}'"));
                Type::Error
            }),
            Type::Named(name) => {
                self.report(at, format!("unexpected failed resolution of '{name}'"));
                Type::Error
            }
            Type::Var(_) => {
                self.known.fit(&Type::Dyn, &target);
                Type::Dyn
            }
            _ => {
                if !target.is_dyn_or_error() {
                    self.report(at, format!("type '{target}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        let of = if is_optional || optional {
            Type::optional(of)
        } else {
            of
        };
        self.known_now(&of)
    }

    fn call(&mut self, at: u32, call: &mut Call) -> (Type, Vec<u16>) {
        if &*call.function == "_?._"
            && let [
                operand,
                Expr {
                    kind: Kind::Literal(Literal::String(field)),
                    ..
                },
            ] = &mut call.args[..]
        {
            let field = field.clone();
            self.check(operand);
            let of = self.field(at, &operand.of, &field, true);
            let overloads = functions::overloads("_?._")
                .into_iter()
                .flatten()
                .map(|(number, _)| number)
                .collect();
            return (of, overloads);
        }
        call.args.iter_mut().for_each(|arg| self.check(arg));
        if let Some(target) = &call.target {
            let qualified = target
                .qualified_name()
                .map(|prefix| format!("{prefix}.{}", call.function));
            if let Some(name) = qualified.filter(|name| functions::overloads(name).is_some()) {
                call.function = name.into();
                call.target = None;
            }
        }
        if let Some(target) = &mut call.target {
            self.check(target);
        }
        let plain = call.function.strip_prefix('.').map(Name::from);
        if let Some(plain) = plain.filter(|plain| functions::overloads(plain).is_some()) {
            call.function = plain;
        }
        if functions::overloads(&call.function).is_none() {
            self.undeclared(at, &call.function);
            return (Type::Error, Vec::new());
        }
        self.overloads(at, call).unwrap_or((Type::Error, Vec::new()))
    }

    /// All overloads that fit a call, and the type of what it returns: that of the first, or anything where they differ.
    fn overloads(&mut self, at: u32, call: &Call) -> Option<(Type, Vec<u16>)> {
        let args: Vec<Type> = call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .map(|arg| arg.of.clone())
            .collect();
        let is_member = call.target.is_some();
        let (mut result, mut fitting): (Option<Type>, Vec<u16>) = (None, Vec::new());
        for (number, overload) in functions::overloads(&call.function)? {
            if overload.member != is_member {
                continue;
            }
            if matches!(overload.function, "_&&_" | "_||_") {
                return self.all_bool(&call.args).then(|| (Type::Bool, vec![number]));
            }
            let params: Vec<(char, Type)> = overload
                .params
                .iter()
                .map(|param| (*param, self.known.fresh()))
                .collect();
            let wanted: Vec<Type> = overload
                .args
                .iter()
                .map(|arg| unify::instantiate(arg, &params))
                .collect();
            if !self.known.fit_all(&args, &wanted) {
                continue;
            }
            fitting.push(number);
            let of = self.known_now(&unify::instantiate(&overload.result, &params));
            match &result {
                None => result = Some(of),
                Some(before) if !matches!(before, Type::Dyn) && *before != of => result = Some(Type::Dyn),
                Some(_) => {}
            }
        }
        if result.is_none() {
            let args: Vec<Type> = args.iter().map(|arg| self.known.resolve(arg, true)).collect();
            let target = if is_member {
                format!("{}.", args[0])
            } else {
                String::new()
            };
            let signature = format!("{target}({})", Signature(&args[usize::from(is_member)..]));
            self.report(
                at,
                format!(
                    "found no matching overload for '{}' applied to '{signature}'",
                    call.function
                ),
            );
        }
        result.map(|of| (of, fitting))
    }

    fn all_bool(&mut self, args: &[Expr]) -> bool {
        let before = self.issues.len();
        for arg in args {
            if !self.known.fit(&arg.of, &Type::Bool) {
                self.mismatch(arg.at, &Type::Bool, &self.known_now(&arg.of));
            }
        }
        self.issues.len() == before
    }

    fn fold(&mut self, fold: &mut Fold) -> Type {
        self.check(&mut fold.range);
        self.check(&mut fold.init);
        let range = self.known_now(&fold.range.of);
        let accu = fold.init.of.clone();
        self.scopes.push((fold.accu.clone(), accu.clone()));
        let (first, second) = match &range {
            Type::List(item) if fold.iter2.is_some() => (Type::Int, (**item).clone()),
            Type::List(item) => ((**item).clone(), Type::Dyn),
            Type::Map(entry) => (entry.0.clone(), entry.1.clone()),
            Type::Dyn | Type::Error | Type::Var(_) => {
                self.known.fit(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            _ => {
                let message = format!(
                    "expression of type '{range}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.report(fold.range.at, message);
                (Type::Error, Type::Error)
            }
        };
        let outer = self.scopes.len();
        self.scopes.push((fold.iter.clone(), first));
        if let Some(name) = &fold.iter2 {
            self.scopes.push((name.clone(), second));
        }
        self.check(&mut fold.condition);
        self.require(&Type::Bool, &fold.condition);
        self.check(&mut fold.step);
        self.require(&accu, &fold.step);
        self.scopes.truncate(outer);
        self.check(&mut fold.result);
        self.scopes.pop();
        self.known_now(&fold.result.of)
    }

    fn require(&mut self, wanted: &Type, found: &Expr) {
        if !self.known.fit(wanted, &found.of) {
            let (wanted, of) = (self.known_now(wanted), self.known_now(&found.of));
            self.mismatch(found.at, &wanted, &of);
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
