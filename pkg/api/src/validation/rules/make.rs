//! How a table names its checks.

use super::{Call, Cases, Check, Format, Member, Rule, Rules, Told, Union};

pub(in crate::validation) const fn member(field: &'static str, rules: Rules) -> Member {
    Member {
        field,
        told: field,
        again: field,
        rules,
    }
}

pub(in crate::validation) const fn required(field: &'static str) -> Rule {
    required_saying(field, "")
}

pub(in crate::validation) const fn required_saying(field: &'static str, why: &'static str) -> Rule {
    let check = Check::Required(why);
    Rule { field, check }
}

pub(in crate::validation) const fn name(field: &'static str, form: Format) -> Rule {
    let check = Check::Name(form);
    Rule { field, check }
}

pub(in crate::validation) const fn format(field: &'static str, form: Format) -> Rule {
    let check = Check::Format(form);
    Rule { field, check }
}

pub(in crate::validation) const fn always(field: &'static str, form: Format) -> Rule {
    let check = Check::Always(form);
    Rule { field, check }
}

pub(in crate::validation) const fn format_if_set(field: &'static str, form: Format) -> Rule {
    let check = Check::FormatIfSet(form);
    Rule { field, check }
}

pub(in crate::validation) const fn numbers(field: &'static str, low: i64, high: i64) -> Rule {
    let check = Check::Numbers(low, high);
    Rule { field, check }
}

pub(in crate::validation) const fn texts(field: &'static str, form: Format) -> Rule {
    let check = Check::Texts(form);
    Rule { field, check }
}

pub(in crate::validation) const fn one_of(field: &'static str, values: &'static [&'static str]) -> Rule {
    one_of_saying(field, values, "")
}

pub(in crate::validation) const fn one_of_saying(
    field: &'static str,
    values: &'static [&'static str],
    missing: &'static str,
) -> Rule {
    let check = Check::Enum(values, missing);
    Rule { field, check }
}

pub(in crate::validation) const fn among(field: &'static str, values: &'static [&'static str]) -> Rule {
    let check = Check::Among(values);
    Rule { field, check }
}

pub(in crate::validation) const fn one_of_if_set(field: &'static str, values: &'static [&'static str]) -> Rule {
    let check = Check::EnumIfSet(values);
    Rule { field, check }
}

pub(in crate::validation) const fn one_of_unless_empty(field: &'static str, values: &'static [&'static str]) -> Rule {
    let check = Check::EnumUnlessEmpty(values);
    Rule { field, check }
}

pub(in crate::validation) const fn non_negative(field: &'static str) -> Rule {
    let check = Check::NonNegative;
    Rule { field, check }
}

pub(in crate::validation) const fn positive(field: &'static str) -> Rule {
    let check = Check::Positive;
    Rule { field, check }
}

pub(in crate::validation) const fn range(field: &'static str, low: i64, high: i64) -> Rule {
    let check = Check::Range(low, high);
    Rule { field, check }
}

pub(in crate::validation) const fn number(field: &'static str, low: i64, high: i64) -> Rule {
    let check = Check::Number(low, high);
    Rule { field, check }
}

pub(in crate::validation) const fn object(field: &'static str, rules: Rules) -> Rule {
    let check = Check::Object(rules);
    Rule { field, check }
}

pub(in crate::validation) const fn structure(field: &'static str, rules: Rules) -> Rule {
    let check = Check::Struct(rules);
    Rule { field, check }
}

pub(in crate::validation) const fn each(field: &'static str, rules: Rules) -> Rule {
    let check = Check::Each(rules);
    Rule { field, check }
}

pub(in crate::validation) const fn each_unique(
    field: &'static str,
    key: &'static str,
    around: &'static [Rules; 2],
) -> Rule {
    let check = Check::EachUnique(key, around);
    Rule { field, check }
}

pub(in crate::validation) const fn set(field: &'static str, values: &'static [&'static str]) -> Rule {
    let check = Check::Set(values);
    Rule { field, check }
}

pub(in crate::validation) const fn keys(field: &'static str, form: Format) -> Rule {
    let check = Check::Keys(form);
    Rule { field, check }
}

pub(in crate::validation) const fn entries(field: &'static str, rules: Rules) -> Rule {
    let check = Check::Entries(rules);
    Rule { field, check }
}

pub(in crate::validation) const fn present(field: &'static str) -> Rule {
    let check = Check::Present;
    Rule { field, check }
}

pub(in crate::validation) const fn empty_saying(field: &'static str, why: &'static str) -> Rule {
    let check = Check::Empty(why);
    Rule { field, check }
}

pub(in crate::validation) const fn at_most(field: &'static str, most: usize, rules: Rules) -> Rule {
    let check = Check::AtMost(most, rules);
    Rule { field, check }
}

pub(in crate::validation) const fn without(field: &'static str, rules: Rules) -> Rule {
    let check = Check::Without(rules);
    Rule { field, check }
}

pub(in crate::validation) const fn by(field: &'static str, cases: &'static Cases) -> Rule {
    let check = Check::By(cases);
    Rule { field, check }
}

pub(in crate::validation) const fn union(one: &'static Union) -> Rule {
    let check = Check::Union(one);
    Rule { field: "", check }
}

pub(in crate::validation) const fn call(field: &'static str, own: Call) -> Rule {
    let check = Check::Call(own);
    Rule { field, check }
}

pub(in crate::validation) const fn told(field: &'static str, own: Told, word: &'static str) -> Rule {
    let check = Check::Told(own, word);
    Rule { field, check }
}

/// The checks of another type too.
pub(in crate::validation) const fn all(rules: Rules) -> Rule {
    structure("", rules)
}

/// A check of the whole value.
pub(in crate::validation) const fn whole(own: Call) -> Rule {
    call("", own)
}
