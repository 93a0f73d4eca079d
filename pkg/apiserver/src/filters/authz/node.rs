//! The node authorizer: a node reads and writes only what its own pods name, its own Node, Lease and CSINode, and what
//! upstream's static rules give every node (<https://kubernetes.io/docs/reference/access-authn-authz/node/>).
//! NodeRestriction admission checks the contents of what is allowed here.

use mk8s_api::references::{self, Referent};
use serde_json::Value;

use super::{Attributes, Decision, Rule};
use crate::bootstrap::roles;
use crate::identity::User;
use crate::lookup::Lookup;

/// The node that a user is: `system:node:NAME` in group system:nodes.
pub fn node_name(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    user.in_group("system:nodes").then_some(name)
}

pub fn decide(lookup: &dyn Lookup, attributes: &Attributes<'_>) -> Decision {
    let Some(node) = node_name(attributes.user) else {
        return Decision::NoOpinion(String::new());
    };
    if node.is_empty() {
        return Decision::NoOpinion(format!("unknown node for user {:?}", attributes.user.name));
    }
    let result = match (attributes.is_resource, attributes.group, attributes.resource) {
        (true, "", "secrets") => read_related(lookup, node, attributes, Related::Secret),
        (true, "", "configmaps") => read_related(lookup, node, attributes, Related::ConfigMap),
        (true, "", "persistentvolumeclaims") if attributes.subresource == "status" => match attributes.verb {
            "update" | "patch" => related(lookup, node, attributes, Related::Claim),
            _ => Err("can only get/update/patch this type".into()),
        },
        (true, "", "persistentvolumeclaims") => get_related(lookup, node, attributes, Related::Claim),
        (true, "", "persistentvolumes") => get_related(lookup, node, attributes, Related::Volume),
        (true, "resource.k8s.io", "resourceclaims") => get_related(lookup, node, attributes, Related::ResourceClaim),
        (true, "storage.k8s.io", "volumeattachments") => get_related(lookup, node, attributes, Related::Attachment),
        (true, "", "serviceaccounts") => service_account(lookup, node, attributes),
        (true, "coordination.k8s.io", "leases") => lease(node, attributes),
        (true, "storage.k8s.io", "csinodes") => csi_node(node, attributes),
        (true, "resource.k8s.io", "resourceslices") => resource_slice(lookup, node, attributes),
        (true, "", "nodes") => own_node(node, attributes),
        (true, "", "pods") => pod(lookup, node, attributes),
        (true, "certificates.k8s.io", "podcertificaterequests") => Err(String::new()),
        _ if roles::node_rules().iter().any(|rule: &Rule| rule.allows(attributes)) => Ok(()),
        _ => Err(String::new()),
    };
    match result {
        Ok(()) => Decision::Allow(String::new()),
        Err(reason) => Decision::NoOpinion(reason),
    }
}

type Answer = Result<(), String>;

/// What a pod's relation to an object is looked for by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Related {
    Secret,
    ConfigMap,
    Claim,
    Volume,
    ResourceClaim,
    Attachment,
    ServiceAccount,
    Pod,
}

fn read_related(lookup: &dyn Lookup, node: &str, attributes: &Attributes<'_>, what: Related) -> Answer {
    if !matches!(attributes.verb, "get" | "list" | "watch") {
        return Err("can only read resources of this type".into());
    }
    if !attributes.subresource.is_empty() {
        return Err("cannot read subresource".into());
    }
    if attributes.namespace.is_empty() {
        return Err("can only read namespaced object of this type".into());
    }
    related(lookup, node, attributes, what)
}

fn get_related(lookup: &dyn Lookup, node: &str, attributes: &Attributes<'_>, what: Related) -> Answer {
    if attributes.verb != "get" {
        return Err("can only get individual resources of this type".into());
    }
    if !attributes.subresource.is_empty() {
        return Err("cannot get subresource".into());
    }
    related(lookup, node, attributes, what)
}

fn service_account(lookup: &dyn Lookup, node: &str, attributes: &Attributes<'_>) -> Answer {
    if attributes.verb == "get" && attributes.subresource.is_empty() {
        return read_related(lookup, node, attributes, Related::ServiceAccount);
    }
    if attributes.verb != "create" || attributes.name.is_empty() {
        return Err("can only create tokens for individual service accounts".into());
    }
    if attributes.subresource != "token" {
        return Err("can only create token subresource of serviceaccount".into());
    }
    related(lookup, node, attributes, Related::ServiceAccount)
}

fn lease(node: &str, attributes: &Attributes<'_>) -> Answer {
    if !matches!(attributes.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".into());
    }
    if attributes.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".into());
    }
    if attributes.verb != "create" && attributes.name != node {
        return Err("can only access node lease with the same name as the requesting node".into());
    }
    Ok(())
}

fn csi_node(node: &str, attributes: &Attributes<'_>) -> Answer {
    if !matches!(attributes.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a CSINode".into());
    }
    if !attributes.subresource.is_empty() {
        return Err("cannot authorize CSINode subresources".into());
    }
    if attributes.verb != "create" && attributes.name != node {
        return Err("can only access CSINode with the same name as the requesting node".into());
    }
    Ok(())
}

