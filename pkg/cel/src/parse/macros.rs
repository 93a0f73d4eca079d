//! Macros: calls that the parser turns into comprehensions, presence tests and conditions. Which there are is a table.

use crate::ast::{Expr, Fold, Kind, Literal, Name};
use crate::source::Issue;

/// The variable that a comprehension gathers its result in; nobody can write its name.
pub(crate) const ACCUMULATOR: &str = "@result";
const VISIBLE_ACCUMULATOR: &str = "__result__";
/// The iteration variable of a comprehension that only binds a name.
const UNUSED: &str = "#unused";

/// How many nodes the macros of one expression may copy: each `optMap` doubles what it is called on.
const MOST_COPIED: usize = 50_000;

type Expand = fn(u32, Expr, Vec<Expr>) -> Result<Expr, Issue>;

/// Macros with a receiver: name, number of arguments, what it does.
const MACROS: [(&str, usize, Expand); 19] = [
    ("all", 2, |at, range, args| quantifier(at, range, args, All)),
    ("all", 3, |at, range, args| quantifier(at, range, args, All)),
    ("exists", 2, |at, range, args| quantifier(at, range, args, Exists)),
    ("exists", 3, |at, range, args| quantifier(at, range, args, Exists)),
    ("exists_one", 2, |at, range, args| {
        quantifier(at, range, args, ExistsOne)
    }),
    ("exists_one", 3, |at, range, args| {
        quantifier(at, range, args, ExistsOne)
    }),
    ("existsOne", 3, |at, range, args| quantifier(at, range, args, ExistsOne)),
    ("map", 2, map),
    ("map", 3, map),
    ("filter", 2, filter),
    ("transformList", 3, transform_list),
    ("transformList", 4, transform_list),
    ("transformMap", 3, transform_map),
    ("transformMap", 4, transform_map),
    ("transformMapEntry", 3, transform_map_entry),
    ("transformMapEntry", 4, transform_map_entry),
    ("optMap", 2, |at, target, args| optional_map(at, target, args, "optMap")),
    ("optFlatMap", 2, |at, target, args| {
        optional_map(at, target, args, "optFlatMap")
    }),
    ("sortBy", 2, sort_by),
];

#[derive(Clone, Copy)]
enum Quantifier {
    All,
    Exists,
    ExistsOne,
}
use Quantifier::{All, Exists, ExistsOne};

/// The call, or what the macro of this name makes of it; `copied` counts what was copied for it.
pub(super) fn expand(
    at: u32,
    function: &str,
    target: Option<Expr>,
    mut args: Vec<Expr>,
    copied: &mut usize,
) -> Result<Expr, Issue> {
    let Some(target) = target else {
        return if function == "has" && args.len() == 1 {
            has(at, args.remove(0))
        } else {
            Ok(Expr::call(at, function, args))
        };
    };
    if matches!(function, "optMap" | "optFlatMap") {
        *copied += size(&target);
        if *copied > MOST_COPIED {
            return Err(Issue::at(at, "expression is too large when its macros are expanded"));
        }
    }
    match MACROS
        .iter()
        .find(|(name, count, _)| *name == function && *count == args.len())
    {
        Some((_, _, expand)) => expand(at, target, args),
        None => Ok(Expr::member(at, target, function, args)),
    }
}

fn size(expr: &Expr) -> usize {
    let mut nodes = 1;
    expr.for_each_part(&mut |part| nodes += size(part));
    nodes
}

fn has(at: u32, arg: Expr) -> Result<Expr, Issue> {
    match arg.kind {
        Kind::Select { operand, field, .. } => Ok(Expr::new(
            at,
            Kind::Select {
                operand,
                field,
                test: true,
            },
        )),
        _ => Err(Issue::at(arg.at, "invalid argument to has() macro")),
    }
}

fn accumulator(at: u32) -> Expr {
    Expr::ident(at, ACCUMULATOR)
}

fn truth(at: u32, value: bool) -> Expr {
    Expr::literal(at, Literal::Bool(value))
}

/// The name of an iteration variable, or `complaint` at its place.
fn variable(arg: &Expr, complaint: &str) -> Result<Name, Issue> {
    let Kind::Ident(name) = &arg.kind else {
        return Err(Issue::at(arg.at, complaint));
    };
    Ok(name.clone())
}

