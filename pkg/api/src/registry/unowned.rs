//! Fields that a write of a kind cannot change, and that nobody owns by it (upstream's reset fields).

use std::sync::LazyLock;

use super::Resource;
use crate::apply::Set;

type Paths = &'static [&'static [&'static str]];

macro_rules! sets {
    ($($name:ident = $paths:expr;)*) => {
        $(static $name: LazyLock<Set> = LazyLock::new(|| {
            let paths: Paths = &$paths;
            Set::of_fields(paths)
        });)*
    };
}

sets! {
    NONE = [];
    STATUS = [&["status"]];
    SPEC = [&["spec"]];
    SPEC_STATUS = [&["spec"], &["status"]];
    SPEC_METADATA = [&["spec"], &["metadata"]];
    SPEC_LABELS = [&["spec"], &["metadata", "labels"]];
    SPEC_OWNERS = [&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]];
    SPEC_CERTIFICATE = [&["spec"], &["status", "certificate"]];
    SPEC_CONDITIONS = [&["spec"], &["status", "conditions"]];
}

impl Resource {
    /// What nobody owns who writes through a subresource (empty: the object itself).
    pub fn unowned(&self, subresource: &str) -> &'static Set {
        let by_kind = match (&*self.kind, subresource) {
            // Upstream names them in a group that it does not have.
            ("ServiceCIDR", _) => Some(&NONE),
            ("CertificateSigningRequest", "") => Some(&SPEC_STATUS),
            ("CertificateSigningRequest", "status") => Some(&SPEC_CONDITIONS),
            ("CertificateSigningRequest", "approval") => Some(&SPEC_CERTIFICATE),
            ("Namespace", "finalize") => Some(&STATUS),
            ("Pod", "status") => Some(&SPEC_OWNERS),
            ("Deployment", "status") => Some(&SPEC_LABELS),
            (
                "APIService"
                | "CustomResourceDefinition"
                | "FlowSchema"
                | "PriorityLevelConfiguration"
                | "ResourceClaim"
                | "ValidatingAdmissionPolicy"
                | "VolumeAttachment",
                "status",
            ) => Some(&SPEC_METADATA),
            _ => None,
        };
        if let Some(own) = by_kind {
            return own;
        }
        match subresource {
            "" if self.stored().has_status() => &STATUS,
            "status" => &SPEC,
            _ => &NONE,
        }
    }
}
