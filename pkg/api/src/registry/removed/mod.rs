//! The versions that upstream has removed and that documents of 2018 still use: v1.13's, and networking.k8s.io/v1beta1 of
//! v1.14. Each is one line here: another version of a resource that is there anyway, with defaults of its own where they
//! differ from the stored version's, and a conversion where more differs than the name. Of every request they warn.
//!
//! `tests/old_versions.rs` compares each with what upstream's own scheme makes of the same objects.

mod apps;
mod authorization;
mod definition;
mod ingress;
mod policy;

use serde_json::Value;

use super::{Convert, Handler, Resource, Subresource, Verbs, autoscaling, events};
use crate::defaults::removed as defaults;
use crate::validation::Errors;
use crate::{meta, validation};

/// A version of a kind that is served again.
struct Removed {
    /// `extensions/v1beta1`
    api_version: &'static str,
    kind: &'static str,
    /// The group of the resource.
    of: &'static str,
    /// Deprecated since v1.X, and gone with v1.Y.
    lived: (u8, u8),
    /// None: those of the stored version.
    default: Option<fn(&mut Value)>,
    /// None: it differs in name alone.
    convert: Option<Convert>,
    /// None: what is asked of the stored version.
    validate: Option<fn(&Value, &mut Errors)>,
}

const fn removed(api_version: &'static str, kind: &'static str, of: &'static str, lived: (u8, u8)) -> Removed {
    Removed {
        api_version,
        kind,
        of,
        lived,
        default: None,
        convert: None,
        validate: None,
    }
}

impl Removed {
    const fn default(mut self, default: fn(&mut Value)) -> Removed {
        self.default = Some(default);
        self
    }

    const fn validate(mut self, validate: fn(&Value, &mut Errors)) -> Removed {
        self.validate = Some(validate);
        self
    }

