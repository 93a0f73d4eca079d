//! JSONPath as kubectl and printer columns speak it
//! (<https://kubernetes.io/docs/reference/kubectl/jsonpath/>): fields, wildcards, indices, slices, filters and recursive
//! descent, without the template around them. Not RFC 9535: a path begins with a dot, keys may hold escaped dots.

use serde_json::Value;

/// A path, ready to be asked of many objects.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(Box<str>),
    /// `*`
    All,
    /// `..`: what follows, of every level below.
    Below,
    /// From, to, by: an index is a slice of one.
    Slice(Option<i64>, Option<i64>, i64),
    Index(i64),
    Filter(Box<Filter>),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    /// None: whether the left side is there.
    compare: Option<(Operator, Operand)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    LessOrEqual,
    GreaterOrEqual,
    Less,
    Greater,
}

const OPERATORS: [(&str, Operator); 6] = [
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

/// Deeper filters in filters are nobody's column.
const MAX_NESTING: usize = 8;

impl JsonPath {
    /// The path of a text like `.status.conditions[?(@.type=="Ready")].status`; None where it is none.
    pub fn parse(text: &str) -> Option<JsonPath> {
        parse(text, 0).filter(|path| path.descents() <= 1)
    }

    /// How often it goes down all levels, in its filters too: of every level of every level, each one more multiplies the
    /// work by the object's size.
    fn descents(&self) -> usize {
        let of = |operand: &Operand| match operand {
            Operand::Path(path) => path.descents(),
            Operand::Literal(_) => 0,
        };
        let own = self.0.iter().map(|step| match step {
            Step::Below => 1,
            Step::Filter(filter) => of(&filter.left) + filter.compare.as_ref().map_or(0, |(_, right)| of(right)),
            _ => 0,
        });
        own.sum()
    }

    /// The first value that the path leads to.
    pub fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        let mut found = None;
        walk(value, &self.0, &mut |value| {
            found = Some(value);
            false
        });
        found
    }
}

fn parse(text: &str, nesting: usize) -> Option<JsonPath> {
    let mut rest = text.trim();
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Below);
            // What follows is a field without a dot of its own, or a bracket.
            rest = match after.strip_prefix('[') {
                Some(_) => after,
                None => field(after, &mut steps)?,
            };
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = field(after, &mut steps)?;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (inside, after) = split_bracket(after)?;
            steps.push(bracket(inside.trim(), nesting)?);
            rest = after;
        } else {
            return None;
        }
    }
    Some(JsonPath(steps))
}

/// A field's name up to the next step; what is left.
fn field<'t>(text: &'t str, steps: &mut Vec<Step>) -> Option<&'t str> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '.' | '[' => {
                end = at;
                break;
            }
            c => name.push(c),
        }
    }
    match name.as_str() {
        // `.[0]` and the path of the whole object.
        "" => {}
        "*" => steps.push(Step::All),
        name => steps.push(Step::Field(name.into())),
    }
    Some(&text[end..])
}

/// What stands in a bracket, and what comes behind it; brackets and quotes in it are its own.
fn split_bracket(text: &str) -> Option<(&str, &str)> {
    let (mut depth, mut quote) = (1, None);
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', _) => escaped = true,
            (c, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) => quote = Some(c),
            ('[', None) => depth += 1,
            (']', None) => {
                depth -= 1;
                if depth == 0 {
                    return Some((&text[..at], &text[at + 1..]));
                }
            }
            _ => {}
        }
    }
    None
}

fn bracket(inside: &str, nesting: usize) -> Option<Step> {
    if let Some(condition) = inside.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return filter(condition.trim(), nesting).map(|filter| Step::Filter(Box::new(filter)));
    }
    if inside == "*" {
        return Some(Step::All);
    }
    if let Some(name) = quoted(inside) {
        return Some(Step::Field(name.into()));
    }
    if !inside.contains(':') {
        return inside.parse().ok().map(Step::Index);
    }
    let mut parts = inside.split(':').map(str::trim);
    let mut part = || match parts.next() {
        None | Some("") => Some(None),
        Some(text) => text.parse::<i64>().ok().map(Some),
    };
    let (from, to, by) = (part()?, part()?, part()?);
    Some(Step::Slice(from, to, by.unwrap_or(1)))
}

/// A text in quotes, without them.
fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inside = text.get(1..)?.strip_suffix(quote)?;
    let mut plain = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(plain)
}

fn filter(text: &str, nesting: usize) -> Option<Filter> {
    if nesting >= MAX_NESTING {
        return None;
    }
    let Some((at, token, operator)) = operator(text) else {
        let left = operand(text, nesting)?;
        return Some(Filter { left, compare: None });
    };
    let left = operand(text[..at].trim(), nesting)?;
    let right = operand(text[at + token..].trim(), nesting)?;
    Some(Filter {
        left,
        compare: Some((operator, right)),
    })
}

/// The first operator outside of quotes: where it stands, and its length.
fn operator(text: &str) -> Option<(usize, usize, Operator)> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) => quote = Some(c),
            _ => {
                let found = OPERATORS.iter().find(|(token, _)| text[at..].starts_with(token));
                if let Some((token, operator)) = found {
                    return Some((at, token.len(), *operator));
                }
            }
        }
    }
    None
}

fn operand(text: &str, nesting: usize) -> Option<Operand> {
    if let Some(path) = text.strip_prefix('@') {
        return parse(path, nesting + 1).map(Operand::Path);
    }
    if let Some(text) = quoted(text) {
        return Some(Operand::Literal(text.into()));
    }
    let literal: Value = serde_json::from_str(text).ok()?;
    Some(Operand::Literal(literal))
}

