//! Evaluation: of a plan over values, counting what it costs. What it costs is bounded, and with it time and memory.

mod cost;
mod meter;
mod plan;

use std::sync::Arc;

use meter::{Meter, bytes_of};
use plan::{Base, By, Chain, Loop, Node, Selection};

use regex::Regex;

use crate::ast::Expr;
use crate::env::Env;
use crate::value::{Entries, Failure, List, Map, Outcome, Value};
use crate::{json, library};

/// An expression that can be evaluated.
#[derive(Debug)]
pub(crate) struct Plan {
    root: Node,
    slots: usize,
}

impl Plan {
    pub(crate) fn new(expr: &Expr, env: &Env) -> Result<Plan, Failure> {
        let (root, slots) = plan::plan(expr, env)?;
        Ok(Plan { root, slots })
    }

    /// Evaluates with the values of the variables (`None` where one has none), at a cost of `limit` at most. Also what it cost.
    pub(crate) fn evaluate<'a>(
        &self,
        variables: &[Option<Outcome<'a>>],
        names: &Env,
        limit: u64,
    ) -> (Outcome<'a>, u64) {
        let slots = std::iter::repeat_with(|| Slot::Empty).take(self.slots).collect();
        let mut run = Run {
            variables,
            names,
            slots,
            meter: Meter::new(limit),
        };
        let outcome = run.eval(&self.root);
        (outcome, run.meter.cost)
    }
}

/// A variable of a comprehension.
#[derive(Clone)]
enum Slot<'p, 'a> {
    Empty,
    /// Worked out when it is first asked for.
    Later(&'p Node),
    Now(Outcome<'a>),
}

struct Run<'p, 'v, 'a> {
    variables: &'v [Option<Outcome<'a>>],
    names: &'v Env,
    slots: Vec<Slot<'p, 'a>>,
    meter: Meter,
}

