//! Certificate requests: which are approved without a person, and how the approved ones are signed.
//!
//! [`recognise`] tells what a request is, by upstream's rules for each signer; pure.

pub mod approve;
pub mod clean;
pub mod sign;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use mk8s_pki::csr::Request;

pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// Why a request is not what its signer signs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("subject organization is not system:nodes")]
    Organization,
    #[error("subject common name does not begin with \"system:node:\"")]
    CommonName,
    #[error("subjectAltNames are not allowed")]
    NamesNotAllowed,
    #[error("a DNS or IP subjectAltName is required")]
    NamesMissing,
    #[error("subjectAltNames other than DNS names and addresses in their usual form are not allowed")]
    OtherNames,
    #[error("usages did not match {0}")]
    Usages(&'static str),
    #[error("the signer {0:?} signs nothing here")]
    Signer(String),
}

/// Is the request of the kind that its signer signs?
pub fn recognise(signer: &str, request: &Request, usages: &[String]) -> Result<(), Unfit> {
    match signer {
        CLIENT => only(usages, "client auth"),
        NODE_CLIENT => {
            node_subject(request)?;
            if !request.names.is_empty() {
                return Err(Unfit::NamesNotAllowed);
            }
            only(usages, "client auth")
        }
        NODE_SERVING => {
            node_subject(request)?;
            let names = &request.names;
            if names.dns.is_empty() && names.addresses.is_empty() {
                return Err(Unfit::NamesMissing);
            }
            if !names.emails.is_empty() || !names.uris.is_empty() || names.others > 0 {
                return Err(Unfit::OtherNames);
            }
            only(usages, "server auth")
        }
        other => Err(Unfit::Signer(other.to_owned())),
    }
}

fn node_subject(request: &Request) -> Result<(), Unfit> {
    if request.subject.organizations != [NODES] {
        return Err(Unfit::Organization);
    }
    let name = request.subject.common_name.strip_prefix(NODE_PREFIX);
    if name.is_none_or(str::is_empty) {
        return Err(Unfit::CommonName);
    }
    Ok(())
}

/// This purpose, and what goes with it, and nothing else.
fn only(usages: &[String], purpose: &'static str) -> Result<(), Unfit> {
    let allowed =
        |usage: &String| usage == purpose || matches!(usage.as_str(), "digital signature" | "key encipherment");
    if usages.iter().all(allowed) && usages.iter().any(|u| u == purpose) {
        Ok(())
    } else {
        Err(Unfit::Usages(purpose))
    }
}

/// A condition of the request that holds.
pub fn holds(csr: &CertificateSigningRequest, type_: &str) -> bool {
    let conditions = csr.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == type_ && c.status != "False")
}

/// Has it its certificate?
pub fn is_issued(csr: &CertificateSigningRequest) -> bool {
    csr.status
        .as_ref()
        .and_then(|s| s.certificate.as_ref())
        .is_some_and(|c| !c.0.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn usages_are_the_purpose_and_what_goes_with_it() {
        let all = |usages: &[&str]| usages.iter().map(|u| (*u).to_owned()).collect::<Vec<_>>();
        for (usages, expected) in [
            (vec!["client auth", "digital signature", "key encipherment"], true),
            (vec!["client auth"], true),
            (vec!["digital signature"], false),
            (vec!["client auth", "server auth"], false),
            (vec!["client auth", "cert sign"], false),
        ] {
            assert_eq!(only(&all(&usages), "client auth").is_ok(), expected, "{usages:?}");
        }
    }
}
