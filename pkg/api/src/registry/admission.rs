//! admissionregistration.k8s.io/v1: shown, refused for now (they promise protection that nothing gives yet).

use super::row::row;
use super::{Resource, Support, columns};

pub(super) fn rows() -> Vec<Resource> {
    let hook = |kind, plural| {
        row("admissionregistration.k8s.io", "v1", kind, plural)
            .cluster()
            .category("api-extensions")
            .generation()
            .support(Support::ReadOnly)
    };
    vec![
        hook("MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
            .conditional_only()
            .columns(columns::webhook_configuration()),
        hook("ValidatingAdmissionPolicy", "validatingadmissionpolicies")
            .conditional_only()
            .columns(columns::admission_policy())
            .status(),
        hook("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
            .conditional_only()
            .columns(columns::admission_policy_binding()),
        hook("ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
            .conditional_only()
            .columns(columns::webhook_configuration()),
    ]
}
