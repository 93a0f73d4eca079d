//! What people do with kubectl beyond creating and applying, through the oldest and the newest: kinds of their own, validation of
//! fields, owners of fields, dry runs, rights, requests for certificates, waiting. Each line prints what it prints against upstream.

use crate::kubectl;

const CRDS: &str = include_str!("crds.yaml");

const LINES: &[(&str, &str)] = &[
    // A kind of one's own.
    ("kubectl apply -f crds.yaml", "gears.kit.example.com created"),
    ("kubectl apply -f crds.yaml", "gears.kit.example.com unchanged"),
    (
        "kubectl wait --for=condition=Established crd/gears.kit.example.com --timeout=10s",
        "condition met",
    ),
    (
        "printf 'apiVersion: kit.example.com/v1\\nkind: Gear\\nmetadata: {name: one}\\nspec: {teeth: 12, axles: [{name: a, length: 1}]}\\n' >gear.yaml; \
         until kubectl apply -f gear.yaml 2>err; do sleep .1; done",
        "gear.kit.example.com/one created",
    ),
    ("kubectl apply -f gear.yaml", "gear.kit.example.com/one unchanged"),
    ("kubectl diff -f gear.yaml; echo status $?", "^status 0$"),
    (
        "sed 's/length: 1/length: 9/' gear.yaml | kubectl diff -f -; echo status $?",
        r"(?s)\+  - length: 9.*status 1$",
    ),
    ("kubectl get gr", r"NAME\s+TEETH\none\s+12$"),
    ("kubectl get kit -o wide", r"NAME\s+TEETH\s+FINISH\none\s+12\s+plain$"),
    (
        "kubectl get gears.v1alpha1.kit.example.com",
        r"(?s)Warning: kit.example.com/v1alpha1 Gear goes; use v1.*NAME\s+AGE\none",
    ),
    (
        "kubectl get gr --field-selector spec.finish=plain -o name; kubectl get gr --field-selector spec.finish=dull -o name",
        "^gear.kit.example.com/one$",
    ),
    (
        "kubectl get gr --field-selector spec.teeth=12",
        "field label not supported: spec.teeth",
    ),
    (
        "kubectl explain gear.spec --recursive",
        r"(?s)axles\s+<\[\]Object>\n\s+length\s+<integer>\n\s+name\s+<string> -required-\n\s+finish\s+<string>\n\s+teeth\s+<integer> -required-",
    ),
    (
        "kubectl explain gear.spec.teeth",
        r"(?s)teeth <integer>.*How many there are\.",
    ),
    (
        "kubectl api-resources --api-group=kit.example.com --no-headers",
        r"^gears\s+gr\s+kit.example.com/v1\s+true\s+Gear$",
    ),
    ("kubectl scale gr one --replicas=20", "gear.kit.example.com/one scaled"),
    (
        "kubectl scale gr one --replicas=2",
        "spec.teeth in body should be greater than or equal to 3",
    ),
    (
        "kubectl patch gr one -p '{\"spec\":{\"teeth\":5}}'",
        r"application/strategic-merge-patch\+json is not supported by kit.example.com/v1, Kind=Gear: the body of the request was in an unknown format - accepted media types include: application/json-patch\+json, application/merge-patch\+json, application/apply-patch\+yaml",
    ),
    (
        "kubectl patch gr one --subresource=status --type=merge -p '{\"status\":{\"turning\":3,\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}'",
        "one patched",
    ),
    (
        "kubectl wait --for=condition=Ready gr/one --timeout=5s",
        "gear.kit.example.com/one condition met",
    ),
    (
        "kubectl get gr one --subresource=scale",
        r"NAME\s+DESIRED\s+AVAILABLE\s+AGE\none\s+20\s+3\s+\S+$",
    ),
    (
        "sed 's/teeth: 12/teeth: 12, more: 1/' gear.yaml | kubectl apply -f -",
        r#"strict decoding error: unknown field "spec.more""#,
    ),
    (
        "sed 's/teeth: 12/teeth: 12, more: 1/' gear.yaml | kubectl apply --validate=warn -f -",
        r#"(?s)Warning: unknown field "spec.more".*gear.kit.example.com/one configured"#,
    ),
    (
        "kubectl apply --server-side -f gear.yaml; sed 's/length: 1/length: 9/' gear.yaml | kubectl apply --server-side --field-manager=other -f -",
        r#"conflict with "kubectl": .spec.axles\[name="a"\].length"#,
    ),
    // Fields that no kind has, and values that no field takes.
    (
        "printf 'apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: v}\\ndat: {a: x}\\n' >odd.yaml; kubectl create --validate=strict -f odd.yaml",
        r#"strict decoding error: unknown field "dat""#,
    ),
    (
        "kubectl create --validate=warn --dry-run=server -f odd.yaml",
        r#"Warning: unknown field "dat"\nconfigmap/v created \(server dry run\)"#,
    ),
    (
        "kubectl create --validate=ignore --dry-run=server -f odd.yaml",
        r"^configmap/v created \(server dry run\)$",
    ),
    (
        "sed 's/{name: v}/{name: V}/' odd.yaml | kubectl create --validate=warn -f -",
        r#"(?s)Warning: unknown field "dat".*metadata.name: Invalid value: "V""#,
    ),
    (
        "printf 'apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: v}\\ndata: {a: x}\\n' >v.yaml; kubectl apply -f v.yaml; \
         sed 's/a: x/a: 5/' v.yaml | kubectl apply -f -",
        r#"patch: Invalid value: "map\[data:map\[a:5\] metadata:map.*: cannot convert int64 to string"#,
    ),
    // Another owner; and the old manner after the new one.
    (
        "kubectl apply --server-side -f v.yaml --force-conflicts && kubectl apply -f v.yaml",
        "configmap/v serverside-applied\nconfigmap/v (configured|unchanged)$",
    ),
    (
        "kubectl get cm v --show-managed-fields -o jsonpath='{.metadata.managedFields[*].manager}'",
        "^kubectl( |$)",
    ),
    ("kubectl apply view-last-applied cm v", "a: x"),
    // What only looks as if it was done.
    (
        "kubectl delete cm v --dry-run=server; kubectl get cm v -o name",
        r#"configmap "v" deleted.*\(server dry run\)\nconfigmap/v$"#,
    ),
    // Replaced, whole or by force.
    (
        "kubectl get cm v -o jsonpath='{.metadata.uid}' >before; kubectl replace --force -f v.yaml >/dev/null; \
         kubectl get cm v -o jsonpath='{.metadata.uid}' | diff - before >/dev/null; echo status $?",
        "^status 1$",
    ),
    // Parts of an object.
    (
        "kubectl create deployment d --image=i --replicas=0; kubectl get deployment d --subresource=scale",
        r"NAME\s+DESIRED\s+AVAILABLE\s+AGE\nd\s+0\s+0\s+\S+$",
    ),
    (
        "kubectl autoscale deployment d --min=1 --max=3 2>&1 | tail -1",
        "horizontalpodautoscaler.autoscaling/d autoscaled",
    ),
    (
        "kubectl scale deployment d --replicas=3 --current-replicas=7",
        "Expected replicas to be 7, was 0",
    ),
    (
        "kubectl label deployment d 'bad key=1'",
        "metadata.labels: Invalid value: \"bad key\": name part must consist of",
    ),
    (
        "kubectl rollout pause deployment/d && kubectl rollout pause deployment/d",
        "already paused",
    ),
    (
        "kubectl rollout undo deployment/d --to-revision=100",
        "unable to find specified revision 100 in history",
    ),
    (
        "kubectl delete deployment d --cascade=orphan && kubectl delete rs --all --cascade=foreground --timeout=20s",
        r"(?s)deployment.apps .d. deleted.*replicaset.apps .d-\S+. deleted",
    ),
    // What one may.
    (
        "kubectl create role r --verb=get,list --resource=pods && kubectl create rolebinding r --role=r --user=jane && kubectl auth can-i list pods --as=jane",
        "yes$",
    ),
    (
        "kubectl auth can-i --list --as=jane",
        r"pods\s+\[\]\s+\[\]\s+\[get list\]",
    ),
    (
        "kubectl get pods --as=nobody",
        r#"pods is forbidden: User "nobody" cannot list resource "pods" in API group "" in the namespace "default""#,
    ),
    (
        "kubectl create token default --duration=1m",
        "spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes",
    ),
    (
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -subj /CN=jane -out csr 2>/dev/null; \
         printf 'apiVersion: certificates.k8s.io/v1\\nkind: CertificateSigningRequest\\nmetadata: {name: jane}\\nspec: {request: %s, signerName: kubernetes.io/kube-apiserver-client, usages: [client auth]}\\n' $(base64 -w0 csr) | kubectl apply -f -; \
         kubectl get csr jane --no-headers",
        r"jane\s+\S+\s+kubernetes.io/kube-apiserver-client\s+kubernetes-admin\s+<none>\s+Pending$",
    ),
    (
        "kubectl certificate approve jane && kubectl wait --for=jsonpath='{.status.conditions[0].type}'=Approved csr/jane --timeout=10s",
        "condition met",
    ),
    (
        "for i in {1..100}; do kubectl get csr jane -o jsonpath='{.status.certificate}' | base64 -d >crt; [ -s crt ] && break; sleep .1; done; \
         openssl x509 -in crt -noout -subject; kubectl get csr jane --no-headers",
        r"(?s)CN ?= ?jane.*Approved,Issued$",
    ),
    // Gone again.
    (
        "kubectl delete crd gears.kit.example.com --timeout=20s; kubectl get gears",
        r#"doesn't have a resource type "gears"|could not find the requested resource"#,
    ),
];

