//! Rules are data: the checks of a type are a table, in upstream's order, and one interpreter walks object and table
//! together. What compares fields with each other, or with the object around them, is a `Call`. Nothing is allocated
//! until something is wrong.

mod make;

use std::collections::HashSet;

use serde_json::Value;

use super::container::Pod;
use super::{Errors, NEGATIVE, NOT_POSITIVE, Path, is_empty};
use crate::names;
use crate::status::FieldError;

pub(in crate::validation) use self::make::*;

/// The checks of one type.
pub(in crate::validation) type Rules = &'static [Rule];

/// What is wrong with a text; nothing when it is as it should be.
pub(in crate::validation) type Format = fn(&str) -> Vec<String>;

/// A check of its own: of a field that is there, or of the whole value.
pub(in crate::validation) type Call = fn(&Value, &Scope<'_>, &Path<'_>, &mut Errors);

/// The same with a word of the table's.
pub(in crate::validation) type Told = fn(&Value, &Scope<'_>, &Path<'_>, &mut Errors, &'static str);

/// One check of one field; of the whole value where the field's name is empty.
pub(in crate::validation) struct Rule {
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
    /// One of these, unless it is empty.
    EnumUnlessEmpty(&'static [&'static str]),
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
    /// Each of a list, and none twice by this field; the checks before that is told, and those after it.
    EachUnique(&'static str, &'static [Rules; 2]),
    /// Each text of a list is one of these, and none twice.
    Set(&'static [&'static str]),
    /// Each key of a map of a form.
    Keys(Format),
    /// What a map, which may be absent, holds by these keys.
    Entries(Rules),
    /// There, be it empty.
    Present,
    /// Forbidden unless empty, saying this.
    Empty(&'static str),
    /// More items are too many, and end the checks; else those of the whole value go on.
    AtMost(usize, Rules),
    /// The checks of the whole value where this is empty.
    Without(Rules),
    /// The checks of the whole value by what this says.
    By(&'static Cases),
    /// One of several fields says what the value is.
    Union(&'static Union),
    /// If it is there.
    Call(Call),
    /// If it is there.
    Told(Told, &'static str),
}

/// A value of which one of several fields is set: the first is checked, each further one forbidden.
pub(in crate::validation) struct Union {
    pub members: &'static [Member],
    /// Said of each further one.
    pub many: &'static str,
    /// Said where there is none.
    pub none: &'static str,
}

/// What a field says, and the checks then.
pub(in crate::validation) type Case = (&'static [&'static str], Rules);

/// The checks of a value by what one of its fields says.
pub(in crate::validation) struct Cases {
    pub of: &'static [Case],
    pub otherwise: Rules,
}

pub(in crate::validation) struct Member {
    pub field: &'static str,
    /// Under which name its own fields are told, and under which that it is one too many.
    pub told: &'static str,
    pub again: &'static str,
    pub rules: Rules,
}

/// What stands around the value that is checked.
#[derive(Clone, Copy)]
pub(in crate::validation) struct Scope<'a> {
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

/// Runs the checks of a kind on an object, whose fields have no path before them.
pub(in crate::validation) fn check_object(rules: Rules, object: &Value, errors: &mut Errors) {
    check(rules, object, &Scope::of(object), &Path::ROOT, errors);
}

/// Runs the checks of a kind's spec.
pub(in crate::validation) fn check_spec(rules: Rules, object: &Value, errors: &mut Errors) {
    let spec = super::spec_of(object);
    check(rules, spec, &Scope::of(object), &super::SPEC, errors);
}

/// Runs a type's checks on a value.
pub(in crate::validation) fn check(
    rules: Rules,
    value: &Value,
    scope: &Scope<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let map = value.as_object();
    for rule in rules {
        if rule.field.is_empty() {
            rule.check.run(value, Some(value), scope, path, errors);
            continue;
        }
        let own = map.and_then(|map| map.get(rule.field)).filter(|own| !own.is_null());
        rule.check.run(value, own, scope, &path.child(rule.field), errors);
    }
}

impl Check {
    /// On a field of a value, or on its absence.
    fn run(&self, whole: &Value, own: Option<&Value>, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
        let go_on = |rules, errors: &mut Errors| check(rules, whole, scope, path.parent(), errors);
        match self {
            Check::AtMost(most, rules) => match own.and_then(Value::as_array).map_or(0, Vec::len) {
                count if count > *most => errors.push(FieldError::too_many(path, count, *most)),
                _ => go_on(rules, errors),
            },
            Check::Without(rules) if is_empty(own) => go_on(rules, errors),
            Check::By(cases) => go_on(cases.rules(own.and_then(Value::as_str).unwrap_or("")), errors),
            Check::Entries(rules) => check_entries(rules, own.unwrap_or(&Value::Null), scope, path, errors),
            Check::Present if own.is_none() => errors.push(FieldError::required(path, "")),
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
            Check::Format(_) | Check::EnumUnlessEmpty(_) if is_empty(own) => {}
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
            Check::Enum(values, _) | Check::EnumIfSet(values) | Check::EnumUnlessEmpty(values)
                if !values.contains(&text()) =>
            {
                errors.push(FieldError::not_supported(path, text(), values));
            }
            Check::NonNegative if number() < 0 => errors.push(FieldError::invalid(path, number(), NEGATIVE)),
            Check::Positive if number() <= 0 => errors.push(FieldError::invalid(path, number(), NOT_POSITIVE)),
            Check::Range(low, high) => in_range(own, *low, *high, path, errors),
            Check::Object(rules) => check(rules, own, scope, path, errors),
            Check::Empty(why) if !is_empty(Some(own)) => errors.push(FieldError::forbidden(path, *why)),
            Check::Keys(form) => {
                for (key, _) in own.as_object().into_iter().flatten() {
                    formed(*form, key, &path.key(key), errors);
                }
            }
            Check::Texts(..) | Check::Numbers(..) | Check::Set(_) | Check::Each(_) | Check::EachUnique(..) => {
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
                Check::Set(values) => {
                    let own = item.as_str().unwrap_or("");
                    if !values.contains(&own) {
                        errors.push(FieldError::not_supported(path, own, values));
                    }
                    if !seen.insert(own) {
                        errors.push(FieldError::duplicate(path, own));
                    }
                }
                Check::EachUnique(key, [before, after]) => {
                    check(before, item, scope, &path, errors);
                    let own = super::text(item, key);
                    if !seen.insert(own) {
                        errors.push(FieldError::duplicate(path.child(key), own));
                    }
                    check(after, item, scope, &path, errors);
                }
                _ => {}
            }
        }
    }
}

fn check_entries(rules: Rules, map: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    for rule in rules {
        let own = super::has(map, rule.field);
        rule.check.run(map, own, scope, &path.key(rule.field), errors);
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

impl Cases {
    fn rules(&self, own: &str) -> Rules {
        let case = self.of.iter().find(|(values, _)| values.contains(&own));
        case.map_or(self.otherwise, |(_, rules)| rules)
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
mod tests;
