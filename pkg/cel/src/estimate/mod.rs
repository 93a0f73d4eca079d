//! What an expression can cost at most, known before it is evaluated: from the sizes that schemas allow.

mod call;
mod range;

pub use range::Range;

use crate::ast::{Element, Entry, Expr, Fold, Kind, Literal, Name};
use crate::decl::Decl;
use crate::env::Env;
use crate::types::Type;

const LIST: u64 = 10;
const MAP: u64 = 30;
const OBJECT: u64 = 40;

/// Estimates what a checked expression costs.
pub(crate) fn cost(expr: &Expr, env: &Env) -> Range {
    Estimator {
        env,
        locals: Vec::new(),
    }
    .estimate(expr)
    .cost
}

/// Where in the declarations something is: nowhere, or beginning at a variable, where it may lead to nothing that is declared.
#[derive(Clone, Copy, Debug)]
enum Path<'e> {
    None,
    At { decl: Option<&'e Decl>, steps: u32 },
}

/// The sizes of what is in a list or a map.
#[derive(Clone, Copy, Debug)]
struct Inside {
    is_list: bool,
    key: Range,
    value: Range,
}

impl Inside {
    fn union(a: Option<Inside>, b: Option<Inside>) -> Option<Inside> {
        let (a, b) = (a?, b?);
        Some(Inside {
            is_list: a.is_list,
            key: a.key.union(b.key),
            value: a.value.union(b.value),
        })
    }
}

/// What is known of a part of an expression.
#[derive(Clone, Copy, Debug)]
struct Estimate<'e> {
    cost: Range,
    path: Path<'e>,
    size: Option<Range>,
    inside: Option<Inside>,
}

impl Estimate<'_> {
    fn size_or_unknown(&self) -> Range {
        self.size.unwrap_or(Range::UNKNOWN)
    }
}

/// A variable of a comprehension.
struct Local<'e> {
    name: &'e Name,
    path: Path<'e>,
    size: Option<Range>,
    inside: Option<Inside>,
}

struct Estimator<'e> {
    env: &'e Env,
    locals: Vec<Local<'e>>,
}

