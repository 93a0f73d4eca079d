//! Fields behind a feature gate that v1.35's defaults leave off. A write drops them, unless what is stored has them already:
//! then they stay. A row goes when upstream's gate is on.

use serde_json::Value;

/// A path of keys; `*` is each item of a list.
type Place = &'static [&'static str];

/// The fields of one gate.
#[derive(Debug)]
pub struct Gate {
    /// They come and go together: one of them in use keeps all.
    fields: &'static [Place],
    /// What is left empty without them goes too.
    holder_too: bool,
}

const fn gate(fields: &'static [Place]) -> Gate {
    Gate {
        fields,
        holder_too: false,
    }
}

/// Of a pod spec, wherever it stands.
const POD_SPEC: &[Gate] = &[
    gate(&[&["workloadRef"]]),
    gate(&[&["volumes", "*", "projected", "sources", "*", "clusterTrustBundle"]]),
    gate(&[&["volumes", "*", "projected", "sources", "*", "podCertificate"]]),
    Gate {
        fields: &[
            &["initContainers", "*", "lifecycle", "stopSignal"],
            &["containers", "*", "lifecycle", "stopSignal"],
            &["ephemeralContainers", "*", "lifecycle", "stopSignal"],
        ],
        holder_too: true,
    },
];

const POD: &[Gate] = &[
    gate(&[&["status", "resources"], &["status", "allocatedResources"]]),
    gate(&[&["status", "extendedResourceClaimStatus"]]),
    gate(&[
        &["status", "containerStatuses", "*", "allocatedResourcesStatus"],
        &["status", "initContainerStatuses", "*", "allocatedResourcesStatus"],
        &["status", "ephemeralContainerStatuses", "*", "allocatedResourcesStatus"],
    ]),
];

/// Of kinds with a pod template in their spec.
pub const TEMPLATE: &[Part] = &[pod_spec(&["spec", "template", "spec"])];
pub const STATEFUL: &[Part] = &[pod_spec(&["spec", "template", "spec"]), own(STATEFUL_SET)];
pub const CRON_JOB: &[Part] = &[pod_spec(&["spec", "jobTemplate", "spec", "template", "spec"])];
pub const POD_TEMPLATE: &[Part] = &[pod_spec(&["template", "spec"])];
pub const PODS: &[Part] = &[pod_spec(&["spec"]), own(POD)];
pub const NODES: &[Part] = &[own(NODE)];
pub const LEASES: &[Part] = &[own(LEASE)];
pub const DEVICE_CLASSES: &[Part] = &[own(DEVICE_CLASS)];
pub const RESOURCE_SLICES: &[Part] = &[own(RESOURCE_SLICE)];
pub const CLAIMS: &[Part] = &[claim_spec(&["spec"]), own(CLAIM_STATUS)];
pub const CLAIM_TEMPLATES: &[Part] = &[claim_spec(&["spec", "spec"])];

const STATEFUL_SET: &[Gate] = &[gate(&[&["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"]])];

const NODE: &[Gate] = &[
    gate(&[&["status", "declaredFeatures"]]),
    gate(&[&["spec", "configSource"]]),
    gate(&[&["status", "config"]]),
];

const LEASE: &[Gate] = &[gate(&[&["spec", "strategy"]]), gate(&[&["spec", "preferredHolder"]])];

const DEVICE_CLASS: &[Gate] = &[gate(&[&["spec", "extendedResourceName"]])];

const RESOURCE_SLICE: &[Gate] = &[
    gate(&[&["spec", "devices", "*", "taints"]]),
    gate(&[
        &["spec", "sharedCounters"],
        &["spec", "perDeviceNodeSelection"],
        &["spec", "devices", "*", "consumesCounters"],
        &["spec", "devices", "*", "nodeName"],
        &["spec", "devices", "*", "nodeSelector"],
        &["spec", "devices", "*", "allNodes"],
    ]),
    gate(&[
        &["spec", "devices", "*", "bindsToNode"],
        &["spec", "devices", "*", "bindingConditions"],
        &["spec", "devices", "*", "bindingFailureConditions"],
    ]),
    gate(&[
        &["spec", "devices", "*", "allowMultipleAllocations"],
        &["spec", "devices", "*", "capacity", "*", "requestPolicy"],
    ]),
];

