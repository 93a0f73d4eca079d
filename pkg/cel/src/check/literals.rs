//! What can be seen of literals before anything is evaluated: elements of different types, durations, times and regular
//! expressions that are none, and formats that do not fit what is to be formatted.

use crate::ast::{Call, Expr, Kind, Literal};
use crate::library::{format, regex, time};
use crate::source::Issue;
use crate::types::Type;

pub(super) fn check(expr: &Expr, issues: &mut Vec<Issue>) {
    visit(expr, false, issues);
}

/// `formatted`: what is within a call of `format` may be of any type.
fn visit(expr: &Expr, formatted: bool, issues: &mut Vec<Issue>) {
    let mut formatted = formatted;
    match &expr.kind {
        Kind::List(elements) if !formatted => {
            let found = elements
                .iter()
                .map(|element| (&element.value, held(&element.value.of, element.optional)));
            same(found, issues);
        }
        Kind::Map(entries) if !formatted => {
            same_as_first(entries.iter().map(|entry| (&entry.key, &entry.key.of)), issues);
            let values = entries
                .iter()
                .map(|entry| (&entry.value, held(&entry.value.of, entry.optional)));
            same_as_first(values, issues);
        }
        Kind::Call(call) => {
            argument(call, issues);
            formatted |= &*call.function == "format";
            arguments_of_format(expr, call, issues);
        }
        _ => {}
    }
    expr.for_each_part(&mut |part| visit(part, formatted, issues));
}

fn held(of: &Type, optional: bool) -> &Type {
    if optional { of.unwrapped().unwrap_or(of) } else { of }
}

/// Reports the first element of another type.
fn same<'e>(found: impl Iterator<Item = (&'e Expr, &'e Type)>, issues: &mut Vec<Issue>) {
    let before = issues.len();
    same_as_first(found, issues);
    issues.truncate(before + 1);
}

/// Reports each element of another type than the first.
fn same_as_first<'e>(mut found: impl Iterator<Item = (&'e Expr, &'e Type)>, issues: &mut Vec<Issue>) {
    let Some((_, first)) = found.next() else { return };
    for (value, of) in found.filter(|(_, of)| *of != first) {
        issues.push(Issue::at(value.at, format!("expected type '{first}' but found '{of}'")));
    }
}

/// Evaluates the first argument where it is a literal and has to have a form.
fn argument(call: &Call, issues: &mut Vec<Issue>) {
    let Some(Expr {
        kind: Kind::Literal(literal),
        at,
        ..
    }) = call.args.first()
    else {
        return;
    };
    let good = match (&*call.function, literal) {
        ("duration", Literal::String(text)) => time::parse_duration(text).is_some(),
        ("timestamp", Literal::String(text)) => time::Time::parse(text).is_some(),
        ("timestamp", Literal::Int(seconds)) => time::Time::from_unix(*seconds).is_some(),
        ("duration" | "timestamp", Literal::Int(_) | Literal::Null) => false,
        ("matches", Literal::String(pattern)) => regex::compile(pattern).is_ok(),
        _ => true,
    };
    if !good {
        issues.push(Issue::at(*at, format!("invalid {} argument", call.function)));
    }
}

/// Checks `'…'.format([…])` where both are literals.
fn arguments_of_format(expr: &Expr, call: &Call, issues: &mut Vec<Issue>) {
    let Some(Expr {
        kind: Kind::Literal(Literal::String(text)),
        ..
    }) = call.target.as_deref()
    else {
        return;
    };
    let (
        "format",
        [
            Expr {
                kind: Kind::List(elements),
                ..
            },
        ],
    ) = (&*call.function, &call.args[..])
    else {
        return;
    };
    let mut used = 0;
    let checked = format::parse(text, elements.len(), &mut |index, clause| {
        used += 1;
        fits(clause, &elements[index].value).map_err(|(at, of)| format::Mistake::type_at(clause, &of, at))
    });
    if let Err(mistake) = checked {
        issues.push(Issue::at(mistake.at.unwrap_or(expr.at), mistake.message));
    } else if elements.len() > used {
        let message = format!(
            "too many arguments supplied to string.format (expected {used}, got {})",
            elements.len()
        );
        issues.push(Issue::at(expr.at, message));
    }
}

/// Whether an argument fits a clause; the place and the type of what does not.
fn fits(clause: format::Clause, value: &Expr) -> Result<String, (u32, String)> {
    use format::Clause::{Binary, Decimal, Fixed, Hex, Octal, Scientific, Text};
    let of = &value.of;
    let good = matches!(of, Type::Dyn)
        || match clause {
            Text => !matches!(of, Type::Opaque(..) | Type::Named(_) | Type::Object(..)),
            Decimal | Octal => matches!(of, Type::Int | Type::Uint),
            Fixed(_) | Scientific(_) => matches!(of, Type::Double | Type::String),
            Binary => matches!(of, Type::Int | Type::Uint | Type::Bool),
            Hex { .. } => matches!(of, Type::Int | Type::Uint | Type::String | Type::Bytes),
        };
    if !good {
        return Err((value.at, runtime_name(of)));
    }
    if matches!(clause, Text) {
        let mut result = Ok(String::new());
        if let Kind::List(_) | Kind::Map(_) = value.kind {
            value.for_each_part(&mut |part| {
                if result.is_ok() {
                    result = fits(clause, part);
                }
            });
        }
        return result;
    }
    Ok(String::new())
}

/// The name of a type without its parameters.
pub(crate) fn runtime_name(of: &Type) -> String {
    match of {
        Type::Null => "null_type".into(),
        Type::Duration => "google.protobuf.Duration".into(),
        Type::Timestamp => "google.protobuf.Timestamp".into(),
        Type::List(_) => "list".into(),
        Type::Map(_) => "map".into(),
        Type::Type(_) => "type".into(),
        Type::Opaque(name, _) => name.to_string(),
        _ => of.to_string(),
    }
}
