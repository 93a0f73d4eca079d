//! JSONPath as printer columns speak it (<https://kubernetes.io/docs/reference/kubectl/jsonpath/>): fields, wildcards, indices,
//! slices, unions, filters, recursive descent and literals. Not RFC 9535: what `jsonpath` of client-go takes, refuses and
//! leads to is the rule, also where that is odd (`['a.b']` is two fields, `.` is one without a name). Of what it knows, the
//! single bytes of a text by `.*` are not there.

use serde_json::Value;

use crate::budget::Budget;

/// A path, ready to be asked of many objects.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(Box<str>),
    /// `*`
    All,
    /// `..`: every object and list below, and what follows of each.
    Below,
    /// From, to, by.
    Slice(Option<i64>, Option<i64>, Option<i64>),
    Index(i64),
    /// What each of these leads to, one after the other.
    Union(Vec<JsonPath>),
    Filter(Box<Filter>),
    Literal(Value),
    /// A word of templates: it fails wherever it is asked.
    Word,
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: JsonPath,
    /// None: whether the left side is there.
    compare: Option<(Option<Operator>, JsonPath)>,
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

/// A text in quotes can hold a path with such a text; nobody's column does.
const MAX_NESTING: usize = 4;

/// How often the steps of a path may look at each part of an object: each looks at all that the one before led to.
const MAX_LOOKS: usize = 64;

impl JsonPath {
    /// The path of a text like `.status.conditions[?(@.type=="Ready")].status`; None where upstream's parser refuses it. One
    /// that would cost more than a few looks at each part of an object leads nowhere.
    pub fn parse(text: &str) -> Option<JsonPath> {
        let path = action(text, 0)?;
        let bounded = path.descents() <= 1 && path.looks().0 <= MAX_LOOKS;
        Some(if bounded { path } else { JsonPath(vec![Step::Word]) })
    }

    /// How often it goes down all levels, in its filters too: of every level of every level, each one more multiplies the
    /// work by the object's size.
    fn descents(&self) -> usize {
        let own = self.0.iter().map(|step| match step {
            Step::Below => 1,
            _ => step.paths().map(JsonPath::descents).sum(),
        });
        own.sum()
    }

    /// How often its steps look at what it is asked of, and what it leads to of each value: unions multiply both.
    fn looks(&self) -> (usize, usize) {
        let add = |(looks, values): (usize, usize), more: (usize, usize)| {
            (looks.saturating_add(more.0), values.saturating_add(more.1))
        };
        self.0.iter().fold((0, 1), |(looks, values), step| {
            let paths = step.paths().map(JsonPath::looks).fold((1, 0), add);
            let leads_to = match step {
                Step::Union(_) => paths.1,
                _ => 1,
            };
            let own = values.saturating_mul(paths.0);
            (looks.saturating_add(own), values.saturating_mul(leads_to))
        })
    }

    /// The first value that the path leads to; none, too, where a step of it fails for any of the values before it, or
    /// where it takes more looks than are left.
    pub fn first<'v>(&'v self, value: &'v Value, looks: &mut Budget<'_>) -> Option<&'v Value> {
        let found = self.all(vec![value], looks)?;
        // What a filter could not ask for want of them counts as there.
        looks.take(0)?;
        found.into_iter().next()
    }

    /// None: a step failed.
    fn all<'v>(&'v self, values: Vec<&'v Value>, looks: &mut Budget<'_>) -> Option<Vec<&'v Value>> {
        self.0.iter().try_fold(values, |values, step| step.of(values, looks))
    }
}

impl Step {
    fn paths(&self) -> impl Iterator<Item = &JsonPath> {
        let (many, left, right) = match self {
            Step::Union(paths) => (paths.as_slice(), None, None),
            Step::Filter(filter) => (
                &[][..],
                Some(&filter.left),
                filter.compare.as_ref().map(|(_, right)| right),
            ),
            _ => (&[][..], None, None),
        };
        many.iter().chain(left).chain(right)
    }

