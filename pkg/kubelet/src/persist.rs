//! What of a pod's record must survive this process: each container's lives and the sandbox, as small files beside the
//! pod's other things. containerd keeps what runs; it forgets how a thing ended, and after a reboot of the host that it ran.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::record::{Instance, Sandbox};
use crate::volumes::PodDir;

fn store<T: Serialize>(path: &Path, value: &T) {
    let written = serde_json::to_vec(value)
        .map_err(std::io::Error::other)
        .and_then(|bytes| {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let fresh = path.with_extension("new");
            fs::write(&fresh, bytes)?;
            fs::rename(&fresh, path)
        });
    if let Err(error) = written {
        // The pod runs on; only a restart of the agent would know less of it.
        tracing::warn!(path = %path.display(), %error, "cannot write down what became of a container");
    }
}

fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn instance_file(dir: &PodDir, container: &str, attempt: u32) -> PathBuf {
    dir.container(container).join(format!("{attempt}.json"))
}

pub fn store_instance(dir: &PodDir, container: &str, instance: &Instance) {
    store(&instance_file(dir, container, instance.attempt), instance);
    // The last one and the one before are all that anybody asks for.
    if let Some(old) = instance.attempt.checked_sub(2) {
        let _ = fs::remove_file(instance_file(dir, container, old));
    }
}

/// A container's lives that are still known, the first one first.
pub fn load_instances(dir: &PodDir, container: &str) -> Vec<Instance> {
    let mut found: Vec<Instance> = Vec::new();
    let Ok(entries) = fs::read_dir(dir.container(container)) else {
        return found;
    };
    for entry in entries.flatten() {
        if entry.path().extension().is_some_and(|e| e == "json") {
            found.extend(load::<Instance>(&entry.path()));
        }
    }
    found.sort_by_key(|i| i.attempt);
    found
}

fn sandbox_file(dir: &PodDir) -> PathBuf {
    dir.path().join("sandbox.json")
}

pub fn store_sandbox(dir: &PodDir, sandbox: &Sandbox) {
    store(&sandbox_file(dir), sandbox);
}

pub fn load_sandbox(dir: &PodDir) -> Option<Sandbox> {
    load(&sandbox_file(dir))
}
