//! Reviews: questions about users and tokens that are answered and not stored
//! (<https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access>).

mod access;
mod token;
mod token_request;

use mk8s_api::status::Status;
use serde_json::{Value, json};

use crate::filters::authn::Authenticator;
use crate::filters::authz::Authorizer;
use crate::identity::User;

pub use token_request::issue;

/// Answers one review: `object` as it was sent, with its status filled in.
pub fn answer(
    authenticator: &Authenticator,
    authorizer: &Authorizer,
    user: &User,
    plural: &str,
    namespace: &str,
    mut object: Value,
) -> Result<Value, Status> {
    let status = match plural {
        "selfsubjectaccessreviews" => access::of_self(authorizer, user, &object)?,
        "subjectaccessreviews" => access::of_subject(authorizer, &object, None)?,
        "localsubjectaccessreviews" => access::of_subject(authorizer, &object, Some(namespace))?,
        "selfsubjectrulesreviews" => access::rules(authorizer, user, &object)?,
        "selfsubjectreviews" => json!({"userInfo": user_info(user)}),
        "tokenreviews" => token::review(authenticator, &object)?,
        _ => return Err(Status::method_not_allowed(format!("{plural} can't be created"))),
    };
    match object["metadata"].as_object_mut() {
        // Nobody reads them there, and an empty owner of two bytes is answered in 45.
        Some(metadata) => metadata.retain(|field, _| field != "ownerReferences" && field != "managedFields"),
        None => object["metadata"] = json!({}),
    }
    if plural == "localsubjectaccessreviews" {
        object["metadata"]["namespace"] = namespace.into();
    }
    if plural == "selfsubjectrulesreviews" {
        object["spec"] = json!({});
    }
    if plural == "selfsubjectreviews" {
        object["metadata"]["creationTimestamp"] = crate::bootstrap::objects::now().into();
    }
    object["status"] = status;
    Ok(object)
}

