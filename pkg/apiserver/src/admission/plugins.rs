//! The table of plugins, in the order they run in both phases: upstream's, with what upstream's strategies do of the same
//! kind (a request's requester, roles that grant more than their author has) in its place at the end.

use serde_json::Value;

use super::{
    Attributes, Facts, Mutate, Operation, Plugin, Validate, certificates, claim_resize, default_class,
    default_toleration_seconds, device_admin, namespace_lifecycle, node_restriction, pod_security, pod_topology_labels,
    priority, runtime_class, service_account, storage_protection, taint_nodes_by_condition,
};
use crate::filters::authz;

const INGRESSES: (&str, &str) = ("networking.k8s.io", "ingresses");
const PRIORITY_CLASSES: (&str, &str) = ("scheduling.k8s.io", "priorityclasses");
const SIGNING_REQUESTS: (&str, &str) = ("certificates.k8s.io", "certificatesigningrequests");

fn is(call: &Attributes<'_>, (group, plural): (&str, &str)) -> bool {
    call.is(group, plural)
}

fn creates(call: &Attributes<'_>) -> bool {
    call.operation == Operation::Create && call.subresource.is_empty()
}

fn creates_pod(call: &Attributes<'_>) -> bool {
    call.is_core("pods") && creates(call)
}

fn writes_pod(call: &Attributes<'_>) -> bool {
    call.is_core("pods") && call.writes_itself()
}

/// What runs in a pod is changed through these, too.
fn changes_containers(call: &Attributes<'_>) -> bool {
    call.is_core("pods") && matches!(call.subresource, "ephemeralcontainers" | "resize")
}

/// See the module.
pub static PLUGINS: &[Plugin] = &[
    Plugin {
        name: "NamespaceLifecycle",
        matches: |_| true,
        mutate: Mutate::Now(|facts, call, object| {
            namespace_lifecycle::admit(call, object, &*facts.lookup, &facts.namespaces)
        }),
        validate: Validate::Nothing,
    },
    Plugin {
        name: "ServiceAccount",
        matches: |call| creates_pod(call) || (call.is_core("pods") && call.subresource == "ephemeralcontainers"),
        mutate: Mutate::Waits(|facts, call, pod| {
            Box::pin(service_account::admit(call, pod, &*facts.lookup, &facts.accounts))
        }),
        validate: Validate::Now(|facts, call, pod, _| {
            service_account::validate(call, pod, &*facts.lookup, &facts.accounts)
        }),
    },
    Plugin {
        name: "NodeRestriction",
        matches: |call| authz::node::node_name(call.user).is_some(),
        mutate: Mutate::Now(|facts, call, object| {
            node_restriction::admit(call, object, &*facts.lookup, &facts.authorizer)
        }),
        validate: Validate::Nothing,
    },
    Plugin {
        name: "TaintNodesByCondition",
        matches: |call| call.is_core("nodes") && creates(call),
        mutate: Mutate::Now(|_, _, node| {
            taint_nodes_by_condition::admit(node);
            Ok(())
        }),
        validate: Validate::Nothing,
    },
    Plugin {
        name: "PodSecurity",
        matches: |call| call.writes_itself() || changes_containers(call),
        mutate: Mutate::Nothing,
        validate: Validate::Now(|facts, call, object, notes| {
            pod_security::validate(call, object, &*facts.lookup, &facts.namespaces, notes)
        }),
    },
    Plugin {
        name: "Priority",
        matches: |call| writes_pod(call) || (is(call, PRIORITY_CLASSES) && call.writes_itself()),
        mutate: Mutate::Now(|facts, call, object| match is(call, PRIORITY_CLASSES) {
            true => Ok(()),
            false => priority::admit(call, object, &*facts.lookup, &facts.priorities),
        }),
        validate: Validate::Now(|facts, call, object, _| match is(call, PRIORITY_CLASSES) {
            true => priority::validate(call, object, &*facts.lookup),
            false => Ok(()),
        }),
    },
    Plugin {
        name: "DefaultTolerationSeconds",
        matches: writes_pod,
        mutate: Mutate::Now(|_, _, pod| {
            default_toleration_seconds::admit(pod);
            Ok(())
        }),
        validate: Validate::Nothing,
    },
    Plugin {
        name: "DefaultStorageClass",
        matches: |call| call.is_core("persistentvolumeclaims") && creates(call),
        mutate: Mutate::Now(|facts, _, claim| {
            default_class::admit(&default_class::STORAGE, claim, &*facts.lookup);
            Ok(())
        }),
        validate: Validate::Nothing,
    },
    Plugin {
        name: "StorageObjectInUseProtection",
        matches: |call| creates(call) && storage_protection::finalizer(call).is_some(),
        mutate: Mutate::Now(|_, call, object| {
            storage_protection::admit(call, object);
            Ok(())
        }),
        validate: Validate::Nothing,
    },
    Plugin {
        name: "PersistentVolumeClaimResize",
        matches: |call| {
            call.is_core("persistentvolumeclaims") && call.operation == Operation::Update && call.subresource.is_empty()
        },
        mutate: Mutate::Nothing,
        validate: Validate::Now(|facts, call, claim, _| claim_resize::validate(call, claim, &*facts.lookup)),
    },
    Plugin {
        name: "RuntimeClass",
        matches: creates_pod,
        mutate: Mutate::Now(|facts, call, pod| runtime_class::admit(call, pod, &*facts.lookup)),
        validate: Validate::Now(|facts, call, pod, _| runtime_class::validate(call, pod, &*facts.lookup)),
    },
    // Upstream's CertificateApproval, CertificateSigning and CertificateSubjectRestriction, each of its own part of the object.
    Plugin {
        name: "CertificateSigning",
        matches: |call| is(call, SIGNING_REQUESTS) && call.writes(),
        mutate: Mutate::Now(state_requester),
        validate: Validate::Now(|facts, call, object, _| certificates::validate(call, object, &facts.authorizer)),
    },
    Plugin {
        name: "DefaultIngressClass",
        matches: |call| is(call, INGRESSES) && creates(call),
        mutate: Mutate::Now(|facts, _, ingress| {
            default_class::admit(&default_class::INGRESS, ingress, &*facts.lookup);
            Ok(())
        }),
        validate: Validate::Nothing,
    },
    Plugin {
        name: "PodTopologyLabels",
        matches: |call| {
            call.is_core("pods") && call.operation == Operation::Create && matches!(call.subresource, "" | "binding")
        },
        mutate: Mutate::Now(|facts, call, object| {
            pod_topology_labels::admit(call, object, &*facts.lookup, &facts.nodes);
            Ok(())
        }),
        validate: Validate::Nothing,
    },
    Plugin {
        name: "DeviceAdminAccess",
        matches: |call| call.resource.group == "resource.k8s.io" && device_admin::concerns(call),
        mutate: Mutate::Nothing,
        validate: Validate::Now(|facts, call, object, _| device_admin::validate(call, object, &*facts.lookup)),
    },
    Plugin {
        name: "RoleEscalation",
        matches: |call| call.resource.group == authz::rbac::GROUP && call.writes_itself(),
        mutate: Mutate::Now(|facts, call, object| {
            let (namespace, name, plural) = (call.namespace, call.name, &call.resource.plural);
            authz::escalation::check(&facts.authorizer, call.user, plural, namespace, name, object, call.old)
        }),
        validate: Validate::Nothing,
    },
];

