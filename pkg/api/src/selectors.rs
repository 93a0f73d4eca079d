//! Label and field selectors: parsed once per request, matched against borrowed strings.
//! Grammar: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api>.

use std::fmt;

use serde_json::Value;

use crate::meta;
use crate::names;

/// Why a text or a `metav1.LabelSelector` is no selector, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

impl From<String> for SelectorError {
    fn from(why: String) -> SelectorError {
        SelectorError(why)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl Operator {
    fn words(self) -> &'static str {
        match self {
            Operator::In => "in",
            Operator::NotIn => "notin",
            Operator::Equals => "=",
            Operator::NotEquals => "!=",
            Operator::Exists => "exists",
            Operator::DoesNotExist => "!",
            Operator::GreaterThan => ">",
            Operator::LessThan => "<",
        }
    }
}

/// One term; values are sorted and unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted.
    pub values: Vec<String>,
}

impl Requirement {
    /// Checks key and values as upstream's `labels.NewRequirement`.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Requirement, SelectorError> {
        if let Some(problem) = names::qualified_name(key).into_iter().next() {
            return Err(format!("key: Invalid value: {key:?}: {problem}").into());
        }
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return Err(String::from(
                    "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
                )
                .into());
            }
            Operator::Equals | Operator::NotEquals if values.len() != 1 => {
                return Err(format!(
                    "values: Invalid value: {}: exact-match compatibility requires one single value",
                    go_list(&values)
                )
                .into());
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return Err(format!(
                    "values: Invalid value: {}: values set must be empty for exists and does not exist",
                    go_list(&values)
                )
                .into());
            }
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    return Err(format!(
                        "values: Invalid value: {}: for 'Gt', 'Lt' operators, exactly one value is required",
                        go_list(&values)
                    )
                    .into());
                }
                if values[0].parse::<i64>().is_err() {
                    return Err(format!(
                        "values[0]: Invalid value: {:?}: for 'Gt', 'Lt' operators, the value must be an integer",
                        values[0]
                    )
                    .into());
                }
            }
            _ => {}
        }
        for (index, value) in values.iter().enumerate() {
            if let Some(problem) = names::label_value(value).into_iter().next() {
                return Err(format!("values[{index}][{key}]: Invalid value: {value:?}: {problem}").into());
            }
        }
        values.sort_unstable();
        values.dedup();
        Ok(Requirement {
            key: key.to_string(),
            operator,
            values,
        })
    }

    pub fn matches(&self, value: Option<&str>) -> bool {
        let has = |value: &str| self.values.binary_search_by(|own| own.as_str().cmp(value)).is_ok();
        match self.operator {
            Operator::In | Operator::Equals => value.is_some_and(has),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(has),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let bound = self.values.first().and_then(|own| own.parse::<i64>().ok());
                match (value.and_then(|value| value.parse::<i64>().ok()), bound) {
                    (Some(value), Some(bound)) if self.operator == Operator::GreaterThan => value > bound,
                    (Some(value), Some(bound)) => value < bound,
                    _ => false,
                }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.join(",");
        match self.operator {
            Operator::In => write!(f, "{} in ({values})", self.key),
            Operator::NotIn => write!(f, "{} notin ({values})", self.key),
            Operator::Equals => write!(f, "{}={values}", self.key),
            Operator::NotEquals => write!(f, "{}!={values}", self.key),
            Operator::Exists => write!(f, "{}", self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::GreaterThan => write!(f, "{}>{values}", self.key),
            Operator::LessThan => write!(f, "{}<{values}", self.key),
        }
    }
}

fn go_list(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", quoted.join(","))
}

/// A conjunction of requirements, sorted by key. Empty matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
    /// Set for an absent selector, which selects nothing.
    nothing: bool,
}

impl LabelSelector {
    pub fn everything() -> Self {
        LabelSelector {
            requirements: Vec::new(),
            nothing: false,
        }
    }

    pub fn nothing() -> Self {
        LabelSelector {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector {
            requirements,
            nothing: false,
        }
    }

    /// Reads the query parameter's form: `a=b,c!=d,e in (f,g),!h,i`.
    pub fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
        Parser::new(text).parse().map(Self::of)
    }

