//! Manifests in the manner of well-known operators, made of a seed: definitions with long schemas, accounts and roles, what runs
//! the operator, and samples of its kinds. As long as is asked for, the same each time.

use serde_json::{Map, Value, json};

const WORDS: [&str; 32] = [
    "replicas",
    "storage",
    "policy",
    "endpoint",
    "selector",
    "template",
    "bucket",
    "listener",
    "backend",
    "retention",
    "schedule",
    "cluster",
    "gateway",
    "secret",
    "config",
    "volume",
    "metrics",
    "alert",
    "rule",
    "target",
    "timeout",
    "window",
    "region",
    "zone",
    "tier",
    "class",
    "version",
    "image",
    "port",
    "route",
    "queue",
    "topic",
];

/// xorshift64: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.below(WORDS.len())]
    }

    fn prose(&mut self) -> String {
        let words: Vec<&str> = (0..8 + self.below(30)).map(|_| self.word()).collect();
        format!("The {}.", words.join(" "))
    }
}

/// A schema and a value that it takes.
fn field(random: &mut Random, depth: usize) -> (Value, Value) {
    let kinds = if depth == 0 { 6 } else { 11 };
    let (mut schema, value) = match random.below(kinds) {
        0 => (json!({"type": "string", "maxLength": 253}), json!(random.word())),
        1 => (
            json!({"type": "string", "enum": ["Always", "Never"], "default": "Never"}),
            json!("Always"),
        ),
        2 => (
            json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 65_535}),
            json!(random.below(1000)),
        ),
        3 => (json!({"type": "boolean", "default": true}), json!(false)),
        4 => (
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
            json!("50%"),
        ),
        5 => (
            json!({"type": "string", "format": "date-time"}),
            json!("2001-02-03T04:05:06Z"),
        ),
        6 => (
            json!({"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic"}),
            json!({random.word(): random.word()}),
        ),
        7 => (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
            json!([random.word()]),
        ),
        8 => {
            let (mut item, mut value) = object(random, depth - 1);
            item["properties"]["name"] = json!({"type": "string"});
            item["required"] = json!(["name"]);
            value["name"] = random.word().into();
            (
                json!({"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
                json!([value]),
            )
        }
        9 => (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            json!({"any": {"thing": [1, "two"]}}),
        ),
        _ => object(random, depth - 1),
    };
    schema["description"] = random.prose().into();
    (schema, value)
}

fn object(random: &mut Random, depth: usize) -> (Value, Value) {
    let (mut properties, mut values) = (Map::new(), Map::new());
    for _ in 0..3 + random.below(5) {
        let name = format!("{}{}", random.word(), random.below(100));
        let (schema, value) = field(random, depth);
        properties.insert(name.clone(), schema);
        // Of an empty object upstream's server-side apply makes null, and refuses it.
        if random.below(3) > 0 || values.is_empty() {
            values.insert(name, value);
        } else if values.len() > 1 {
            values.remove(&name);
        }
    }
    (
        json!({"type": "object", "properties": properties}),
        Value::Object(values),
    )
}

/// A definition, and a sample of its kind.
fn custom(random: &mut Random, number: usize, group: &str) -> [Value; 2] {
    let kind = format!("Thing{number}");
    let plural = format!("thing{number}s");
    let (mut spec, mut sample) = (json!({"type": "object", "properties": {}}), json!({}));
    while spec.to_string().len() < 20_000 {
        let (schema, value) = object(random, 4);
        let name = format!("{}{}", random.word(), random.below(1000));
        sample[&name] = value;
        spec["properties"][&name] = schema;
    }
    spec["properties"]["size"] = json!({"type": "integer", "maximum": 9});
    spec["x-kubernetes-validations"] =
        json!([{"rule": "!has(self.size) || self.size < 9", "message": "a size below nine"}]);
    let status = json!({"type": "object", "properties": {"phase": {"type": "string"}, "conditions": {"type": "array",
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}, "status": {"type": "string"}}}}}});
    let schema = json!({"type": "object", "description": random.prose(), "properties": {
        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}, "spec": spec, "status": status}});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}"), "annotations": {"controller-gen.kubebuilder.io/version": "v0.16.0"}},
        "spec": {"group": group, "scope": "Namespaced", "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural,
                "singular": format!("thing{number}")},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Phase", "type": "string", "jsonPath": ".status.phase"}]}]},
    });
    let sample = json!({"apiVersion": format!("{group}/v1alpha1"), "kind": kind,
        "metadata": {"name": "sample", "namespace": "operator"}, "spec": sample});
    [definition, sample]
}

fn rules(random: &mut Random, group: &str) -> Value {
    let rule = |random: &mut Random| {
        let resources: Vec<String> = (0..1 + random.below(6))
            .map(|at| format!("{}{at}", random.word()))
            .collect();
        json!({"apiGroups": [group], "resources": resources, "verbs": ["get", "list", "watch", "update", "patch"]})
    };
    (0..40).map(|_| rule(random)).collect()
}

/// What runs the operator.
fn operator(random: &mut Random, group: &str) -> Vec<Value> {
    let named =
        |name: &str| json!({"name": name, "namespace": "operator", "labels": {"app.kubernetes.io/name": "operator"}});
    let role = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "operator"});
    let subjects = json!([{"kind": "ServiceAccount", "name": "operator", "namespace": "operator"}]);
    let labels = json!({"app.kubernetes.io/name": "operator"});
    let data: Map<String, Value> = (0..20)
        .map(|at| (format!("{}{at}.yaml", random.word()), random.prose().into()))
        .collect();
    let container = json!({"name": "manager", "image": "registry.example.org/operator:v1", "args": ["--leader-elect"],
        "env": [{"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}],
        "ports": [{"name": "metrics", "containerPort": 8080}], "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8081}},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "0.5Gi"}},
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}});
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named("operator")}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "operator"}, "rules": rules(random, group)}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "operator"},
            "roleRef": role("ClusterRole"), "subjects": subjects}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": named("operator"), "rules": rules(random, "")}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": named("operator"),
            "roleRef": role("Role"), "subjects": subjects}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": named("operator"), "data": data}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": named("operator"), "type": "Opaque", "stringData": {"token": "text"}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": named("operator"),
            "spec": {"selector": labels, "ports": [{"name": "metrics", "port": 8080, "targetPort": "metrics"}]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": named("operator"), "spec": {"replicas": 2,
            "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"serviceAccountName": "operator", "securityContext": {"runAsNonRoot": true}, "containers": [container],
                    "volumes": [{"name": "config", "configMap": {"name": "operator"}}]}}}}),
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": named("operator"),
            "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}}}),
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": named("operator"), "spec": {"maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "operator"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": named("operator"),
            "spec": {"rules": [{"host": "operator.example.org", "http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "operator", "port": {"name": "metrics"}}}}]}}]}}),
    ]
}

/// Definitions first, then what needs no definition, then the samples; about as many bytes as are asked for.
pub fn bundle(seed: u64, bytes: usize) -> Vec<Value> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let group = format!("b{seed}.example.org");
    let (mut definitions, mut samples) = (Vec::new(), Vec::new());
    let mut length = 0;
    while length < bytes {
        let [definition, sample] = custom(&mut random, definitions.len(), &group);
        length += definition.to_string().len() + sample.to_string().len();
        definitions.push(definition);
        samples.push(sample);
    }
    let mut all = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "operator", "labels": {"app": "operator"}}}),
    ];
    all.append(&mut definitions);
    all.extend(operator(&mut random, &group));
    all.append(&mut samples);
    all
}
