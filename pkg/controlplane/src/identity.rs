//! Who the parts of this process are to the API server.

use std::sync::Arc;

use mk8s_apiserver::{ApiServer, User, config};
use mk8s_controllers::context::ClientFor;

/// Reads for the controllers' and the scheduler's informers: it may list and watch, and nothing else.
pub use mk8s_controllers::context::READER;

/// A component's user; nodes and service accounts of kube-system get their groups.
pub fn user(name: &str) -> User {
    let groups: &[&str] = if name.starts_with("system:serviceaccount:kube-system:") {
        &["system:serviceaccounts", "system:serviceaccounts:kube-system"]
    } else if name.starts_with("system:node:") {
        &["system:nodes"]
    } else if name == "system:apiserver" {
        &["system:masters"]
    } else {
        &[]
    };
    User::authenticated(name, groups.iter().map(|group| group.to_string()))
}

/// Clients of `server`, each for the user of its name.
pub(crate) fn clients(server: &Arc<ApiServer>) -> ClientFor {
    let server = server.clone();
    Arc::new(move |name| client(&server, name))
}

/// A client of `server` that acts as `name`.
pub(crate) fn client(server: &Arc<ApiServer>, name: &str) -> kube::Client {
    mk8s_client::in_process(server.router_as(user(name)), &agent(name))
}

/// What a component calls itself, and so the manager of the fields that it writes: as upstream's are called.
fn agent(name: &str) -> String {
    let program = match name {
        "system:kube-scheduler" => "kube-scheduler",
        "system:kube-controller-manager" => "kube-controller-manager",
        _ if name.starts_with("system:serviceaccount:kube-system:") => "kube-controller-manager",
        _ if name.starts_with("system:node:") => "kubelet",
        _ => "mk8s",
    };
    format!("{program}/{} {name}", config::VERSION)
}
