//! RuntimeClass: an unknown class is refused; a known one brings its overhead, node selector and tolerations.

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

/// Tolerations without those that another of them covers.
fn merged(all: &[Value]) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let earlier = kept.iter().any(|other| covers(other, toleration));
        let later = all[index + 1..]
            .iter()
            .any(|other| other != toleration && covers(other, toleration));
        if !earlier && !later {
            kept.push(toleration.clone());
        }
    }
    kept
}

fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
    let exists = text(wide, "operator") == "Exists";
    if text(narrow, "key") != text(wide, "key") && !(text(wide, "key").is_empty() && exists) {
        return false;
    }
    if !text(wide, "effect").is_empty() && text(wide, "effect") != text(narrow, "effect") {
        return false;
    }
    if text(wide, "effect") == "NoExecute"
        && let Some(seconds) = wide["tolerationSeconds"].as_i64()
        && narrow["tolerationSeconds"].as_i64().is_none_or(|own| own > seconds)
    {
        return false;
    }
    exists || (text(narrow, "operator") != "Exists" && text(wide, "value") == text(narrow, "value"))
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
}