fn not_accumulator(arg: &Expr, name: &Name) -> Result<(), Issue> {
    if matches!(&**name, ACCUMULATOR | VISIBLE_ACCUMULATOR) {
        return Err(Issue::at(arg.at, "iteration variable overwrites accumulator variable"));
    }
    Ok(())
}

const SIMPLE: &str = "argument must be a simple name";

/// One or two iteration variables.
type Variables = (Name, Option<Name>);

/// The one or two variables before the last `rest` arguments, which are left in `args`.
fn variables(args: &mut Vec<Expr>, rest: usize, complaint: &str) -> Result<Variables, Issue> {
    let vars: Vec<Expr> = args.drain(..args.len() - rest).collect();
    let first = variable(&vars[0], complaint)?;
    let second = vars.get(1).map(|arg| variable(arg, SIMPLE)).transpose()?;
    if let Some(second) = &second
        && *second == first
    {
        return Err(Issue::at(vars[1].at, format!("duplicate variable name: {first}")));
    }
    not_accumulator(&vars[0], &first)?;
    if let Some(second) = &second {
        not_accumulator(&vars[1], second)?;
    }
    Ok((first, second))
}

/// A comprehension over `range` that begins with `init`.
struct Comprehension {
    at: u32,
    range: Expr,
    vars: Variables,
    init: Expr,
    condition: Expr,
    step: Expr,
    result: Expr,
}

impl Comprehension {
    fn expr(self) -> Expr {
        let Comprehension {
            at,
            range,
            vars: (iter, iter2),
            init,
            condition,
            step,
            result,
        } = self;
        let accu = ACCUMULATOR.into();
        Expr::new(
            at,
            Kind::Fold(Box::new(Fold {
                range,
                iter,
                iter2,
                accu,
                init,
                condition,
                step,
                result,
            })),
        )
    }
}

fn quantifier(at: u32, range: Expr, mut args: Vec<Expr>, kind: Quantifier) -> Result<Expr, Issue> {
    let vars = variables(&mut args, 1, SIMPLE)?;
    let predicate = args.remove(0);
    let one = || Expr::literal(at, Literal::Int(1));
    let call = |function: &str, args: Vec<Expr>| Expr::call(at, function, args);
    let unless = |expr: Expr| call("@not_strictly_false", vec![expr]);
    let (init, condition, step, result) = match kind {
        All => (
            truth(at, true),
            unless(accumulator(at)),
            call("_&&_", vec![accumulator(at), predicate]),
            accumulator(at),
        ),
        Exists => (
            truth(at, false),
            unless(call("!_", vec![accumulator(at)])),
            call("_||_", vec![accumulator(at), predicate]),
            accumulator(at),
        ),
        ExistsOne => {
            let more = call("_+_", vec![accumulator(at), one()]);
            (
                Expr::literal(at, Literal::Int(0)),
                truth(at, true),
                call("_?_:_", vec![predicate, more, accumulator(at)]),
                call("_==_", vec![accumulator(at), one()]),
            )
        }
    };
    Ok(Comprehension {
        at,
        range,
        vars,
        init,
        condition,
        step,
        result,
    }
    .expr())
}

/// A comprehension that gathers: each element that passes `filter` changes what is gathered by `step`.
fn gathering(at: u32, range: Expr, vars: Variables, init: Expr, filter: Option<Expr>, step: Expr) -> Expr {
    let step = match filter {
        Some(filter) => Expr::call(at, "_?_:_", vec![filter, step, accumulator(at)]),
        None => step,
    };
    Comprehension {
        at,
        range,
        vars,
        init,
        condition: truth(at, true),
        step,
        result: accumulator(at),
    }
    .expr()
}

fn appending(at: u32, element: Expr) -> Expr {
    Expr::call(at, "_+_", vec![accumulator(at), Expr::list(at, vec![element])])
}

fn map(at: u32, range: Expr, mut args: Vec<Expr>) -> Result<Expr, Issue> {
    let rest = args.len() - 1;
    let vars = variables(&mut args, rest, "argument is not an identifier")?;
    let filter = (args.len() == 2).then(|| args.remove(0));
    let step = appending(at, args.remove(0));
    Ok(gathering(at, range, vars, Expr::list(at, vec![]), filter, step))
}

fn filter(at: u32, range: Expr, mut args: Vec<Expr>) -> Result<Expr, Issue> {
    let variable = args[0].clone();
    let vars = variables(&mut args, 1, "argument is not an identifier")?;
    let step = appending(at, variable);
    Ok(gathering(
        at,
        range,
        vars,
        Expr::list(at, vec![]),
        Some(args.remove(0)),
        step,
    ))
}