    /// From a `metav1.LabelSelector`; an absent (`null`) one selects nothing, an empty one everything.
    pub fn from_json(selector: &Value) -> Result<LabelSelector, SelectorError> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = Vec::new();
        if let Some(map) = meta::map_at(selector, &["matchLabels"]) {
            for (key, value) in map {
                let value = value.as_str().unwrap_or("").to_string();
                requirements.push(Requirement::new(key, Operator::In, vec![value])?);
            }
        }
        for expression in meta::items(selector, &["matchExpressions"]) {
            let operator = match meta::string(expression, &["operator"]) {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator").into()),
            };
            let values = meta::items(expression, &["values"])
                .iter()
                .filter_map(|value| value.as_str().map(str::to_string))
                .collect();
            requirements.push(Requirement::new(meta::string(expression, &["key"]), operator, values)?);
        }
        for requirement in &mut requirements {
            // upstream prints a matchLabels term as `k=v`
            if requirement.operator == Operator::In && requirement.values.len() == 1 {
                let from_labels = meta::map_at(selector, &["matchLabels"])
                    .and_then(|map| map.get(&requirement.key))
                    .and_then(Value::as_str)
                    .is_some_and(|value| value == requirement.values[0]);
                if from_labels {
                    requirement.operator = Operator::Equals;
                }
            }
        }
        Ok(Self::of(requirements))
    }

    /// From a plain map (`Service.spec.selector`); an absent or empty one selects everything, as upstream's
    /// `SelectorFromSet`.
    pub fn from_map(map: &Value) -> LabelSelector {
        let requirements = map
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::Equals,
                values: vec![value.as_str().unwrap_or("").to_string()],
            })
            .collect();
        Self::of(requirements)
    }

    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|term| term.matches(get(&term.key)))
    }

    /// Matches an object's `metadata.labels`.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(|key| meta::label(object, key))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

/// What the selector's grammar is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    End,
    Open,
    Close,
    Comma,
    Operator(Operator),
    Not,
    Word(String),
}

impl Token {
    /// `in` and `notin` are keys too where a key is expected.
    fn starts_requirement(&self) -> bool {
        matches!(
            self,
            Token::Word(_) | Token::Not | Token::Operator(Operator::In | Operator::NotIn)
        )
    }

    fn text(&self) -> String {
        match self {
            Token::End => String::new(),
            Token::Open => "(".into(),
            Token::Close => ")".into(),
            Token::Comma => ",".into(),
            Token::Not => "!".into(),
            Token::Operator(operator) => operator.words().into(),
            Token::Word(word) => word.clone(),
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
}

impl Parser {
    fn new(text: &str) -> Self {
        Parser {
            tokens: tokenize(text),
            position: 0,
        }
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.position).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.position += 1;
        token
    }

    fn parse(mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::End => return Ok(requirements),
                token if token.starts_requirement() => {
                    requirements.push(
                        self.requirement()
                            .map_err(|why| format!("unable to parse requirement: {why}"))?,
                    );
                    match self.next() {
                        Token::End => return Ok(requirements),
                        Token::Comma => {
                            if !self.peek().starts_requirement() {
                                return Err(
                                    format!("found '{}', expected: identifier after ','", self.peek().text()).into(),
                                );
                            }
                        }
                        other => {
                            return Err(format!("found '{}', expected: ',' or 'end of string'", other.text()).into());
                        }
                    }
                }
                other => {
                    return Err(
                        format!("found '{}', expected: !, identifier, or 'end of string'", other.text()).into(),
                    );
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = if *self.peek() == Token::Not {
            self.next();
            true
        } else {
            false
        };
        let key = match self.next() {
            Token::Word(word) => word,
            Token::Operator(operator) if matches!(operator, Operator::In | Operator::NotIn) => operator.words().into(),
            other => return Err(format!("found '{}', expected: identifier", other.text()).into()),
        };
        if let Some(problem) = names::qualified_name(&key).into_iter().next() {
            return Err(format!("<nil>: Invalid value: {key:?}: {problem}").into());
        }
        // after `!key` only a comma may follow, which the caller finds out
        if negated || matches!(self.peek(), Token::End | Token::Comma) {
            let operator = if negated {
                Operator::DoesNotExist
            } else {
                Operator::Exists
            };
            return Requirement::new(&key, operator, Vec::new());
        }

        let operator = match self.next() {
            Token::Operator(operator) => operator,

            other => {
                return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.text()).into());
            }
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.list()?,
            _ => vec![self.single()?],
        };
        Requirement::new(&key, operator, values)
    }

    /// The one value after `=`: empty before a comma or the end.
    fn single(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            Token::End | Token::Comma => Ok(String::new()),
            Token::Word(_) | Token::Operator(Operator::In | Operator::NotIn) => Ok(self.next().text()),
            other => Err(format!("found '{}', expected: identifier", other.text()).into()),
        }
    }

    fn list(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Token::Open => {}
            other => return Err(format!("found '{}' expected: '('", other.text()).into()),
        }
        let mut values = Vec::new();
        let mut pending: Option<String> = None;
        loop {
            match self.next() {
                Token::Close => {
                    values.push(pending.unwrap_or_default());
                    return Ok(values);
                }
                Token::Comma => values.push(pending.take().unwrap_or_default()),
                Token::Word(word) => pending = Some(word),
                Token::Operator(operator) if matches!(operator, Operator::In | Operator::NotIn) => {
                    pending = Some(operator.words().to_string());
                }
                other => return Err(format!("found '{}', expected: ',' or ')'", other.text()).into()),
            }
        }
    }
}

