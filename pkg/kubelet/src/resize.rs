//! What a pod's containers were given when they started, and that they keep it: this node does not resize them yet. A pod that
//! asks for something else goes on as it is, and says so by a condition and an event.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, ResourceRequirements};

use crate::pod;

/// Of the condition and the event.
pub const WHY: &str = "resize of containers: not in this version of mk8s";

/// The pod with what its containers have in place of what they ask for, and whether that is something else.
/// `has`: of a container, if it has anything yet.
pub fn held(wanted: &Arc<Pod>, has: impl Fn(&str) -> Option<ResourceRequirements>) -> (Arc<Pod>, bool) {
    let differs = |own: &Option<ResourceRequirements>, has: &ResourceRequirements| {
        own.as_ref().unwrap_or(&ResourceRequirements::default()) != has
    };
    let is_resized = pod::all_containers(wanted).any(|container| {
        let has = has(&container.name);
        has.is_some_and(|has| differs(&container.resources, &has))
    });
    if !is_resized {
        return (wanted.clone(), false);
    }
    let mut kept = Pod::clone(wanted);
    if let Some(spec) = &mut kept.spec {
        let all = spec
            .containers
            .iter_mut()
            .chain(spec.init_containers.iter_mut().flatten());
        for container in all {
            if let Some(has) = has(&container.name).filter(|has| differs(&container.resources, has)) {
                container.resources = Some(has);
            }
        }
    }
    (Arc::new(kept), true)
}

/// What a container has in the pod that is held.
pub fn of_spec(held: &Pod, name: &str) -> Option<ResourceRequirements> {
    pod::container(held, name).map(|container| container.resources.clone().unwrap_or_default())
}

/// What an earlier run of the agent said that a container has. Of init containers only those that run on can be resized, and
/// these no pod here has.
pub fn of_status(pod: &Pod, name: &str) -> Option<ResourceRequirements> {
    let is_of = |status: &&ContainerStatus| status.name == name;
    let statuses = &pod::status(pod).container_statuses;
    statuses.iter().flatten().find(is_of)?.resources.clone()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn pod(cpu: &str, told: Option<&str>) -> Arc<Pod> {
        let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let mut status = json!([{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0}]);
        if let Some(told) = told {
            status[0]["resources"] = resources(told);
        }
        let pod: Value = json!({"metadata": {"name": "p"}, "status": {"containerStatuses": status},
            "spec": {"containers": [{"name": "c", "resources": resources(cpu)}, {"name": "d"}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn containers_keep_what_they_have() {
        let first = pod("1", None);
        for (wanted, resized) in [(pod("1", None), false), (pod("2", None), true)] {
            let (held, differs) = held(&wanted, |name| of_spec(&first, name));
            assert_eq!(differs, resized);
            assert_eq!(held.spec, first.spec);
        }
        for (wanted, resized) in [
            (pod("2", Some("1")), true),
            (pod("2", Some("2")), false),
            (pod("2", None), false),
        ] {
            let (held, differs) = held(&wanted, |name| of_status(&wanted, name));
            assert_eq!(differs, resized, "{wanted:?}");
            let expected = if resized { &first } else { &wanted };
            assert_eq!(held.spec, expected.spec);
        }
    }
}
