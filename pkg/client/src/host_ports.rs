//! Whose host ports a pod has. Scheduler, node agent and proxy ask the same: what one of them doesn't count, another must
//! not take.

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// The containers that run as long as the pod does: sidecars and the others. An init container that ends before they begin
/// has no host ports.
pub fn lasting_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let init = spec.init_containers.iter().flatten();
    let sidecars = init.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars)
}
