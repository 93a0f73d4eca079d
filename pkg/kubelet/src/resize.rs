//! What a pod's containers were given when they started, and that they keep it: this node does not resize them yet. A pod that
//! asks for something else goes on as it is, and says so by a condition and an event. What has not begun gets what it asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, ResourceRequirements};

use crate::pod;

/// Of the condition and the event.
pub const WHY: &str = "resize of containers: not in this version of mk8s";

/// What is asked for and not given, by the containers' names.
pub type Refused = BTreeMap<String, Option<ResourceRequirements>>;

/// The pod with what its containers have in place of what they ask for, and what that is where it is something else.
/// `has`: of a container, if it keeps what it has.
pub fn held(wanted: &Arc<Pod>, has: impl Fn(&str) -> Option<ResourceRequirements>) -> (Arc<Pod>, Refused) {
    let kept = |container: &Container| {
        let own = container.resources.clone().unwrap_or_default();
        has(&container.name).filter(|has| own != *has)
    };
    let refused = pod::all_containers(wanted).filter(|container| kept(container).is_some());
    let refused: Refused = refused
        .map(|container| (container.name.clone(), container.resources.clone()))
        .collect();
    if refused.is_empty() {
        return (wanted.clone(), refused);
    }
    let mut held = Pod::clone(wanted);
    if let Some(spec) = &mut held.spec {
        let all = spec
            .containers
            .iter_mut()
            .chain(spec.init_containers.iter_mut().flatten());
        for container in all {
            if let Some(has) = kept(container) {
                container.resources = Some(has);
            }
        }
    }
    (Arc::new(held), refused)
}

/// Whether a container of the one asks for something else than in the other.
pub fn differs(one: &Pod, other: &Pod) -> bool {
    pod::all_containers(one).any(|container| of_spec(one, &container.name) != of_spec(other, &container.name))
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
            let (held, refused) = held(&wanted, |name| of_spec(&first, name));
            assert_eq!((!refused.is_empty(), differs(&wanted, &first)), (resized, resized));
            assert_eq!(held.spec, first.spec);
        }
        for (wanted, resized) in [
            (pod("2", Some("1")), true),
            (pod("2", Some("2")), false),
            (pod("2", None), false),
        ] {
            let (held, refused) = held(&wanted, |name| of_status(&wanted, name));
            let names: Vec<&String> = refused.keys().collect();
            assert_eq!(names, if resized { vec!["c"] } else { vec![] }, "{wanted:?}");
            let expected = if resized { &first } else { &wanted };
            assert_eq!(held.spec, expected.spec);
        }
    }
}