/// authentication.k8s.io UserInfo
fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use mk8s_pki::serviceaccount::Keys;

    use super::*;
    use crate::filters::authz::rbac::GROUP;
    use crate::lookup::MapLookup;
    use crate::tokens::TokenAuthority;

    fn cluster() -> (Arc<MapLookup>, Authenticator, Authorizer) {
        let lookup = Arc::new(MapLookup::default());
        lookup.put(GROUP, "clusterroles", &json!({"metadata": {"name": "view"}, "rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}, {"nonResourceURLs": ["/x/*"], "verbs": ["get"]}]}));
        lookup.put(
            GROUP,
            "clusterrolebindings",
            &json!({"metadata": {"name": "view"},
            "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "jane"}]}),
        );
        lookup.put(
            "",
            "serviceaccounts",
            &json!({"metadata": {"name": "sa", "namespace": "a", "uid": "1"}}),
        );
        lookup.put("", "nodes", &json!({"metadata": {"name": "one", "uid": "n"}}));
        lookup.put("", "pods", &json!({"metadata": {"name": "web", "namespace": "a", "uid": "2"}, "spec": {"serviceAccountName": "sa", "nodeName": "one"}}));
        let authority = TokenAuthority::new(Arc::new(Keys::generate().unwrap()), "cluster.local");
        (
            lookup.clone(),
            Authenticator::new(lookup.clone(), authority, tokio::sync::mpsc::channel(1).0),
            Authorizer::new(lookup),
        )
    }

    #[test]
    fn access() {
        let (_, authenticator, authorizer) = cluster();
        let jane = User::authenticated("jane", []);
        let ask = |plural: &str, spec: Value| {
            answer(&authenticator, &authorizer, &jane, plural, "a", json!({"spec": spec}))
                .map(|review| review["status"].clone())
        };
        let pods = |verb: &str| json!({"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "a"}});
        let yes = ask("selfsubjectaccessreviews", pods("get")).unwrap();
        assert_eq!(
            yes,
            json!({"allowed": true, "reason": "RBAC: allowed by ClusterRoleBinding \"view\" of ClusterRole \"view\" to User \"jane\""})
        );
        assert_eq!(
            ask("selfsubjectaccessreviews", pods("delete")).unwrap(),
            json!({"allowed": false})
        );
        let other = json!({"user": "joe", "resourceAttributes": {"verb": "get", "resource": "pods"}});
        assert_eq!(ask("subjectaccessreviews", other.clone()).unwrap()["allowed"], false);
        assert_eq!(ask("localsubjectaccessreviews", other).unwrap_err().code, 422);
        assert_eq!(
            ask("subjectaccessreviews", json!({"user": "joe"})).unwrap_err().code,
            422
        );
        let path = json!({"nonResourceAttributes": {"verb": "get", "path": "/x/y"}});
        assert_eq!(ask("selfsubjectaccessreviews", path).unwrap()["allowed"], true);
        let rules = ask("selfsubjectrulesreviews", json!({"namespace": "a"})).unwrap();
        assert_eq!(
            rules["resourceRules"],
            json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}])
        );
        assert_eq!(
            rules["nonResourceRules"],
            json!([{"verbs": ["get"], "nonResourceURLs": ["/x/*"]}])
        );
    }

    /// Three bytes of an empty owner became 45, and nobody reads them there.
    #[test]
    fn what_is_sent_about_a_review_does_not_grow() {
        let (_, authenticator, authorizer) = cluster();
        let owners = vec![json!({"apiVersion": "", "kind": "", "name": "", "uid": ""}); 100];
        let metadata = json!({"name": "a", "labels": {"b": "c"}, "ownerReferences": owners, "managedFields": [{}]});
        let review = json!({"metadata": metadata});
        let answered = answer(
            &authenticator,
            &authorizer,
            &User::default(),
            "selfsubjectreviews",
            "",
            review,
        )
        .unwrap();
        let mut metadata = answered["metadata"].clone();
        metadata.as_object_mut().unwrap().remove("creationTimestamp");
        assert_eq!(metadata, json!({"name": "a", "labels": {"b": "c"}}));
    }

    #[test]
    fn tokens() {
        let (lookup, authenticator, authorizer) = cluster();
        let issuer = |spec: Value| issue(&*lookup, authenticator.authority(), "a", "sa", json!({"spec": spec}));
        let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "web"});
        let request =
            issuer(json!({"audiences": ["vault"], "expirationSeconds": 7200, "boundObjectRef": bound})).unwrap();
        let token = request["status"]["token"].as_str().unwrap();
        let admin = User::default();
        let review = |audiences: Value| {
            let spec = json!({"spec": {"token": token, "audiences": audiences}});
            answer(&authenticator, &authorizer, &admin, "tokenreviews", "", spec).unwrap()["status"].clone()
        };
        let status = review(json!(["vault", "other"]));
        assert_eq!(status["authenticated"], true, "{status}");
        assert_eq!(status["audiences"], json!(["vault"]));
        assert_eq!(status["user"]["username"], "system:serviceaccount:a:sa");
        let extra = &status["user"]["extra"];
        assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["web"]));
        assert_eq!(extra["authentication.kubernetes.io/node-name"], json!(["one"]));
        assert!(review(json!([]))["authenticated"].is_null(), "not for the API");

        for (spec, code) in [
            (json!({"expirationSeconds": 10}), 422),
            (json!({"audiences": vec!["a"; 10_000]}), 422),
            (json!({"audiences": ["a".repeat(20_000)]}), 422),
            (
                json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "none"}}),
                404,
            ),
            (
                json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": "9"}}),
                409,
            ),
            (
                json!({"boundObjectRef": {"kind": "Job", "apiVersion": "batch/v1", "name": "web"}}),
                400,
            ),
        ] {
            assert_eq!(issuer(spec.clone()).unwrap_err().code, code, "{spec}");
        }
        assert_eq!(
            issue(&*lookup, authenticator.authority(), "a", "none", json!({"spec": {}}))
                .unwrap_err()
                .code,
            404
        );
    }
}