    const fn convert(mut self, to_stored: fn(&mut Value), from_stored: fn(&mut Value)) -> Removed {
        self.convert = Some(Convert { to_stored, from_stored });
        self
    }
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";

const ADMISSION_BETA: &str = "admissionregistration.k8s.io/v1beta1";
const AUTHORIZATION_BETA: &str = "authorization.k8s.io/v1beta1";
const EXTENSIONS: &str = "extensions/v1beta1";
const RBAC_BETA: &str = "rbac.authorization.k8s.io/v1beta1";
const STORAGE_BETA: &str = "storage.k8s.io/v1beta1";

#[rustfmt::skip]
const TABLE: &[Removed] = &[
    removed(ADMISSION_BETA, "MutatingWebhookConfiguration", ADMISSION, (16, 22)).default(defaults::mutating_webhooks),
    removed(ADMISSION_BETA, "ValidatingWebhookConfiguration", ADMISSION, (16, 22)).default(defaults::validating_webhooks),
    removed("apiextensions.k8s.io/v1beta1", "CustomResourceDefinition", "apiextensions.k8s.io", (16, 22))
        .default(defaults::definition).convert(definition::to_stored, definition::from_stored),
    removed("apiregistration.k8s.io/v1beta1", "APIService", "apiregistration.k8s.io", (19, 22))
        .default(defaults::api_service),
    removed("apps/v1beta1", "ControllerRevision", "apps", (8, 16)),
    removed("apps/v1beta1", "Deployment", "apps", (8, 16))
        .default(defaults::deployment).convert(apps::deployment_to_stored, apps::deployment_from_stored),
    removed("apps/v1beta1", "StatefulSet", "apps", (8, 16))
        .default(defaults::stateful_set).convert(apps::stateful_set_to_stored, apps::stateful_set_from_stored),
    removed("apps/v1beta2", "ControllerRevision", "apps", (9, 16)),
    removed("apps/v1beta2", "DaemonSet", "apps", (9, 16)),
    removed("apps/v1beta2", "Deployment", "apps", (9, 16)),
    removed("apps/v1beta2", "ReplicaSet", "apps", (9, 16)),
    removed("apps/v1beta2", "StatefulSet", "apps", (9, 16)),
    removed("authentication.k8s.io/v1beta1", "TokenReview", "authentication.k8s.io", (19, 22)),
    removed(AUTHORIZATION_BETA, "LocalSubjectAccessReview", AUTHORIZATION, (19, 22))
        .convert(authorization::to_stored, authorization::from_stored),
    removed(AUTHORIZATION_BETA, "SelfSubjectAccessReview", AUTHORIZATION, (19, 22)),
    removed(AUTHORIZATION_BETA, "SelfSubjectRulesReview", AUTHORIZATION, (19, 22)),
    removed(AUTHORIZATION_BETA, "SubjectAccessReview", AUTHORIZATION, (19, 22))
        .convert(authorization::to_stored, authorization::from_stored),
    removed("autoscaling/v2beta1", "HorizontalPodAutoscaler", "autoscaling", (22, 25))
        .default(defaults::autoscaler_v2beta1)
        .convert(autoscaling::v2beta1_to_stored, autoscaling::v2beta1_from_stored),
    removed("autoscaling/v2beta2", "HorizontalPodAutoscaler", "autoscaling", (23, 26))
        .convert(autoscaling::v2beta2_to_stored, autoscaling::v2beta2_from_stored),
    removed("batch/v1beta1", "CronJob", "batch", (21, 25)),
    removed("certificates.k8s.io/v1beta1", "CertificateSigningRequest", "certificates.k8s.io", (19, 22))
        .default(defaults::signing_request).validate(validation::signing_request_v1beta1),
    removed("coordination.k8s.io/v1beta1", "Lease", "coordination.k8s.io", (19, 22)),
    removed("events.k8s.io/v1beta1", "Event", "", (22, 25)).default(|_| {}).convert(events::to_stored, events::from_stored),
    removed(EXTENSIONS, "DaemonSet", "apps", (8, 16))
        .default(defaults::daemon_set).convert(apps::daemon_set_to_stored, apps::daemon_set_from_stored),
    removed(EXTENSIONS, "Deployment", "apps", (8, 16))
        .default(defaults::extensions_deployment).convert(apps::deployment_to_stored, apps::deployment_from_stored),
    removed(EXTENSIONS, "Ingress", NETWORKING, (14, 22))
        .default(defaults::ingress).convert(ingress::to_stored, ingress::from_stored),
    removed(EXTENSIONS, "NetworkPolicy", NETWORKING, (9, 16)),
    removed(EXTENSIONS, "ReplicaSet", "apps", (8, 16)).default(defaults::replica_set),
    removed("networking.k8s.io/v1beta1", "Ingress", NETWORKING, (19, 22))
        .default(defaults::ingress).convert(ingress::to_stored, ingress::from_stored),
    removed("policy/v1beta1", "PodDisruptionBudget", "policy", (21, 25))
        .convert(policy::budget_to_stored, policy::budget_from_stored),
    removed(RBAC_BETA, "ClusterRole", RBAC, (17, 22)),
    removed(RBAC_BETA, "ClusterRoleBinding", RBAC, (17, 22)),
    removed(RBAC_BETA, "Role", RBAC, (17, 22)),
    removed(RBAC_BETA, "RoleBinding", RBAC, (17, 22)),
    removed("scheduling.k8s.io/v1beta1", "PriorityClass", "scheduling.k8s.io", (14, 22)),
    removed(STORAGE_BETA, "StorageClass", STORAGE, (19, 22)),
    removed(STORAGE_BETA, "VolumeAttachment", STORAGE, (19, 22)),
];

/// A resource with those of its versions that upstream has removed.
pub(super) fn with_removed(resource: Resource) -> Resource {
    let own = |removed: &&Removed| removed.of == resource.group && removed.kind == resource.kind;
    let all: Vec<&Removed> = TABLE.iter().filter(own).collect();
    all.into_iter().fold(resource, serve)
}

fn serve(mut resource: Resource, removed: &Removed) -> Resource {
    let (group, version) = meta::split_api_version(removed.api_version);
    // A group other than the stored one's may have a version already, with fields and rules of its own.
    let like = resource.versions.iter().position(|own| own.group == group);
    let mut served = resource.versions[like.unwrap_or(resource.storage)].clone();
    served.group = group.into();
    served.name = version.into();
    served.aliased = like.is_some();
    served.convert = removed.convert;
    served.validate = removed.validate;
    served.default = removed.default.unwrap_or(resource.stored().default);
    let instead = (removed.kind != "Event").then(|| resource.api_version());
    served.deprecated = Some(deprecation(removed, removed.kind, removed.lived, instead.as_deref()).into());
    subresources(removed, &mut served.subresources);
    resource.versions.push(served);
    resource
}

/// Workloads of old versions had a Scale of their own; and a Deployment took a request to go back.
fn subresources(removed: &Removed, all: &mut Vec<Subresource>) {
    let (group, version) = meta::split_api_version(removed.api_version);
    let of_apps = group == "apps";
    for scale in all.iter_mut().filter(|own| own.handler == Handler::Scale) {
        let lived = if of_apps { removed.lived } else { (2, 16) };
        let instead = of_apps.then_some("autoscaling/v1");
        scale.kind = Some((group, version, "Scale"));
        scale.deprecated = Some(deprecation(removed, "Scale", lived, instead).into());
    }
    if removed.kind == "Deployment" && version == "v1beta1" {
        let instead = of_apps.then_some("apps/v1");
        let warning = deprecation(removed, "DeploymentRollback", removed.lived, instead);
        all.push(Subresource {
            name: "rollback".into(),
            handler: Handler::Rollback,
            verbs: Verbs::CREATE_ONLY,
            kind: Some((group, version, "DeploymentRollback")),
            deprecated: Some(warning.into()),
        });
        all.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

/// Upstream's words of v1.19 to v1.24.
fn deprecation(removed: &Removed, kind: &str, (since, gone): (u8, u8), instead: Option<&str>) -> String {
    let instead = instead.map_or_else(String::new, |version| format!("; use {version} {kind}"));
    format!(
        "{} {kind} is deprecated in v1.{since}+, unavailable in v1.{gone}+{instead}",
        removed.api_version
    )
}