fn tokenize(text: &str) -> Vec<Token> {
    let special = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '=' if rest.starts_with("==") => (Token::Operator(Operator::Equals), 2),
            '=' => (Token::Operator(Operator::Equals), 1),
            '!' if rest.starts_with("!=") => (Token::Operator(Operator::NotEquals), 2),
            '!' => (Token::Not, 1),
            '>' => (Token::Operator(Operator::GreaterThan), 1),
            '<' => (Token::Operator(Operator::LessThan), 1),
            _ => {
                let length = rest
                    .find(|c: char| special(c) || c.is_whitespace())
                    .unwrap_or(rest.len());
                let token = match &rest[..length] {
                    "in" => Token::Operator(Operator::In),
                    "notin" => Token::Operator(Operator::NotIn),
                    word => Token::Word(word.to_string()),
                };
                (token, length)
            }
        };
        tokens.push(token);
        rest = &rest[length..];
    }
    tokens
}

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: String,
    pub equals: bool,
    pub value: String,
}

/// A conjunction of `field=value` and `field!=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Selects all there is.
    pub const EVERYTHING: &'static FieldSelector = &FieldSelector { terms: Vec::new() };

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    pub fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let (field, equals, value) =
                split_term(part).ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            terms.push(FieldTerm {
                field: field.to_string(),
                equals,
                value: unescape(value)?,
            });
        }
        Ok(FieldSelector { terms })
    }

    /// The value that a field has to equal, if the selector says so (`metadata.name=x`).
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.equals && term.field == field)
            .map(|term| term.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if term.equals { "=" } else { "!=" };
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{operator}{value}", term.field)?;
        }
        Ok(())
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (index, _) in term.char_indices() {
        let rest = &term[index..];
        for (operator, equals) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&term[..index], equals, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    if !value.contains(['\\', ',', '=']) {
        return Ok(value.to_string());
    }
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                Some(other) => {
                    let why = format!("invalid field selector: invalid escape sequence: \\{other} in {value}");
                    return Err(why);
                }
                None => return Err(format!("invalid field selector: trailing backslash in {value}")),
            },
            ',' | '=' => return Err(format!("invalid field selector: unescaped {c} in value {value}")),
            other => plain.push(other),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors() {
        let labels = |key: &str| match key {
            "app" => Some("web"),
            "tier" => Some(""),
            "n" => Some("5"),
            _ => None,
        };
        for (text, expected) in [
            ("", true),
            ("app", true),
            ("!app", false),
            ("!x", true),
            ("app=web", true),
            ("app == web", true),
            ("app!=web", false),
            ("x!=web", true),
            ("tier=", true),
            ("tier=,app", true),
            ("app in (web, db),n", true),
            ("app notin (web)", false),
            ("x notin (web)", true),
            ("tier in (,a)", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("in in (in)", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(labels), expected, "{text}");
        }
        for text in [
            "=a", "a in", "a in (b", "a b", ",", "a,", "a=b=c", "-a", "a in ()x", "!a=b", "a>b",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn printed_sorted_by_key() {
        let selector = LabelSelector::from_json(&json!({
            "matchLabels": {"b": "1"}, "matchExpressions": [
                {"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}]}));
        assert_eq!(selector.unwrap().to_string(), "a in (x,y),b=1,!c");
        assert!(LabelSelector::from_json(&Value::Null).unwrap().is_nothing());
        assert!(LabelSelector::from_json(&json!({})).unwrap().is_everything());
    }

    #[test]
    fn field_selectors() {
        for (text, demanded) in [
            ("", None),
            ("spec.nodeName=n1", Some("n1")),
            ("status.phase!=Running,spec.nodeName==n1", Some("n1")),
            ("spec.nodeName!=n1", None),
            ("spec.nodeName=", Some("")),
            (r"metadata.name=a\,spec.nodeName=n1", None),
        ] {
            let parsed = FieldSelector::parse(text);
            // An unescaped `=` in a value is none.
            let found = parsed
                .as_ref()
                .ok()
                .and_then(|selector| selector.required("spec.nodeName"));
            assert_eq!(found, demanded, "{text}");
        }
        assert_eq!(FieldSelector::parse(r"a=b\,c").unwrap().terms[0].value, "b,c");
        assert!(FieldSelector::parse("a").is_err());
        assert!(FieldSelector::parse("a=b=c").is_err());
    }
}