fn state_requester(_: &Facts, call: &Attributes<'_>, object: &mut Value) -> super::Verdict {
    match call.subresource {
        "" => certificates::requester(call, object),
        "approval" => certificates::stamp(call, object),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use super::super::testing::Request;
    use super::*;
    use crate::identity::User;

    /// Who comes before whom decides what users see: what is not there, before what is not allowed, before what is filled in.
    #[test]
    fn the_order_is_upstreams() {
        let names: Vec<&str> = PLUGINS.iter().map(|plugin| plugin.name).collect();
        assert_eq!(
            names,
            [
                "NamespaceLifecycle",
                "ServiceAccount",
                "NodeRestriction",
                "TaintNodesByCondition",
                "PodSecurity",
                "Priority",
                "DefaultTolerationSeconds",
                "DefaultStorageClass",
                "StorageObjectInUseProtection",
                "PersistentVolumeClaimResize",
                "RuntimeClass",
                "CertificateSigning",
                "DefaultIngressClass",
                "PodTopologyLabels",
                "DeviceAdminAccess",
                "RoleEscalation",
            ]
        );
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
    }

    #[test]
    fn calls_find_their_plugins() {
        let node = || User::authenticated("system:node:n", ["system:nodes".to_string()]);
        let named = |request: Request<'_>| -> Vec<&str> {
            request.with(None, |call| {
                let matching = PLUGINS.iter().filter(|plugin| (plugin.matches)(call));
                matching.map(|plugin| plugin.name).collect()
            })
        };
        let pods = || Request::create("pods", "default");
        let pod = [
            "NamespaceLifecycle",
            "ServiceAccount",
            "PodSecurity",
            "Priority",
            "DefaultTolerationSeconds",
            "RuntimeClass",
            "PodTopologyLabels",
        ];
        assert_eq!(named(pods()), pod);
        let eviction = Request {
            user: node(),
            subresource: "eviction",
            ..pods()
        };
        assert_eq!(named(eviction), ["NamespaceLifecycle", "NodeRestriction"]);
        let exec = Request {
            user: node(),
            subresource: "exec",
            operation: Operation::Connect,
            ..pods()
        };
        assert_eq!(named(exec), ["NamespaceLifecycle", "NodeRestriction"]);
        let approval = Request {
            group: "certificates.k8s.io",
            subresource: "approval",
            operation: Operation::Update,
            ..Request::create("certificatesigningrequests", "")
        };
        assert_eq!(named(approval), ["NamespaceLifecycle", "CertificateSigning"]);
        let role = Request {
            group: authz::rbac::GROUP,
            ..Request::create("roles", "default")
        };
        assert_eq!(named(role), ["NamespaceLifecycle", "PodSecurity", "RoleEscalation"]);
    }
}