fn resource_slice(lookup: &dyn Lookup, node: &str, attributes: &Attributes<'_>) -> Answer {
    if !attributes.subresource.is_empty() {
        return Err("cannot authorize ResourceSlice subresources".into());
    }
    match attributes.verb {
        "create" => Ok(()),
        "get" | "update" | "patch" | "delete" => {
            let slice = lookup.value("resource.k8s.io", "resourceslices", "", attributes.name);
            match slice {
                Some(slice) if slice["spec"]["nodeName"] == node => Ok(()),
                _ => Err(unrelated(node)),
            }
        }
        "watch" | "list" | "deletecollection" if attributes.field_selector.required("spec.nodeName") == Some(node) => Ok(()),
        "watch" | "list" | "deletecollection" => {
            Err("can only list/watch/deletecollection resourceslices with nodeName field selector".into())
        }
        _ => Err("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection".into()),
    }
}

fn own_node(node: &str, attributes: &Attributes<'_>) -> Answer {
    match (attributes.subresource, attributes.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") => match attributes.name {
            name if name == node => Ok(()),
            "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => Err(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => Err(String::new()),
    }
}

fn pod(lookup: &dyn Lookup, node: &str, attributes: &Attributes<'_>) -> Answer {
    match (attributes.subresource, attributes.verb) {
        ("", "get") => related(lookup, node, attributes, Related::Pod),
        ("", "list" | "watch") if attributes.field_selector.required("spec.nodeName") == Some(node) => Ok(()),
        ("", "list" | "watch") if !attributes.name.is_empty() => related(lookup, node, attributes, Related::Pod),
        ("", "list" | "watch") => Err("can only list/watch pods with spec.nodeName field selector".into()),
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
        _ => Err(String::new()),
    }
}

fn unrelated(node: &str) -> String {
    format!("no relationship found between node '{node}' and this object")
}

fn related(lookup: &dyn Lookup, node: &str, attributes: &Attributes<'_>, what: Related) -> Answer {
    if attributes.name.is_empty() {
        return Err("No Object name found".into());
    }
    let found = match what {
        Related::Attachment => lookup
            .value("storage.k8s.io", "volumeattachments", "", attributes.name)
            .is_some_and(|attachment| attachment["spec"]["nodeName"] == node),
        Related::Volume => volume_related(lookup, node, attributes.name),
        Related::Pod => lookup
            .value("", "pods", attributes.namespace, attributes.name)
            .is_some_and(|pod| pod["spec"]["nodeName"] == node),
        _ => named_by_a_pod(lookup, node, attributes.namespace, attributes.name, what),
    };
    if found { Ok(()) } else { Err(unrelated(node)) }
}

/// A volume is a node's when a claim that one of its pods names is bound to it.
fn volume_related(lookup: &dyn Lookup, node: &str, volume: &str) -> bool {
    let Some(volume) = lookup.value("", "persistentvolumes", "", volume) else {
        return false;
    };
    let claim = &volume["spec"]["claimRef"];
    match (claim["namespace"].as_str(), claim["name"].as_str()) {
        (Some(namespace), Some(name)) => named_by_a_pod(lookup, node, namespace, name, Related::Claim),
        _ => false,
    }
}

fn named_by_a_pod(lookup: &dyn Lookup, node: &str, namespace: &str, name: &str, what: Related) -> bool {
    lookup.pods_on_node(namespace, node).iter().any(|bytes| {
        // Most pods don't name it: the text is searched before it is parsed. (A claim made for a pod is named by both.)
        let worth = matches!(what, Related::Claim | Related::ResourceClaim)
            || memchr::memmem::find(bytes, name.as_bytes()).is_some();
        worth && serde_json::from_slice::<Value>(bytes).is_ok_and(|pod| names(&pod, name, what))
    })
}

