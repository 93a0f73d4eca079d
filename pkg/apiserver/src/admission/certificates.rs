//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction: who approves and signs for which signer, and
//! that nobody asks for system:masters. Also who a request is from, which the server states and never the requester.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mk8s_api::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::filters::authz::{self, Authorizer};
use crate::identity::User;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// States the requester on create; keeps the stored spec on update.
pub fn requester(attributes: &Attributes<'_>, object: &mut Value) {
    if let (Operation::Update, Some(old)) = (attributes.operation, attributes.old) {
        object["spec"] = old["spec"].clone();
        return;
    }
    let user = attributes.user;
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    for field in ["username", "uid", "groups", "extra"] {
        spec.remove(field);
    }
    spec.insert("username".into(), user.name.as_str().into());
    if !user.uid.is_empty() {
        spec.insert("uid".into(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        spec.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".into(), json!(user.extra));
    }
}

/// The times of conditions that an approver leaves out.
pub fn stamp(attributes: &Attributes<'_>, object: &mut Value) {
    if !attributes.is(GROUP, "certificatesigningrequests") {
        return;
    }
    let now = crate::bootstrap::objects::now();
    let Some(conditions) = object["status"]["conditions"].as_array_mut() else {
        return;
    };
    for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            let time = condition.entry(field).or_insert(Value::Null);
            if time.is_null() {
                *time = now.as_str().into();
            }
        }
    }
}

pub fn validate(attributes: &Attributes<'_>, object: &Value, authorizer: &Authorizer) -> Result<(), Status> {
    let signer = |object: &Value| object["spec"]["signerName"].as_str().unwrap_or_default().to_string();
    match (attributes.subresource, attributes.operation, attributes.old) {
        ("approval", Operation::Update, Some(old)) => {
            let name = signer(old);
            if !may(authorizer, attributes.user, "approve", &name) {
                let why = format!("user not permitted to approve requests with signerName {name:?}");
                return Err(attributes.forbidden(Some(object), &why));
            }
        }
        ("status", Operation::Update, Some(old)) => {
            let name = attributes.old_field("spec.signerName").to_string();
            let changed = ["certificate", "conditions"]
                .iter()
                .any(|field| object["status"][field] != old["status"][field]);
            if changed && !may(authorizer, attributes.user, "sign", &name) {
                let why = format!("user not permitted to sign requests with signerName {name:?}");
                return Err(attributes.forbidden(Some(object), &why));
            }
        }
        ("", Operation::Create, _) if signer(object) == CLIENT_SIGNER => {
            let request = parse(object);
            let why = match request {
                Err(cause) => format!("failed to parse CSR: {cause}"),
                Ok(request)
                    if request
                        .subject
                        .organizations
                        .iter()
                        .any(|group| group == authz::MASTERS) =>
                {
                    format!(
                        "use of {CLIENT_SIGNER} signer with {} group is not allowed",
                        authz::MASTERS
                    )
                }
                Ok(_) => return Ok(()),
            };
            return Err(attributes.forbidden(Some(object), &why));
        }
        _ => {}
    }
    Ok(())
}

/// The parsed `spec.request`.
pub(super) fn parse(object: &Value) -> Result<mk8s_pki::csr::Request, mk8s_pki::csr::CsrError> {
    let encoded = object["spec"]["request"].as_str().unwrap_or_default();
    let pem = STANDARD.decode(encoded).map_err(|_| mk8s_pki::csr::CsrError::Pem)?;
    mk8s_pki::csr::parse(&pem)
}

/// The verb on the signer by its name, or on all of its domain.
fn may(authorizer: &Authorizer, user: &User, verb: &str, signer: &str) -> bool {
    let ask = |name: &str| {
        authorizer.allows(&authz::Attributes {
            name,
            ..authz::Attributes::of_resource(user, verb, GROUP, "signers")
        })
    };
    let domain = signer.split('/').next().unwrap_or_default();
    ask(signer) || ask(&format!("{domain}/*"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{Request, cluster};
    use super::*;
    use crate::filters::authz::rbac;

    #[test]
    fn signers() {
        let lookup = cluster();
        lookup.put(rbac::GROUP, "clusterroles", &json!({"metadata": {"name": "approver"}, "rules": [
            {"apiGroups": [GROUP], "resources": ["signers"], "resourceNames": ["example.org/*"], "verbs": ["approve"]}]}));
        lookup.put(
            rbac::GROUP,
            "clusterrolebindings",
            &json!({"metadata": {"name": "a"},
            "roleRef": {"kind": "ClusterRole", "name": "approver"}, "subjects": [{"kind": "User", "name": "jane"}]}),
        );
        let authorizer = Authorizer::new(lookup);
        let csr = |signer: &str| json!({"metadata": {"name": "c"}, "spec": {"signerName": signer}, "status": {}});
        let signed = |signer: &str| json!({"metadata": {"name": "c"}, "spec": {"signerName": signer}, "status": {"certificate": "x"}});
        let request = |subresource| Request {
            group: GROUP,
            subresource,
            name: "c",
            operation: Operation::Update,
            ..Request::create("certificatesigningrequests", "")
        };
        let run = |subresource, new: Value, old: Value| {
            request(subresource)
                .with(Some(&old), |a| validate(a, &new, &authorizer))
                .map_err(|status| status.message)
        };
        run("approval", csr("example.org/a"), csr("example.org/a")).unwrap();
        assert_eq!(
            run("approval", csr("example.org/a"), csr("other.org/a")),
            Err("certificatesigningrequests.certificates.k8s.io \"c\" is forbidden: user not permitted to approve requests with signerName \"other.org/a\"".into())
        );
        run("status", csr("example.org/a"), csr("example.org/a")).unwrap();
        assert!(run("status", signed("example.org/a"), csr("example.org/a")).is_err());
    }

    #[test]
    fn nobody_asks_for_masters() {
        let authorizer = Authorizer::new(cluster());
        let request = Request {
            group: GROUP,
            ..Request::create("certificatesigningrequests", "")
        };
        for (group, good) in [("dev", true), ("system:masters", false)] {
            let (_, pem) = mk8s_pki::issue::request("jane", Some(group), &[]).unwrap();
            let mut csr = json!({"metadata": {"name": "c"}, "spec": {"signerName": CLIENT_SIGNER, "request": STANDARD.encode(pem), "username": "root"}});
            request.with(None, |a| requester(a, &mut csr));
            assert_eq!(csr["spec"]["username"], "jane");
            assert_eq!(request.with(None, |a| validate(a, &csr, &authorizer)).is_ok(), good);
        }
    }
}
