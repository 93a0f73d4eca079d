//! Whether one type may stand for another, and what is learnt of unknown types by it. What is learnt in vain is forgotten.

use std::cell::Cell;
use std::sync::Arc;

use crate::types::Type;

/// What is known of the types that the checker made up.
#[derive(Default)]
pub(super) struct Known {
    of: Vec<Option<Type>>,
    /// What was known before of what was changed, the latest last.
    trail: Vec<(u32, Option<Type>)>,
    /// Types looked at so far: a type can be as large as two to the power of the expression's depth.
    work: Cell<u32>,
}

/// How many types are looked at for one expression.
const MOST_WORK: u32 = 2_000_000;

impl Known {
    /// A type of which nothing is known.
    pub(super) fn fresh(&mut self) -> Type {
        self.of.push(None);
        Type::Var(self.of.len() as u32 - 1)
    }

    /// Whether the expression was too complex to be understood: all answers since then are wrong.
    pub(super) fn is_exhausted(&self) -> bool {
        self.work.get() >= MOST_WORK
    }

    /// Counts one more type; whether that was one too many.
    fn exhausts(&self) -> bool {
        self.work.set((self.work.get() + 1).min(MOST_WORK));
        self.is_exhausted()
    }

    fn find(&self, of: &Type) -> Option<Type> {
        match of {
            Type::Var(number) => self.of[*number as usize].clone(),
            _ => None,
        }
    }

    fn learn(&mut self, var: &Type, of: Type) {
        let Type::Var(number) = var else { return };
        let before = self.of[*number as usize].replace(of);
        self.trail.push((*number, before));
    }

    /// Whether all of `found` may stand for `wanted`; only then is anything learnt.
    pub(super) fn fit_all(&mut self, found: &[Type], wanted: &[Type]) -> bool {
        let mark = self.trail.len();
        debug_assert!(mark == 0, "one attempt at a time");
        let fits = found.len() == wanted.len() && found.iter().zip(wanted).all(|(a, b)| self.unify(a, b));
        if !fits {
            for (number, before) in self.trail.drain(mark..).rev() {
                self.of[number as usize] = before;
            }
        }
        self.trail.clear();
        fits
    }

    pub(super) fn fit(&mut self, a: &Type, b: &Type) -> bool {
        self.fit_all(std::slice::from_ref(a), std::slice::from_ref(b))
    }

    fn unify(&mut self, a: &Type, b: &Type) -> bool {
        if self.exhausts() {
            return false;
        }
        if matches!(b, Type::Var(_)) {
            match self.substitutes(a, b) {
                Substitutes::Yes => return true,
                Substitutes::No { known: true } => return false,
                Substitutes::No { known: false } => {}
            }
        }
        if matches!(a, Type::Var(_)) {
            return matches!(self.substitutes(b, a), Substitutes::Yes);
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => other.is_nullable(),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) => self.unify(a, b),
            (Type::Map(a), Type::Map(b)) => self.unify(&a.0, &b.0) && self.unify(&a.1, &b.1),
            (Type::Opaque(a, of_a), Type::Opaque(b, of_b)) => {
                a == b && of_a.len() == of_b.len() && of_a.iter().zip(&**of_b).all(|(a, b)| self.unify(a, b))
            }
            _ => a == b,
        }
    }

    /// Whether `a` may be what `var` stands for.
    fn substitutes(&mut self, a: &Type, var: &Type) -> Substitutes {
        if a == var {
            return Substitutes::Yes;
        }
        let Some(now) = self.find(var) else {
            if self.occurs(var, a) {
                return Substitutes::No { known: false };
            }
            self.learn(var, a.clone());
            return Substitutes::Yes;
        };
        if *a == now {
            return Substitutes::Yes;
        }
        if !self.unify(a, &now) {
            return Substitutes::No { known: true };
        }
        let general = most_general(a, &now);
        if !self.occurs(var, &general) {
            self.learn(var, general);
        }
        Substitutes::Yes
    }

    /// Whether `var` is a part of `within`: it cannot stand for it then.
    fn occurs(&self, var: &Type, within: &Type) -> bool {
        if self.exhausts() || var == within {
            return true;
        }
        match within {
            Type::Var(_) => self.find(within).is_some_and(|of| self.occurs(var, &of)),
            Type::List(of) | Type::Type(Some(of)) => self.occurs(var, of),
            Type::Map(of) => self.occurs(var, &of.0) || self.occurs(var, &of.1),
            Type::Opaque(_, of) => of.iter().any(|of| self.occurs(var, of)),
            _ => false,
        }
    }

    /// `of` with what is known put in; with `all`, the rest becomes `dyn`.
    pub(super) fn resolve(&self, of: &Type, all: bool) -> Type {
        if self.exhausts() {
            return Type::Dyn;
        }
        match of {
            Type::Var(_) => match self.find(of) {
                Some(known) => self.resolve(&known, all),
                None if all => Type::Dyn,
                None => of.clone(),
            },
            Type::List(item) => Type::list(self.resolve(item, all)),
            Type::Map(entry) => Type::map(self.resolve(&entry.0, all), self.resolve(&entry.1, all)),
            Type::Type(Some(inner)) => Type::Type(Some(Arc::new(self.resolve(inner, all)))),
            Type::Opaque(name, params) => Type::Opaque(
                name.clone(),
                params.iter().map(|param| self.resolve(param, all)).collect(),
            ),
            _ => of.clone(),
        }
    }
}

enum Substitutes {
    Yes,
    No { known: bool },
}

/// The more general of two types that fit.
pub(super) fn most_general(a: &Type, b: &Type) -> Type {
    if is_as_general(a, b) { a.clone() } else { b.clone() }
}

fn is_as_general(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Var(_), _) | (Type::Type(_), Type::Type(_)) => true,
        (_, Type::Dyn | Type::Var(_)) => false,
        (Type::List(a), Type::List(b)) => is_as_general(a, b),
        (Type::Map(a), Type::Map(b)) => is_as_general(&a.0, &b.0) && is_as_general(&a.1, &b.1),
        (Type::Opaque(a, of_a), Type::Opaque(b, of_b)) => {
            a == b && of_a.len() == of_b.len() && of_a.iter().zip(&**of_b).all(|(a, b)| is_as_general(a, b))
        }
        _ => a == b,
    }
}

/// `of` with the parameters of an overload replaced.
pub(super) fn instantiate(of: &Type, params: &[(char, Type)]) -> Type {
    match of {
        Type::Param(name) => params
            .iter()
            .find(|(param, _)| param == name)
            .map_or(Type::Dyn, |(_, of)| of.clone()),
        Type::List(item) => Type::list(instantiate(item, params)),
        Type::Map(entry) => Type::map(instantiate(&entry.0, params), instantiate(&entry.1, params)),
        Type::Type(Some(inner)) => Type::Type(Some(Arc::new(instantiate(inner, params)))),
        Type::Opaque(name, of) => Type::Opaque(name.clone(), of.iter().map(|of| instantiate(of, params)).collect()),
        _ => of.clone(),
    }
}
