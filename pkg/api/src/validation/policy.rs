//! policy: disruption budgets.

use serde_json::Value;

use super::node_selector::selector;
use super::rules::{Rules, Scope, call, check_spec, object, one_of_if_set, whole};
use super::{Errors, Path, at_most_100_percent, has, int_or_percent};
use crate::status::FieldError;

const BUDGET: Rules = &[
    whole(one_of_both),
    object("minAvailable", PERCENT),
    object("maxUnavailable", PERCENT),
    call("selector", selector),
    one_of_if_set("unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]),
];
const PERCENT: Rules = &[whole(int_or_percent), whole(at_most_100_percent)];

pub fn disruption_budget(budget: &Value, errors: &mut Errors) {
    check_spec(BUDGET, budget, errors);
}

fn one_of_both(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if has(spec, "minAvailable").is_some() && has(spec, "maxUnavailable").is_some() {
        let why = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid(path, spec.clone(), why));
    }
}
