//! admissionregistration.k8s.io/v1: shown, refused for now (they promise protection that nothing gives yet).

use super::row::row;
use super::{Resource, Support};

pub(super) fn rows() -> Vec<Resource> {
    let hook = |kind, plural| {
        row("admissionregistration.k8s.io", "v1", kind, plural)
            .cluster()
            .category("api-extensions")
            .generation()
            .support(Support::ReadOnly)
    };
    vec![
        hook("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
        hook("ValidatingAdmissionPolicy", "validatingadmissionpolicies").status(),
        hook("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
        hook("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
    ]
}