    /// What it leads to from all values that the step before led to.
    fn of<'v>(&'v self, values: Vec<&'v Value>, looks: &mut Budget<'_>) -> Option<Vec<&'v Value>> {
        looks.take(values.len())?;
        let mut found = Vec::new();
        let mut add = |value: &'v Value| looks.take(1).map(|()| found.push(value));
        match self {
            // In place: most paths are fields alone.
            Step::Field(name) => return Some(values.into_iter().filter_map(|value| value.get(&**name)).collect()),
            Step::All => values.iter().flat_map(|value| children(value)).try_for_each(add)?,
            Step::Below => values.iter().try_for_each(|value| below(value, &mut add))?,
            Step::Index(_) | Step::Slice(..) => {
                for list in values.iter().filter(|value| !value.is_null()) {
                    // One that is empty by its bounds ends the step.
                    match self.part(list.as_array()?)? {
                        [] => break,
                        part => part.iter().step_by(self.by()?).try_for_each(&mut add)?,
                    }
                }
            }
            Step::Union(paths) => {
                for path in paths {
                    found.extend(path.all(values.clone(), looks)?);
                }
            }
            Step::Filter(filter) => {
                for item in values
                    .iter()
                    .map(|value| value.as_array())
                    .collect::<Option<Vec<_>>>()?
                    .into_iter()
                    .flatten()
                {
                    looks.take(1)?;
                    if filter.holds(item, looks)? {
                        found.push(item);
                    }
                }
            }
            Step::Literal(text @ Value::String(_)) => found.push(text),
            Step::Literal(literal) => found.resize(values.len(), literal),
            Step::Word => return None,
        }
        Some(found)
    }

    /// The items from one bound to the other; None where they lie outside of the list.
    fn part<'v>(&self, items: &'v [Value]) -> Option<&'v [Value]> {
        let length = i64::try_from(items.len()).ok()?;
        let from_end = |index: i64| {
            if index < 0 {
                index.checked_add(length)
            } else {
                Some(index)
            }
        };
        let (from, to) = match *self {
            Step::Index(-1) => (length - 1, length),
            Step::Index(index) => (from_end(index)?, from_end(index.checked_add(1)?)?),
            Step::Slice(from, to, _) => (from_end(from.unwrap_or(0))?, to.map_or(Some(length), from_end)?),
            _ => return None,
        };
        if from == to {
            return Some(&[]);
        }
        let (from, to) = (usize::try_from(from).ok()?, usize::try_from(to).ok()?);
        items.get(from..to)
    }

    fn by(&self) -> Option<usize> {
        match self {
            Step::Slice(_, _, Some(by)) => usize::try_from(*by).ok().filter(|by| *by > 0),
            _ => Some(1),
        }
    }
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Object(map) => Box::new(map.values()),
        Value::Array(items) => Box::new(items.iter()),
        _ => Box::new(std::iter::empty()),
    }
}

/// Each object and list that holds something, those around it first.
fn below<'v>(value: &'v Value, add: &mut impl FnMut(&'v Value) -> Option<()>) -> Option<()> {
    let mut children = children(value).peekable();
    if children.peek().is_some() {
        add(value)?;
        children.try_for_each(|value| below(value, add))?;
    }
    Some(())
}

impl Filter {
    /// Whether an item is wanted; None where that can't be said, which fails the whole path.
    fn holds(&self, item: &Value, looks: &mut Budget<'_>) -> Option<bool> {
        let left = self.left.all(vec![item], looks);
        let Some((operator, right)) = &self.compare else {
            // What could not be asked counts as there.
            return Some(left.is_none_or(|left| !left.is_empty()));
        };
        let left = left?;
        if left.len() != 1 {
            return left.is_empty().then_some(false);
        }
        let right = right.all(vec![item], looks)?;
        if right.len() != 1 {
            return right.is_empty().then_some(false);
        }
        (*operator)?.holds(left[0], right[0])
    }
}

impl Operator {
    /// None: they are not to be compared, as a whole number is not with a fraction.
    fn holds(self, left: &Value, right: &Value) -> Option<bool> {
        let order = match (left, right) {
            (Value::String(left), Value::String(right)) => left.cmp(right),
            (Value::Number(left), Value::Number(right)) if left.is_f64() == right.is_f64() => {
                match left.as_i64().zip(right.as_i64()) {
                    Some((left, right)) => left.cmp(&right),
                    None => left.as_f64()?.partial_cmp(&right.as_f64()?)?,
                }
            }
            (Value::Bool(left), Value::Bool(right)) if matches!(self, Operator::Equal | Operator::NotEqual) => {
                left.cmp(right)
            }
            _ => return None,
        };
        Some(match self {
            Operator::Equal => order.is_eq(),
            Operator::NotEqual => order.is_ne(),
            Operator::LessOrEqual => order.is_le(),
            Operator::GreaterOrEqual => order.is_ge(),
            Operator::Less => order.is_lt(),
            Operator::Greater => order.is_gt(),
        })
    }
}

