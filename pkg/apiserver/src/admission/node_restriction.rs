//! NodeRestriction: what the node authorizer can't see, the contents: a node writes only its own Node (not its taints
//! nor labels that steer work), status of its own pods, tokens of its own pods, certificates in its own name.

use mk8s_api::meta::{items, string};
use mk8s_api::references::{self, Referent};
use mk8s_api::status::Status;
use serde_json::Value;

use super::{Attributes, Operation, certificates};
use crate::filters::authz::{self, Authorizer, node::node_name};
use crate::lookup::Lookup;

const MIRROR: &str = "kubernetes.io/config.mirror";

pub fn admit(
    attributes: &Attributes<'_>,
    object: &Value,
    lookup: &dyn Lookup,
    authorizer: &Authorizer,
) -> Result<(), Status> {
    let Some(node) = node_name(attributes.user) else {
        return Ok(());
    };
    let resource = (&*attributes.resource.group, &*attributes.resource.plural);
    let why = match (resource, attributes.subresource) {
        (("", "pods"), "") => pod(attributes, object, lookup, node)?,
        (("", "pods"), "status") => pod_status(attributes, object, node),
        (("", "pods"), "eviction") => eviction(attributes, object, lookup, node)?,
        (("", "pods"), other) => Some(format!(
            "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
        )),
        (("", "nodes"), _) => own_node(attributes, object, node),
        (("", "persistentvolumeclaims"), "status") => claim_status(attributes, object, node),
        (("", "persistentvolumeclaims"), _) => Some("may only update PVC status".into()),
        (("", "serviceaccounts"), "token") if attributes.operation == Operation::Create => {
            token(attributes, object, lookup, authorizer, node)?
        }
        (("coordination.k8s.io", "leases"), _) => lease(attributes, object, node),
        (("storage.k8s.io", "csinodes"), _) => (own_name(attributes, object) != node)
            .then(|| "can only access CSINode with the same name as the requesting node".into()),
        (("resource.k8s.io", "resourceslices"), _) => resource_slice(attributes, object, node),
        (("certificates.k8s.io", "certificatesigningrequests"), "") if attributes.operation == Operation::Create => {
            request(object, node)
        }
        _ => None,
    };
    match why {
        Some(why) => {
            let object = Some(object).filter(|object| !object.is_null());
            Err(attributes.forbidden(object, &why))
        }
        None => Ok(()),
    }
}

type Refusal = Option<String>;

/// The name in the URL, on create the object's.
fn own_name<'a>(attributes: &Attributes<'a>, object: &'a Value) -> &'a str {
    if attributes.operation == Operation::Create {
        mk8s_api::meta::name(object)
    } else {
        attributes.name
    }
}

fn pod(attributes: &Attributes<'_>, pod: &Value, lookup: &dyn Lookup, node: &str) -> Result<Refusal, Status> {
    match attributes.operation {
        Operation::Create => mirror_pod(pod, lookup, node),
        Operation::Delete => {
            let stored = lookup.value("", "pods", attributes.namespace, attributes.name);
            let stored = stored.ok_or_else(|| Status::not_found("", "pods", attributes.name))?;
            Ok((string(&stored, &["spec", "nodeName"]) != node)
                .then(|| format!("node {node:?} can only delete pods with spec.nodeName set to itself")))
        }
        operation => {
            let operation = format!("{operation:?}").to_uppercase();
            Ok(Some(format!(
                "unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods"
            )))
        }
    }
}

