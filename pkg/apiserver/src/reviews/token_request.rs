//! TokenRequest: a service account's token, bound to a pod, a secret or a node where the request says so.

use mk8s_api::meta::{self, string};
use mk8s_api::status::{FieldError, Status};
use mk8s_pki::serviceaccount::{Binding, Claims, Reference};
use serde_json::{Value, json};

use crate::lookup::Lookup;
use crate::tokens::TokenAuthority;

const SHORTEST: i64 = 600;
/// Bytes of all audiences. They are in each request that the token makes, and no server takes headers much longer.
const MAX_AUDIENCES: usize = 16 << 10;

/// Issues a token for `namespace/account`; the caller was authorized and admitted.
pub fn issue(
    lookup: &dyn Lookup,
    authority: &TokenAuthority,
    namespace: &str,
    account: &str,
    mut request: Value,
) -> Result<Value, Status> {
    is_for(&request, namespace, account)?;
    let stored = lookup.value("", "serviceaccounts", namespace, account);
    let stored = stored.ok_or_else(|| Status::not_found("", "serviceaccounts", account))?;
    let seconds = lifetime(&request)?;
    let mut audiences: Vec<String> = serde_json::from_value(request["spec"]["audiences"].clone()).unwrap_or_default();
    if audiences.iter().map(|audience| audience.len() + 3).sum::<usize>() > MAX_AUDIENCES {
        let error = FieldError::too_long("spec.audiences", MAX_AUDIENCES);
        return Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", &[error]));
    }
    if audiences.is_empty() {
        audiences = authority.audiences.clone();
    }
    let mut kubernetes = Binding {
        namespace: namespace.to_string(),
        serviceaccount: Reference {
            name: account.to_string(),
            uid: meta::uid(&stored).to_string(),
        },
        ..Binding::default()
    };
    bind(
        lookup,
        namespace,
        account,
        &request["spec"]["boundObjectRef"],
        &mut kubernetes,
    )?;

    let now = mk8s_pki::unix_now();
    let claims = Claims {
        aud: audiences.clone(),
        exp: now + seconds,
        iat: now,
        iss: authority.issuer.clone(),
        jti: uuid::Uuid::new_v4().to_string(),
        kubernetes,
        nbf: now,
        sub: format!("system:serviceaccount:{namespace}:{account}"),
    };
    let token = authority
        .keys
        .sign(&claims)
        .map_err(|error| Status::internal(error.to_string()))?;
    let time = |unix: i64| {
        jiff::Timestamp::from_second(unix)
            .unwrap_or(jiff::Timestamp::MAX)
            .to_string()
    };
    request["metadata"] = json!({"name": account, "namespace": namespace, "creationTimestamp": time(now)});
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = seconds.into();
    request["status"] = json!({"token": token, "expirationTimestamp": time(now + seconds)});
    Ok(request)
}

/// Whose token it is may be said, where it is that of the path.
fn is_for(request: &Value, namespace: &str, account: &str) -> Result<(), Status> {
    for (key, own) in [("name", account), ("namespace", namespace)] {
        let said = meta::string(request, &["metadata", key]);
        if !said.is_empty() && said != own {
            let why = format!("must match the service account {key} if specified");
            let error = FieldError::invalid(format!("metadata.{key}"), said, why);
            return Err(Status::invalid(
                "authentication.k8s.io",
                "TokenRequest",
                account,
                &[error],
            ));
        }
    }
    Ok(())
}

/// How many seconds the token is asked for.
fn lifetime(request: &Value) -> Result<i64, Status> {
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    let too = |why: &str| {
        let error = FieldError::invalid("spec.expirationSeconds", seconds, why);
        Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", &[error]))
    };
    if seconds < SHORTEST {
        return too("may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        return too("may not specify a duration larger than 2^32 seconds");
    }
    Ok(seconds)
}

/// Looks up what the token is to live and die with.
fn bind(
    lookup: &dyn Lookup,
    namespace: &str,
    account: &str,
    reference: &Value,
    binding: &mut Binding,
) -> Result<(), Status> {
    if reference.is_null() {
        return Ok(());
    }
    let (api_version, kind) = (string(reference, &["apiVersion"]), string(reference, &["kind"]));
    let name = string(reference, &["name"]);
    let (plural, place) = match (api_version, kind) {
        ("v1", "Pod") => ("pods", namespace),
        ("v1", "Secret") => ("secrets", namespace),
        ("v1", "Node") => ("nodes", ""),
        _ => {
            let (group, version) = meta::split_api_version(api_version);
            let what = format!("cannot bind token for object of type {group}/{version}, Kind={kind}");
            return Err(Status::bad_request(what));
        }
    };
    let object = lookup
        .value("", plural, place, name)
        .ok_or_else(|| Status::not_found("", plural, name))?;
    let uid = meta::uid(&object);
    let asked = string(reference, &["uid"]);
    if !asked.is_empty() && asked != uid {
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", plural, name, &why));
    }
    let bound = Some(Reference {
        name: name.to_string(),
        uid: uid.to_string(),
    });
    match kind {
        "Pod" => {
            if string(&object, &["spec", "serviceAccountName"]) != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            binding.pod = bound;
            let node = string(&object, &["spec", "nodeName"]);
            if !node.is_empty() {
                let stored = lookup.value("", "nodes", "", node);
                let uid = stored.as_ref().map(meta::uid).unwrap_or_default().to_string();
                binding.node = Some(Reference {
                    name: node.to_string(),
                    uid,
                });
            }
        }
        "Secret" => binding.secret = bound,
        _ => binding.node = bound,
    }
    Ok(())
}
