//! RuntimeClass: an unknown class is refused; a known one brings its overhead, node selector and tolerations.

use std::collections::HashMap;

use mk8s_api::status::Status;
use serde_json::{Value, json};

use super::Attributes;
use crate::lookup::Lookup;

/// The class a pod names; an error when there is none of that name.
fn class(attributes: &Attributes<'_>, pod: &Value, lookup: &dyn Lookup) -> Result<Option<Value>, Status> {
    let Some(name) = pod["spec"]["runtimeClassName"].as_str() else {
        return Ok(None);
    };
    match lookup.value("node.k8s.io", "runtimeclasses", "", name) {
        Some(class) => Ok(Some(class)),
        None => Err(attributes.forbidden(Some(pod), &format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

pub fn admit(attributes: &Attributes<'_>, pod: &mut Value, lookup: &dyn Lookup) -> Result<(), Status> {
    let Some(class) = class(attributes, pod, lookup)? else {
        return Ok(());
    };
    if let Some(overhead) = class["overhead"]["podFixed"].as_object() {
        let own = pod["spec"]["overhead"].as_object().filter(|own| !own.is_empty());
        if own.is_some_and(|own| own != overhead) {
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(attributes.forbidden(Some(pod), why));
        }
        pod["spec"]["overhead"] = overhead.clone().into();
    }
    let scheduling = &class["scheduling"];
    for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        match pod["spec"]["nodeSelector"].get(key) {
            Some(own) if own != value => {
                let why = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    text(value),
                    text(own)
                );
                return Err(attributes.forbidden(Some(pod), &why));
            }
            _ => mk8s_api::meta::object_mut(pod, &["spec", "nodeSelector"]).insert(key.clone(), value.clone()),
        };
    }
    if let Some(tolerations) = scheduling["tolerations"].as_array() {
        let mut all = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        all.extend(tolerations.iter().cloned());
        pod["spec"]["tolerations"] = merged(&all).into();
    }
    Ok(())
}

/// Tolerations without those that another of them covers: of two that say the same the first stays.
fn merged(all: &[Value]) -> Vec<Value> {
    let mut later = Cover::default();
    let mut left: Vec<&Value> = Vec::new();
    for toleration in all.iter().rev() {
        if !later.covers(toleration, Equals::Ignored) {
            left.push(toleration);
        }
        later.add(toleration);
    }
    let mut earlier = Cover::default();
    let mut kept = Vec::new();
    for toleration in left.into_iter().rev() {
        if !earlier.covers(toleration, Equals::Covering) {
            earlier.add(toleration);
            kept.push(toleration.clone());
        }
    }
    kept
}

/// What tolerations tolerate: by key, effect and value (none: any), and the longest time where they end.
#[derive(Default)]
struct Cover<'a>(HashMap<Tolerated<'a>, i128>);

type Tolerated<'a> = (&'a str, &'a str, Option<&'a str>);

/// Whether a toleration covers one that says the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Equals {
    Covering,
    Ignored,
}

fn tolerated(toleration: &Value) -> Tolerated<'_> {
    let text = |field: &str| toleration[field].as_str().unwrap_or_default();
    let value = (text("operator") != "Exists").then(|| text("value"));
    (text("key"), text("effect"), value)
}

/// Seconds, of those whose effect has an end.
fn lasts(toleration: &Value) -> i128 {
    toleration["tolerationSeconds"].as_i64().map_or(i128::MAX, i128::from)
}

impl<'a> Cover<'a> {
    fn add(&mut self, toleration: &'a Value) {
        let longest = self.0.entry(tolerated(toleration)).or_insert(i128::MIN);
        *longest = lasts(toleration).max(*longest);
    }

    fn covers(&self, toleration: &Value, equals: Equals) -> bool {
        let own = tolerated(toleration);
        let (key, effect, value) = own;
        // Any key is said by an empty one with Exists.
        let places = [(key, value), (key, None), ("", None)].into_iter();
        places
            .flat_map(|(key, value)| [(key, effect, value), (key, "", value)])
            .any(|wide| {
                let ends = wide.1 == "NoExecute";
                let same = wide == own && equals == Equals::Ignored;
                self.0.get(&wide).is_some_and(|longest| match (ends, same) {
                    (false, same) => !same,
                    (true, false) => *longest >= lasts(toleration),
                    (true, true) => *longest > lasts(toleration),
                })
            })
    }
}

