//! The table of functions: what upstream's environment declares, as data that `hack/update-cel-answers.sh` writes.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::types::Type;

/// One overload of a function.
#[derive(Debug)]
pub(crate) struct Overload {
    pub function: &'static str,
    pub id: &'static str,
    /// `target.function(…)` rather than `function(…)`; the target is the first argument.
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
    /// The parameters in `args` and `result`.
    pub params: Vec<char>,
}

/// All overloads, those of a function beside each other in the order in which they are tried.
pub(crate) struct Functions {
    overloads: Vec<Overload>,
    by_name: HashMap<&'static str, std::ops::Range<u16>>,
}

static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| Functions::parse(include_str!("functions.tsv")));

impl Functions {
    fn parse(table: &'static str) -> Functions {
        let overloads: Vec<Overload> = table.lines().filter_map(overload).collect();
        let mut by_name: HashMap<&'static str, std::ops::Range<u16>> = HashMap::new();
        for (i, overload) in (0..).zip(&overloads) {
            by_name.entry(overload.function).or_insert(i..i).end = i + 1;
        }
        Functions { overloads, by_name }
    }
}

fn overload(line: &'static str) -> Option<Overload> {
    let mut columns = line.split('\t');
    let (function, id, style) = (columns.next()?, columns.next()?, columns.next()?);
    let (args, result) = (columns.next()?, columns.next()?);
    let params = |text: &str| -> Vec<char> {
        let single = text
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| word.len() == 1);
        single
            .filter_map(|word| word.chars().next())
            .filter(char::is_ascii_uppercase)
            .collect()
    };
    let mut found: Vec<char> = params(args).into_iter().chain(params(result)).collect();
    found.sort_unstable();
    found.dedup();
    Some(Overload {
        function,
        id,
        member: style == "m",
        args: args.split(';').filter(|arg| !arg.is_empty()).map(Type::parse).collect(),
        result: Type::parse(result),
        params: found,
    })
}

/// The overloads of a function with their numbers; `None` where there is no such function.
pub(crate) fn overloads(function: &str) -> Option<impl Iterator<Item = (u16, &'static Overload)> + use<>> {
    let table = &*FUNCTIONS;
    let range = table.by_name.get(function)?.clone();
    Some(range.map(|number| (number, &table.overloads[usize::from(number)])))
}

/// The overload of a number.
pub(crate) fn overload_at(number: u16) -> &'static Overload {
    &FUNCTIONS.overloads[usize::from(number)]
}
