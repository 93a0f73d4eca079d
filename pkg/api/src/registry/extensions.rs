//! apiextensions.k8s.io and apiregistration.k8s.io: what changes the API itself; refused for now.

use super::row::row;
use super::{Resource, Support, columns};

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
        .generation()
        .status()
        .support(Support::ReadOnly),
    ]
}

pub(super) fn apiregistration() -> Vec<Resource> {
    vec![
        row("apiregistration.k8s.io", "v1", "APIService", "apiservices")
            .columns(columns::api_service())
            .cluster()
            .category("api-extensions")
            .status()
            .support(Support::ReadOnly),
    ]
}
