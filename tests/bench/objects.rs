//! What is created and changed, and how.

use serde_json::{Value, json};

use crate::{
    client::{JSON, Request},
    definitions,
};

pub const NAMESPACE: &str = "bench";

#[derive(Clone, Copy, PartialEq)]
pub enum What {
    ConfigMap,
    Pod,
    Deployment,
    Lease,
    /// Of a definition with a schema of some 23 KB.
    Custom,
}

impl What {
    pub fn path(self) -> String {
        let (api, plural) = match self {
            Self::ConfigMap => ("api/v1", "configmaps"),
            Self::Pod => ("api/v1", "pods"),
            Self::Deployment => ("apis/apps/v1", "deployments"),
            Self::Lease => ("apis/coordination.k8s.io/v1", "leases"),
            Self::Custom => return definitions::path(NAMESPACE),
        };
        format!("/{api}/namespaces/{NAMESPACE}/{plural}")
    }

    pub fn body(self) -> Value {
        match self {
            Self::ConfigMap => json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"generateName": "bench-", "labels": {"app": "bench"}},
                "data": {"key": "value", "more": "x".repeat(100)},
            }),
            Self::Pod => json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "generateName": "bench-",
                    "labels": {"app": "bench", "tier": "web", "pod-template-hash": "5d4f8c7b9"},
                    "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
                },
                "spec": pod_spec(),
            }),
            Self::Deployment => {
                let mut deployment = deployment();
                deployment["metadata"]["generateName"] = "bench-".into();
                deployment
            }
            Self::Lease => json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"generateName": "bench-"},
                "spec": {"holderIdentity": "bench", "leaseDurationSeconds": 40, "renewTime": renewed(0)},
            }),
            Self::Custom => definitions::object(),
        }
    }
}

fn pod_spec() -> Value {
    json!({
        "schedulerName": "none",
        "containers": [{
            "name": "web", "image": "registry.example.com/web:1.2.3",
            "args": ["--listen=:8080", "--log=info"],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ],
            "ports": [{"name": "http", "containerPort": 8080}],
            "resources": {
                "requests": {"cpu": "100m", "memory": "64Mi"},
                "limits": {"cpu": "500m", "memory": "128Mi"},
            },
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}],
        }],
        "volumes": [{"name": "config", "configMap": {"name": "web"}}],
    })
}

/// Paused, so that its controller has nothing to do for it.
fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"labels": {"app": "bench"}},
        "spec": {
            "paused": true, "replicas": 3,
            "selector": {"matchLabels": {"app": "bench"}},
            "template": {"metadata": {"labels": {"app": "bench"}}, "spec": pod_spec()},
        },
    })
}

/// As a deployment tool applies it again: the whole of it, and what changed since is an annotation.
pub fn apply(path: &str, number: usize) -> Request {
    let mut deployment = deployment();
    deployment["metadata"]["annotations"] = json!({"example.com/build": number.to_string()});
    Request {
        method: "PATCH",
        content_type: "application/apply-patch+yaml",
        body: deployment.to_string().into(),
        ..Request::get(&format!("{path}?fieldManager=bench&force=true").into(), JSON)
    }
}

fn renewed(number: usize) -> String {
    format!("2026-01-01T00:00:00.{number:06}Z")
}

/// As who holds it says that he still does.
pub fn renew(path: &str, number: usize) -> Request {
    Request {
        method: "PATCH",
        content_type: "application/merge-patch+json",
        body: json!({"spec": {"renewTime": renewed(number)}}).to_string().into(),
        ..Request::get(&path.into(), JSON)
    }
}

/// At once, waiting for nobody.
pub fn delete(path: &str) -> Request {
    Request {
        method: "DELETE",
        ..Request::get(&format!("{path}?gracePeriodSeconds=0").into(), JSON)
    }
}
