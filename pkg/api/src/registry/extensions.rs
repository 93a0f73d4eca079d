//! apiextensions.k8s.io and apiregistration.k8s.io: what changes the API itself.

use super::row::row;
use super::{Deletion, Resource, Support, columns};
use crate::{defaults, validation};

pub(super) fn apiextensions() -> Vec<Resource> {
    vec![
        row(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        )
        .cluster()
        .short(&["crd", "crds"])
        .columns(columns::created_at())
        .category("api-extensions")
        .validate_write(validation::custom_resource_definition)
        .warnings(validation::definition_warnings)
        .validate_status(validation::custom_resource_definition_status)
        .default(defaults::custom_resource_definition)
        .prepare(defaults::definition_create, defaults::definition_update)
        .deletion(Deletion::WithInstances)
        .conditional_only()
        .free_finalizers()
        .status_alone()
        .generation()
        .status(),
    ]
}

pub(super) fn apiregistration() -> Vec<Resource> {
    vec![
        row("apiregistration.k8s.io", "v1", "APIService", "apiservices")
            .columns(columns::api_service())
            .cluster()
            .category("api-extensions")
            .free_finalizers()
            .status()
            .support(Support::ReadOnly),
    ]
}