/// Later versions wait for what is not there yet, too, and ask who one is in the version that is served.
const LATER: &[(&str, &str)] = &[
    (
        "kubectl auth whoami",
        r"Username\s+kubernetes-admin\nGroups\s+\[kubeadm:cluster-admins system:authenticated\]",
    ),
    (
        "kubectl auth whoami --as=jane --as-group=dev",
        r"Username\s+jane\nGroups\s+\[dev system:authenticated\]",
    ),
    (
        "(sleep 1; kubectl create cm later --from-literal=a=b >/dev/null) & kubectl wait --for=create cm/later --timeout=20s; wait",
        "configmap/later condition met",
    ),
    (
        "kubectl wait --for=jsonpath='{.data.a}' cm/later --timeout=5s",
        "condition met",
    ),
    (
        "kubectl wait --for=jsonpath='{.data.a}'=c cm/later --timeout=1s",
        "timed out waiting for the condition on configmaps/later",
    ),
    (
        "(sleep 2; kubectl delete cm later) & kubectl wait --for=delete cm/later --timeout=10s; wait",
        "(?s)deleted.*configmap/later condition met|configmap/later condition met.*deleted",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_day_with_the_oldest_kubectl() {
    kubectl::run("1.27", ("crds.yaml", CRDS), LINES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_day_with_the_newest_kubectl() {
    kubectl::run("1.35", ("crds.yaml", CRDS), &[LINES, LATER].concat()).await;
}