fn mirror_pod(pod: &Value, lookup: &dyn Lookup, node: &str) -> Result<Refusal, Status> {
    if mk8s_api::meta::annotation(pod, MIRROR).is_none() {
        return Ok(Some(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        )));
    }
    if string(pod, &["spec", "nodeName"]) != node {
        return Ok(Some(format!(
            "node {node:?} can only create pods with spec.nodeName set to itself"
        )));
    }
    let owner = match items(pod, &["metadata", "ownerReferences"]) {
        [] => {
            return Ok(Some(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            )));
        }
        [owner] => owner,
        _ => {
            return Ok(Some(format!(
                "node {node:?} can only create pods with a single owner reference set to itself"
            )));
        }
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return Ok(Some(format!(
            "node {node:?} can only create pods with an owner reference set to itself"
        )));
    }
    if owner["controller"] != true {
        return Ok(Some(format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        )));
    }
    if owner["blockOwnerDeletion"] == true {
        return Ok(Some(format!(
            "node {node:?} must not set blockOwnerDeletion on an owner reference"
        )));
    }
    let stored = lookup
        .value("", "nodes", "", node)
        .ok_or_else(|| Status::not_found("", "nodes", node))?;
    let (given, uid) = (owner["uid"].as_str().unwrap_or_default(), mk8s_api::meta::uid(&stored));
    if given != uid {
        return Ok(Some(format!("node {node} UID mismatch: expected {given} got {uid}")));
    }
    let named = NAMEABLE
        .into_iter()
        .find(|(to, _)| references::any(pod, |reference| reference.to == *to));
    Ok(named.map(|(_, what)| format!("node {node:?} can not create pods that reference {what}")))
}

/// What a mirror pod may name none of, in the order and words of the refusal.
const NAMEABLE: [(Referent, &str); 5] = [
    (Referent::ServiceAccount, "serviceaccounts"),
    (Referent::Secret, "secrets"),
    (Referent::ConfigMap, "configmaps"),
    (Referent::Claim, "persistentvolumeclaims"),
    (Referent::ResourceClaim, "resourceclaims"),
];

fn pod_status(attributes: &Attributes<'_>, pod: &Value, node: &str) -> Refusal {
    let (Operation::Update, Some(old)) = (attributes.operation, attributes.old) else {
        return Some(format!(
            "unexpected operation {:?}",
            format!("{:?}", attributes.operation).to_uppercase()
        ));
    };
    let labels = |pod: &Value| mk8s_api::meta::labels(pod).cloned().unwrap_or_default();
    if attributes.old_field("spec.nodeName") != node {
        Some(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ))
    } else if labels(old) != labels(pod) {
        Some(format!("node {node:?} cannot update labels through pod status"))
    } else if old["status"]["resourceClaimStatuses"] != pod["status"]["resourceClaimStatuses"] {
        Some(format!("node {node:?} cannot update resource claim statues"))
    } else if old["status"]["extendedResourceClaimStatus"] != pod["status"]["extendedResourceClaimStatus"] {
        Some(format!("node {node:?} cannot update extended resource claim status"))
    } else {
        None
    }
}

fn eviction(attributes: &Attributes<'_>, object: &Value, lookup: &dyn Lookup, node: &str) -> Result<Refusal, Status> {
    let name = if attributes.name.is_empty() {
        mk8s_api::meta::name(object)
    } else {
        attributes.name
    };
    if name.is_empty() {
        return Ok(Some("could not determine pod from request data".into()));
    }
    let stored = lookup.value("", "pods", attributes.namespace, name);
    let stored = stored.ok_or_else(|| Status::not_found("", "pods", name))?;
    Ok((string(&stored, &["spec", "nodeName"]) != node)
        .then(|| format!("node {node} can only evict pods with spec.nodeName set to itself")))
}

fn claim_status(attributes: &Attributes<'_>, claim: &Value, node: &str) -> Refusal {
    let old = attributes.old?;
    let stripped = |claim: &Value| {
        let mut claim = claim.clone();
        for field in ["resourceVersion", "managedFields"] {
            mk8s_api::meta::remove(&mut claim, &["metadata", field]);
        }
        for field in [
            "capacity",
            "conditions",
            "allocatedResourceStatuses",
            "allocatedResources",
        ] {
            mk8s_api::meta::remove(&mut claim, &["status", field]);
        }
        claim
    };
    (stripped(old) != stripped(claim)).then(|| {
        format!("node {node:?} is not allowed to update fields other than status.quantity and status.conditions")
    })
}

