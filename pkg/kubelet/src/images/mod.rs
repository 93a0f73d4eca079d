//! The image of a container that is about to start: there already, or pulled with the pod's credentials.

use std::time::Instant;

use k8s_openapi::api::core::v1::{Container, Pod};
use mk8s_containerd::image::reference::Reference;
use mk8s_containerd::{Image, Keychain};

use crate::agent::{Agent, ReferencedObjects};
use crate::backoff::print_short;

/// Why there is no image. The words are what a container's status and events have always said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {cause}")]
    InvalidName { image: String, cause: String },
    #[error("Failed to inspect image \"{image}\": {cause}")]
    Inspect { image: String, cause: String },
    #[error("Container image \"{image}\" is not present with pull policy of Never")]
    NeverPull { image: String },
    #[error("{0}")]
    Pull(String),
    /// The job that was to get it did not come to its end.
    #[error("{0}")]
    Lost(#[from] mk8s_supervisor::JobError),
}

impl Failure {
    /// As a waiting container's status shows it.
    pub fn reason(&self) -> &'static str {
        match self {
            Failure::InvalidName { .. } => "InvalidImageName",
            Failure::Inspect { .. } | Failure::Lost(_) => "ImageInspectError",
            Failure::NeverPull { .. } => "ErrImageNeverPull",
            Failure::Pull(_) => "ErrImagePull",
        }
    }

    /// Of the event that goes with it.
    fn event(&self) -> &'static str {
        match self {
            Failure::InvalidName { .. } | Failure::Inspect { .. } | Failure::Lost(_) => "InspectFailed",
            Failure::NeverPull { .. } => "ErrImageNeverPull",
            Failure::Pull(_) => "Failed",
        }
    }
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

pub async fn ensure(
    agent: &Agent,
    pod: &Pod,
    container: &Container,
    held: &ReferencedObjects,
) -> Result<Image, Failure> {
    let name = container.image.as_deref().unwrap_or_default();
    let ensured = find_or_pull(agent, pod, container, held).await;
    if let Err(failure) = &ensured {
        let text = match failure {
            Failure::Pull(cause) => format!("Failed to pull image \"{name}\": {cause}"),
            other => other.to_string(),
        };
        agent.container_event(pod, &container.name, "Warning", failure.event(), text);
    }
    ensured
}

async fn find_or_pull(
    agent: &Agent,
    pod: &Pod,
    container: &Container,
    held: &ReferencedObjects,
) -> Result<Image, Failure> {
    let name = container.image.as_deref().unwrap_or_default();
    let image = || name.to_owned();
    let normal = |reason: &str, text: String| agent.container_event(pod, &container.name, "Normal", reason, text);
    let reference = Reference::parse(name).map_err(|error| Failure::InvalidName {
        image: image(),
        cause: error.to_string(),
    })?;
    let policy = policy(container, &reference);
    if policy != "Always" {
        let found = agent.runtime.image(name).await.map_err(|error| Failure::Inspect {
            image: image(),
            cause: error.to_string(),
        })?;
        if let Some(image) = found {
            let text = format!("Container image \"{name}\" already present on machine and can be accessed by the pod");
            normal("Pulled", text);
            return Ok(image);
        }
        if policy == "Never" {
            return Err(Failure::NeverPull { image: image() });
        }
    }
    normal("Pulling", format!("Pulling image \"{name}\""));
    let began = Instant::now();
    let pulled = agent.runtime.pull(name, &keychain(pod, held).await).await;
    let image = pulled.map_err(|error| Failure::Pull(error.to_string()))?;
    let took = print_short(began.elapsed());
    let size = image.size;
    let text =
        format!("Successfully pulled image \"{name}\" in {took} ({took} including waiting). Image size: {size} bytes.");
    normal("Pulled", text);
    Ok(image)
}

async fn keychain(pod: &Pod, held: &ReferencedObjects) -> Keychain {
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
