//! Rules are data: the checks of a type are a table, in upstream's order, and one interpreter walks object and table
//! together. What compares fields with each other, or with the object around them, is a `Call`. Nothing is allocated
//! until something is wrong.

use std::collections::HashSet;

use serde_json::Value;

use super::container::Pod;
use super::{Errors, NEGATIVE, NOT_POSITIVE, Path, is_empty};
use crate::names;
use crate::status::FieldError;

/// The checks of one type.
pub(super) type Rules = &'static [Rule];

/// What is wrong with a text; nothing when it is as it should be.
pub(super) type Format = fn(&str) -> Vec<String>;

/// A check of its own: of a field that is there, or of the whole value.
pub(super) type Call = fn(&Value, &Scope<'_>, &Path<'_>, &mut Errors);

/// The same with a word of the table's.
pub(super) type Told = fn(&Value, &Scope<'_>, &Path<'_>, &mut Errors, &'static str);

/// One check of one field; of the whole value where the field's name is empty.
pub(super) struct Rule {
    field: &'static str,
    check: Check,
}

enum Check {
    /// Absent or empty is refused, saying this.
    Required(&'static str),
    /// Required, and of a form.
    Name(Format),
    /// Of a form, unless it is empty.
    Format(Format),
    /// Of a form, also where it is empty or absent.
    Always(Format),
    /// Of a form where it is there, also an empty one.
    FormatIfSet(Format),
    /// Each text of a list of a form.
    Texts(Format),
    /// Each number of a list in a range.
    Numbers(i64, i64),
    /// One of these; empty or absent is "required", saying this.
    Enum(&'static [&'static str], &'static str),
    /// One of these, of which an empty or absent one is none.
    Among(&'static [&'static str]),
    /// One of these, if it is there.
    EnumIfSet(&'static [&'static str]),
    /// If it is there.
    NonNegative,
    /// If it is there.
    Positive,
    /// If it is there.
    Range(i64, i64),
    /// In a range, in which an absent one is 0.
    Number(i64, i64),
    /// The struct, if it is there.
    Object(Rules),
    /// The struct; an absent one is empty, as Go has it.
    Struct(Rules),
    /// Each of a list.
    Each(Rules),
    /// Each of a list, and none twice by this field.
    EachUnique(&'static str, Rules),
    /// One of several fields says what the value is.
    Union(&'static Union),
    /// If it is there.
    Call(Call),
    /// If it is there.
    Told(Told, &'static str),
}

/// A value of which one of several fields is set: the first is checked, each further one forbidden.
pub(super) struct Union {
    pub members: &'static [Member],
    /// Said of each further one.
    pub many: &'static str,
    /// Said where there is none.
    pub none: &'static str,
}

pub(super) struct Member {
    pub field: &'static str,
    /// Under which name its own fields are told, and under which that it is one too many.
    pub told: &'static str,
    pub again: &'static str,
    pub rules: Rules,
}

pub(super) const fn member(field: &'static str, rules: Rules) -> Member {
    Member {
        field,
        told: field,
        again: field,
        rules,
    }
}

/// What stands around the value that is checked.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The object itself.
    pub object: &'a Value,
    /// Of the pod, or of the pods that a template makes.
    pub pod: Option<&'a Pod<'a>>,
}

impl<'a> Scope<'a> {
    pub const fn of(object: &'a Value) -> Self {
        Scope { object, pod: None }
    }
}

pub(super) const fn required(field: &'static str) -> Rule {
    required_saying(field, "")
}

pub(super) const fn required_saying(field: &'static str, why: &'static str) -> Rule {
    let check = Check::Required(why);
    Rule { field, check }
}

pub(super) const fn name(field: &'static str, form: Format) -> Rule {
    let check = Check::Name(form);
    Rule { field, check }
}

pub(super) const fn format(field: &'static str, form: Format) -> Rule {
    let check = Check::Format(form);
    Rule { field, check }
}

pub(super) const fn always(field: &'static str, form: Format) -> Rule {
    let check = Check::Always(form);
    Rule { field, check }
}

pub(super) const fn format_if_set(field: &'static str, form: Format) -> Rule {
    let check = Check::FormatIfSet(form);
    Rule { field, check }
}

pub(super) const fn numbers(field: &'static str, low: i64, high: i64) -> Rule {
    let check = Check::Numbers(low, high);
    Rule { field, check }
}

pub(super) const fn texts(field: &'static str, form: Format) -> Rule {
    let check = Check::Texts(form);
    Rule { field, check }
}

pub(super) const fn one_of(field: &'static str, values: &'static [&'static str]) -> Rule {
    one_of_saying(field, values, "")
}

pub(super) const fn one_of_saying(field: &'static str, values: &'static [&'static str], missing: &'static str) -> Rule {
    let check = Check::Enum(values, missing);
    Rule { field, check }
}

pub(super) const fn among(field: &'static str, values: &'static [&'static str]) -> Rule {
    let check = Check::Among(values);
    Rule { field, check }
}

pub(super) const fn one_of_if_set(field: &'static str, values: &'static [&'static str]) -> Rule {
    let check = Check::EnumIfSet(values);
    Rule { field, check }
}

pub(super) const fn non_negative(field: &'static str) -> Rule {
    let check = Check::NonNegative;
    Rule { field, check }
}

pub(super) const fn positive(field: &'static str) -> Rule {
    let check = Check::Positive;
    Rule { field, check }
}

pub(super) const fn range(field: &'static str, low: i64, high: i64) -> Rule {
    let check = Check::Range(low, high);
    Rule { field, check }
}

pub(super) const fn number(field: &'static str, low: i64, high: i64) -> Rule {
    let check = Check::Number(low, high);
    Rule { field, check }
}

pub(super) const fn object(field: &'static str, rules: Rules) -> Rule {
    let check = Check::Object(rules);
    Rule { field, check }
}

pub(super) const fn structure(field: &'static str, rules: Rules) -> Rule {
    let check = Check::Struct(rules);
    Rule { field, check }
}

pub(super) const fn each(field: &'static str, rules: Rules) -> Rule {
    let check = Check::Each(rules);
    Rule { field, check }
}

pub(super) const fn each_unique(field: &'static str, key: &'static str, rules: Rules) -> Rule {
    let check = Check::EachUnique(key, rules);
    Rule { field, check }
}

pub(super) const fn union(one: &'static Union) -> Rule {
    let check = Check::Union(one);
    Rule { field: "", check }
}

pub(super) const fn call(field: &'static str, own: Call) -> Rule {
    let check = Check::Call(own);
    Rule { field, check }
}

pub(super) const fn told(field: &'static str, own: Told, word: &'static str) -> Rule {
    let check = Check::Told(own, word);
    Rule { field, check }
}

/// The checks of another type too.
pub(super) const fn all(rules: Rules) -> Rule {
    structure("", rules)
}

/// A check of the whole value.
pub(super) const fn whole(own: Call) -> Rule {
    call("", own)
}

/// Runs the checks of a kind on an object, whose fields have no path before them.
pub(super) fn check_object(rules: Rules, object: &Value, errors: &mut Errors) {
    check(rules, object, &Scope::of(object), &Path::ROOT, errors);
}

/// Runs the checks of a kind's spec.
pub(super) fn check_spec(rules: Rules, object: &Value, errors: &mut Errors) {
    let spec = super::spec_of(object);
    check(rules, spec, &Scope::of(object), &super::SPEC, errors);
}

/// Runs a type's checks on a value.
pub(super) fn check(rules: Rules, value: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let map = value.as_object();
    for rule in rules {
        if rule.field.is_empty() {
            rule.check.run(Some(value), scope, path, errors);
            continue;
        }
        let own = map.and_then(|map| map.get(rule.field)).filter(|own| !own.is_null());
        rule.check.run(own, scope, &path.child(rule.field), errors);
    }
}

impl Check {
    fn run(&self, own: Option<&Value>, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
        match self {
            Check::Required(why) => {
                if is_empty(own) {
                    errors.push(FieldError::required(path, *why));
                }
            }
            Check::Struct(rules) => check(rules, own.unwrap_or(&Value::Null), scope, path, errors),
            Check::Name(_) if is_empty(own) => errors.push(FieldError::required(path, "")),
            Check::Enum(_, missing) if is_empty(own) => errors.push(FieldError::required(path, *missing)),
            Check::Among(values) => {
                let own = own.and_then(Value::as_str).unwrap_or("");
                if !values.contains(&own) {
                    errors.push(FieldError::not_supported(path, own, values));
                }
            }
            Check::Format(_) if is_empty(own) => {}
            Check::Number(low, high) => in_range(own.unwrap_or(&Value::Null), *low, *high, path, errors),
            Check::Always(form) => formed(*form, own.and_then(Value::as_str).unwrap_or(""), path, errors),
            _ => {
                if let Some(own) = own {
                    self.run_on(own, scope, path, errors);
                }
            }
        }
    }

    /// On a field that is there.
    fn run_on(&self, own: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
        let text = || own.as_str().unwrap_or("");
        let number = || own.as_i64().unwrap_or(0);
        match self {
            Check::Name(form) | Check::Format(form) | Check::Always(form) | Check::FormatIfSet(form) => {
                formed(*form, text(), path, errors);
            }
            Check::Enum(values, _) | Check::EnumIfSet(values) if !values.contains(&text()) => {
                errors.push(FieldError::not_supported(path, text(), values));
            }
            Check::NonNegative if number() < 0 => errors.push(FieldError::invalid(path, number(), NEGATIVE)),
            Check::Positive if number() <= 0 => errors.push(FieldError::invalid(path, number(), NOT_POSITIVE)),
            Check::Range(low, high) => in_range(own, *low, *high, path, errors),
            Check::Object(rules) => check(rules, own, scope, path, errors),
            Check::Texts(..) | Check::Numbers(..) | Check::Each(_) | Check::EachUnique(..) => {
                let items = own.as_array().map_or(&[][..], Vec::as_slice);
                self.run_on_list(items, scope, path, errors);
            }
            Check::Union(one) => one.check(own, scope, path, errors),
            Check::Call(own_check) => own_check(own, scope, path, errors),
            Check::Told(own_check, word) => own_check(own, scope, path, errors, word),
            _ => {}
        }
    }

    fn run_on_list(&self, items: &[Value], scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
        let mut seen: HashSet<&str> = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            let path = path.index(index);
            match self {
                Check::Texts(form) => formed(*form, item.as_str().unwrap_or(""), &path, errors),
                Check::Numbers(low, high) => in_range(item, *low, *high, &path, errors),
                Check::Each(rules) => check(rules, item, scope, &path, errors),
                Check::EachUnique(key, rules) => {
                    check(rules, item, scope, &path, errors);
                    let own = super::text(item, key);
                    if !seen.insert(own) {
                        errors.push(FieldError::duplicate(path.child(key), own));
                    }
                }
                _ => {}
            }
        }
    }
}

fn in_range(value: &Value, low: i64, high: i64, path: &Path<'_>, errors: &mut Errors) {
    let number = value.as_i64().unwrap_or(0);
    for problem in names::in_range(number, low, high) {
        errors.push(FieldError::invalid(path, number, problem));
    }
}

fn formed(form: Format, text: &str, path: &Path<'_>, errors: &mut Errors) {
    for problem in form(text) {
        errors.push(FieldError::invalid(path, text, problem));
    }
}

impl Union {
    pub fn check(&self, value: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
        // The usual value has one of dozens: its few keys are looked up, not all that it might have.
        let mut present = value.as_object().into_iter().flatten().filter_map(|(key, own)| {
            let member = self.members.iter().find(|member| member.field == key)?;
            (!own.is_null()).then_some((member, own))
        });
        let first = match (present.next(), present.next()) {
            (None, _) => return errors.push(FieldError::required(path, self.none)),
            (one, None) => one,
            _ => None,
        };
        if let Some((member, own)) = first {
            return check(member.rules, own, scope, &path.child(member.told), errors);
        }
        let in_order = self
            .members
            .iter()
            .filter(|member| super::has(value, member.field).is_some());
        for (index, member) in in_order.enumerate() {
            if index > 0 {
                errors.push(FieldError::forbidden(path.child(member.again), self.many));
            } else {
                check(
                    member.rules,
                    &value[member.field],
                    scope,
                    &path.child(member.told),
                    errors,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(rules: Rules, value: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        check(rules, value, &Scope::of(value), &Path::new("spec"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    const EITHER: Union = Union {
        members: &[member("a", &[required("x")]), member("b", &[]), member("c", &[])],
        many: "only one",
        none: "one of them",
    };
    const ONE: Rules = &[union(&EITHER)];
    const ITEM: Rules = &[name("name", names::dns_label)];
    const RULES: Rules = &[
        one_of("kind", &["A", "B"]),
        one_of_if_set("mode", &["A", "B"]),
        non_negative("count"),
        positive("size"),
        range("port", 1, 9),
        each_unique("items", "name", ITEM),
        structure("inner", &[required_saying("x", "why")]),
        object("outer", &[required("x")]),
    ];

    #[test]
    fn checks_run_in_their_order() {
        let good = json!({"kind": "A", "items": [{"name": "a"}], "inner": {"x": 1}});
        assert_eq!(problems(RULES, &good), Vec::<String>::new());
        let bad = json!({"kind": "", "mode": "C", "count": -1, "size": 0, "port": 10,
            "items": [{"name": "a"}, {"name": "a"}, {}], "outer": {}});
        assert_eq!(
            problems(RULES, &bad),
            [
                "spec.kind: Required value",
                "spec.mode: Unsupported value: \"C\": supported values: \"A\", \"B\"",
                "spec.count: Invalid value: -1: must be greater than or equal to 0",
                "spec.size: Invalid value: 0: must be greater than zero",
                "spec.port: Invalid value: 10: must be between 1 and 9, inclusive",
                "spec.items[1].name: Duplicate value: \"a\"",
                "spec.items[2].name: Required value",
                "spec.inner.x: Required value: why",
                "spec.outer.x: Required value",
            ]
        );
    }

    #[test]
    fn of_a_union_the_first_counts() {
        let of = |value: Value| problems(ONE, &value);
        assert_eq!(of(json!({"name": "n"})), ["spec: Required value: one of them"]);
        assert_eq!(of(json!({"name": "n", "a": {}})), ["spec.a.x: Required value"]);
        assert_eq!(of(json!({"b": {}, "a": {"x": 1}})), ["spec.b: Forbidden: only one"]);
        assert_eq!(of(json!({"b": {}, "a": null})), Vec::<String>::new());
        assert_eq!(
            of(json!({"name": "n", "c": {}, "b": {}, "a": {"x": 1}})),
            ["spec.b: Forbidden: only one", "spec.c: Forbidden: only one"]
        );
    }
}
