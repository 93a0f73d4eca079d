//! The image of a container that is about to start: there already, or pulled with the pod's credentials.

use std::time::Instant;

use k8s_openapi::api::core::v1::{Container, Pod};
use mk8s_containerd::image::reference::Reference;
use mk8s_containerd::{Containerd, Image, Keychain};

use crate::agent::{Agent, HeldObjects};
use crate::backoff::print_short;

#[derive(Debug)]
pub struct Failure {
    pub reason: &'static str,
    pub message: String,
}

/// `latest` is pulled each time, all others once, unless the pod says.
fn policy(container: &Container, reference: &Reference) -> &'static str {
    match container.image_pull_policy.as_deref() {
        Some("Always") => "Always",
        Some("Never") => "Never",
        Some("IfNotPresent") => "IfNotPresent",
        _ if reference.digest.is_none() && reference.tag.as_deref().unwrap_or("latest") == "latest" => "Always",
        _ => "IfNotPresent",
    }
}

pub async fn ensure(agent: &Agent, pod: &Pod, container: &Container, held: &HeldObjects) -> Result<Image, Failure> {
    let name = container.image.as_deref().unwrap_or_default();
    let event = |type_, reason: &str, text: String| agent.container_event(pod, &container.name, type_, reason, text);
    let reference = Reference::parse(name).map_err(|error| {
        let message =
            format!("Failed to apply default image tag \"{name}\": couldn't parse image name \"{name}\": {error}");
        event("Warning", "InspectFailed", message.clone());
        Failure {
            reason: "InvalidImageName",
            message,
        }
    })?;
    let policy = policy(container, &reference);
    if policy != "Always" {
        let found = agent.containerd.image(name).await.map_err(|error| {
            let message = format!("Failed to inspect image \"{name}\": {error}");
            event("Warning", "InspectFailed", message.clone());
            Failure {
                reason: "ImageInspectError",
                message,
            }
        })?;
        if let Some(image) = found {
            let text = format!("Container image \"{name}\" already present on machine and can be accessed by the pod");
            event("Normal", "Pulled", text);
            return Ok(image);
        }
        if policy == "Never" {
            let message = format!("Container image \"{name}\" is not present with pull policy of Never");
            event("Warning", "ErrImageNeverPull", message.clone());
            return Err(Failure {
                reason: "ErrImageNeverPull",
                message,
            });
        }
    }
    event("Normal", "Pulling", format!("Pulling image \"{name}\""));
    let began = Instant::now();
    match agent.containerd.pull(name, &keychain(pod, held).await).await {
        Ok(image) => {
            let took = print_short(began.elapsed());
            let size = image.size;
            let text = format!(
                "Successfully pulled image \"{name}\" in {took} ({took} including waiting). Image size: {size} bytes."
            );
            event("Normal", "Pulled", text);
            Ok(image)
        }
        Err(error) => {
            let message = error.to_string();
            event(
                "Warning",
                "Failed",
                format!("Failed to pull image \"{name}\": {message}"),
            );
            Err(Failure {
                reason: "ErrImagePull",
                message,
            })
        }
    }
}

async fn keychain(pod: &Pod, held: &HeldObjects) -> Keychain {
    let mut keychain = Keychain::default();
    for reference in crate::pod::spec(pod).image_pull_secrets.iter().flatten() {
        let Some(secret) = held.secrets.get(&reference.name) else {
            continue;
        };
        let Some(secret) = secret.get().await else { continue };
        let data = |key: &str| secret.data.as_ref().and_then(|d| d.get(key));
        let added = match (data(".dockerconfigjson"), data(".dockercfg")) {
            (Some(json), _) => keychain.add_config_json(&json.0),
            (None, Some(old)) => keychain.add_dockercfg(&old.0),
            (None, None) => continue,
        };
        if let Err(error) = added {
            tracing::warn!(secret = reference.name, error, "a pull secret cannot be read");
        }
    }
    keychain
}

pub async fn pull_anonymously(containerd: &Containerd, name: &str) -> Result<Image, mk8s_containerd::Error> {
    let pulled = containerd.pull(name, &Keychain::default()).await;
    pulled.map_err(|error| mk8s_containerd::Error::Malformed {
        what: format!("pull {name}"),
        message: error.to_string(),
    })
}
