//! The core group, v1 (<https://kubernetes.io/docs/reference/kubernetes-api/>).

use super::row::{CHANGED_COMPLETE, COMPLETE, COMPLETE_CHANGED, COMPLETE_TWICE, row};
use super::{
    ChangeOrder, Deletion, Dependents, Handler, NameRule, Resource, Support, Verbs, columns, events, gates, strategies,
};
use crate::{defaults, validation};

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
];

const PROXY: Verbs = Verbs(Verbs::CREATE.0 | Verbs::DELETE.0 | Verbs::GET.0 | Verbs::PATCH.0 | Verbs::UPDATE.0);
const CREATE_GET: Verbs = Verbs(Verbs::CREATE.0 | Verbs::GET.0);
const NO_COLLECTION_DELETE: Verbs = Verbs(Verbs::ALL.0 & !Verbs::DELETECOLLECTION.0);

#[expect(clippy::too_many_lines, reason = "a table: one row a kind")]
pub(super) fn rows() -> Vec<Resource> {
    let core = |kind, plural| row("", "v1", kind, plural);
    vec![
        core("Binding", "bindings").answered_by(Handler::Binding),
        core("ComponentStatus", "componentstatuses")
            .deprecated("v1 ComponentStatus is deprecated in v1.19+")
            .columns(columns::component_status())
            .cluster()
            .short(&["cs"])
            .verbs(Verbs::GET.union(Verbs::LIST))
            .support(Support::Virtual),
        core("ConfigMap", "configmaps")
            .metadata_checks(CHANGED_COMPLETE)
            .validate(validation::config_map)
            .validate_update(validation::config_map_update)
            .columns(columns::config_map())
            .short(&["cm"]),
        core("Endpoints", "endpoints")
            .warnings(validation::endpoints_warnings)
            .metadata_checks(CHANGED_COMPLETE)
            .put_creates()
            .deprecated("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
            .validate(validation::endpoints)
            .columns(columns::endpoints())
            .short(&["ep"])
            .singular("endpoints")
            .default(defaults::endpoints),
        events::served(
            core("Event", "events")
                .metadata_checks(&[])
                .metadata_last()
                .put_creates()
                .dependents(Dependents::None)
                .validate(validation::event)
                .columns(columns::event())
                .short(&["ev"])
                .fields(EVENT_FIELDS)
                .default(defaults::event)
                .field("source", &["source", "component"])
                .fields(&["type"]),
        ),
        core("LimitRange", "limitranges")
            .metadata_checks(COMPLETE)
            .put_creates()
            .validate(validation::limit_range)
            .columns(columns::created_at())
            .short(&["limits"])
            .default(defaults::limit_range)
            .support(Support::ReadOnly),
        core("Namespace", "namespaces")
            .metadata_checks(COMPLETE_CHANGED)
            .returns_deleted()
            .deletion(Deletion::Emptied)
            .validate(validation::namespace)
            .validate_status(validation::namespace_status)
            .columns(columns::namespace())
            .cluster()
            .short(&["ns"])
            .verbs(NO_COLLECTION_DELETE)
            .named(NameRule::DnsLabel)
            .sub(
                "finalize",
                Handler::Strategy(&strategies::FINALIZE),
                Verbs::UPDATE,
                None,
            )
            .status()
            .fields(&["status.phase"])
            .default(defaults::namespace)
            .prepare(defaults::namespace_create, defaults::namespace_update),
        core("Node", "nodes")
            .warnings(validation::node_warnings)
            .gates(gates::NODES)
            .metadata_checks(COMPLETE_CHANGED)
            .registers_status()
            .status_by_itself(|_, _| true)
            .validate(validation::node)
            .validate_update(validation::node_update)
            .validate_status(validation::node_status)
            .columns(columns::node())
            .cluster()
            .short(&["no"])
            .sub("proxy", Handler::Proxy, PROXY, Some(("", "v1", "NodeProxyOptions")))
            .status()
            .fields(&["spec.unschedulable"])
            .default(defaults::node),
        core("PersistentVolumeClaim", "persistentvolumeclaims")
            .warnings(validation::claim_warnings)
            .metadata_checks(CHANGED_COMPLETE)
            .returns_deleted()
            .validate(validation::persistent_volume_claim)
            .validate_update(validation::persistent_volume_claim_update)
            .validate_status(validation::persistent_volume_claim_status)
            .columns(columns::persistent_volume_claim())
            .short(&["pvc"])
            .default(defaults::persistent_volume_claim)
            .prepare(defaults::claim_create, defaults::claim_update)
            .status(),
        core("PersistentVolume", "persistentvolumes")
            .warnings(validation::persistent_volume_warnings)
            .metadata_checks(COMPLETE_TWICE)
            .returns_deleted()
            .validate(validation::persistent_volume)
            .validate_update(validation::persistent_volume_update)
            .columns(columns::persistent_volume())
            .cluster()
            .short(&["pv"])
            .default(defaults::persistent_volume)
            .prepare(defaults::volume_create, defaults::nothing_on_update)
            .preparing_status(defaults::volume_status)
            .status(),
        core("Pod", "pods")
            .gates(gates::PODS)
            .metadata_checks(CHANGED_COMPLETE)
            .returns_deleted()
            .deletion(Deletion::Graceful)
            .validate(validation::pod)
            .validate_status(validation::pod_status)
            .preparing_status(defaults::pod_status)
            .status_by_itself(validation::pod_status_by_itself)
            .validate_update(validation::pod_update)
            .warnings(validation::pod_warnings)
            .columns(columns::pod())
            .short(&["po"])
            .category("all")
            .generation()
            .sub(
                "attach",
                Handler::Connect,
                CREATE_GET,
                Some(("", "v1", "PodAttachOptions")),
            )
            .sub("binding", Handler::Binding, Verbs::CREATE, Some(("", "v1", "Binding")))
            .sub(
                "ephemeralcontainers",
                Handler::Strategy(&strategies::EPHEMERAL_CONTAINERS),
                Verbs::GET_PATCH_UPDATE,
                None,
            )
            .sub(
                "eviction",
                Handler::Eviction,
                Verbs::CREATE,
                Some(("policy", "v1", "Eviction")),
            )
            .sub("exec", Handler::Connect, CREATE_GET, Some(("", "v1", "PodExecOptions")))
            .sub("log", Handler::Log, Verbs::GET, None)
            .sub(
                "portforward",
                Handler::Connect,
                CREATE_GET,
                Some(("", "v1", "PodPortForwardOptions")),
            )
            .sub("proxy", Handler::Proxy, PROXY, Some(("", "v1", "PodProxyOptions")))
            .sub(
                "resize",
                Handler::Strategy(&strategies::RESIZE),
                Verbs::GET_PATCH_UPDATE,
                None,
            )
            .status()
            .fields(&[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ])
            .field("status.podIPs", &["status", "podIP"])
            .default(defaults::pod)
            .prepare(defaults::pod_create, defaults::nothing_on_update),
        core("PodTemplate", "podtemplates")
            .warnings(validation::pod_template_object_warnings)
            .gates(gates::POD_TEMPLATE)
            .returns_deleted()
            .validate(validation::pod_template_object)
            .columns(columns::pod_template())
            .generation()
            .default(defaults::pod_template_object),
        core("ReplicationController", "replicationcontrollers")
            .gates(gates::TEMPLATE)
            .dependents(Dependents::Orphaned)
            .validate(validation::replication_controller)
            .validate_status(validation::replicas_status)
            .warnings(validation::named_template_warnings)
            .columns(columns::replication_controller())
            .short(&["rc"])
            .default(defaults::replication_controller)
            .prepare(defaults::replicas_status_create, defaults::nothing_on_update)
            .category("all")
            .generation()
            .scale()
            .status()
            .fields(&["status.replicas"]),
        core("ResourceQuota", "resourcequotas")
            .warnings(validation::resource_quota_warnings)
            .returns_deleted()
            .validate(validation::resource_quota)
            .validate_update(validation::resource_quota_update)
            .columns(columns::resource_quota())
            .short(&["quota"])
            .default(defaults::resource_quota)
            .prepare(defaults::reset_status, defaults::nothing_on_update)
            .status()
            .support(Support::ReadOnly),
        core("Secret", "secrets")
            .warnings(validation::secret_warnings)
            .metadata_checks(CHANGED_COMPLETE)
            .validate(validation::secret)
            .validate_update(validation::secret_update)
            .change_order(ChangeOrder::ChangeFirst)
            .columns(columns::secret())
            .default(defaults::secret)
            .fields(&["type"]),
        core("ServiceAccount", "serviceaccounts")
            .warnings(validation::service_account_warnings)
            .prepare(defaults::service_account, defaults::service_account_update)
            .metadata_checks(CHANGED_COMPLETE)
            .returns_deleted()
            .short(&["sa"])
            .sub(
                "token",
                Handler::Token,
                Verbs::CREATE,
                Some(("authentication.k8s.io", "v1", "TokenRequest")),
            ),
        core("Service", "services")
            .warnings(validation::service_warnings)
            .put_creates()
            .returns_deleted()
            .holds_addresses()
            .validate(validation::service)
            .change_order(ChangeOrder::ChangeFirst)
            .validate_status(validation::service_status)
            .validate_update(validation::service_update)
            .columns(columns::service())
            .short(&["svc"])
            .default(defaults::service)
            .prepare(defaults::prepare_service_create, defaults::prepare_service_update)
            .category("all")
            .named(NameRule::Dns1035Label)
            .sub("proxy", Handler::Proxy, PROXY, Some(("", "v1", "ServiceProxyOptions")))
            .status()
            .fields(&["spec.clusterIP", "spec.type"]),
    ]
}