/// The steps of a text up to its end, or to the brace that ends an action.
fn action(text: &str, nesting: usize) -> Option<JsonPath> {
    if nesting > MAX_NESTING {
        return None;
    }
    let mut rest = text;
    let mut steps = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix("[?(") {
            rest = filter(after, nesting, &mut steps)?;
            continue;
        }
        if let Some(after) = rest.strip_prefix("..") {
            if steps.last() == Some(&Step::Below) {
                return None;
            }
            steps.push(Step::Below);
            // What follows may be a field without a dot of its own.
            rest = match after.starts_with(is_word) {
                true => field(after, &mut steps)?,
                false => after,
            };
            continue;
        }
        let Some(first) = rest.chars().next() else {
            return Some(JsonPath(steps));
        };
        let after = &rest[first.len_utf8()..];
        rest = match first {
            '}' => return Some(JsonPath(steps)),
            ' ' | '@' | '$' => after,
            '[' => bracket(after, nesting, &mut steps)?,
            '"' | '\'' => text_in_quotes(after, first, &mut steps)?,
            '.' => field(after, &mut steps)?,
            '+' | '-' | '0'..='9' => number(rest, &mut steps)?,
            first if is_word(first) => word(rest, &mut steps),
            _ => return None,
        };
    }
}

fn is_word(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

fn ends(letter: char) -> bool {
    matches!(
        letter,
        ' ' | '\t' | '\r' | '\n' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}'
    )
}

/// A field's name up to the next step; what is left.
fn field<'t>(text: &'t str, steps: &mut Vec<Step>) -> Option<&'t str> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, letter)) = chars.next() {
        match letter {
            '\\' => name.extend(Some(chars.next()?.1).filter(|letter| *letter != '\\')),
            letter if ends(letter) => {
                end = at;
                break;
            }
            letter => name.push(letter),
        }
    }
    steps.push(match name.as_str() {
        "*" => Step::All,
        name => Step::Field(name.into()),
    });
    Some(&text[end..])
}

/// A word that is no field: true, false, or one of templates.
fn word<'t>(text: &'t str, steps: &mut Vec<Step>) -> &'t str {
    let (word, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
    steps.push(match word {
        "true" | "false" => Step::Literal((word == "true").into()),
        _ => Step::Word,
    });
    rest
}

fn number<'t>(text: &'t str, steps: &mut Vec<Step>) -> Option<&'t str> {
    let digits = |letter: char| letter == '.' || letter.is_ascii_digit();
    let sign = usize::from(text.starts_with(['+', '-']));
    let end = text[sign..]
        .find(|letter| !digits(letter))
        .map_or(text.len(), |end| sign + end);
    let (number, rest) = text.split_at(end);
    let whole = number.parse::<i64>().ok().map(Value::from);
    let literal = whole.or_else(|| number.parse::<f64>().ok().map(Value::from))?;
    steps.push(Step::Literal(literal));
    Some(rest)
}

/// A text up to its closing quote, and what is left.
fn text_in_quotes<'t>(text: &'t str, quote: char, steps: &mut Vec<Step>) -> Option<&'t str> {
    let mut plain = String::new();
    let mut chars = text.char_indices();
    while let Some((at, letter)) = chars.next() {
        match letter {
            '\n' => return None,
            letter if letter == quote => {
                steps.push(Step::Literal(plain.into()));
                return Some(&text[at + 1..]);
            }
            '\\' => plain.push(match chars.next()?.1 {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                escaped if escaped == '\\' || escaped == quote => escaped,
                _ => return None,
            }),
            letter => plain.push(letter),
        }
    }
    None
}

/// What stands in a bracket, and what comes behind it. The first that closes ends it, in quotes too.
fn bracket<'t>(text: &'t str, nesting: usize, steps: &mut Vec<Step>) -> Option<&'t str> {
    let (inside, rest) = text.split_once(']').filter(|(inside, _)| !inside.contains('\n'))?;
    if inside.contains(',') {
        let one = |inside: &str| action(&format!("[{}]", inside.trim_matches(' ')), nesting + 1);
        steps.push(Step::Union(inside.split(',').map(one).collect::<Option<_>>()?));
        return Some(rest);
    }
    let quoted = inside.strip_prefix('\'').and_then(|inside| inside.strip_suffix('\''));
    if let Some(path) = quoted.filter(|path| !path.contains('\'')) {
        steps.extend(action(&format!(".{path}"), nesting + 1)?.0);
        return Some(rest);
    }
    let mut parts = match inside {
        "*" => ":",
        inside => inside,
    }
    .splitn(3, ':');
    let mut part = || match parts.next() {
        None | Some("") => Some(None),
        Some(text) if text.starts_with('+') => None,
        Some(text) => text.parse::<i64>().ok().map(Some),
    };
    let (from, to, by) = (part()?, part()?, part()?);
    steps.push(match inside.contains(':') || inside == "*" {
        true => Step::Slice(from, to, by),
        false => Step::Index(from.unwrap_or(0)),
    });
    Some(rest)
}

