//! The labels by which a pod's containers are found in containerd, and the ids and file names that people look for.

use std::collections::HashMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;

use crate::{Config, pod};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const KIND: &str = "mk8s.io/kind";
pub const SANDBOX: &str = "sandbox";
pub const CONTAINER: &str = "container";
pub const ATTEMPT: &str = "mk8s.io/attempt";
pub const SANDBOX_ID: &str = "mk8s.io/sandbox-id";
/// The image as the pod named it.
pub const IMAGE: &str = "mk8s.io/image";

/// containerd's ids have been 64 hexadecimal digits for as long as log shippers have parsed them.
pub fn fresh_id() -> String {
    (0..4).map(|_| format!("{:016x}", rand::random::<u64>())).collect()
}

pub fn pod_labels(pod: &Pod, kind: &str, attempt: u32) -> HashMap<String, String> {
    HashMap::from([
        (POD_NAME.to_owned(), pod::name(pod).to_owned()),
        (POD_NAMESPACE.to_owned(), pod::namespace(pod).to_owned()),
        (POD_UID.to_owned(), pod::uid(pod).to_owned()),
        (KIND.to_owned(), kind.to_owned()),
        (ATTEMPT.to_owned(), attempt.to_string()),
    ])
}

/// /var/log/pods/NAMESPACE_NAME_UID
pub fn pod_log_dir(config: &Config, namespace: &str, name: &str, uid: &str) -> PathBuf {
    config.pod_log_dir.join(format!("{namespace}_{name}_{uid}"))
}

pub fn log_file(config: &Config, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
    let dir = pod_log_dir(config, pod::namespace(pod), pod::name(pod), pod::uid(pod));
    dir.join(container).join(format!("{attempt}.log"))
}

/// /var/log/containers/POD_NAMESPACE_CONTAINER-ID.log, which log shippers follow.
pub fn log_link(config: &Config, pod: &Pod, container: &str, id: &str) -> PathBuf {
    let mut stem = format!("{}_{}_{container}", pod::name(pod), pod::namespace(pod));
    let mut end = 251 - id.len() - 1;
    while !stem.is_char_boundary(end.min(stem.len())) {
        end -= 1;
    }
    stem.truncate(end);
    config.container_log_dir.join(format!("{stem}-{id}.log"))
}