/// The variables, filter and transformation of a macro with two variables.
fn two_variables(mut args: Vec<Expr>) -> Result<(Variables, Option<Expr>, Expr), Issue> {
    let rest = args.len() - 2;
    let vars = variables(&mut args, rest, SIMPLE)?;
    let filter = (args.len() == 2).then(|| args.remove(0));
    Ok((vars, filter, args.remove(0)))
}

fn transform_list(at: u32, range: Expr, args: Vec<Expr>) -> Result<Expr, Issue> {
    let (vars, filter, transform) = two_variables(args)?;
    Ok(gathering(
        at,
        range,
        vars,
        Expr::list(at, vec![]),
        filter,
        appending(at, transform),
    ))
}

fn transform_map(at: u32, range: Expr, args: Vec<Expr>) -> Result<Expr, Issue> {
    let (vars, filter, transform) = two_variables(args)?;
    let step = Expr::call(
        at,
        "cel.@mapInsert",
        vec![accumulator(at), Expr::ident(at, &vars.0), transform],
    );
    Ok(gathering(
        at,
        range,
        vars,
        Expr::new(at, Kind::Map(vec![])),
        filter,
        step,
    ))
}

fn transform_map_entry(at: u32, range: Expr, args: Vec<Expr>) -> Result<Expr, Issue> {
    let (vars, filter, transform) = two_variables(args)?;
    let step = Expr::call(at, "cel.@mapInsert", vec![accumulator(at), transform]);
    Ok(gathering(
        at,
        range,
        vars,
        Expr::new(at, Kind::Map(vec![])),
        filter,
        step,
    ))
}

/// A comprehension over nothing: `result` with `name` bound to `init`, which is worked out when it is first needed.
fn binding(at: u32, name: Name, init: Expr, result: Expr) -> Expr {
    let step = Expr::ident(at, &name);
    let (range, condition) = (Expr::list(at, vec![]), truth(at, false));
    let fold = Fold {
        range,
        iter: UNUSED.into(),
        iter2: None,
        accu: name,
        init,
        condition,
        step,
        result,
    };
    Expr::new(at, Kind::Fold(Box::new(fold)))
}

/// Whether a call is `cel.bind(name, value, expression)`.
pub(super) fn binds(namespace: &Expr, function: &str, args: &[Expr]) -> bool {
    function == "bind" && args.len() == 3 && matches!(&namespace.kind, Kind::Ident(name) if &**name == "cel")
}

/// What such a call is.
pub(super) fn bind(at: u32, args: Vec<Expr>) -> Result<Expr, Issue> {
    let mut args = args.into_iter();
    let (Some(name), Some(init), Some(result)) = (args.next(), args.next(), args.next()) else {
        return Err(Issue::at(at, "cel.bind() has three arguments"));
    };
    let name = variable(&name, "cel.bind() variable names must be simple identifiers")?;
    Ok(binding(at, name, init, result))
}

fn optional_map(at: u32, target: Expr, mut args: Vec<Expr>, function: &str) -> Result<Expr, Issue> {
    let name = variable(
        &args[0],
        &format!("{function}() variable name must be a simple identifier"),
    )?;
    let value = Expr::member(at, target.clone(), "value", vec![]);
    let mapped = binding(at, name, value, args.remove(1));
    let mapped = if function == "optMap" {
        Expr::call(at, "optional.of", vec![mapped])
    } else {
        mapped
    };
    let present = Expr::member(at, target, "hasValue", vec![]);
    Ok(Expr::call(
        at,
        "_?_:_",
        vec![present, mapped, Expr::call(at, "optional.none", vec![])],
    ))
}

fn sort_by(at: u32, target: Expr, args: Vec<Expr>) -> Result<Expr, Issue> {
    const INPUT: &str = "@__sortBy_input__";
    if matches!(target.kind, Kind::Literal(_) | Kind::Map(_) | Kind::Struct { .. }) {
        let message = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
        return Err(Issue::at(target.at, message));
    }
    let keys = map(at, Expr::ident(at, INPUT), args)?;
    let sorted = Expr::member(at, Expr::ident(at, INPUT), "@sortByAssociatedKeys", vec![keys]);
    Ok(binding(at, INPUT.into(), target, sorted))
}