impl<'p, 'a> Run<'p, '_, 'a> {
    fn eval(&mut self, node: &'p Node) -> Outcome<'a> {
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Chain(chain) => {
                let outcome = self.chain(chain);
                let conditional = matches!(&chain.base, Base::Node(node) if matches!(**node, Node::If { .. }));
                if !chain.test && !conditional {
                    self.meter.charge(1)?;
                }
                outcome
            }
            Node::If {
                condition,
                truthy,
                falsy,
            } => match self.eval(condition)? {
                Value::Bool(true) => self.branch(truthy),
                Value::Bool(false) => self.branch(falsy),
                _ => Err(Failure::no_overload()),
            },
            Node::Logic { all, terms } => self.logic(*all, terms),
            Node::Equal { terms, negated } => self.equal(terms, *negated),
            Node::Call {
                function,
                overload,
                args,
                regex,
            } => self.call(function, overload, args, regex.as_deref()),
            Node::NotFalse(inner) => {
                let inner = self.eval(inner);
                self.meter.charge(1)?;
                match inner {
                    Err(Failure::Cost) => Err(Failure::Cost),
                    inner => Ok(Value::Bool(!matches!(inner, Ok(Value::Bool(false))))),
                }
            }
            Node::OneOf(inner, values) => {
                let inner = self.eval(inner)?;
                Ok(Value::Bool(values.iter().any(|value| inner.equals(value) == Ok(true))))
            }
            Node::OrElse { first, other, held } => match self.eval(first)? {
                Value::Optional(None) => self.eval(other),
                Value::Optional(Some(value)) if *held => Ok((*value).clone()),
                value => Ok(value),
            },
            Node::List(nodes) => self.list(nodes),
            Node::Map(nodes) => self.map(nodes),
            Node::Fold(fold) => self.fold(fold),
        }
    }

    /// A branch of a condition: what is selected in it costs what the selections cost alone.
    fn branch(&mut self, node: &'p Node) -> Outcome<'a> {
        match node {
            Node::Chain(chain) => self.chain(chain),
            node => self.eval(node).map(plain),
        }
    }

    fn logic(&mut self, all: bool, terms: &'p [Box<Node>; 2]) -> Outcome<'a> {
        let mut failure = None;
        for term in terms {
            match self.eval(term) {
                Ok(Value::Bool(value)) if value != all => return Ok(Value::Bool(value)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failure = failure.or(Some(Failure::no_overload())),
                Err(Failure::Cost) => return Err(Failure::Cost),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(Value::Bool(all)), Err)
    }

    fn equal(&mut self, terms: &'p [Box<Node>; 2], negated: bool) -> Outcome<'a> {
        let [a, b] = terms;
        let args = [self.eval(a), self.eval(b)];
        let (function, overload) = match negated {
            true => ("_!=_", "not_equals"),
            false => ("_==_", "equals"),
        };
        self.meter.afford(function, overload, &args)?;
        let outcome = match &args {
            [Ok(a), Ok(b)] => match a.equals(b) {
                Ok(equal) => Ok(Value::Bool(equal != negated)),
                // What cannot be compared is not equal.
                Err(_) if negated => Ok(Value::Bool(true)),
                Err(error) => Err(error),
            },
            [Err(error), _] | [_, Err(error)] => Err(error.clone()),
        };
        self.meter.charge(cost::call(function, overload, &args, &outcome))?;
        outcome
    }

    fn call(
        &mut self,
        function: &'static str,
        overload: &'static str,
        nodes: &'p [Node],
        regex: Option<&Regex>,
    ) -> Outcome<'a> {
        if matches!(function, "_+_" | "cel.@mapInsert")
            && let [
                Node::Chain(Chain {
                    base: Base::Gathered(slot),
                    selections,
                    ..
                }),
                ..,
            ] = nodes
            && selections.is_empty()
        {
            return self.grow(function, overload, *slot, &nodes[1..]);
        }
        let mut args = Vec::with_capacity(nodes.len());
        for node in nodes {
            args.push(self.eval(node));
            if matches!(args.last(), Some(Err(Failure::Cost))) {
                return Err(Failure::Cost);
            }
            // Of more than two, none is worked out after one that fails; nothing is charged for the call then.
            if (nodes.len() > 2 || regex.is_some())
                && args.len() < nodes.len()
                && let Some(Err(error)) = args.last()
            {
                return Err(error.clone());
            }
        }
        self.meter.afford(function, overload, &args)?;
        let values: Result<Vec<Value<'a>>, Failure> = args.iter().cloned().collect();
        let outcome = values.and_then(|values| match regex {
            None => library::call(function, overload, &values),
            Some(_) => library::worded(function, &values, library::regex::call(function, &values, regex)),
        });
        self.meter.charge(cost::call(function, overload, &args, &outcome))?;
        if let Ok(value) = &outcome {
            self.meter.count(value)?;
        }
        outcome
    }

    /// A list or a map in a slot with something more, without a copy of it.
    fn grow(&mut self, function: &'static str, overload: &'static str, slot: usize, nodes: &'p [Node]) -> Outcome<'a> {
        let mut args = vec![self.slot(slot)];
        self.meter.charge(1)?;
        if let (Err(error), true) = (&args[0], nodes.len() > 1) {
            return Err(error.clone());
        }
        // Nobody can name the slot but the step that is being taken, and its result replaces what was there.
        self.slots[slot] = Slot::Empty;
        for node in nodes {
            args.push(self.eval(node));
            if nodes.len() > 1
                && args.len() <= nodes.len()
                && let Some(Err(error)) = args.last()
            {
                return Err(error.clone());
            }
        }
        let cost = cost::call(function, overload, &args, &Ok(Value::Null));
        if let Some(error) = args.iter().find_map(|arg| arg.as_ref().err()) {
            let error = error.clone();
            if error != Failure::Cost {
                self.meter.charge(cost)?;
            }
            return Err(error);
        }
        let mut values = args.into_iter().flatten();
        let first = values.next().unwrap_or(Value::Null);
        let rest: Vec<Value<'a>> = values.collect();
        let before = bytes_of(&first);
        let outcome = match (first, &rest[..]) {
            (Value::List(list), [Value::List(more)]) => list.concat(more),
            (Value::Map(Map::Entries(mut entries)), [key, value]) => {
                let added = [(key.clone(), value.clone())];
                library::lists::insert_all(Arc::make_mut(&mut entries), added)
                    .map(|()| Value::Map(Map::Entries(entries)))
            }
            (first, rest) => {
                let all: Vec<Value<'a>> = std::iter::once(first).chain(rest.iter().cloned()).collect();
                library::call(function, overload, &all)
            }
        };
        self.meter.charge(cost)?;
        if let Ok(value) = &outcome {
            self.meter.count_bytes(bytes_of(value).saturating_sub(before))?;
        }
        outcome
    }

    fn list(&mut self, nodes: &'p [(Node, bool)]) -> Outcome<'a> {
        let mut values = Vec::with_capacity(nodes.len());
        let mut failure = None;
        for (node, optional) in nodes {
            match self.eval(node) {
                Ok(Value::Optional(held)) if *optional => values.extend(held.map(|value| (*value).clone())),
                Ok(value) if *optional => {
                    failure = Some(Failure::new(format!(
                        "cannot initialize optional list element from non-optional value {value}"
                    )));
                    break;
                }
                Ok(value) => values.push(value),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        if let Some(Failure::Cost) = failure {
            return Err(Failure::Cost);
        }
        self.meter.charge(cost::LIST)?;
        self.meter.count_bytes(size_of_val(&values[..]))?;
        failure.map_or_else(|| Ok(Value::List(List::new(values))), Err)
    }

    fn map(&mut self, nodes: &'p [(Node, Node, bool)]) -> Outcome<'a> {
        let mut entries = Entries::default();
        let built = self.entries(nodes, &mut entries);
        if let Err(Failure::Cost) = built {
            return Err(Failure::Cost);
        }
        self.meter.charge(cost::MAP)?;
        self.meter.count_bytes(entries.bytes())?;
        built.map(|()| Value::Map(Map::new(entries)))
    }

    fn entries(&mut self, nodes: &'p [(Node, Node, bool)], entries: &mut Entries<'a>) -> Result<(), Failure> {
        for (key, value, optional) in nodes {
            let key = self.eval(key)?;
            match self.eval(value)? {
                Value::Optional(Some(value)) if *optional => entries.set(key, (*value).clone()),
                Value::Optional(None) if *optional => entries.remove(&key),
                value if *optional => {
                    let message = format!("cannot initialize optional entry '{key}' from non-optional value {value}");
                    return Err(Failure::new(message));
                }
                value => entries.set(key, value),
            }
        }
        Ok(())
    }

    /// What is in a slot; worked out if it was not yet.
    fn slot(&mut self, slot: usize) -> Outcome<'a> {
        match &self.slots[slot] {
            Slot::Now(outcome) => outcome.clone(),
            Slot::Empty => Err(Failure::no_overload()),
            Slot::Later(node) => {
                let node: &'p Node = node;
                let outcome = self.eval(node);
                self.slots[slot] = Slot::Now(outcome.clone());
                outcome
            }
        }
    }

    fn fold(&mut self, fold: &'p Loop) -> Outcome<'a> {
        let range = self.eval(&fold.range)?;
        self.slots[fold.accu] = Slot::Later(&fold.init);
        match (&range, fold.iter2) {
            (Value::List(list), None) => {
                for item in list.iter() {
                    self.slots[fold.iter] = Slot::Now(item);
                    if !self.step(fold)? {
                        break;
                    }
                }
            }
            (Value::List(list), Some(iter2)) => {
                for (index, item) in (0..).zip(list.iter()) {
                    self.slots[fold.iter] = Slot::Now(Ok(Value::Int(index)));
                    self.slots[iter2] = Slot::Now(item);
                    if !self.step(fold)? {
                        break;
                    }
                }
            }
            (Value::Map(map), iter2) => {
                for key in map.keys() {
                    if let Some(iter2) = iter2 {
                        let value = map.find(&key).and_then(|value| value.ok_or_else(Failure::no_overload));
                        self.slots[iter2] = Slot::Now(value);
                    }
                    self.slots[fold.iter] = Slot::Now(Ok(key));
                    if !self.step(fold)? {
                        break;
                    }
                }
            }
            (other, None) => {
                return Err(Failure::new(format!(
                    "got '{}', expected iterable type",
                    plan::implementation(other)
                )));
            }
            (other, Some(_)) => {
                return Err(Failure::new(format!(
                    "unsupported comprehension range type: {}",
                    plan::implementation(other)
                )));
            }
        }
        self.eval(&fold.result)
    }

    /// One round; whether there may be another.
    fn step(&mut self, fold: &'p Loop) -> Result<bool, Failure> {
        match self.eval(&fold.condition) {
            Ok(Value::Bool(false)) => return Ok(false),
            Err(Failure::Cost) => return Err(Failure::Cost),
            _ => {}
        }
        let stepped = self.eval(&fold.step);
        if let Err(Failure::Cost) = stepped {
            return Err(Failure::Cost);
        }
        self.slots[fold.accu] = Slot::Now(stepped);
        Ok(true)
    }

    fn chain(&mut self, chain: &'p Chain) -> Outcome<'a> {
        let base = match &chain.base {
            Base::Variable(position) => match &self.variables[*position] {
                Some(outcome) => outcome.clone()?,
                None => {
                    let name = &self.names.variables[*position].name;
                    return Err(Failure::new(format!("no such attribute(s): {name}")));
                }
            },
            Base::Slot(slot) | Base::Gathered(slot) => self.slot(*slot)?,
            Base::Node(node) => self.eval(node)?,
        };
        if chain.selections.is_empty() {
            return Ok(plain(base));
        }
        self.selections(chain, base)
    }

    fn selections(&mut self, chain: &'p Chain, base: Value<'a>) -> Outcome<'a> {
        let (mut value, mut optional) = match base {
            Value::Optional(None) if chain.test => return Ok(Value::Bool(false)),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => (json::plain((*value).clone()), true),
            value => (value, false),
        };
        let last = chain.selections.len() - 1;
        for (i, selection) in chain.selections.iter().enumerate() {
            let test = chain.test && i == last;
            optional |= selection.optional;
            let found = self.find(&value, selection, optional || test);
            let observed = test || !optional || matches!(found, Ok(Some(_)));
            if observed && !matches!(found, Err(Failure::Cost)) {
                self.meter.charge(1)?;
            }
            match found? {
                found if test => return Ok(Value::Bool(found.is_some())),
                Some(found) => value = found,
                None => return Ok(Value::Optional(None)),
            }
        }
        Ok(if optional {
            Value::Optional(Some(Arc::new(value)))
        } else {
            value
        })
    }

    /// What a selection finds; nothing is an error unless `lenient`.
    fn find(
        &mut self,
        value: &Value<'a>,
        selection: &'p Selection,
        lenient: bool,
    ) -> Result<Option<Value<'a>>, Failure> {
        let by = match &selection.by {
            By::Const(by) => by.clone(),
            By::Node(node) => self.branch(node)?,
        };
        if !matches!(
            by,
            Value::String(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Bool(_)
        ) {
            return Err(plan::no_selection(&by));
        }
        let (found, missing) = match value {
            Value::Map(map) => (map.find(&by)?, "no such key"),
            Value::List(list) => {
                let index = index(&by)?;
                let item = usize::try_from(index).ok().and_then(|index| list.get(index));
                (item.transpose()?, "index out of bounds")
            }
            _ => (None, "no such key"),
        };
        match found {
            None if !lenient => Err(Failure::new(format!("{missing}: {by}"))),
            found => Ok(found),
        }
    }
}

/// What an optional holds, as it is.
fn plain(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Optional(Some(held)) => Value::Optional(Some(Arc::new(json::plain((*held).clone())))),
        value => value,
    }
}

fn index(by: &Value<'_>) -> Result<i64, Failure> {
    let lossless = |number: f64| number.fract() == 0.0 && number.abs() < 9e15;
    match by {
        Value::Int(index) => Ok(*index),
        Value::Uint(index) if i64::try_from(*index).is_ok() => Ok(*index as i64),
        Value::Double(number) if lossless(*number) => Ok(*number as i64),
        Value::Uint(_) | Value::Double(_) => Err(Failure::new(format!("unsupported index value {by} in list"))),
        _ => Err(Failure::new(format!(
            "unsupported index type '{}' in list",
            by.type_name()
        ))),
    }
}