impl<'e> Estimator<'e> {
    fn estimate(&mut self, expr: &'e Expr) -> Estimate<'e> {
        match &expr.kind {
            Kind::Literal(literal) => Estimate {
                cost: Range::exactly(0),
                path: Path::None,
                size: Some(Range::exactly(literal_size(literal))),
                inside: None,
            },
            Kind::Ident(name) => self.ident(expr, name),
            Kind::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Kind::Call(call) => self.call(expr, call),
            Kind::List(elements) => self.list(elements),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { fields, .. } => {
                let cost = fields.iter().fold(Range::exactly(OBJECT), |cost, field| {
                    cost.plus(self.estimate(field).cost)
                });
                Estimate {
                    cost,
                    path: Path::None,
                    size: None,
                    inside: None,
                }
            }
            Kind::Fold(fold) if is_binding(fold) => self.binding(fold),
            Kind::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn list(&mut self, elements: &'e [Element]) -> Estimate<'e> {
        let (mut cost, mut value) = (Range::exactly(LIST), Widest::new());
        for element in elements {
            let estimate = self.estimate(&element.value);
            cost = cost.plus(estimate.cost);
            value.add(estimate.size_or_unknown());
        }
        let inside = Some(Inside {
            is_list: true,
            key: Range::exactly(1),
            value: value.range(),
        });
        let size = Some(Range::exactly(elements.len() as u64));
        Estimate {
            cost,
            path: Path::None,
            size,
            inside,
        }
    }

    fn map(&mut self, entries: &'e [Entry]) -> Estimate<'e> {
        let (mut cost, mut key, mut value) = (Range::exactly(MAP), Widest::new(), Widest::new());
        for entry in entries {
            let (name, held) = (self.estimate(&entry.key), self.estimate(&entry.value));
            cost = cost.plus(name.cost).plus(held.cost);
            key.add(name.size_or_unknown());
            value.add(held.size_or_unknown());
        }
        let inside = Some(Inside {
            is_list: false,
            key: key.range(),
            value: value.range(),
        });
        let size = Some(Range::exactly(entries.len() as u64));
        Estimate {
            cost,
            path: Path::None,
            size,
            inside,
        }
    }

    /// The size of something that is at a path or of a type; the last resort is `known`.
    fn size(&self, path: Path<'e>, of: &Type, known: Option<Range>) -> Option<Range> {
        match path {
            Path::At { decl: Some(decl), .. } => Some(Range {
                min: 0,
                max: decl.max_size,
            }),
            _ if is_scalar(of) => Some(Range::exactly(1)),
            _ => known,
        }
    }

    fn local(&self, name: &str) -> Option<&Local<'e>> {
        self.locals.iter().rev().find(|local| &**local.name == name)
    }

    /// A path begins at what is declared, whatever the variable is called.
    fn ident(&self, expr: &Expr, name: &str) -> Estimate<'e> {
        let cost = Range::exactly(1);
        if let Some(Local { path, size, inside, .. }) = self.local(name) {
            return Estimate {
                cost,
                path: *path,
                size: self.size(*path, &expr.of, *size),
                inside: *inside,
            };
        }
        let path = Path::At {
            decl: self.env.root.as_deref(),
            steps: 1,
        };
        Estimate {
            cost,
            path,
            size: self.size(path, &expr.of, None),
            inside: None,
        }
    }

    /// The path of a part of what is at `path`.
    fn part(&self, path: Path<'e>, step: impl FnOnce(&'e Decl) -> Option<&'e Decl>) -> Path<'e> {
        match path {
            Path::None => Path::At {
                decl: self.env.root.as_deref(),
                steps: 1,
            },
            Path::At { decl, steps } => Path::At {
                decl: decl.and_then(step),
                steps: steps + 1,
            },
        }
    }

    fn items(&self, path: Path<'e>) -> Path<'e> {
        self.part(path, |decl| decl.element().map(|element| &**element))
    }

    fn select(&mut self, expr: &'e Expr, operand: &'e Expr, field: &'e str, test: bool) -> Estimate<'e> {
        let operand_estimate = self.estimate(operand);
        let cost = operand_estimate.cost;
        if test {
            return Estimate {
                cost,
                path: Path::None,
                size: self.size(Path::None, &expr.of, None),
                inside: None,
            };
        }
        let selects = matches!(operand.of, Type::Map(_) | Type::Object(..) | Type::Named(_));
        let cost = if selects { cost.plus(Range::exactly(1)) } else { cost };
        let path = self.part(operand_estimate.path, |decl| decl.field(field).map(|field| &**field));
        Estimate {
            cost,
            path,
            size: self.size(path, &expr.of, None),
            inside: None,
        }
    }

    /// Adds the variable that goes over what `range` estimates: its keys or indexes, or its values or items.
    fn push_iteration(&mut self, name: &'e Name, of: &Expr, range: &Estimate<'e>, first: bool, single: bool) {
        let is_list = range
            .inside
            .map_or(matches!(of.of, Type::List(_)), |inside| inside.is_list);
        let keys = if single { !is_list } else { first };
        let size = range.inside.map(|inside| if keys { inside.key } else { inside.value });
        // Upstream keeps both paths in one array where it has room for one more step: the second then is the first as well.
        let shared = !single && matches!(range.path, Path::At { steps, .. } if !steps.is_power_of_two());
        let path = if !keys || shared {
            self.items(range.path)
        } else {
            // A map's keys are strings of no declared size; indexes are nowhere.
            self.part(range.path, |_| None)
        };
        let size = match (keys && !shared, is_list, range.path) {
            (true, false, Path::At { decl: Some(decl), .. }) if decl.element().is_some() => Some(Range::exactly(0)),
            _ => size,
        };
        self.locals.push(Local {
            name,
            path,
            size,
            inside: None,
        });
    }

    fn fold(&mut self, expr: &'e Expr, fold: &'e Fold) -> Estimate<'e> {
        let range = self.estimate(&fold.range);
        let init = self.estimate(&fold.init);
        let outer = self.locals.len();
        self.locals.push(Local {
            name: &fold.accu,
            path: init.path,
            size: init.size,
            inside: init.inside,
        });
        self.push_iteration(&fold.iter, &fold.range, &range, true, fold.iter2.is_none());
        if let Some(second) = &fold.iter2 {
            self.push_iteration(second, &fold.range, &range, false, false);
        }
        let condition = self.estimate(&fold.condition);
        let step = self.estimate(&fold.step);
        self.locals.truncate(outer + 1);
        let result = self.estimate(&fold.result);
        self.locals.truncate(outer);
        let count = range.size_or_unknown();
        let rounds = count.times(condition.cost.plus(step.cost));
        let (size, inside) = match fold.init.kind {
            Kind::Literal(_) => (init.size, None),
            Kind::List(_) | Kind::Map(_) => (Some(count), step.inside),
            _ => (self.size(Path::None, &expr.of, None), None),
        };
        let cost = range.cost.plus(init.cost).plus(result.cost).plus(rounds);
        Estimate {
            cost,
            path: Path::None,
            size,
            inside,
        }
    }

    fn binding(&mut self, fold: &'e Fold) -> Estimate<'e> {
        let init = self.estimate(&fold.init);
        self.locals.push(Local {
            name: &fold.accu,
            path: init.path,
            size: init.size,
            inside: init.inside,
        });
        let result = self.estimate(&fold.result);
        self.locals.pop();
        let cost = Range::exactly(LIST).plus(init.cost).plus(result.cost);
        Estimate {
            cost,
            path: Path::None,
            size: result.size,
            inside: result.inside,
        }
    }
}

/// Whether a comprehension goes over nothing and only gives a name to something.
fn is_binding(fold: &Fold) -> bool {
    matches!(&fold.range.kind, Kind::List(elements) if elements.is_empty())
        && matches!(fold.condition.kind, Kind::Literal(Literal::Bool(false)))
}

fn literal_size(literal: &Literal) -> u64 {
    match literal {
        Literal::String(text) => text.chars().count() as u64,
        Literal::Bytes(bytes) => bytes.len() as u64,
        _ => 1,
    }
}

fn is_scalar(of: &Type) -> bool {
    matches!(
        of,
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint
    ) || of.unwrapped().is_some_and(is_scalar)
}

/// The range that covers all that was added; zero where nothing was.
struct Widest(Option<Range>);

impl Widest {
    fn new() -> Widest {
        Widest(None)
    }

    fn add(&mut self, range: Range) {
        self.0 = Some(self.0.map_or(range, |has| has.union(range)));
    }

    fn range(&self) -> Range {
        self.0.unwrap_or(Range::exactly(0))
    }
}
