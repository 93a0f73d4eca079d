//! authentication.k8s.io, authorization.k8s.io (reviews, nothing is stored) and certificates.k8s.io.

use super::row::{COMPLETE_CHANGED, row};
use super::{Handler, NameRule, Resource, Verbs, columns, strategies};
use crate::{defaults, validation};

pub(super) fn authentication() -> Vec<Resource> {
    let review = |kind, plural| row("authentication.k8s.io", "v1", kind, plural).cluster().review();
    vec![
        review("SelfSubjectReview", "selfsubjectreviews"),
        review("TokenReview", "tokenreviews"),
    ]
}

pub(super) fn authorization() -> Vec<Resource> {
    let review = |kind, plural| row("authorization.k8s.io", "v1", kind, plural).review();
    vec![
        review("LocalSubjectAccessReview", "localsubjectaccessreviews"),
        review("SelfSubjectAccessReview", "selfsubjectaccessreviews").cluster(),
        review("SelfSubjectRulesReview", "selfsubjectrulesreviews").cluster(),
        review("SubjectAccessReview", "subjectaccessreviews").cluster(),
    ]
}

pub(super) fn certificates() -> Vec<Resource> {
    vec![
        row(
            "certificates.k8s.io",
            "v1",
            "CertificateSigningRequest",
            "certificatesigningrequests",
        )
        .metadata_checks(COMPLETE_CHANGED)
        .named(NameRule::PathSegment)
        .cluster()
        .short(&["csr"])
        .validate(validation::signing_request)
        .validate_status(validation::signing_request_status)
        .columns(columns::signing_request())
        .sub(
            "approval",
            Handler::Strategy(&strategies::APPROVAL),
            Verbs::GET_PATCH_UPDATE,
            None,
        )
        .status()
        .fields(&["spec.signerName"])
        .default(defaults::spec_and_status)
        .preparing_status(defaults::signing_request_status)
        .prepare(defaults::signing_request_create, defaults::signing_request_update),
    ]
}
