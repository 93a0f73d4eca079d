//! A pod's and a container's security context, in the kernel's words.

use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile, SecurityContext};
use mk8s_containerd::Image;
use mk8s_containerd::spec::{AppArmor, Seccomp, Security};

use crate::agent::Agent;
use crate::pod;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    Root { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    NamedUser {
        user: String,
        pod: String,
        container: String,
    },
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    ImageRoot { pod: String, container: String },
    #[error("{0} is not a valid user or group id")]
    Id(i64),
}

fn id(value: i64) -> Result<u32, Error> {
    u32::try_from(value).map_err(|_| Error::Id(value))
}

fn seccomp(profile: Option<&SeccompProfile>, agent: &Agent) -> Seccomp {
    match profile.map(|p| p.type_.as_str()) {
        Some("RuntimeDefault") => Seccomp::RuntimeDefault,
        Some("Localhost") => {
            let name = profile.and_then(|p| p.localhost_profile.as_deref()).unwrap_or_default();
            Seccomp::Localhost(agent.config.root_dir.join("seccomp").join(name))
        }
        _ => Seccomp::Unconfined,
    }
}

fn capabilities(list: Option<&Vec<String>>) -> Vec<String> {
    let plain = |name: &String| name.to_uppercase().trim_start_matches("CAP_").to_owned();
    list.into_iter().flatten().map(plain).collect()
}

pub fn security(pod: &Pod, container: &Container, image: &Image, agent: &Agent) -> Result<Security, Error> {
    static NONE: std::sync::LazyLock<SecurityContext> = std::sync::LazyLock::new(SecurityContext::default);
    let of_pod = pod::spec(pod).security_context.as_ref();
    let own = container.security_context.as_ref().unwrap_or(&NONE);
    let user = own
        .run_as_user
        .or_else(|| of_pod.and_then(|p| p.run_as_user))
        .map(id)
        .transpose()?;
    let group = own
        .run_as_group
        .or_else(|| of_pod.and_then(|p| p.run_as_group))
        .map(id)
        .transpose()?;
    let non_root = own
        .run_as_non_root
        .or_else(|| of_pod.and_then(|p| p.run_as_non_root))
        .unwrap_or(false);
    if non_root {
        check_non_root(pod, container, user, &image.config.user)?;
    }
    let mut groups: Vec<u32> = Vec::new();
    for group in of_pod.iter().flat_map(|p| p.supplemental_groups.iter().flatten()) {
        groups.push(id(*group)?);
    }
    if let Some(group) = of_pod.and_then(|p| p.fs_group) {
        groups.push(id(group)?);
    }
    let privileged = own.privileged.unwrap_or(false);
    let profile = own
        .seccomp_profile
        .as_ref()
        .or_else(|| of_pod.and_then(|p| p.seccomp_profile.as_ref()));
    let app_armor = own
        .app_armor_profile
        .as_ref()
        .or_else(|| of_pod.and_then(|p| p.app_armor_profile.as_ref()));
    Ok(Security {
        privileged,
        add_capabilities: capabilities(own.capabilities.as_ref().and_then(|c| c.add.as_ref())),
        drop_capabilities: capabilities(own.capabilities.as_ref().and_then(|c| c.drop.as_ref())),
        run_as_user: user,
        run_as_group: group,
        supplemental_groups: groups,
        strict_supplemental_groups: of_pod.and_then(|p| p.supplemental_groups_policy.as_deref()) == Some("Strict"),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: !privileged && own.allow_privilege_escalation == Some(false),
        seccomp: seccomp(profile, agent),
        apparmor: match app_armor.map(|p| p.type_.as_str()) {
            Some("RuntimeDefault") => AppArmor::RuntimeDefault,
            Some("Unconfined") => AppArmor::Unconfined,
            Some("Localhost") => {
                AppArmor::Localhost(app_armor.and_then(|p| p.localhost_profile.clone()).unwrap_or_default())
            }
            _ => AppArmor::Unset,
        },
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
    })
}

fn check_non_root(pod: &Pod, container: &Container, user: Option<u32>, image_user: &str) -> Result<(), Error> {
    let (pod, container) = (pod::display(pod), container.name.clone());
    match user {
        Some(0) => return Err(Error::Root { pod, container }),
        Some(_) => return Ok(()),
        None => {}
    }
    let name = image_user.split(':').next().unwrap_or_default();
    match (name, name.parse::<u32>()) {
        ("", _) | (_, Ok(0)) => Err(Error::ImageRoot { pod, container }),
        (_, Ok(_)) => Ok(()),
        // What a name stands for is the image's own claim.
        (name, Err(_)) => Err(Error::NamedUser {
            user: name.to_owned(),
            pod,
            container,
        }),
    }
}

/// What the pause process runs as.
pub struct SandboxSecurity {
    pub user: Option<u32>,
    pub group: Option<u32>,
    pub groups: Vec<u32>,
    pub seccomp: Seccomp,
    pub privileged: bool,
}

pub fn sandbox_security(pod: &Pod, agent: &Agent) -> SandboxSecurity {
    let of_pod = pod::spec(pod).security_context.as_ref();
    let as_id = |value: Option<i64>| value.and_then(|v| u32::try_from(v).ok());
    let privileged =
        pod::all_containers(pod).any(|c| c.security_context.as_ref().and_then(|s| s.privileged).unwrap_or(false));
    SandboxSecurity {
        user: as_id(of_pod.and_then(|p| p.run_as_user)),
        group: as_id(of_pod.and_then(|p| p.run_as_group)),
        groups: of_pod
            .iter()
            .flat_map(|p| p.supplemental_groups.iter().flatten())
            .filter_map(|g| u32::try_from(*g).ok())
            .collect(),
        seccomp: seccomp(of_pod.and_then(|p| p.seccomp_profile.as_ref()), agent),
        privileged,
    }
}