/// Of the claim in a ResourceClaim or in a template.
const CLAIM_SPEC: &[Gate] = &[
    gate(&[
        &["devices", "requests", "*", "exactly", "tolerations"],
        &["devices", "requests", "*", "firstAvailable", "*", "tolerations"],
    ]),
    gate(&[
        &["devices", "requests", "*", "exactly", "capacity"],
        &["devices", "requests", "*", "firstAvailable", "*", "capacity"],
        &["devices", "constraints", "*", "distinctAttribute"],
    ]),
];

const CLAIM_STATUS: &[Gate] = &[
    gate(&[
        &["status", "allocation", "devices", "results", "*", "shareID"],
        &["status", "allocation", "devices", "results", "*", "consumedCapacity"],
        &["status", "devices", "*", "shareID"],
    ]),
    gate(&[
        &["status", "allocation", "devices", "results", "*", "bindingConditions"],
        &[
            "status",
            "allocation",
            "devices",
            "results",
            "*",
            "bindingFailureConditions",
        ],
    ]),
];

/// The gates of a part that several kinds have, and where a kind has it.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    gates: &'static [Gate],
    at: Place,
}

const fn pod_spec(at: Place) -> Part {
    Part { gates: POD_SPEC, at }
}

const fn claim_spec(at: Place) -> Part {
    Part { gates: CLAIM_SPEC, at }
}

const fn own(gates: &'static [Gate]) -> Part {
    Part { gates, at: &[] }
}

impl Part {
    /// Drops what is behind a gate from an object that is about to be written.
    pub fn drop_disabled(self, new: &mut Value, old: Option<&Value>) {
        let Some(new) = crate::meta::at_mut(new, self.at) else {
            return;
        };
        let old = old.and_then(|old| crate::meta::at(old, self.at));
        for gate in self.gates {
            let used = |object: &Value| gate.fields.iter().any(|field| is_set(object, field));
            if used(new) && !old.is_some_and(used) {
                gate.fields.iter().for_each(|field| remove(new, field, gate.holder_too));
            }
        }
    }
}

/// What `*` goes through: a list's items, a map's values.
fn is_set(value: &Value, place: &[&str]) -> bool {
    let Some((first, rest)) = place.split_first() else {
        return !value.is_null();
    };
    match (value, *first) {
        (Value::Array(items), "*") => items.iter().any(|item| is_set(item, rest)),
        (Value::Object(map), "*") => map.values().any(|item| is_set(item, rest)),
        (Value::Object(map), key) => map.get(key).is_some_and(|own| is_set(own, rest)),
        _ => false,
    }
}

fn remove(value: &mut Value, place: &[&str], holder_too: bool) {
    match (value, place) {
        (Value::Array(items), ["*", rest @ ..]) => items.iter_mut().for_each(|item| remove(item, rest, holder_too)),
        (Value::Object(map), ["*", rest @ ..]) => map.values_mut().for_each(|item| remove(item, rest, holder_too)),
        (Value::Object(map), [last]) => drop(map.remove(*last)),
        (Value::Object(map), [key, rest @ ..]) => {
            let Some(own) = map.get_mut(*key) else { return };
            let had = is_set(own, rest);
            remove(own, rest, holder_too);
            let emptied = own.as_object().is_some_and(serde_json::Map::is_empty);
            if holder_too && rest.len() == 1 && had && emptied {
                map.remove(*key);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_stored_already_stays() {
        let with = || json!({"spec": {"workloadRef": {"name": "w"}, "containers": [{"lifecycle": {"stopSignal": "SIGTERM"}}, {"lifecycle": {"preStop": {}, "stopSignal": "SIGTERM"}}]}});
        let part = pod_spec(&["spec"]);
        let mut new = with();
        part.drop_disabled(&mut new, None);
        assert_eq!(
            new,
            json!({"spec": {"containers": [{}, {"lifecycle": {"preStop": {}}}]}})
        );
        let mut kept = with();
        part.drop_disabled(&mut kept, Some(&with()));
        assert_eq!(kept, with());
        let mut one = with();
        part.drop_disabled(&mut one, Some(&json!({"spec": {"workloadRef": {"name": "v"}}})));
        assert_eq!(one["spec"]["workloadRef"]["name"], "w");
        assert_eq!(one["spec"]["containers"][0], json!({}));
    }
}
