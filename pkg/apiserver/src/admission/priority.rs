//! Priority: a pod's number comes from its class (or the default class), never from the pod itself.

use std::sync::Arc;

use mk8s_api::status::Status;
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;

use super::{Attributes, Operation};
use crate::lookup::Lookup;
use crate::memo::Parsed;

const GROUP: &str = "scheduling.k8s.io";
const PLURAL: &str = "priorityclasses";

#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Class {
    metadata: Metadata,
    value: i64,
    global_default: bool,
    preemption_policy: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
}

/// The parsed classes, and which of them is the default at which revision.
#[derive(Default)]
pub struct Classes {
    by_name: Parsed<Class>,
    default: RwLock<Option<(u64, Option<Arc<Class>>)>>,
}

impl Classes {
    fn default_class(&self, lookup: &dyn Lookup) -> Option<Arc<Class>> {
        let revision = lookup.revision(GROUP, PLURAL);
        if let Some((held, class)) = &*self.default.read()
            && *held == revision
        {
            return class.clone();
        }
        let class = find_default(lookup).map(Arc::new);
        *self.default.write() = Some((revision, class.clone()));
        class
    }
}

/// The one marked so; of several (a race made them) the lowest.
fn find_default(lookup: &dyn Lookup) -> Option<Class> {
    let classes = lookup.list(GROUP, PLURAL, "");
    let parsed = classes
        .iter()
        .filter_map(|bytes| serde_json::from_slice::<Class>(bytes).ok());
    parsed
        .filter(|class| class.global_default)
        .min_by_key(|class| class.value)
}

pub fn admit(
    attributes: &Attributes<'_>,
    pod: &mut Value,
    lookup: &dyn Lookup,
    classes: &Classes,
) -> Result<(), Status> {
    if let (Operation::Update, Some(old)) = (attributes.operation, attributes.old) {
        for field in ["priority", "preemptionPolicy"] {
            if pod["spec"][field].is_null() && !old["spec"][field].is_null() {
                pod["spec"][field] = old["spec"][field].clone();
            }
        }
        return Ok(());
    }
    let name = mk8s_api::meta::string(pod, &["spec", "priorityClassName"]);
    let class = match name {
        "" => classes.default_class(lookup).unwrap_or_else(|| {
            Arc::new(Class {
                preemption_policy: Some("PreemptLowerPriority".into()),
                ..Class::default()
            })
        }),
        name => match lookup.find(GROUP, PLURAL, "", name) {
            Some(found) => classes
                .by_name
                .get(name, found, |bytes| serde_json::from_slice(bytes).unwrap_or_default()),
            None => {
                let why = format!("no PriorityClass with name {name} was found");
                return Err(attributes.forbidden(Some(pod), &why));
            }
        },
    };
    let tail = "computed";
    if let Some(given) = pod["spec"]["priority"].as_i64()
        && given != class.value
    {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller {tail} {} from the given PriorityClass name",
            class.value
        );
        return Err(attributes.forbidden(Some(pod), &why));
    }
    if let (Some(given), Some(wanted)) = (pod["spec"]["preemptionPolicy"].as_str(), &class.preemption_policy)
        && given != wanted
    {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller {tail} {wanted} from the given PriorityClass name"
        );
        return Err(attributes.forbidden(Some(pod), &why));
    }
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    if !class.metadata.name.is_empty() {
        spec.insert("priorityClassName".into(), class.metadata.name.as_str().into());
    }
    spec.insert("priority".into(), class.value.into());
    if let Some(policy) = &class.preemption_policy {
        spec.insert("preemptionPolicy".into(), policy.as_str().into());
    }
    Ok(())
}

/// Only one class is the default.
pub fn validate(attributes: &Attributes<'_>, class: &Value, lookup: &dyn Lookup) -> Result<(), Status> {
    if class["globalDefault"] != true || !attributes.subresource.is_empty() {
        return Ok(());
    }
    match find_default(lookup) {
        Some(other)
            if attributes.operation == Operation::Create
                || class["metadata"]["name"] != other.metadata.name.as_str() =>
        {
            let name = other.metadata.name;
            let why = format!("PriorityClass {name} is already marked as default. Only one default can exist");
            Err(attributes.forbidden(Some(class), &why))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::testing::{Request, cluster};
    use super::*;

    #[test]
    fn the_class_decides() {
        let lookup = cluster();
        let classes = Classes::default();
        lookup.put(
            GROUP,
            PLURAL,
            &json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}),
        );
        let run = |spec: Value| {
            let mut pod = json!({"metadata": {"name": "x"}, "spec": spec});
            Request::create("pods", "default").with(None, |a| admit(a, &mut pod, &*lookup, &classes))?;
            Ok::<_, Status>((
                pod["spec"]["priority"].as_i64().unwrap(),
                pod["spec"]["priorityClassName"].clone(),
                pod["spec"]["preemptionPolicy"].clone(),
            ))
        };
        assert_eq!(run(json!({})).unwrap(), (0, json!(null), json!("PreemptLowerPriority")));
        assert_eq!(
            run(json!({"priorityClassName": "high"})).unwrap(),
            (1000, json!("high"), json!("Never"))
        );
        assert_eq!(
            run(json!({"priorityClassName": "none"})).unwrap_err().message,
            "pods \"x\" is forbidden: no PriorityClass with name none was found"
        );
        assert_eq!(run(json!({"priority": 5})).unwrap_err().code, 403);
        lookup.put(
            GROUP,
            PLURAL,
            &json!({"metadata": {"name": "usual"}, "value": 7, "globalDefault": true}),
        );
        assert_eq!(run(json!({})).unwrap(), (7, json!("usual"), json!(null)));

        let second = json!({"metadata": {"name": "second"}, "globalDefault": true});
        let request = Request {
            group: GROUP,
            ..Request::create(PLURAL, "")
        };
        assert_eq!(
            request.with(None, |a| validate(a, &second, &*lookup)).unwrap_err().code,
            403
        );
    }
}
