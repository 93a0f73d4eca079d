//! Every row of the registry × every verb that it declares, its subresources' too: each is asked of the server and has to
//! answer as its kind of row does. A row without a sample, or a verb that nothing here knows how to ask, fails.
#![allow(clippy::unwrap_used)]

mod harness;

use std::time::Duration;

use axum::body::Body;
use harness::{Api, read};
use http_body_util::BodyExt as _;
use mk8s_api::registry::{self, Handler, Resource, Served, Subresource, Support};
use serde_json::{Value, json};

const MERGE: &str = "application/merge-patch+json";

/// What a valid object of a kind holds besides its names; None where the kind is not known here.
#[expect(clippy::too_many_lines, reason = "a table: one row a kind")]
fn sample(row: &Resource, sent: &Served) -> Option<Value> {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let selector = json!({"matchLabels": {"a": "b"}});
    let job = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}});
    let pem = "-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n";
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    let reference = json!({"kind": "Pod", "name": "p", "namespace": "default"});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    Some(match &*row.kind {
        "ConfigMap" | "Secret" | "ServiceAccount" | "Endpoints" | "Namespace" | "Node" | "LimitRange"
        | "ResourceQuota" | "Lease" | "Role" | "ClusterRole" | "SelfSubjectReview" => json!({}),
        "Binding" => json!({"target": {"kind": "Node", "name": "n"}}),
        "Event" if sent.group.is_empty() => json!({"involvedObject": reference, "reason": "R", "type": "Normal"}),
        "Event" => json!({"regarding": reference, "reason": "R", "action": "A", "type": "Normal",
            "eventTime": "2026-01-02T03:04:05.000000Z", "reportingController": "example.org/c", "reportingInstance": "i"}),
        "PersistentVolumeClaim" => json!({"spec": claim}),
        "PersistentVolume" => json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/tmp/x"}}}),
        "Pod" => json!({"spec": {"containers": [
            {"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]}}),
        "PodTemplate" => json!({"template": template}),
        "ReplicationController" => json!({"spec": {"selector": {"a": "b"}, "template": template}}),
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "ControllerRevision" => json!({"revision": 1, "data": {}}),
        "DaemonSet" | "Deployment" | "ReplicaSet" => json!({"spec": {"selector": selector, "template": template}}),
        "StatefulSet" => json!({"spec": {"selector": selector, "serviceName": "s", "template": template}}),
        "HorizontalPodAutoscaler" => json!({"spec": {"maxReplicas": 2,
            "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}}),
        "CronJob" => json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job}}}),
        "Job" => json!({"spec": job}),
        "CertificateSigningRequest" => json!({"spec": {"signerName": "example.org/a", "request": encoded,
            "usages": ["digital signature"]}}),
        "TokenReview" => json!({"spec": {"token": "x"}}),
        "SelfSubjectRulesReview" => json!({"spec": {"namespace": "default"}}),
        "SelfSubjectAccessReview" => json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}),
        "LocalSubjectAccessReview" => json!({"spec": {"user": "u",
            "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}}),
        "SubjectAccessReview" => {
            json!({"spec": {"user": "u", "resourceAttributes": {"verb": "get", "resource": "pods"}}})
        }
        "IngressClass" => json!({"spec": {"controller": "example.org/c"}}),
        "Ingress" if sent.name == "v1beta1" => json!({"spec": {"backend": {"serviceName": "s", "servicePort": 80}}}),
        "Ingress" => json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
        "CustomResourceDefinition" if sent.name == "v1beta1" => {
            json!({"spec": {"group": "example.org", "scope": "Cluster",
            "version": "v1", "preserveUnknownFields": false, "validation": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}})
        }
        "CustomResourceDefinition" => json!({"spec": {"group": "example.org", "scope": "Cluster", "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}),
        "IPAddress" => json!({"spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "s"}}}),
        "ServiceCIDR" => json!({"spec": {"cidrs": ["10.97.0.0/24"]}}),
        "EndpointSlice" => json!({"addressType": "IPv4", "endpoints": []}),
        "PodDisruptionBudget" => json!({"spec": {"minAvailable": 1, "selector": selector}}),
        "PriorityClass" => json!({"value": 1}),
        "RuntimeClass" => json!({"handler": "h"}),
        "RoleBinding" => json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}}),
        "ClusterRoleBinding" => {
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}})
        }
        "FlowSchema" => json!({"spec": {"priorityLevelConfiguration": {"name": "exempt"}}}),
        "PriorityLevelConfiguration" => json!({"spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}}),
        "CSIDriver" | "CSINode" => json!({"spec": {"drivers": null}}),
        "CSIStorageCapacity" => json!({"storageClassName": "s"}),
        "StorageClass" => json!({"provisioner": "example.org/p"}),
        "VolumeAttachment" => json!({"spec": {"attacher": "a.example.org", "nodeName": "n",
            "source": {"persistentVolumeName": "v"}}}),
        "VolumeAttributesClass" => json!({"driverName": "example.org", "parameters": {"a": "b"}}),
        "DeviceClass" => json!({"spec": {}}),
        "ResourceClaim" => json!({"spec": {"devices": {"requests": [
            {"name": "r", "exactly": {"deviceClassName": "d.example.org"}}]}}}),
        "ResourceClaimTemplate" => json!({"spec": {"spec": {"devices": {"requests": [
            {"name": "r", "exactly": {"deviceClassName": "d.example.org"}}]}}}}),
        "ResourceSlice" => json!({"spec": {"driver": "example.org", "nodeName": "n",
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}}),
        "NetworkPolicy" => json!({"spec": {"podSelector": {}}}),
        "NodePort" => json!({"spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "s"}}}),
        _ if row.support == Support::ReadOnly => json!({}),
        _ => return None,
    })
}

/// A name that the kind takes; `index` tells two objects apart.
fn name(row: &Resource, index: usize) -> String {
    match &*row.kind {
        "CustomResourceDefinition" => format!("samples{index}.example.org"),
        "IPAddress" => format!("10.96.200.{index}"),
        "NodePort" => format!("{}", 31_000 + index),
        _ => format!("sample-{index}"),
    }
}

/// What an update or a patch changes, where it then stands, and as what.
struct Change {
    patch: Value,
    at: &'static str,
    value: Value,
}

impl Change {
    /// Of the object itself, or through a subresource.
    fn of(through: Option<&Subresource>, verb: &str) -> Change {
        let (patch, at, value) = match through.map(|own| &*own.name) {
            Some("scale") => {
                let replicas = if verb == "update" { 3 } else { 4 };
                (
                    json!({"spec": {"replicas": replicas}}),
                    "/spec/replicas",
                    json!(replicas),
                )
            }
            Some("approval") => {
                let condition = json!({"type": verb, "status": "True", "reason": "R", "message": "m"});
                let patch = json!({"status": {"conditions": [condition]}});
                (patch, "/status/conditions/0/type", json!(verb))
            }
            Some("ephemeralcontainers") => {
                let own = json!({"name": "patch", "image": "i"});
                let (list, at) = match verb {
                    "patch" => (vec![own], "/spec/ephemeralContainers/0/name"),
                    _ => (
                        vec![own, json!({"name": verb, "image": "i"})],
                        "/spec/ephemeralContainers/1/name",
                    ),
                };
                (json!({"spec": {"ephemeralContainers": list}}), at, json!(verb))
            }
            Some("resize") => {
                let cpu = if verb == "update" { "2" } else { "3" };
                let own = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}});
                let at = "/spec/containers/0/resources/requests/cpu";
                (json!({"spec": {"containers": [own]}}), at, json!(cpu))
            }
            Some(_) => {
                let patch = json!({"metadata": {"annotations": {"through": verb}}});
                (patch, "/metadata/annotations/through", json!(verb))
            }
            None => {
                let patch = json!({"metadata": {"annotations": {"touched": verb}}});
                (patch, "/metadata/annotations/touched", json!(verb))
            }
        };
        Change { patch, at, value }
    }
}

/// At once, and without the collector that no test of the server alone has.
fn now() -> Value {
    json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"})
}

/// One row, and what is wrong with its answers.
struct Asked<'a> {
    api: &'a Api,
    row: &'a Resource,
    sent: &'a Served,
    base: String,
    wrong: Vec<String>,
}

impl Asked<'_> {
    fn collection(&self) -> String {
        if self.row.is_namespaced() {
            format!("{}/namespaces/default/{}", self.base, self.row.plural)
        } else {
            format!("{}/{}", self.base, self.row.plural)
        }
    }

    fn one(&self, index: usize) -> String {
        format!("{}/{}", self.collection(), name(self.row, index))
    }

    fn object(&self, index: usize) -> Option<Value> {
        let mut object = sample(self.row, self.sent)?;
        let kind = &self.row.kind;
        object["apiVersion"] = self.sent.api_version().into();
        object["kind"] = (**kind).into();
        // A question about access is no object, and has no name.
        if *self.row.group != *"authorization.k8s.io" {
            object["metadata"] = json!({"name": name(self.row, index), "labels": {"sample": "yes"}});
        }
        if **kind == *"CustomResourceDefinition" {
            object["spec"]["names"] = json!({"plural": format!("samples{index}"), "kind": format!("Sample{index}")});
        }
        Some(object)
    }

    fn expect(&mut self, verb: &str, got: &(u16, Value), codes: &[u16]) -> bool {
        let fits = codes.contains(&got.0);
        if !fits {
            let text = got.1["message"].as_str().unwrap_or_default();
            let place = format!("{}/{} {verb}", self.base, self.row.plural);
            self.wrong
                .push(format!("{place}: {} instead of {codes:?}: {text}", got.0));
        }
        fits
    }

    /// A change was answered, and is what is read afterwards.
    async fn changed(&mut self, verb: &str, uri: &str, got: &(u16, Value), change: &Change) {
        let found: &[u16] = if self.stores() { &[200] } else { &[403, 404] };
        if !self.expect(verb, got, found) || !self.stores() {
            return;
        }
        let read = self.api.get(uri).await.1;
        for (what, object) in [("answered", &got.1), ("read", &read)] {
            let shown = object.pointer(change.at);
            // Where a status is written alone, nothing of metadata is.
            let alone = self.row.semantics.status_alone && uri.ends_with("/status");
            let expected = if alone { None } else { Some(&change.value) };
            if shown != expected {
                self.wrong
                    .push(format!("{verb} {uri}: {what} {} is {shown:?}", change.at));
            }
        }
    }

    async fn create(&mut self, index: usize) {
        let Some(object) = self.object(index) else {
            self.wrong.push(format!("{}: no sample", self.row.kind));
            return;
        };
        let got = self.api.post(&self.collection(), &object).await;
        match self.row.support {
            Support::ReadOnly => self.expect("create", &got, &[403]),
            _ => self.expect("create", &got, &[201]),
        };
    }

    /// Those that were made in another version go when whatever waits for their end has done its part.
    async fn starts_with_none(&self) {
        for _ in 0..100 {
            let list = self.api.get(&self.collection()).await.1;
            let sampled = |item: &Value| item["metadata"]["labels"]["sample"] == "yes";
            if !list["items"].as_array().is_some_and(|items| items.iter().any(sampled)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether there are objects to ask for.
    fn stores(&self) -> bool {
        matches!(self.row.support, Support::Full | Support::StoredOnly)
    }

    async fn verb(&mut self, verb: &str) {
        let (api, one) = (self.api, self.one(0));
        let found: &[u16] = if self.stores() { &[200] } else { &[403, 404] };
        match verb {
            "create" => self.create(0).await,
            "get" => {
                let got = api.get(&one).await;
                self.expect(verb, &got, found);
            }
            "list" => {
                let got = api
                    .get(&format!("{}?labelSelector=sample%3Dyes", self.collection()))
                    .await;
                let count = got.1["items"].as_array().map_or(0, Vec::len);
                if self.expect(verb, &got, &[200]) && self.stores() && count != 1 {
                    self.wrong.push(format!("{}: {count} in its list", self.collection()));
                }
            }
            "watch" => self.watch().await,
            "update" => self.update(&one).await,
            "patch" => {
                let change = Change::of(None, verb);
                let got = api.patch(&one, MERGE, &change.patch).await;
                self.changed(verb, &one, &got, &change).await;
            }
            "delete" => {
                let got = api.delete(&one, Some(&now())).await;
                self.expect(verb, &got, found);
                let (code, left) = api.get(&one).await;
                if code != 404 && left["metadata"]["deletionTimestamp"].is_null() {
                    self.wrong.push(format!("{one}: still there"));
                }
            }
            "deletecollection" => {
                if self.stores() {
                    self.create(1).await;
                }
                let some = format!("{}?labelSelector=sample%3Dyes", self.collection());
                let got = api.delete(&some, Some(&now())).await;
                self.expect(verb, &got, &[200]);
                let left = api.get(&some).await.1;
                let goes = |object: &Value| !object["metadata"]["deletionTimestamp"].is_null();
                if left["items"].as_array().is_none_or(|items| !items.iter().all(goes)) {
                    self.wrong.push(format!("{some}: not all gone"));
                }
            }
            other => self
                .wrong
                .push(format!("{}: nothing here asks for {other}", self.row.plural)),
        }
    }

    async fn update(&mut self, one: &str) {
        let change = Change::of(None, "update");
        let mut got = (409, Value::Null);
        // Something else (who serves a definition) may write between.
        for _ in 0..5 {
            let mut object = self.api.get(one).await.1;
            if !self.stores() {
                object = self.object(0).unwrap_or_default();
            }
            mk8s_api::patch::merge(&mut object, &change.patch).unwrap();
            got = self.api.put(one, &object).await;
            if got.0 != 409 {
                break;
            }
        }
        self.changed("update", one, &got, &change).await;
    }

    /// The object comes as the first event; without objects the watch stays open.
    async fn watch(&mut self) {
        let uri = format!("{}?watch=1&labelSelector=sample%3Dyes", self.collection());
        let response = self.api.send("GET", &uri, "application/json", Body::empty()).await;
        if response.status() != 200 {
            let got = read(response).await;
            self.expect("watch", &got, &[200]);
            return;
        }
        if self.stores() {
            let first = tokio::time::timeout(Duration::from_secs(5), response.into_body().frame()).await;
            let frame = first
                .ok()
                .flatten()
                .and_then(Result::ok)
                .and_then(|frame| frame.into_data().ok());
            let event: Option<Value> = frame.and_then(|frame| serde_json::from_slice(&frame).ok());
            if event.is_none_or(|event| event["type"] != "ADDED") {
                self.wrong.push(format!("{uri}: no event"));
            }
        }
    }

    async fn subresource(&mut self, subresource: &Subresource, verb: &str) {
        let (api, uri) = (self.api, format!("{}/{}", self.one(0), subresource.name));
        let text = format!("{verb} {}", subresource.name);
        let body = match subresource.handler {
            Handler::NotYet => {
                let method = match verb {
                    "create" => "POST",
                    "update" => "PUT",
                    "patch" => "PATCH",
                    "delete" => "DELETE",
                    _ => "GET",
                };
                let kind = if verb == "patch" { MERGE } else { "application/json" };
                let got = read(api.send(method, &uri, kind, "{}").await).await;
                self.expect(&text, &got, &[403]);
                return;
            }
            // Nothing has an address here: see proxy.rs.
            Handler::Proxy => {
                let got = api
                    .send_json(if verb == "create" { "POST" } else { "GET" }, &uri, &Value::Null)
                    .await;
                self.expect(&text, &got, &[400, 404, 500]);
                return;
            }
            // No node runs the pod: an empty log, and no one to connect to.
            Handler::Log => {
                let response = api.send("GET", &uri, "application/json", Body::empty()).await;
                assert_eq!(response.status(), 204, "{uri}");
                return;
            }
            Handler::Connect => {
                let method = if verb == "create" { "POST" } else { "GET" };
                let got = api.send_json(method, &uri, &Value::Null).await;
                self.expect(&text, &got, &[400]);
                return;
            }
            Handler::Rollback => json!({"apiVersion": self.sent.api_version(), "kind": "DeploymentRollback",
                "name": name(self.row, 0), "rollbackTo": {"revision": 1}}),
            Handler::Binding => json!({"apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": "n"}}),
            Handler::Eviction => json!({"apiVersion": "policy/v1", "kind": "Eviction"}),
            Handler::Token => json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}),
            _ => Value::Null,
        };
        let current = || async { api.get(&if verb == "get" { uri.clone() } else { self.one(0) }).await };
        let got = match (verb, subresource.handler) {
            ("get", _) => current().await,
            ("create", _) => {
                let mut body = body;
                body["metadata"] = json!({"name": name(self.row, 0)});
                api.post(&uri, &body).await
            }
            ("update" | "patch", _) => return self.change_through(subresource, verb, &uri, &text).await,
            _ => {
                self.wrong.push(format!("{uri}: nothing here asks for {verb}"));
                return;
            }
        };
        let found: &[u16] = if self.stores() { &[200, 201] } else { &[403, 404] };
        self.expect(&text, &got, found);
    }

    async fn change_through(&mut self, subresource: &Subresource, verb: &str, uri: &str, text: &str) {
        let change = Change::of(Some(subresource), verb);
        let whole = self.one(0);
        let apart = subresource.handler == Handler::Scale || self.row.semantics.status_alone;
        let read = if apart { uri } else { &whole };
        let got = if verb == "patch" {
            self.api.patch(uri, MERGE, &change.patch).await
        } else {
            let mut object = self.api.get(read).await.1;
            mk8s_api::patch::merge(&mut object, &change.patch).unwrap();
            self.api.put(uri, &object).await
        };
        self.changed(text, read, &got, &change).await;
    }

    /// In an order in which each finds what it needs; removals come last.
    async fn all(&mut self) {
        let verbs: Vec<&str> = self.row.verbs.names().collect();
        let (last, first): (Vec<&str>, Vec<&str>) = verbs.iter().partition(|verb| verb.starts_with("delete"));
        for verb in first {
            self.verb(verb).await;
        }
        let mut subresources: Vec<&Subresource> = self.sent.subresources.iter().collect();
        // An eviction ends the pod.
        subresources.sort_by_key(|subresource| matches!(subresource.handler, Handler::Eviction | Handler::Binding));
        for subresource in subresources {
            for verb in subresource.verbs.names() {
                self.subresource(subresource, verb).await;
            }
        }
        for verb in last {
            self.verb(verb).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_answers_every_verb_it_declares() {
    let api = Api::open().await;
    // The pod that a Binding binds.
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "sample-0", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(api.post("/api/v1/namespaces/default/pods", &pod).await.0, 201);
    let mut wrong = Vec::new();
    for row in registry::builtin() {
        for version in row.versions.iter().filter(|version| version.served) {
            let base = match &*version.group {
                "" => format!("/api/{}", version.name),
                group => format!("/apis/{group}/{}", version.name),
            };
            let mut asked = Asked {
                api: &api,
                row,
                sent: version,
                base,
                wrong: Vec::new(),
            };
            asked.starts_with_none().await;
            asked.all().await;
            wrong.append(&mut asked.wrong);
            if row.kind == "Binding" {
                api.delete("/api/v1/namespaces/default/pods/sample-0", Some(&now()))
                    .await;
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