pub fn validate(attributes: &Attributes<'_>, pod: &Value, lookup: &dyn Lookup) -> Result<(), Status> {
    let own = &pod["spec"]["overhead"];
    if pod["spec"]["runtimeClassName"].is_null() && own.is_null() {
        return Ok(());
    }
    let class = class(attributes, pod, lookup)?;
    let wanted = class
        .as_ref()
        .map(|class| &class["overhead"]["podFixed"])
        .filter(|overhead| !overhead.is_null());
    let why = match wanted {
        Some(wanted) if own != wanted => "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        None if !own.is_null() && *own != json!({}) => {
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
        }
        _ => return Ok(()),
    };
    Err(attributes.forbidden(Some(pod), why))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{Request, cluster};
    use super::*;

    #[test]
    fn classes() {
        let lookup = cluster();
        lookup.put(
            "node.k8s.io",
            "runtimeclasses",
            &json!({"metadata": {"name": "kata"}, "handler": "kata",
            "overhead": {"podFixed": {"cpu": "250m"}},
            "scheduling": {"nodeSelector": {"kata": "yes"}, "tolerations": [{"key": "kata", "operator": "Exists"}]}}),
        );
        let run = |spec: Value| {
            let mut pod = json!({"metadata": {"name": "x"}, "spec": spec});
            Request::create("pods", "default").with(None, |a| {
                admit(a, &mut pod, &*lookup)?;
                validate(a, &pod, &*lookup)
            })?;
            Ok::<_, Status>(pod)
        };
        assert_eq!(
            run(json!({"runtimeClassName": "none"})).unwrap_err().message,
            "pods \"x\" is forbidden: pod rejected: RuntimeClass \"none\" not found"
        );
        let pod = run(json!({"runtimeClassName": "kata"})).unwrap();
        assert_eq!(pod["spec"]["overhead"]["cpu"], "250m");
        assert_eq!(pod["spec"]["nodeSelector"]["kata"], "yes");
        assert_eq!(pod["spec"]["tolerations"][0]["key"], "kata");
        assert_eq!(
            run(json!({"runtimeClassName": "kata", "overhead": {"cpu": "1"}}))
                .unwrap_err()
                .code,
            403
        );
        assert_eq!(run(json!({"overhead": {"cpu": "1"}})).unwrap_err().code, 403);
        assert_eq!(
            run(json!({"runtimeClassName": "kata", "nodeSelector": {"kata": "no"}}))
                .unwrap_err()
                .code,
            403
        );
        run(json!({})).unwrap();
    }

    /// Upstream's definition, each with each.
    fn each_with_each(all: &[Value]) -> Vec<Value> {
        let covers = |wide: &Value, narrow: &Value| {
            let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_string();
            let exists = text(wide, "operator") == "Exists";
            let key = text(narrow, "key") == text(wide, "key") || (text(wide, "key").is_empty() && exists);
            let effect = text(wide, "effect").is_empty() || text(wide, "effect") == text(narrow, "effect");
            let seconds = text(wide, "effect") != "NoExecute"
                || wide["tolerationSeconds"]
                    .as_i64()
                    .is_none_or(|wide| narrow["tolerationSeconds"].as_i64().is_some_and(|own| own <= wide));
            let value =
                exists || (text(narrow, "operator") != "Exists" && text(wide, "value") == text(narrow, "value"));
            wide == narrow || (key && effect && seconds && value)
        };
        let mut kept: Vec<Value> = Vec::new();
        for (index, own) in all.iter().enumerate() {
            let earlier = kept.iter().any(|other| covers(other, own));
            let later = all[index + 1..].iter().any(|other| other != own && covers(other, own));
            if !earlier && !later {
                kept.push(own.clone());
            }
        }
        kept
    }

    #[test]
    fn of_tolerations_the_widest_stay() {
        // All there are of a few words, in many orders.
        let mut words = Vec::new();
        for key in ["", "a"] {
            for operator in ["Exists", "Equal"] {
                for effect in ["", "NoSchedule", "NoExecute"] {
                    let mut toleration = json!({"operator": operator});
                    for (field, text) in [("key", key), ("effect", effect)] {
                        if !text.is_empty() {
                            toleration[field] = text.into();
                        }
                    }
                    if operator == "Equal" {
                        toleration["value"] = "v".into();
                    }
                    words.push(toleration.clone());
                    if effect == "NoExecute" {
                        for seconds in [1, 2] {
                            toleration["tolerationSeconds"] = seconds.into();
                            words.push(toleration.clone());
                        }
                    }
                }
            }
        }
        for seed in 0..20_000usize {
            let pick = |n: usize| words[(seed * 7919 + n * (seed % 13 + 1) * 31) % words.len()].clone();
            let all: Vec<Value> = (0..seed % 7).map(pick).collect();
            assert_eq!(merged(&all), each_with_each(&all), "{all:?}");
        }
        let many = |n: usize| json!({"key": format!("k{n}"), "operator": "Equal", "value": "v"});
        let many: Vec<Value> = (0..50_000).map(many).collect();
        let begun = std::time::Instant::now();
        assert_eq!(merged(&many).len(), many.len());
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }
}