/// Whether a pod's spec names an object. A mirror pod, which a node makes itself, must not open anything.
fn names(pod: &Value, name: &str, what: Related) -> bool {
    if pod["metadata"]["annotations"]
        .get("kubernetes.io/config.mirror")
        .is_some()
    {
        return false;
    }
    let to = match what {
        Related::ServiceAccount => Referent::ServiceAccount,
        Related::Claim => Referent::Claim,
        Related::ResourceClaim => Referent::ResourceClaim,
        Related::Secret => Referent::Secret,
        Related::ConfigMap => Referent::ConfigMap,
        Related::Volume | Related::Attachment | Related::Pod => return false,
    };
    !name.is_empty() && references::any(pod, |reference| reference.to == to && reference.name == name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::lookup::MapLookup;
    use crate::request::{Query, RequestInfo};

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn a_node_reaches_what_its_pods_name() {
        let lookup = MapLookup::default();
        lookup.put("", "pods", &json!({
            "metadata": {"name": "web", "namespace": "a"},
            "spec": {
                "nodeName": "one", "serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
                "initContainers": [{"envFrom": [{"configMapRef": {"name": "init"}}]}],
                "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env"}}}]}],
                "volumes": [
                    {"name": "t", "projected": {"sources": [{"configMap": {"name": "root-ca"}}, {"secret": {"name": "proj"}}]}},
                    {"name": "s", "secret": {"secretName": "vol"}},
                    {"name": "c", "persistentVolumeClaim": {"claimName": "data"}},
                    {"name": "e", "ephemeral": {}},
                ],
            },
        }));
        lookup.put("", "pods", &json!({"metadata": {"name": "mirror", "namespace": "a", "annotations": {"kubernetes.io/config.mirror": "x"}},
            "spec": {"nodeName": "one", "volumes": [{"name": "s", "secret": {"secretName": "stolen"}}]}}));
        lookup.put(
            "",
            "persistentvolumes",
            &json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "a", "name": "data"}}}),
        );
        let core = "/api/v1/namespaces/a";
        let table: &[(&str, &str, String, bool)] = &[
            ("one", "GET", format!("{core}/secrets/pull"), true),
            ("one", "GET", format!("{core}/secrets/env"), true),
            ("one", "GET", format!("{core}/secrets/proj"), true),
            ("one", "GET", format!("{core}/secrets/vol"), true),
            ("one", "GET", format!("{core}/secrets/other"), false),
            ("one", "GET", format!("{core}/secrets/stolen"), false),
            ("one", "GET", format!("{core}/secrets"), false),
            (
                "one",
                "GET",
                format!("{core}/secrets?watch=1&fieldSelector=metadata.name%3Dvol"),
                true,
            ),
            (
                "one",
                "GET",
                format!("{core}/secrets?watch=1&fieldSelector=metadata.name%3Dother"),
                false,
            ),
            ("one", "PUT", format!("{core}/secrets/vol"), false),
            ("two", "GET", format!("{core}/secrets/vol"), false),
            ("one", "GET", "/api/v1/namespaces/b/secrets/vol".into(), false),
            ("one", "GET", format!("{core}/configmaps/init"), true),
            ("one", "GET", format!("{core}/configmaps/root-ca"), true),
            ("one", "GET", format!("{core}/configmaps/vol"), false),
            ("one", "GET", format!("{core}/persistentvolumeclaims/data"), true),
            ("one", "GET", format!("{core}/persistentvolumeclaims/web-e"), true),
            ("one", "GET", "/api/v1/persistentvolumes/pv".into(), true),
            ("two", "GET", "/api/v1/persistentvolumes/pv".into(), false),
            ("one", "POST", format!("{core}/serviceaccounts/sa/token"), true),
            ("one", "POST", format!("{core}/serviceaccounts/default/token"), false),
            ("two", "POST", format!("{core}/serviceaccounts/sa/token"), false),
            ("one", "GET", format!("{core}/pods/web"), true),
            ("two", "GET", format!("{core}/pods/web"), false),
            (
                "one",
                "GET",
                "/api/v1/pods?fieldSelector=spec.nodeName%3Done".into(),
                true,
            ),
            (
                "one",
                "GET",
                "/api/v1/pods?fieldSelector=spec.nodeName%3Dtwo".into(),
                false,
            ),
            ("one", "GET", "/api/v1/pods".into(), false),
            ("one", "PATCH", format!("{core}/pods/web/status"), true),
            ("one", "PATCH", format!("{core}/pods/web"), false),
            ("one", "GET", "/api/v1/nodes/one".into(), true),
            ("one", "GET", "/api/v1/nodes/two".into(), false),
            (
                "one",
                "GET",
                "/api/v1/nodes?watch=1&fieldSelector=metadata.name%3Done".into(),
                true,
            ),
            ("one", "GET", "/api/v1/nodes".into(), false),
            ("one", "PATCH", "/api/v1/nodes/one/status".into(), true),
            (
                "one",
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/one".into(),
                true,
            ),
            (
                "one",
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/two".into(),
                false,
            ),
            (
                "one",
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/one".into(),
                false,
            ),
            ("one", "POST", "/api/v1/namespaces/a/events".into(), true),
            ("one", "GET", "/api/v1/services".into(), true),
            (
                "one",
                "POST",
                "/apis/authentication.k8s.io/v1/tokenreviews".into(),
                true,
            ),
            ("one", "GET", "/apis/apps/v1/deployments".into(), false),
        ];
        for (node, method, uri, wanted) in table {
            let user = User::authenticated(format!("system:node:{node}"), ["system:nodes".to_string()]);
            let (path, query) = uri
                .split_once('?')
                .map_or((uri.as_str(), None), |(path, query)| (path, Some(query)));
            let query = Query::parse(query);
            let info = RequestInfo::parse(&method.parse().unwrap(), path, &query);
            let decision = decide(&lookup, &Attributes::of_request(&user, &info));
            assert_eq!(decision.allowed(), *wanted, "{node} {method} {uri}: {decision:?}");
        }
        // The name alone makes no node.
        let impostor = User::authenticated("system:node:one", []);
        assert_eq!(node_name(&impostor), None);
    }
}
