//! A metric of autoscaling/v2beta1 (v1's annotations have the same form) as v2's, and back: names, selectors and numbers
//! stand beside each other there, and in `metric`, `target` and `current` here.

use serde_json::{Map, Value, json};

use crate::meta;

/// One type of metric.
pub(super) struct Source {
    /// Its field.
    key: &'static str,
    /// (field in v2beta1, path in v2); what is not named has the same name in both.
    moves: &'static [(&'static str, &'static [&'static str])],
    /// What v2beta1 prints even when v2 has none.
    zero: &'static str,
}

const METRIC_NAME: (&str, &[&str]) = ("metricName", &["metric", "name"]);
const SELECTOR: (&str, &[&str]) = ("selector", &["metric", "selector"]);
const METRIC_SELECTOR: (&str, &[&str]) = ("metricSelector", &["metric", "selector"]);
const TARGET: (&str, &[&str]) = ("target", &["describedObject"]);
const TARGETS: &[(&str, &[&str])] = &[
    ("targetAverageUtilization", &["target", "averageUtilization"]),
    ("targetAverageValue", &["target", "averageValue"]),
];
const CURRENTS: &[(&str, &[&str])] = &[
    ("currentAverageUtilization", &["current", "averageUtilization"]),
    ("currentAverageValue", &["current", "averageValue"]),
];

const fn source(
    key: &'static str,
    zero: &'static str,
    moves: &'static [(&'static str, &'static [&'static str])],
) -> Source {
    Source { key, moves, zero }
}

/// `spec.metrics`
pub(super) const SPEC: [Source; 5] = [
    source("resource", "", TARGETS),
    source("containerResource", "", TARGETS),
    source(
        "pods",
        "targetAverageValue",
        &[
            METRIC_NAME,
            SELECTOR,
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    source(
        "object",
        "targetValue",
        &[
            METRIC_NAME,
            SELECTOR,
            TARGET,
            ("targetValue", &["target", "value"]),
            ("averageValue", &["target", "averageValue"]),
        ],
    ),
    source(
        "external",
        "",
        &[
            METRIC_NAME,
            METRIC_SELECTOR,
            ("targetValue", &["target", "value"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
];

/// `status.currentMetrics`
pub(super) const STATUS: [Source; 5] = [
    source("resource", "currentAverageValue", CURRENTS),
    source("containerResource", "currentAverageValue", CURRENTS),
    source(
        "pods",
        "currentAverageValue",
        &[
            METRIC_NAME,
            SELECTOR,
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    source(
        "object",
        "currentValue",
        &[
            METRIC_NAME,
            SELECTOR,
            TARGET,
            ("currentValue", &["current", "value"]),
            ("averageValue", &["current", "averageValue"]),
        ],
    ),
    source(
        "external",
        "currentValue",
        &[
            METRIC_NAME,
            METRIC_SELECTOR,
            ("currentValue", &["current", "value"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
];

/// Each metric in a list of `holder`, from v2beta1.
pub(super) fn to_v2(holder: &mut Value, list: &str, sources: &[Source]) {
    each(holder, list, sources, |source, old| {
        let mut new = Value::Object(Map::new());
        for (field, path) in source.moves {
            if let Some(value) = old.as_object_mut().and_then(|old| old.remove(*field)) {
                meta::set(&mut new, path, value);
            }
        }
        keep_rest(old, &mut new);
        // Go prints both whatever is in them.
        let (holds, is_spec) = if list == "metrics" {
            ("target", true)
        } else {
            ("current", false)
        };
        meta::object_mut(&mut new, &[holds]);
        if is_spec {
            let kind = target_type(source.key, &new);
            meta::set(&mut new, &["target", "type"], kind);
        }
        *old = new;
    });
}

/// And to v2beta1.
pub(super) fn from_v2(holder: &mut Value, list: &str, sources: &[Source]) {
    each(holder, list, sources, |source, new| {
        let mut old = Value::Object(Map::new());
        for (field, path) in source.moves {
            if let Some(value) = meta::remove(new, path).filter(|value| !value.is_null()) {
                meta::set(&mut old, &[field], value);
            }
        }
        for done in ["metric", "target", "current", "describedObject"] {
            meta::remove(new, &[done]);
        }
        keep_rest(new, &mut old);
        if !source.zero.is_empty() {
            meta::set_default(&mut old, &[source.zero], "0");
        }
        *new = old;
    });
}

fn each(holder: &mut Value, list: &str, sources: &[Source], change: impl Fn(&Source, &mut Value)) {
    for metric in meta::items_mut(holder, &[list]) {
        for source in sources {
            if let Some(own) = meta::at_mut(metric, &[source.key]) {
                change(source, own);
            }
        }
    }
}

fn keep_rest(from: &mut Value, to: &mut Value) {
    if let (Value::Object(from), Value::Object(to)) = (from, to) {
        to.append(from);
    }
}

/// v2beta1 says of a target by which number it has what v2 says in words.
fn target_type(key: &str, metric: &Value) -> Value {
    let has = |field: &str| meta::at(metric, &["target", field]).is_some();
    let kind = match key {
        "resource" | "containerResource" if has("averageUtilization") => "Utilization",
        "object" if !has("averageValue") => "Value",
        "external" if has("value") => "Value",
        _ => "AverageValue",
    };
    json!(kind)
}