/// Calls `found` with each value the steps lead to, until it returns false; whether it never did.
fn walk<'v>(value: &'v Value, steps: &[Step], found: &mut dyn FnMut(&'v Value) -> bool) -> bool {
    let Some((step, rest)) = steps.split_first() else {
        return found(value);
    };
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => match map.get(&**name) {
            Some(value) => walk(value, rest, found),
            None => true,
        },
        // kubectl's paths go into lists only where they say so.
        (Step::All, Value::Object(map)) => map.values().all(|value| walk(value, rest, found)),
        (Step::All, Value::Array(items)) => items.iter().all(|value| walk(value, rest, found)),
        (Step::Index(index), Value::Array(items)) => match place(*index, items.len()).and_then(|at| items.get(at)) {
            Some(value) => walk(value, rest, found),
            None => true,
        },
        (Step::Slice(from, to, by), Value::Array(items)) => {
            let bound = |index: Option<i64>, or: usize| index.map_or(Some(or), |index| place(index, items.len()));
            let (from, to) = (bound(*from, 0).unwrap_or(0), bound(*to, items.len()).unwrap_or(0));
            let by = usize::try_from(*by).unwrap_or(1).max(1);
            let slice = items.get(from.min(items.len())..to.min(items.len()));
            slice
                .into_iter()
                .flat_map(|slice| slice.iter().step_by(by))
                .all(|value| walk(value, rest, found))
        }
        (Step::Filter(filter), Value::Array(items)) => items
            .iter()
            .filter(|value| filter.holds(value))
            .all(|value| walk(value, rest, found)),
        (Step::Below, _) => below(value, rest, found),
        _ => true,
    }
}

fn below<'v>(value: &'v Value, rest: &[Step], found: &mut dyn FnMut(&'v Value) -> bool) -> bool {
    if !walk(value, rest, found) {
        return false;
    }
    match value {
        Value::Object(map) => map.values().all(|value| below(value, rest, found)),
        Value::Array(items) => items.iter().all(|value| below(value, rest, found)),
        _ => true,
    }
}

/// A negative index counts from the end.
fn place(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { index + length } else { index }).ok()
}

impl Filter {
    fn holds(&self, value: &Value) -> bool {
        let left = self.left.of(value);
        let Some((operator, right)) = &self.compare else {
            return left.is_some();
        };
        let (Some(left), Some(right)) = (left, right.of(value)) else {
            return false;
        };
        if matches!(operator, Operator::Equal | Operator::NotEqual) {
            return same(left, right) == (*operator == Operator::Equal);
        }
        let order = match (left, right) {
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (Value::Number(left), Value::Number(right)) => {
                left.as_f64().zip(right.as_f64()).and_then(|(a, b)| a.partial_cmp(&b))
            }
            _ => None,
        };
        order.is_some_and(|order| match operator {
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            _ => order.is_ge(),
        })
    }
}

fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        _ => left == right,
    }
}

impl Operand {
    fn of<'v>(&'v self, value: &'v Value) -> Option<&'v Value> {
        match self {
            Operand::Path(path) => path.first(value),
            Operand::Literal(literal) => Some(literal),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_where_kubectls_do() {
        let object = json!({
            "spec": {"replicas": 3, "a.b": {"c": 1}, "hosts": ["x", "y", "z"]},
            "status": {"conditions": [
                {"type": "Ready", "status": "False", "n": 1}, {"type": "Synced", "status": "True", "n": 2}]},
        });
        for (path, expected) in [
            (".spec.replicas", json!(3)),
            ("['spec'].replicas", json!(3)),
            (r".spec.a\.b.c", json!(1)),
            (".spec['a.b'].c", json!(1)),
            (".spec.hosts[0]", json!("x")),
            (".spec.hosts[-1]", json!("z")),
            (".spec.hosts[1:]", json!("y")),
            (".spec.hosts[*]", json!("x")),
            (".spec.hosts[:2]", json!("x")),
            (r#".status.conditions[?(@.type=="Synced")].status"#, json!("True")),
            (".status.conditions[?(@.type == 'Ready')].status", json!("False")),
            (".status.conditions[?(@.type != 'Ready')].status", json!("True")),
            (".status.conditions[?(@.n>=2)].type", json!("Synced")),
            (".status.conditions[?(@.type)].type", json!("Ready")),
            ("..type", json!("Ready")),
            (".spec.*", json!({"c": 1})),
        ] {
            let parsed = JsonPath::parse(path);
            let found = parsed.as_ref().and_then(|parsed| parsed.first(&object));
            assert_eq!(found, Some(&expected), "{path}: {parsed:?}");
        }
        for missing in [
            ".spec.none",
            ".spec.replicas.x",
            ".spec.hosts[7]",
            ".status.conditions.type",
        ] {
            assert_eq!(
                JsonPath::parse(missing).as_ref().and_then(|path| path.first(&object)),
                None
            );
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let deep = format!("{}{}", ".a[?(@".repeat(20), ")]".repeat(20));
        for text in [
            "spec",
            ".a[",
            ".a[x]",
            ".a[?(@.b==)]",
            ".a[?(b)]",
            r".a\",
            "..a..b",
            "..[?(@..[?(@.a)])]",
            "..a[?(@.b == @..c)]",
            deep.as_str(),
        ] {
            assert_eq!(JsonPath::parse(text), None, "{text}");
        }
    }
}