/// A filter up to its end, and what is left. Of its quotes only the first and the one that closes it are looked at.
fn filter<'t>(text: &'t str, nesting: usize, steps: &mut Vec<Step>) -> Option<&'t str> {
    let (mut quote, mut closed, mut before) = (None, false, '(');
    let mut end = None;
    for (at, letter) in text.char_indices() {
        match letter {
            '\n' => return None,
            '"' | '\'' if quote.is_none() => quote = Some(letter),
            '"' | '\'' => closed |= before != '\\' && quote == Some(letter),
            ')' if quote.is_some() == closed => {
                end = Some(at);
                break;
            }
            _ => {}
        }
        before = letter;
    }
    let (condition, rest) = text.split_at(end?);
    let rest = rest.strip_prefix(")]")?;
    let is_operator = |letter: char| matches!(letter, '!' | '<' | '>' | '=');
    let sides = condition
        .find(is_operator)
        .filter(|start| *start > 0)
        .and_then(|start| {
            let (left, right) = condition.split_at(start);
            // It takes all of its letters, but leaves one to the right side.
            let last = right.char_indices().next_back()?.0;
            let end = right.find(|letter| !is_operator(letter)).unwrap_or(last);
            (end > 0).then(|| (left, right.split_at(end)))
        });
    let filter = match sides {
        None => Filter {
            left: action(condition, nesting + 1)?,
            compare: None,
        },
        Some((left, (token, right))) => {
            let operator = OPERATORS.iter().find(|(known, _)| *known == token);
            Filter {
                left: action(left, nesting + 1)?,
                compare: Some((operator.map(|(_, operator)| *operator), action(right, nesting + 1)?)),
            }
        }
    };
    steps.push(Step::Filter(Box::new(filter)));
    Some(rest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn first<'v>(path: &'v JsonPath, object: &'v Value) -> Option<&'v Value> {
        path.first(object, &mut Budget::of(object))
    }

    /// The rest is compared with upstream: `tests/api/golden/columns.jsonl`.
    #[test]
    fn paths_lead_where_kubectls_do() {
        let object = json!({
            "spec": {"replicas": 3, "a.b": {"c": 1}, "a": {"b": {"c": 2}}, "hosts": ["x", "y", "z"]},
            "status": {"conditions": [
                {"type": "Ready", "status": "False", "n": 1}, {"type": "Synced", "status": "True", "n": 2}]},
        });
        for (path, expected) in [
            (".spec.replicas", json!(3)),
            ("['spec'].replicas", json!(3)),
            (r".spec.a\.b.c", json!(1)),
            (r".spec['a\.b'].c", json!(1)),
            (".spec['a.b'].c", json!(2)),
            (".spec.hosts[0]", json!("x")),
            (".spec.hosts[-1]", json!("z")),
            (".spec.hosts[2,0]", json!("z")),
            (".spec['none','replicas']", json!(3)),
            (r#".status.conditions[?(@.type=="Synced")].status"#, json!("True")),
            (".status.conditions[?(@.n>=2)].type", json!("Synced")),
            ("..type", json!("Ready")),
        ] {
            let parsed = JsonPath::parse(path);
            let found = parsed.as_ref().and_then(|parsed| first(parsed, &object));
            assert_eq!(found, Some(&expected), "{path}: {parsed:?}");
        }
        for missing in [
            ".spec.none",
            ".spec.replicas.x",
            ".spec.hosts[7]",
            ".spec.hosts[-9223372036854775808]",
            ".spec.hosts[9223372036854775807]",
            ".status.conditions.type",
        ] {
            assert_eq!(
                JsonPath::parse(missing).as_ref().and_then(|path| first(path, &object)),
                None
            );
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let deep = format!("{}{}", ".a[?(@".repeat(20), ")]".repeat(20));
        for text in [".a[", ".a[x]", ".a[?(@.b==)]", r".a\", ".a,", deep.as_str()] {
            assert_eq!(JsonPath::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_would_cost_much_leads_nowhere() {
        let object = json!({"a": {"b": ["x"]}});
        let unions = format!("..b{}", "[0,0]".repeat(7));
        let literals = format!("..{}", " 1".repeat(1000));
        let filters = format!("..{}", "[?(@.a)]".repeat(40));
        let both = format!("..{}{}", "['a','a']".repeat(6), " 1".repeat(45));
        for text in [
            "..a..b",
            "..b[?(@..a)]",
            "..a[?(@.b == @..c)]",
            &unions,
            &literals,
            &filters,
            &both,
        ] {
            let path = JsonPath::parse(text);
            assert_eq!(path.as_ref().map(|path| first(path, &object)), Some(None), "{text}");
            assert_eq!(path, JsonPath::parse("range"), "{text}");
        }
    }
}