fn own_node(attributes: &Attributes<'_>, object: &Value, node: &str) -> Refusal {
    let name = match attributes.name {
        "" => mk8s_api::meta::name(object),
        name => name,
    };
    if name != node {
        return Some(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    match (attributes.operation, attributes.old) {
        (Operation::Create, _) => {
            if !object["spec"]["configSource"].is_null() {
                return Some(format!(
                    "node {node:?} is not allowed to create pods with a non-nil configSource"
                ));
            }
            if pod_cidrs(object) != pod_cidrs(&Value::Null) {
                return Some(format!("node {node:?} is not allowed to choose its podCIDR"));
            }
            let forbidden = forbidden_labels(object, &Value::Null);
            (!forbidden.is_empty()).then(|| {
                format!(
                    "node {node:?} is not allowed to set the following labels: {}",
                    forbidden.join(", ")
                )
            })
        }
        (Operation::Update, Some(old)) => {
            let config = &object["spec"]["configSource"];
            let list = |object: &Value, path: &[&str]| items(object, path).to_vec();
            if !config.is_null() && *config != old["spec"]["configSource"] {
                return Some(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            if list(object, &["spec", "taints"]) != list(old, &["spec", "taints"]) {
                return Some(format!("node {node:?} is not allowed to modify taints"));
            }
            if pod_cidrs(object) != pod_cidrs(old) {
                return Some(format!("node {node:?} is not allowed to modify its podCIDR"));
            }
            if list(object, &["metadata", "ownerReferences"]) != list(old, &["metadata", "ownerReferences"]) {
                return Some(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
            let forbidden = forbidden_labels(object, old);
            (!forbidden.is_empty()).then(|| format!("is not allowed to modify labels: {}", forbidden.join(", ")))
        }
        _ => None,
    }
}

/// The node's pod ranges by both fields. Every other host routes them to the node, so the control plane alone gives them;
/// upstream, whose nodes' routes are others' work, lets a node set them once.
fn pod_cidrs(node: &Value) -> (&str, &[Value]) {
    (string(node, &["spec", "podCIDR"]), items(node, &["spec", "podCIDRs"]))
}

/// Changed labels that a node must not change itself.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let empty = serde_json::Map::new();
    let (new, old) = (
        mk8s_api::meta::labels(new).unwrap_or(&empty),
        mk8s_api::meta::labels(old).unwrap_or(&empty),
    );
    let mut keys: Vec<String> = new
        .keys()
        .chain(old.keys())
        .filter(|key| new.get(*key) != old.get(*key))
        .cloned()
        .collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| {
        let within = |domain: &str, namespace: &str| {
            namespace == domain || namespace.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
        };
        let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
        let restricted = within("node-restriction.kubernetes.io", namespace);
        let kubernetes = within("kubernetes.io", namespace) || within("k8s.io", namespace);
        restricted || (kubernetes && !kubelet_label(key, namespace, within))
    });
    keys
}

/// The labels that a node sets of itself.
fn kubelet_label(key: &str, namespace: &str, within: impl Fn(&str, &str) -> bool) -> bool {
    const OWN: [&str; 11] = [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
    ];
    OWN.contains(&key) || within("kubelet.kubernetes.io", namespace) || within("node.kubernetes.io", namespace)
}

fn token(
    attributes: &Attributes<'_>,
    object: &Value,
    lookup: &dyn Lookup,
    authorizer: &Authorizer,
    node: &str,
) -> Result<Refusal, Status> {
    let bound = &object["spec"]["boundObjectRef"];
    let name = string(bound, &["name"]);
    if bound["apiVersion"] != "v1" || bound["kind"] != "Pod" || name.is_empty() {
        return Ok(Some("node requested token not bound to a pod".into()));
    }
    let uid = string(bound, &["uid"]);
    if uid.is_empty() {
        return Ok(Some("node requested token with a pod binding without a uid".into()));
    }
    let pod = lookup.value("", "pods", attributes.namespace, name);
    let pod = pod.ok_or_else(|| Status::not_found("", "pods", name))?;
    if uid != mk8s_api::meta::uid(&pod) {
        return Ok(Some(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        )));
    }
    if string(&pod, &["spec", "nodeName"]) != node {
        return Ok(Some(
            "node requested token bound to a pod scheduled on a different node".into(),
        ));
    }
    let audience = match items(object, &["spec", "audiences"]) {
        [] => "",
        [audience] => audience.as_str().unwrap_or_default(),
        _ => return Ok(Some("node may only request 0 or 1 audiences".into())),
    };
    let mut sources = items(&pod, &["spec", "volumes"])
        .iter()
        .flat_map(|volume| items(volume, &["projected", "sources"]));
    let named = sources.any(|source| {
        source
            .get("serviceAccountToken")
            .is_some_and(|projection| string(projection, &["audience"]) == audience)
    });
    if named {
        return Ok(None);
    }
    let verb = "request-serviceaccounts-token-audience";
    let ask = authz::Attributes {
        namespace: attributes.namespace,
        name: attributes.name,
        ..authz::Attributes::of_resource(attributes.user, verb, "", audience)
    };
    if authorizer.allows(&ask) {
        return Ok(None);
    }
    let user = &attributes.user.name;
    Ok(Some(format!(
        "audience {audience:?} not found in pod spec volume, {user} is not authorized to request tokens for this audience"
    )))
}

fn lease(attributes: &Attributes<'_>, object: &Value, node: &str) -> Refusal {
    // A node that leads an election elsewhere does so by RBAC, and upstream forbids it here all the same.
    if attributes.namespace != "kube-node-lease" {
        return Some("can only access leases in the \"kube-node-lease\" system namespace".into());
    }
    (own_name(attributes, object) != node)
        .then(|| "can only access node lease with the same name as the requesting node".into())
}

fn resource_slice(attributes: &Attributes<'_>, object: &Value, node: &str) -> Refusal {
    match attributes.operation {
        Operation::Create if object["spec"]["nodeName"] != node => {
            Some("can only create ResourceSlice with the same NodeName as the requesting node".into())
        }
        Operation::Delete if attributes.old.is_none_or(|old| old["spec"]["nodeName"] != node) => {
            Some("can only delete ResourceSlice with the same NodeName as the requesting node".into())
        }
        _ => None,
    }
}

fn request(object: &Value, node: &str) -> Refusal {
    let signer = string(object, &["spec", "signerName"]);
    if !matches!(
        signer,
        "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet"
    ) {
        return None;
    }
    match certificates::parse(object) {
        Err(cause) => Some(format!("unable to parse csr: {cause}")),
        Ok(request) => (request.subject.common_name != format!("system:node:{node}"))
            .then(|| format!("can only create a node CSR with CN=system:node:{node}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::json;

    use super::super::testing::{Request, cluster};
    use super::*;
    use crate::identity::User;
    use crate::lookup::MapLookup;
    use Operation::{Create, Delete, Update};

    /// A cluster of the nodes "one" and "two", each with a pod.
    struct World {
        lookup: Arc<MapLookup>,
        authorizer: Authorizer,
    }

    impl World {
        fn new() -> Self {
            let lookup = cluster();
            lookup.put("", "pods", &json!({"metadata": {"name": "mine", "namespace": "default", "uid": "1"}, "spec": {"nodeName": "one",
                "volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, {"serviceAccountToken": {"audience": "vault"}}]}}]}}));
            lookup.put(
                "",
                "pods",
                &json!({"metadata": {"name": "other", "namespace": "default", "uid": "2"}, "spec": {"nodeName": "two"}}),
            );
            let authorizer = Authorizer::new(lookup.clone());
            Self { lookup, authorizer }
        }

        /// What the node "one" is told.
        fn ask(&self, request: Request<'_>, object: &Value, old: Option<&Value>) -> Result<(), String> {
            let user = User::authenticated("system:node:one", ["system:nodes".to_string()]);
            let request = Request { user, ..request };
            request
                .with(old, |attributes| {
                    admit(attributes, object, &*self.lookup, &self.authorizer)
                })
                .map_err(|status| status.message)
        }
    }

    #[test]
    fn a_node_writes_itself_without_what_others_decide() {
        let world = World::new();
        let nodes = |operation, name| Request {
            operation,
            name,
            ..Request::create("nodes", "")
        };
        let labelled = |labels: Value| json!({"metadata": {"name": "one", "labels": labels}});
        let free = labelled(json!({"kubernetes.io/hostname": "one", "mine": "x", "node.kubernetes.io/x": "y"}));
        world.ask(nodes(Create, ""), &free, None).unwrap();
        let role = labelled(json!({"node-role.kubernetes.io/control-plane": ""}));
        assert_eq!(
            world.ask(nodes(Create, ""), &role, None).unwrap_err(),
            "nodes \"one\" is forbidden: node \"one\" is not allowed to set the following labels: node-role.kubernetes.io/control-plane"
        );
        let plain = labelled(json!({}));
        let restricted = labelled(json!({"a.node-restriction.kubernetes.io/x": "1"}));
        assert!(world.ask(nodes(Update, "one"), &restricted, Some(&plain)).is_err());
        let two = json!({"metadata": {"name": "two"}});
        assert_eq!(
            world.ask(nodes(Update, "two"), &two, None).unwrap_err(),
            "nodes \"two\" is forbidden: node \"one\" is not allowed to modify node \"two\""
        );
        let tainted = json!({"metadata": {"name": "one"}, "spec": {"taints": [{"key": "a"}]}});
        assert!(world.ask(nodes(Update, "one"), &plain, Some(&tainted)).is_err());
    }

    #[test]
    fn a_node_does_not_choose_its_pods_range() {
        let world = World::new();
        let ask = |operation, object: &Value, old| {
            let name = if operation == Create { "" } else { "one" };
            let request = Request {
                operation,
                name,
                ..Request::create("nodes", "")
            };
            world.ask(request, object, old)
        };
        let node = |spec: Value| json!({"metadata": {"name": "one"}, "spec": spec});
        let plain = node(json!({"podCIDR": "", "podCIDRs": []}));
        let given = node(json!({"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}));
        for chosen in [
            json!({"podCIDR": "128.0.0.0/1"}),
            json!({"podCIDRs": ["10.244.1.0/25"]}),
        ] {
            let chosen = node(chosen);
            assert_eq!(
                ask(Create, &chosen, None).unwrap_err(),
                "nodes \"one\" is forbidden: node \"one\" is not allowed to choose its podCIDR"
            );
            for old in [&plain, &given] {
                assert_eq!(
                    ask(Update, &chosen, Some(old)).unwrap_err(),
                    "nodes \"one\" is forbidden: node \"one\" is not allowed to modify its podCIDR"
                );
            }
        }
        ask(Create, &plain, None).unwrap();
        ask(Update, &given, Some(&given)).unwrap();
    }

    #[test]
    fn a_node_writes_its_own_pods() {
        let world = World::new();
        let pods = |operation, subresource, name| Request {
            operation,
            subresource,
            name,
            ..Request::create("pods", "default")
        };
        let status = |name, node| {
            let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node}});
            world.ask(pods(Update, "status", name), &pod, Some(&pod))
        };
        status("mine", "one").unwrap();
        assert!(status("other", "two").is_err());
        let delete = |name| world.ask(pods(Delete, "", name), &Value::Null, None);
        delete("mine").unwrap();
        assert!(delete("other").is_err());
        let new = json!({"metadata": {"name": "x"}});
        assert!(world.ask(pods(Create, "", ""), &new, None).is_err());
    }

    #[test]
    fn a_node_gets_tokens_for_its_own_pods() {
        let world = World::new();
        let token = |spec: Value| {
            let request = Request {
                subresource: "token",
                name: "default",
                ..Request::create("serviceaccounts", "default")
            };
            world.ask(request, &json!({"spec": spec}), None)
        };
        let bound = |pod: &str, uid: &str, audiences: Value| {
            token(
                json!({"audiences": audiences, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}}),
            )
        };
        bound("mine", "1", json!(null)).unwrap();
        bound("mine", "1", json!(["vault"])).unwrap();
        assert!(bound("mine", "1", json!(["other"])).is_err());
        assert!(bound("mine", "9", json!(null)).is_err());
        assert!(bound("other", "2", json!(null)).is_err());
        assert!(token(json!({})).is_err());
    }

    #[test]
    fn a_node_writes_its_own_lease() {
        let world = World::new();
        let lease = |namespace, name: &str| {
            let request = Request {
                group: "coordination.k8s.io",
                ..Request::create("leases", namespace)
            };
            world.ask(request, &json!({"metadata": {"name": name}}), None)
        };
        lease("kube-node-lease", "one").unwrap();
        assert!(lease("kube-node-lease", "two").is_err());
        assert!(lease("default", "one").is_err());
    }
}
