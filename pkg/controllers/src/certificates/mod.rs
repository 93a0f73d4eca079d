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

/// What was signed before there were signers: whatever was approved. The present API takes no such request.
pub const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

/// What a node's certificate is used for: all of it, or all but what its key can't do.
const CLIENT_USAGES: [&str; 3] = ["client auth", "digital signature", "key encipherment"];
const SERVING_USAGES: [&str; 3] = ["digital signature", "key encipherment", "server auth"];

/// Why a request is not what its signer signs; upstream's words, which stand in its condition.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("subject organization is not system:nodes")]
    Organization,
    #[error("subject common name does not begin with system:node:")]
    CommonName,
    #[error("{0} subjectAltNames are not allowed")]
    NamesNotAllowed(&'static str),
    #[error("DNS or IP subjectAltName is required")]
    NamesMissing,
    #[error("subjectAltNames other than DNS names and addresses in their usual form are not allowed")]
    OtherNames,
    #[error("usages did not match [{}]", .0.join(" "))]
    Usages([&'static str; 3]),
    #[error("invalid usage for client certificate: {0}")]
    Usage(String),
    #[error("missing required usage for client certificate: client auth")]
    NoClientUsage,
    #[error("the signer {0:?} signs nothing here")]
    Signer(String),
}

/// Is the request of the kind that its signer signs?
pub fn recognise(signer: &str, request: &Request, usages: &[String]) -> Result<(), Unfit> {
    match signer {
        CLIENT => client_usages(usages),
        NODE_CLIENT => {
            organization(request)?;
            no_names(request)?;
            common_name(request)?;
            exactly(usages, CLIENT_USAGES)
        }
        NODE_SERVING => {
            organization(request)?;
            let names = &request.names;
            if names.dns.is_empty() && names.addresses.is_empty() && names.others == 0 {
                return Err(Unfit::NamesMissing);
            }
            for (has, what) in [(!names.emails.is_empty(), "Email"), (!names.uris.is_empty(), "URI")] {
                if has {
                    return Err(Unfit::NamesNotAllowed(what));
                }
            }
            if names.others > 0 {
                return Err(Unfit::OtherNames);
            }
            exactly(usages, SERVING_USAGES)?;
            common_name(request)
        }
        LEGACY_UNKNOWN => Ok(()),
        other => Err(Unfit::Signer(other.to_owned())),
    }
}

fn organization(request: &Request) -> Result<(), Unfit> {
    match request.subject.organizations == [NODES] {
        true => Ok(()),
        false => Err(Unfit::Organization),
    }
}

fn common_name(request: &Request) -> Result<(), Unfit> {
    let name = request.subject.common_name.strip_prefix(NODE_PREFIX);
    match name.is_none_or(str::is_empty) {
        true => Err(Unfit::CommonName),
        false => Ok(()),
    }
}

fn no_names(request: &Request) -> Result<(), Unfit> {
    let names = &request.names;
    for (has, what) in [
        (!names.dns.is_empty(), "DNS"),
        (!names.emails.is_empty(), "Email"),
        (!names.addresses.is_empty(), "IP"),
        (!names.uris.is_empty(), "URI"),
    ] {
        if has {
            return Err(Unfit::NamesNotAllowed(what));
        }
    }
    match names.is_empty() {
        true => Ok(()),
        false => Err(Unfit::OtherNames),
    }
}

fn exactly(usages: &[String], wanted: [&'static str; 3]) -> Result<(), Unfit> {
    let has = |usage: &&str| usages.iter().any(|own| own == usage);
    let foreign = usages.iter().any(|own| !wanted.contains(&own.as_str()));
    let lacks = wanted.iter().any(|usage| *usage != "key encipherment" && !has(usage));
    match foreign || lacks {
        true => Err(Unfit::Usages(wanted)),
        false => Ok(()),
    }
}

/// The purpose, and what goes with it, and nothing else.
fn client_usages(usages: &[String]) -> Result<(), Unfit> {
    let foreign = usages.iter().find(|own| !CLIENT_USAGES.contains(&own.as_str()));
    match foreign {
        Some(usage) => Err(Unfit::Usage(usage.clone())),
        None if usages.iter().any(|own| own == "client auth") => Ok(()),
        None => Err(Unfit::NoClientUsage),
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

    use mk8s_pki::csr;
    use mk8s_pki::issue;

    fn all(usages: &[&str]) -> Vec<String> {
        usages.iter().map(|u| (*u).to_owned()).collect()
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table: one row a request")]
    fn each_signer_says_what_it_does_not_sign() {
        let request = |user: &str, group: &str, names: &[&str]| {
            let (_, pem) = issue::request(user, Some(group), &all(names)).unwrap();
            csr::parse(pem.as_bytes()).unwrap()
        };
        let node = request("system:node:n", NODES, &[]);
        let host = request("system:node:n", NODES, &["n"]);
        let (client, whole) = (["digital signature", "client auth"], CLIENT_USAGES);
        let wrong = "usages did not match [client auth digital signature key encipherment]";
        for (signer, request, usages, expected) in [
            (NODE_CLIENT, &node, &client[..], None),
            (NODE_CLIENT, &node, &whole, None),
            (NODE_CLIENT, &node, &["client auth"], Some(wrong)),
            (
                NODE_CLIENT,
                &node,
                &["client auth", "digital signature", "server auth"],
                Some(wrong),
            ),
            (NODE_CLIENT, &host, &client, Some("DNS subjectAltNames are not allowed")),
            (
                NODE_CLIENT,
                &request("system:node:n", "dev", &[]),
                &client,
                Some("subject organization is not system:nodes"),
            ),
            (
                NODE_CLIENT,
                &request("n", NODES, &[]),
                &client,
                Some("subject common name does not begin with system:node:"),
            ),
            (NODE_SERVING, &host, &["server auth", "digital signature"], None),
            (NODE_SERVING, &host, &SERVING_USAGES, None),
            (
                NODE_SERVING,
                &host,
                &["server auth"],
                Some("usages did not match [digital signature key encipherment server auth]"),
            ),
            (
                NODE_SERVING,
                &node,
                &SERVING_USAGES,
                Some("DNS or IP subjectAltName is required"),
            ),
            (CLIENT, &host, &["client auth"], None),
            (
                CLIENT,
                &host,
                &["client auth", "cert sign"],
                Some("invalid usage for client certificate: cert sign"),
            ),
            (
                CLIENT,
                &host,
                &["digital signature"],
                Some("missing required usage for client certificate: client auth"),
            ),
            (LEGACY_UNKNOWN, &host, &["cert sign"], None),
        ] {
            let found = recognise(signer, request, &all(usages))
                .err()
                .map(|unfit| unfit.to_string());
            assert_eq!(found.as_deref(), expected, "{signer} {usages:?}");
        }
    }
}
