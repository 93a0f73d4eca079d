//! What of a pod's record must survive this process: the pod, its sandbox and each container's lives, as small files beside
//! the pod's other things. containerd keeps what runs; it forgets how a thing ended, and after a reboot of the host that it ran.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use mk8s_client::Kind;
use serde::Serialize;

use crate::record::{Instance, Sandbox};
use crate::volumes::PodDir;
use mk8s_dirfd::found;

fn write<T: Serialize>(dir: &PodDir, below: &Path, file: &str, value: &T) -> mk8s_dirfd::Result<()> {
    let text = serde_json::to_vec(value).unwrap_or_default();
    let pod = dir.create()?;
    if below == Path::new("") {
        return pod.replace_file(file, &text, 0o600, false);
    }
    let (parent, _) = pod.ensure_dir(below, 0o750)?;
    parent.replace_file(file, &text, 0o600, false)
}

fn store<T: Serialize>(dir: &PodDir, below: &Path, file: &str, value: &T) {
    if let Err(error) = write(dir, below, file, value) {
        // The pod runs on; only a restart of the agent would know less of it.
        tracing::warn!(path = %dir.path().join(below).join(file).display(), %error, "cannot write down what became of a container");
    }
}

fn load<T>(dir: &PodDir, file: &Path, decode: fn(&[u8]) -> serde_json::Result<T>) -> Option<T> {
    decode(&dir.open().ok()?.read(file).ok()?).ok()
}

fn lives(container: &str) -> PathBuf {
    Path::new("containers").join(container)
}

pub fn store_instance(dir: &PodDir, container: &str, instance: &Instance) {
    let below = lives(container);
    store(dir, &below, &format!("{}.json", instance.attempt), instance);
    // The last one and the one before are all that anybody asks for.
    if let Some(old) = instance.attempt.checked_sub(2) {
        let removed = dir
            .open()
            .and_then(|pod| pod.dir(&below)?.remove_file(format!("{old}.json")));
        if let Err(error) = found(removed) {
            tracing::debug!(%error, "what became of an old container stays written down");
        }
    }
}

/// A container's lives that are still known, the first one first.
pub fn load_instances(dir: &PodDir, container: &str) -> Vec<Instance> {
    let below = lives(container);
    let entries = dir.open().and_then(|pod| pod.dir(&below)?.entries());
    let names = entries
        .unwrap_or_default()
        .into_iter()
        .map(|(name, _)| below.join(name));
    let files = names.filter(|file| file.extension().is_some_and(|e| e == "json"));
    let mut found: Vec<Instance> = files
        .filter_map(|file| load(dir, &file, |text| serde_json::from_slice(text)))
        .collect();
    found.sort_by_key(|i| i.attempt);
    found
}

const POD: &str = "pod.json";
const SANDBOX: &str = "sandbox.json";

/// The pod as it was when this node began with it, or as it left the API.
pub fn store_pod(dir: &PodDir, pod: &Pod) {
    store(dir, Path::new(""), POD, pod);
}

pub fn load_pod(dir: &PodDir) -> Option<Pod> {
    load(dir, Path::new(POD), Pod::from_json)
}

pub fn store_sandbox(dir: &PodDir, sandbox: &Sandbox) {
    store(dir, Path::new(""), SANDBOX, sandbox);
}

pub fn load_sandbox(dir: &PodDir) -> Option<Sandbox> {
    load(dir, Path::new(SANDBOX), |text| serde_json::from_slice(text))
}

/// It is gone, and what it held given back.
pub fn forget_sandbox(dir: &PodDir) {
    if let Err(error) = found(dir.open().and_then(|pod| pod.remove_file(SANDBOX))) {
        tracing::debug!(%error, "a sandbox that is gone stays written down");
    }
}
